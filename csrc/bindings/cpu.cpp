// The module of the CPU kernels. Functions return None for what they do not take: other dtypes, and
// whatever the checks in Python refuse.

#include <ATen/Parallel.h>
#include <ATen/ops/mul.h>
#include <torch/csrc/autograd/engine.h>
#include <pybind11/stl.h>

#include <vector>

#include "../gather_patches.h"
#include "../norm_pix_loss.h"
#include "autograd.h"
#include "tensors.h"

#if AT_PARALLEL_OPENMP && !defined(_OPENMP)
#error "compile with -fopenmp: without it at::parallel_for runs on one thread"
#endif

namespace seamo {

void run_parallel(int64_t count, int64_t grain, void (*body)(void*, int64_t, int64_t),
                  void* context) {
  at::parallel_for(0, count, grain,
                   [&](int64_t begin, int64_t end) { body(context, begin, end); });
}

namespace {

// Tensors that a struct points into.
struct LossInputs {
  at::Tensor pred, target, weight;

  LossInputs(const at::Tensor& pred, const at::Tensor& target, const at::Tensor& weight)
      : pred(with_rows(pred)),
        target(with_rows(target)),
        weight(weight.scalar_type() == at::kBool ? weight.contiguous() : as_floats(weight)) {}

  static bool are_good(const at::Tensor& pred, const at::Tensor& target, const at::Tensor& weight,
                       bool normalize) {
    return are_plain(pred, target, weight) && are_constant(target, weight) && is_stored(pred) &&
           is_stored(target) && pred.dim() >= 1 && pred.size(-1) >= (normalize ? 2 : 1) &&
           target.sizes() == pred.sizes() && has_sizes(weight, pred, 1, {}) &&
           (weight.scalar_type() == at::kBool || weight.is_floating_point());
  }

  NormPixLoss params(bool normalize, double eps, const at::Tensor& total) const {
    NormPixLoss x{};
    x.pred = rows_of(pred);
    x.target = rows_of(target);
    x.count = weight.numel();
    x.values = pred.size(-1);
    x.weight = weight.const_data_ptr();
    x.weight_is_bool = weight.scalar_type() == at::kBool;
    x.normalize = normalize;
    x.eps = static_cast<float>(eps);
    x.total = total.data_ptr<float>();
    return x;
  }
};

bool is_scalar(const at::Tensor& x) {
  return is_plain(x) && x.scalar_type() == at::kFloat && x.numel() == 1;
}

// Loss and total, and the gradient of the loss if `pred_grad` has room for it.
std::tuple<at::Tensor, at::Tensor> run_loss(const at::Tensor& pred, const at::Tensor& target,
                                            const at::Tensor& weight, bool normalize, double eps,
                                            const at::Tensor& pred_grad) {
  const LossInputs inputs(pred, target, weight);
  at::Tensor loss = empty({}, pred, at::kFloat), total = empty({}, pred, at::kFloat);
  NormPixLoss x = inputs.params(normalize, eps, total);
  x.loss = loss.data_ptr<float>();
  x.pred_grad = pred_grad.defined() ? pred_grad.data_ptr() : nullptr;
  norm_pix_loss(x);
  return {loss, total};
}

MaybeTensor loss_backward(const at::Tensor& grad, const at::Tensor& pred, const at::Tensor& target,
                          const at::Tensor& weight, const at::Tensor& total, bool normalize,
                          double eps) {
  if (!LossInputs::are_good(pred, target, weight, normalize) || !is_scalar(grad) ||
      !is_scalar(total)) {
    return std::nullopt;
  }
  const LossInputs inputs(pred, target, weight);
  at::Tensor pred_grad = empty(pred.sizes(), pred, pred.scalar_type());
  NormPixLossBackward x{inputs.params(normalize, eps, total), *grad.const_data_ptr<float>()};
  x.forward.pred_grad = pred_grad.data_ptr();
  norm_pix_loss_backward(x);
  return pred_grad;
}

// Finds the gradient in the pass over the patches that finds the loss, and rounds it once: where it
// may be scaled afterwards in half precision, it is found in the backward pass.
class Loss : public torch::autograd::Function<Loss> {
 public:
  static variable_list forward(AutogradContext* ctx, const at::Tensor& pred,
                               const at::Tensor& target, const at::Tensor& weight, bool normalize,
                               double eps) {
    at::Tensor pred_grad;
    if (!is_half(pred)) pred_grad = empty(pred.sizes(), pred, pred.scalar_type());
    const auto [loss, total] = run_loss(pred, target, weight, normalize, eps, pred_grad);
    if (is_half(pred)) {
      ctx->save_for_backward({pred, target, weight, total});
      ctx->saved_data["normalize"] = normalize;
      ctx->saved_data["eps"] = eps;
    } else {
      ctx->save_for_backward({pred_grad});
    }
    ctx->mark_non_differentiable({total});
    return {loss, total};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    return differentiate_once("norm_pix_loss", [&]() -> variable_list {
      const variable_list saved = ctx->get_saved_variables();
      return {saved.size() == 1 ? scaled(saved[0], grads[0]) : found(ctx, saved, grads[0]),
              {}, {}, {}, {}};
    });
  }

