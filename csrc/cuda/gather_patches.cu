// gather_patches: a thread samples one pixel in several bands; the block stores them together.

#include "launch.cuh"
#include "numbers.cuh"

namespace seamo::gather_patches {

// One grid [B, T, C, H, W] of a modality, with the strides of its dimensions.
SEAMO_PARAMS(StoredGrid, const void* band; int64_t storage;
             int64_t batch_stride, season_stride, channel_stride, row_stride, col_stride;
             int64_t channels, height, width; float nodata;)

// Samples `grid`; `place` is where each of its channels goes in the output. lost [images, wanted]
// becomes 1 where a value of the patch was lost.
// With `suspects`, of the same shape, only those patches are sampled, again, and nodata is a value
// unless it is in all channels of a pixel: of the first grid_count of `grids`.
// Floats beyond `limit` are lost, as NaN; no integer of a grid is.
SEAMO_PARAMS(GatherPatches, StoredGrid grid; const int32_t* place; int64_t has_nodata; float limit;
             const int32_t* suspects; StoredGrid grids[8]; int64_t grid_count;
             const float* boxes; const void* index; int64_t index_is_long;
             const float* shift; const float* scale; int64_t images, seasons, wanted, all_channels;
             int64_t image_height, image_width, patch; void* patches; int64_t patches_storage;
             int32_t* lost; void* stream;)

constexpr int kThreads = 256;  // and pixels of a block
constexpr int kChannels = 8;   // of a block

template <typename Pixel>
constexpr bool kIsFloat = false;
template <>
constexpr bool kIsFloat<float> = true;
template <>
constexpr bool kIsFloat<__half> = true;

// The two neighbours of a pixel along one axis, and the weight of the second.
struct Tap {
  int low, high;
  float weight;
};

// Every operation is rounded, as in the reference: a full box gives whole numbers.
__device__ inline Tap tap_of(int pixel, float start, float extent, int64_t image, int64_t grid) {
  if (extent < 0) pixel = static_cast<int>(image) - 1 - pixel;
  const float size = static_cast<float>(grid);
  const float step = __fdiv_rn(__fmul_rn(fabsf(extent), size), static_cast<float>(image));
  const float centre = __fmul_rn(static_cast<float>(pixel) + 0.5f, step);
  float place = __fadd_rn(__fadd_rn(__fmul_rn(start, size), centre), -0.5f);
  place = fminf(fmaxf(place, 0.0f), size - 1.0f);
  const float low = floorf(place);
  const int number = static_cast<int>(low);
  return {number, number + 1 < grid ? number + 1 : number, place - low};
}

// `hole`: whether nodata counts.
template <typename Pixel>
__device__ inline bool is_lost(float value, bool hole, const GatherPatches& x) {
  return (hole && x.has_nodata && value == x.grid.nodata) ||
         (kIsFloat<Pixel> && !(fabsf(value) <= x.limit));
}

// Adds a neighbour; one that is no measurement counts as 0 and marks the value as lost.
template <typename Pixel>
__device__ inline void add(const Pixel* from, float weight, bool hole, const GatherPatches& x,
                           float& value, bool& lost) {
  if (weight == 0) return;
  const float tap = to_float(*from);
  const bool bad = is_lost<Pixel>(tap, hole, x);
  lost |= bad;
  if (!bad) value += tap * weight;
}

__device__ inline float normalized(float value, bool lost, const GatherPatches& x, int place) {
  return lost ? 0.0f : (value - x.shift[place]) * x.scale[place];
}

// Stores eight values, or the first of them.
template <typename Scalar>
__device__ inline void store_as(void* patches, int64_t place, const Eight& values, bool all) {
  store_eight(static_cast<Scalar*>(patches) + place, values, 1, all);
}

__device__ inline void store(const GatherPatches& x, int64_t place, const Eight& values, bool all) {
  if (x.patches_storage == kFloat) store_as<float>(x.patches, place, values, all);
  if (x.patches_storage == kHalf) store_as<__half>(x.patches, place, values, all);
  if (x.patches_storage == kBfloat16) store_as<bf16>(x.patches, place, values, all);
}

// What the threads of a block know of its pixels, which are numbered through the wanted patches of
// one image.
struct Pixels {
  int64_t image;
  int first, count;  // of the block, of the image
  int area;          // of a patch
  int first_channel, channels;

