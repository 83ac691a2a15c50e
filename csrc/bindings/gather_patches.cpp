#include "../gather_patches.h"

#include <cmath>
#include <limits>

#include "exported.h"

namespace seamo {
namespace {

constexpr int64_t kMostPixels = 1 << 24;  // of a side: positions are floats

std::optional<Pixel> pixel_of(at::ScalarType dtype) {
  switch (dtype) {
    case at::kByte:
      return Pixel::u8;
    case at::kUInt16:
      return Pixel::u16;
    case at::kShort:
      return Pixel::i16;
    case at::kHalf:
      return Pixel::f16;
    case at::kFloat:
      return Pixel::f32;
    default:
      return std::nullopt;
  }
}

// The largest magnitude of an integer.
double most_of(Pixel pixel) {
  switch (pixel) {
    case Pixel::u8:
      return 255;
    case Pixel::u16:
      return 65535;
    case Pixel::i16:
      return 32768;
    default:
      return 0;
  }
}

Grid grid_of(const at::Tensor& band, Pixel pixel, const std::optional<double>& nodata) {
  Grid grid{};
  grid.data = band.const_data_ptr();
  grid.pixel = pixel;
  grid.channels = band.size(2);
  grid.height = band.size(3);
  grid.width = band.size(4);
  grid.batch = band.stride(0);
  grid.season = band.stride(1);
  grid.channel = band.stride(2);
  grid.row = band.stride(3);
  grid.has_nodata = nodata.has_value();
  grid.nodata = static_cast<float>(nodata.value_or(NAN));
  if (pixel == Pixel::f16) grid.nodata = static_cast<float>(static_cast<at::Half>(grid.nodata));
  return grid;
}

// Where each channel of the grids goes in the output, of which `order` says what each is.
std::optional<std::vector<int64_t>> places_of(const std::vector<int64_t>& order) {
  const int64_t total = order.size();
  std::vector<int64_t> places(total, -1);
  for (int64_t c = 0; c < total; ++c) {
    if (order[c] < 0 || order[c] >= total || places[order[c]] >= 0) return std::nullopt;
    places[order[c]] = c;
  }
  return places;
}

// The grids, and the tensors that they point into.
struct Grids {
  Tensors kept;
  std::vector<Grid> grids;
  int64_t channels = 0;

  // Returns whether the band is one that the kernels read.
  bool add(const at::Tensor& band, const at::Tensor& index, const std::vector<int64_t>& places,
           const std::optional<double>& nodata, double limit) {
    std::optional<Pixel> pixel = pixel_of(band.scalar_type());
    const bool good = pixel && is_plain(band) && are_constant(band) && band.dim() == 5 &&
                      has_sizes(band, index, 1, {band.size(2), band.size(3), band.size(4)}) &&
                      band.size(3) > 0 && band.size(4) > 0 && band.size(3) <= kMostPixels &&
                      band.size(4) <= kMostPixels &&
                      channels + band.size(2) <= static_cast<int64_t>(places.size());
    if (!good) return false;
    at::Tensor read = band;
    if (most_of(*pixel) > limit) {  // kernels compare floats alone with it
      read = band.to(at::kFloat);
      pixel = Pixel::f32;
    }
    kept.push_back(read.stride(4) == 1 ? read : read.contiguous());
    grids.push_back(grid_of(kept.back(), *pixel, nodata));
    grids.back().out_channels = places.data() + channels;
    channels += band.size(2);
    return true;
  }
};

bool is_per_channel(const at::Tensor& x, const std::vector<int64_t>& order) {
  return x.dim() == 1 && x.size(0) == static_cast<int64_t>(order.size()) && x.is_floating_point();
}

bool are_good(const at::Tensor& boxes, const at::Tensor& index, const at::Tensor& shift,
              const at::Tensor& scale, const std::vector<int64_t>& order,
              const std::vector<int64_t>& image_size, int64_t patch_size, double limit,
              at::ScalarType dtype) {
  return is_index(index) && index.dim() == 3 && are_plain(boxes, shift, scale) &&
         are_constant(boxes, shift, scale) && has_sizes(boxes, index, 1, {4}) &&
         boxes.is_floating_point() && is_per_channel(shift, order) &&
         is_per_channel(scale, order) && image_size.size() == 2 && patch_size > 0 &&
         image_size[0] > 0 && image_size[1] > 0 && image_size[0] % patch_size == 0 &&
         image_size[1] % patch_size == 0 && limit > 0 &&
         limit <= std::numeric_limits<float>::max() && at::isFloatingType(dtype) &&
         dtype != at::kDouble;
}

// `image_size` is (height, width); `order` says which channel of the grids each output channel is.
Tensors forward(const Tensors& bands, const at::Tensor& boxes, const at::Tensor& index,
                const at::Tensor& shift, const at::Tensor& scale, const std::vector<int64_t>& order,
                const std::vector<int64_t>& image_size, int64_t patch_size,
                const std::optional<double>& nodata, bool whole_pixel, double limit,
                at::ScalarType dtype) {
  const auto places = places_of(order);
  if (!places ||
      !are_good(boxes, index, shift, scale, order, image_size, patch_size, limit, dtype)) {
    return {};
  }
  Grids grids;
  for (const at::Tensor& band : bands) {
    if (!grids.add(band, index, *places, nodata, limit)) return {};
  }
  const int64_t channels = order.size();
  if (grids.channels != channels || bands.empty()) return {};
  const at::Tensor regions = as_floats(boxes), numbers = index.contiguous();
  const at::Tensor shifts = as_floats(shift), scales = as_floats(scale);

  GatherPatches x{};
  x.grids = grids.grids.data();
  x.grid_count = grids.grids.size();
  x.channels = channels;
  x.batch = index.size(0);
  x.seasons = index.size(1);
  x.wanted = index.size(2);
  x.image_height = image_size[0];
  x.image_width = image_size[1];
  x.patch = patch_size;
  x.whole_pixel = whole_pixel && nodata;
  x.limit = static_cast<float>(limit);
  x.boxes = floats(regions);
  x.index = index_of(numbers, (image_size[0] / patch_size) * (image_size[1] / patch_size));
  x.shift = floats(shifts);
  x.scale = floats(scales);
  x.half = dtype == at::kBFloat16;
  const int64_t size = channels * patch_size * patch_size;
  const at::Tensor out =
      empty({x.batch, x.seasons, x.wanted, size}, boxes, x.half ? at::kBFloat16 : at::kFloat);
  const at::Tensor valid = empty(index.sizes(), boxes, at::kBool);
  x.out = out.data_ptr();
  x.valid = valid.data_ptr<bool>();
  gather_patches(x);
  return {out.to(dtype), valid};
}

const Exported exported("gather_patches", &forward);

}  // namespace
}  // namespace seamo