 private:
  // The saved tensor itself only where nothing else can get it.
  static at::Tensor scaled(const at::Tensor& pred_grad, const at::Tensor& grad) {
    if (!is_plain(grad) || *grad.const_data_ptr<float>() != 1) return at::mul(pred_grad, grad);
    return torch::autograd::get_current_graph_task_keep_graph() ? pred_grad.clone() : pred_grad;
  }

  static at::Tensor found(AutogradContext* ctx, const variable_list& x, const at::Tensor& grad) {
    const bool normalize = ctx->saved_data["normalize"].toBool();
    const double eps = ctx->saved_data["eps"].toDouble();
    if (is_plain(grad)) return loss_backward(grad, x[0], x[1], x[2], x[3], normalize, eps).value();
    return call_operator("seamo::_norm_pix_loss_backward",
                         {grad, x[0], x[1], x[2], x[3], normalize, eps})[0];
  }
};

std::optional<std::tuple<at::Tensor, at::Tensor>> loss_forward(const at::Tensor& pred,
                                                               const at::Tensor& target,
                                                               const at::Tensor& weight,
                                                               bool normalize, double eps) {
  if (!LossInputs::are_good(pred, target, weight, normalize)) return std::nullopt;
  if (!wants_gradient(pred)) return run_loss(pred, target, weight, normalize, eps, {});
  const variable_list results = Loss::apply(pred, target, weight, normalize, eps);
  return std::make_tuple(results[0], results[1]);
}

std::optional<Pixel> pixel_of(at::ScalarType dtype) {
  switch (dtype) {
    case at::kByte: return Pixel::u8;
    case at::kUInt16: return Pixel::u16;
    case at::kShort: return Pixel::i16;
    case at::kHalf: return Pixel::f16;
    case at::kFloat: return Pixel::f32;
    default: return std::nullopt;
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

constexpr int64_t kMostPixels = 1 << 24;  // of a side: positions are floats

bool is_per_channel(const at::Tensor& x, const std::vector<int64_t>& order) {
  return x.dim() == 1 && x.size(0) == static_cast<int64_t>(order.size()) && x.is_floating_point();
}

// `image_size` is (height, width); `order` says which channel of the grids each output channel is.
std::optional<std::tuple<at::Tensor, at::Tensor>> gather_forward(
    const std::vector<at::Tensor>& bands, const at::Tensor& boxes, const at::Tensor& index,
    const at::Tensor& shift, const at::Tensor& scale, const std::vector<int64_t>& order,
    const std::vector<int64_t>& image_size, int64_t patch_size, std::optional<double> nodata,
    at::ScalarType dtype) {
  const bool good = is_index(index) && index.dim() == 3 && are_plain(boxes, shift, scale) &&
                    are_constant(boxes, shift, scale) &&
                    has_sizes(boxes, index, 1, {4}) && boxes.is_floating_point() &&
                    is_per_channel(shift, order) && is_per_channel(scale, order) &&
                    image_size.size() == 2 && patch_size > 0 && image_size[0] > 0 &&
                    image_size[1] > 0 && image_size[0] % patch_size == 0 &&
                    image_size[1] % patch_size == 0 && at::isFloatingType(dtype);
  if (!good || dtype == at::kDouble) return std::nullopt;
  const int64_t total = order.size();
  std::vector<int64_t> place(total, -1);
  for (int64_t c = 0; c < total; ++c) {
    if (order[c] < 0 || order[c] >= total || place[order[c]] >= 0) return std::nullopt;
    place[order[c]] = c;
  }

  std::vector<at::Tensor> kept;
  std::vector<Grid> grids;
  int64_t channels = 0;
  for (const at::Tensor& band : bands) {
    const std::optional<Pixel> pixel = pixel_of(band.scalar_type());
    const bool fits = pixel && is_plain(band) && are_constant(band) && band.dim() == 5 &&
                      has_sizes(band, index, 1, {band.size(2), band.size(3), band.size(4)}) &&
                      band.size(3) > 0 && band.size(4) > 0 &&
                      band.size(3) <= kMostPixels && band.size(4) <= kMostPixels && channels + band.size(2) <= total;
    if (!fits) return std::nullopt;
    kept.push_back(band.stride(4) == 1 ? band : band.contiguous());
    grids.push_back(grid_of(kept.back(), *pixel, nodata));
    grids.back().out_channels = place.data() + channels;
    channels += grids.back().channels;
  }
  if (channels != total || bands.empty()) return std::nullopt;
  const at::Tensor regions = as_floats(boxes), numbers = index.contiguous();
  const at::Tensor shifts = as_floats(shift), scales = as_floats(scale);

  GatherPatches x{};
  x.grids = grids.data();
  x.grid_count = grids.size();
  x.channels = channels;
  x.batch = index.size(0);
  x.seasons = index.size(1);
  x.wanted = index.size(2);
  x.image_height = image_size[0];
  x.image_width = image_size[1];
  x.patch = patch_size;
  x.boxes = regions.const_data_ptr<float>();
  x.index = index_of(numbers, (image_size[0] / patch_size) * (image_size[1] / patch_size));
  x.shift = shifts.const_data_ptr<float>();
  x.scale = scales.const_data_ptr<float>();
  x.half = dtype == at::kBFloat16;
  const int64_t size = channels * patch_size * patch_size;
  at::Tensor out = empty({x.batch, x.seasons, x.wanted, size}, boxes,
                         x.half ? at::kBFloat16 : at::kFloat);
  at::Tensor valid = empty(index.sizes(), boxes, at::kBool);
  x.out = out.data_ptr();
  x.valid = valid.data_ptr<bool>();
  gather_patches(x);
  return std::make_tuple(out.to(dtype), valid);
}

}  // namespace
}  // namespace seamo

void bind_assemble_tokens(pybind11::module_& module);
void bind_embed_patches(pybind11::module_& module);
void bind_residual_attention(pybind11::module_& module);
void bind_residual_mlp(pybind11::module_& module);
void bind_tm_attention(pybind11::module_& module);

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
  using without_gil = pybind11::call_guard<pybind11::gil_scoped_release>;
  module.def("isa", [] { return static_cast<int>(seamo::isa()); });
  module.def("limit_isa", [](int most) { seamo::limit_isa(static_cast<seamo::Isa>(most)); });
  module.def("norm_pix_loss", &seamo::loss_forward, without_gil());
  module.def("norm_pix_loss_backward", &seamo::loss_backward, without_gil());
  module.def("gather_patches", &seamo::gather_forward, without_gil());
  bind_assemble_tokens(module);
  bind_embed_patches(module);
  bind_residual_attention(module);
  bind_residual_mlp(module);
  bind_tm_attention(module);
}
