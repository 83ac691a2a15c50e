#include "../residual_mlp.h"

#include "autograd.h"
#include "exported.h"

namespace seamo {
namespace {

bool are_good(const at::Tensor& x, const at::Tensor& norm_weight, const at::Tensor& norm_bias,
              const at::Tensor& weight1, const at::Tensor& bias1, const at::Tensor& weight2,
              const at::Tensor& bias2) {
  if (!is_float(x) || x.dim() < 2 || x.numel() == 0 || weight1.dim() != 2) return false;
  const int64_t width = x.size(-1), hidden = weight1.size(0);
  return hidden > 0 && is_matrix(weight1, hidden, width) && is_matrix(weight2, width, hidden) &&
         is_vector(bias1, hidden) && is_vector(bias2, width) && is_vector(norm_weight, width) &&
         is_vector(norm_bias, width);
}

// `before` may be undefined; `x` must be contiguous.
ResidualMlp params(const at::Tensor& x, const at::Tensor& norm_weight, const at::Tensor& norm_bias,
                   const at::Tensor& weight1, const at::Tensor& bias1, const at::Tensor& weight2,
                   const at::Tensor& before, double eps) {
  const int64_t width = x.size(-1);
  ResidualMlp y{};
  y.count = x.numel() / width;
  y.width = width;
  y.hidden = weight1.size(0);
  y.x = floats(x);
  y.norm = {floats(norm_weight), floats(norm_bias), width, static_cast<float>(eps)};
  y.weight1 = matrix_of(weight1);
  y.weight2 = matrix_of(weight2);
  y.bias1 = floats(bias1);
  y.before = floats(before);
  return y;
}

Tensors differentiate(const at::Tensor& grad, const Kept& kept, const std::vector<bool>& needed) {
  const auto [x, norm_weight, norm_bias, weight1, bias1, weight2, before] = named<7>(kept.tensors);
  const auto [needs_x, needs_norm_weight, needs_norm_bias, needs_weight1, needs_bias1,
              needs_weight2, needs_bias2] = named<7>(needed);
  const at::Tensor grads = grad.contiguous();
  const at::Tensor x_grad = empty(x.sizes(), x, at::kFloat);
  const at::Tensor norm_weight_grad = empty_if(needs_norm_weight, norm_weight.sizes(), x);
  const at::Tensor norm_bias_grad = empty_if(needs_norm_bias, norm_bias.sizes(), x);
  const at::Tensor weight1_grad = empty_if(needs_weight1, weight1.sizes(), x);
  const at::Tensor bias1_grad = empty_if(needs_bias1, bias1.sizes(), x);
  const at::Tensor weight2_grad = empty_if(needs_weight2, weight2.sizes(), x);
  const at::Tensor bias2_grad = empty_if(needs_bias2, norm_bias.sizes(), x);
  ResidualMlpBackward y{};
  y.forward = params(x, norm_weight, norm_bias, weight1, bias1, weight2, before, kept.eps);
  y.grad = floats(grads);
  y.x_grad = floats(x_grad);
  y.norm_weight_grad = floats(norm_weight_grad);
  y.norm_bias_grad = floats(norm_bias_grad);
  y.weight1_grad = floats(weight1_grad);
  y.bias1_grad = floats(bias1_grad);
  y.weight2_grad = floats(weight2_grad);
  y.bias2_grad = floats(bias2_grad);
  residual_mlp_backward(y);
  return {x_grad,     norm_weight_grad, norm_bias_grad, weight1_grad,
          bias1_grad, weight2_grad,     bias2_grad};
}

const Differentiable operation("residual_mlp", &differentiate);

Tensors forward(const at::Tensor& x, const at::Tensor& norm_weight, const at::Tensor& norm_bias,
                const at::Tensor& weight1, const at::Tensor& bias1, const at::Tensor& weight2,
                const at::Tensor& bias2, double eps) {
  if (!are_good(x, norm_weight, norm_bias, weight1, bias1, weight2, bias2)) return {};
  const Tensors inputs{x, norm_weight, norm_bias, weight1, bias1, weight2, bias2};
  return operation(inputs, [&](Kept* kept) -> Tensors {
    const at::Tensor rows = x.contiguous(), out = empty(x.sizes(), x, at::kFloat);
    const at::Tensor before =
        empty_if(kept != nullptr, {x.numel() / x.size(-1), weight1.size(0)}, x);
    ResidualMlp y = params(rows, norm_weight, norm_bias, weight1, bias1, weight2, before, eps);
    y.bias2 = floats(bias2);
    y.out = floats(out);
    residual_mlp(y);
    if (kept != nullptr) {
      *kept = {{rows, norm_weight, norm_bias, weight1, bias1, weight2, before}, {}, eps};
    }
    return {out};
  });
}

const Exported exported("residual_mlp", &forward);

}  // namespace
}  // namespace seamo
