#include "../norm_pix_loss.h"

#include "autograd.h"
#include "exported.h"

namespace seamo {
namespace {

// Tensors that a struct points into.
struct Inputs {
  at::Tensor pred, target, weight;

  Inputs(const at::Tensor& pred, const at::Tensor& target, const at::Tensor& weight)
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
    x.total = floats(total);
    return x;
  }
};

// Loss and total, and the gradient of the loss if `pred_grad` has room for it.
Tensors run_forward(const at::Tensor& pred, const at::Tensor& target, const at::Tensor& weight,
                    bool normalize, double eps, const at::Tensor& pred_grad) {
  const Inputs inputs(pred, target, weight);
  const at::Tensor loss = empty({}, pred, at::kFloat), total = empty({}, pred, at::kFloat);
  NormPixLoss x = inputs.params(normalize, eps, total);
  x.loss = floats(loss);
  x.pred_grad = floats(pred_grad);
  norm_pix_loss(x);
  return {loss, total};
}

bool is_scalar(const at::Tensor& x) { return is_float(x) && x.numel() == 1; }

Tensors backward(const at::Tensor& grad, const at::Tensor& pred, const at::Tensor& target,
                 const at::Tensor& weight, const at::Tensor& total, bool normalize, double eps) {
  const bool good =
      Inputs::are_good(pred, target, weight, normalize) && is_scalar(grad) && is_scalar(total);
  if (!good) return {};
  const Inputs inputs(pred, target, weight);
  const at::Tensor pred_grad = empty(pred.sizes(), pred, pred.scalar_type());
  NormPixLossBackward x{inputs.params(normalize, eps, total), *grad.const_data_ptr<float>()};
  x.forward.pred_grad = pred_grad.data_ptr();
  norm_pix_loss_backward(x);
  return {pred_grad};
}

// The gradient that the forward pass has found: itself only where nothing else can get it.
at::Tensor scaled(const at::Tensor& pred_grad, const at::Tensor& grad) {
  if (!is_plain(grad) || *grad.const_data_ptr<float>() != 1) return pred_grad.mul(grad);
  return graph_is_kept() ? pred_grad.clone() : pred_grad;
}

Tensors differentiate(const at::Tensor& grad, const Kept& kept, const std::vector<bool>&) {
  if (kept.tensors.size() == 1) return {scaled(kept.tensors[0], grad)};
  const auto [pred, target, weight, total] = named<4>(kept.tensors);
  const bool normalize = kept.numbers[0] != 0;
  if (is_plain(grad)) return backward(grad, pred, target, weight, total, normalize, kept.eps);
  return call_operator("seamo::_norm_pix_loss_backward",
                       {grad, pred, target, weight, total, normalize, kept.eps});
}

const Differentiable operation("norm_pix_loss", &differentiate);

// Finds the gradient in the pass over the patches that finds the loss, and rounds it once: where it
// may be scaled afterwards in half precision, it is found in the backward pass.
Tensors forward(const at::Tensor& pred, const at::Tensor& target, const at::Tensor& weight,
                bool normalize, double eps) {
  if (!Inputs::are_good(pred, target, weight, normalize)) return {};
  return operation({pred}, [&](Kept* kept) {
    const at::Tensor pred_grad = empty_if(kept != nullptr && !is_half(pred), pred.sizes(), pred);
    const Tensors results = run_forward(pred, target, weight, normalize, eps, pred_grad);
    if (pred_grad.defined()) {
      *kept = {{pred_grad}, {}};
    } else if (kept != nullptr) {
      *kept = {{pred, target, weight, results[1]}, {normalize}, eps};
    }
    return results;
  });
}

const Exported exported[] = {{"norm_pix_loss", &forward}, {"norm_pix_loss_backward", &backward}};

}  // namespace
}  // namespace seamo