  __device__ explicit Pixels(const GatherPatches& x) {
    area = static_cast<int>(x.patch * x.patch);
    count = static_cast<int>(x.wanted) * area;
    const int blocks = (count + kThreads - 1) / kThreads;
    image = blockIdx.x / blocks;
    first = static_cast<int>(blockIdx.x % blocks) * kThreads;
    first_channel = static_cast<int>(blockIdx.y) * kChannels;
    const int left = static_cast<int>(x.grid.channels) - first_channel;
    channels = left < kChannels ? left : kChannels;
  }
  __device__ int64_t patch(const GatherPatches& x, int pixel) const {
    return image * x.wanted + pixel / area;
  }
  // Where a pixel of an output channel is stored.
  __device__ int64_t place(const GatherPatches& x, int pixel, int channel) const {
    return (patch(x, pixel) * x.all_channels + channel) * area + pixel % area;
  }
};

// Pixels that are stored as they lie in the grid, eight at a time.
template <typename Pixel>
__device__ inline void copy_pixels(const GatherPatches& x, const Pixels& pixels, const Pixel* band,
                                   const int64_t* starts) {
  constexpr int eights = kThreads / kEight;
  for (int i = threadIdx.x; i < pixels.channels * eights; i += kThreads) {
    const int pixel = pixels.first + i % eights * kEight;
    if (pixel >= pixels.count) continue;
    const int place = x.place[pixels.first_channel + i / eights];
    const int64_t start = i / eights * x.grid.channel_stride + starts[i % eights];
    Eight values = load_eight(band + start, 0, true);
    bool any_lost = false;
    for (int j = 0; j < kEight; ++j) {
      const bool lost = is_lost<Pixel>(values.values[j], true, x);
      values.values[j] = normalized(values.values[j], lost, x, place);
      any_lost |= lost;
    }
    store(x, pixels.place(x, pixel, place), values, true);
    if (any_lost) atomicOr(x.lost + pixels.patch(x, pixel), 1);
  }
}

// Where a thread samples its pixel.
template <typename Pixel>
struct Spot {
  int pixel;  // of the image
  bool inside;
  int64_t patch;
  Tap down, right;
  const Pixel* band;  // the first channel of the block

  __device__ Spot(const GatherPatches& x, const Pixels& pixels) {
    pixel = pixels.first + static_cast<int>(threadIdx.x);
    inside = pixel < pixels.count;
    patch = pixels.patch(x, inside ? pixel : 0);
    const int number = static_cast<int>(number_at(x.index, x.index_is_long, patch));
    const int side = static_cast<int>(x.patch), columns = static_cast<int>(x.image_width) / side;
    const int row = number / columns * side + pixel % pixels.area / side;
    const int col = number % columns * side + pixel % side;
    const float* box = x.boxes + pixels.image * 4;
    down = tap_of(row, box[0], box[2], x.image_height, x.grid.height);
    right = tap_of(col, box[1], box[3], x.image_width, x.grid.width);
    band = static_cast<const Pixel*>(x.grid.band) + pixels.image / x.seasons * x.grid.batch_stride +
           pixels.image % x.seasons * x.grid.season_stride +
           pixels.first_channel * x.grid.channel_stride;
  }
};

// The four neighbours of a pixel in the first channel of its block.
template <typename Pixel>
struct Neighbours {
  const Pixel* from[4];
  float weights[4];

  __device__ Neighbours(const GatherPatches& x, const Spot<Pixel>& spot) {
    const Pixel* above = spot.band + spot.down.low * x.grid.row_stride;
    const Pixel* below = spot.band + spot.down.high * x.grid.row_stride;
    const int64_t low = spot.right.low * x.grid.col_stride;
    const int64_t high = spot.right.high * x.grid.col_stride;
    from[0] = above + low, from[1] = above + high, from[2] = below + low, from[3] = below + high;
    const float up = 1 - spot.down.weight, left = 1 - spot.right.weight;
    weights[0] = up * left, weights[1] = up * spot.right.weight;
    weights[2] = spot.down.weight * left, weights[3] = spot.down.weight * spot.right.weight;
  }
  // Their mean in a channel of the block. Bit i of `holes`: whether nodata counts at neighbour i.
  __device__ float mean(const GatherPatches& x, int channel, int holes, bool& lost) const {
    float value = 0;
    for (int i = 0; i < 4; ++i) {
      const Pixel* pixel = from[i] + channel * x.grid.channel_stride;
      add(pixel, weights[i], holes >> i & 1, x, value, lost);
    }
    return value;
  }
};

constexpr int kAllHoles = 15;

template <typename Pixel>
__global__ void __launch_bounds__(kThreads, 5)
    patches_kernel(const GatherPatches x, bool packed, bool band_packed) {
  __shared__ __align__(16) float staged[kChannels][kThreads];
  __shared__ int64_t starts[kThreads / kEight];
  const Pixels pixels(x);
  const Spot<Pixel> spot(x, pixels);
  const int lane = threadIdx.x % kEight;
  const int64_t start = spot.down.low * x.grid.row_stride + spot.right.low * x.grid.col_stride;

  if constexpr (sizeof(Pixel) > 1) {
    const int source = threadIdx.x % kWarp - lane;
    const bool exact = spot.down.weight == 0 && spot.right.weight == 0 && start % kEight == lane;
    const bool plain = __shfl_sync(kFullWarp, start, source) == start - lane && exact;
    if (lane == 0) starts[threadIdx.x / kEight] = start;
    if (__syncthreads_and(band_packed && (plain || !spot.inside))) {
      copy_pixels(x, pixels, spot.band, starts);
      return;
    }
  }

  const Neighbours<Pixel> neighbours(x, spot);
  bool any_lost = false;
  for (int c = 0; c < pixels.channels && spot.inside; ++c) {
    const int place = x.place[pixels.first_channel + c];
    bool lost = false;
    float value = neighbours.mean(x, c, kAllHoles, lost);
    value = normalized(value, lost, x, place);
    any_lost |= lost;
    if (packed) {
      staged[c][threadIdx.x] = value;
    } else {
      store(x, pixels.place(x, spot.pixel, place), {value}, false);
    }
  }
  if (any_lost) atomicOr(x.lost + spot.patch, 1);
  if (!packed) return;
  __syncthreads();
  constexpr int eights = kThreads / kEight;
  for (int i = threadIdx.x; i < pixels.channels * eights; i += kThreads) {
    const int eight = i % eights * kEight, c = i / eights;
    if (pixels.first + eight >= pixels.count) continue;
    const int place = x.place[pixels.first_channel + c];
    store(x, pixels.place(x, pixels.first + eight, place), load_eight(&staged[c][eight], 0, true),
          true);
  }
}

__device__ inline float value_at(const StoredGrid& grid, int64_t offset) {
  switch (grid.storage) {
    case kHalf:
      return to_float(static_cast<const __half*>(grid.band)[offset]);
    case kUint8:
      return to_float(static_cast<const uint8_t*>(grid.band)[offset]);
    case kUint16:
      return to_float(static_cast<const uint16_t*>(grid.band)[offset]);
    case kInt16:
      return to_float(static_cast<const int16_t*>(grid.band)[offset]);
    default:
      return static_cast<const float*>(grid.band)[offset];
  }
}

// The pixel of `other` pixels at the centre of pixel i of `own`.
__device__ inline int64_t at_centre(int64_t i, int64_t own, int64_t other) {
  return (2 * i + 1) * other / (2 * own);
}

// Whether a pixel was measured in no channel of any grid.
__device__ inline bool is_hole(const GatherPatches& x, int64_t image, int row, int col) {
  for (int g = 0; g < x.grid_count; ++g) {
    const StoredGrid& grid = x.grids[g];
    int64_t place = image / x.seasons * grid.batch_stride + image % x.seasons * grid.season_stride +
                    at_centre(row, x.grid.height, grid.height) * grid.row_stride +
                    at_centre(col, x.grid.width, grid.width) * grid.col_stride;
    for (int c = 0; c < grid.channels; ++c, place += grid.channel_stride) {
      const float value = value_at(grid, place);
      if (fabsf(value) <= x.limit && value != grid.nodata) return false;
    }
  }
  return true;
}

// Samples the suspects again. Few blocks have one: the others cost no more than to see that.
template <typename Pixel>
__global__ void __launch_bounds__(kThreads, 5)
    again_kernel(const __grid_constant__ GatherPatches x) {
  const Pixels pixels(x);
  const Spot<Pixel> spot(x, pixels);
  if (!spot.inside || !x.suspects[spot.patch]) return;
  int holes = 0;
#pragma unroll 1
  for (int i = 0; i < 4; ++i) {
    const int row = i / 2 ? spot.down.high : spot.down.low;
    const int col = i % 2 ? spot.right.high : spot.right.low;
    if (is_hole(x, pixels.image, row, col)) holes |= 1 << i;
  }
  const Neighbours<Pixel> neighbours(x, spot);
  bool any_lost = false;
  for (int c = 0; c < pixels.channels; ++c) {
    const int place = x.place[pixels.first_channel + c];
    bool lost = false;
    const float value = neighbours.mean(x, c, holes, lost);
    store(x, pixels.place(x, spot.pixel, place), {normalized(value, lost, x, place)}, false);
    any_lost |= lost;
  }
  if (any_lost) atomicOr(x.lost + spot.patch, 1);
}

template <typename Pixel>
int launch_for(const GatherPatches& x) {
  const int64_t area = x.patch * x.patch;
  const bool packed = is_packed(x.patches, area);
  const StoredGrid& own = x.grid;
  const int64_t strides =
      own.batch_stride | own.season_stride | own.channel_stride | own.row_stride;
  const bool band_packed = packed && x.patch % kEight == 0 && own.col_stride == 1 &&
                           strides % kEight == 0 && is_packed(own.band, 0);
  const dim3 grid(x.images * ceil_div(x.wanted * area, kThreads),
                  ceil_div(own.channels, kChannels));
  if (x.suspects) {
    auto kernel = again_kernel<Pixel>;
    return SEAMO_LAUNCH(kernel, grid, dim3(kThreads), 0, x.stream, x);
  }
  auto kernel = patches_kernel<Pixel>;
  return SEAMO_LAUNCH(kernel, grid, dim3(kThreads), 0, x.stream, x, packed, band_packed);
}

SEAMO_EXPORT int seamo_gather_patches(const GatherPatches* params) {
  switch (params->grid.storage) {
    case kFloat:
      return launch_for<float>(*params);
    case kHalf:
      return launch_for<__half>(*params);
    case kUint8:
      return launch_for<uint8_t>(*params);
    case kUint16:
      return launch_for<uint16_t>(*params);
    case kInt16:
      return launch_for<int16_t>(*params);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace seamo::gather_patches
