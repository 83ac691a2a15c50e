// x + fc2(gelu(fc1(norm(x)))), block of rows by block of rows. Of the wide layer only what enters
// the GELU is kept for the backward pass; its result is found again there.

#include "residual.h"

namespace seamo {
namespace {

struct Mlp {
  at::Tensor norm_weight, norm_bias, weight1, bias1, weight2, bias2;
  double eps;

  int64_t width() const { return weight2.size(0); }
  int64_t hidden() const { return weight1.size(0); }
  LayerNorm norm() const { return norm_of(norm_weight, norm_bias, eps); }

  bool fits(const at::Tensor& x) const {
    if (!is_float(x) || x.dim() < 2 || x.numel() == 0 || weight1.dim() != 2) return false;
    const int64_t width = x.size(-1);
    return hidden() > 0 && is_matrix(weight1, hidden(), width) &&
           is_matrix(weight2, width, hidden()) && is_vector(bias1, hidden()) &&
           is_vector(bias2, width) && is_vector(norm_weight, width) && is_vector(norm_bias, width);
  }
};

// Returns the result, and fills `before` [rows, hidden], what the GELU takes less its bias, if it
// has memory.
at::Tensor run_forward(const Mlp& mlp, const at::Tensor& x, const at::Tensor& before) {
  const at::AutoDispatchBelowADInplaceOrView no_autograd;
  at::Tensor out = empty(x.sizes(), x, at::kFloat);
  const int64_t width = mlp.width(), hidden = mlp.hidden(), count = x.numel() / width;
  const int64_t most = std::min(block_rows(), count);
  const at::Tensor rows = out.view({count, width});
  const at::Tensor wide = empty({most, hidden}, x, at::kFloat);
  const at::Tensor after = before.defined() ? empty({most, hidden}, x, at::kFloat) : wide;
  NormBlock norm(mlp.norm(), x, most);
  for (int64_t begin = 0; begin < count; begin += most) {
    const int64_t end = std::min(begin + most, count), size = end - begin;
    const at::Tensor to = rows.slice(0, begin, end);
    const at::Tensor in = before.defined() ? before.slice(0, begin, end) : wide.slice(0, 0, size);
    product(in, norm(begin, end), mlp.weight1.t());
    gelu(floats(in), floats(mlp.bias1), size, hidden, floats(after));
    add_bias({floats(x) + begin * width, size, 0, width, false}, floats(mlp.bias2), size, width,
             floats(to));
    product(to, after.slice(0, 0, size), mlp.weight2.t(), true);
  }
  return out;
}

// Gradients of x, the norm's weight and bias, and those of both layers.
variable_list run_backward(const Mlp& mlp, const at::Tensor& x, const at::Tensor& before,
                           const at::Tensor& grad, const std::vector<bool>& needed) {
  const int64_t width = mlp.width(), hidden = mlp.hidden(), count = x.numel() / width;
  const int64_t most = std::min(block_rows(), count);
  const at::Tensor grads = grad.contiguous().view({count, width});
  const at::Tensor wide_grad = empty({most, hidden}, x, at::kFloat);
  const at::Tensor wide = empty({most, hidden}, x, at::kFloat);
  const at::Tensor slope = empty({most, width}, x, at::kFloat);
  NormBlock norm(mlp.norm(), x, most);
  NormGradient norm_grad(mlp.norm(), x, most);
  const at::Tensor weight1_grad = empty_if(needed[3], {hidden, width}, x);
  const at::Tensor weight2_grad = empty_if(needed[5], {width, hidden}, x);
  WeightSum weight1(weight1_grad), weight2(weight2_grad);
  ColumnSum bias1(sum_parts(count, most), hidden, x);
  for (int64_t begin = 0; begin < count; begin += most) {
    const int64_t end = std::min(begin + most, count), size = end - begin;
    const at::Tensor of_out = grads.slice(0, begin, end), of_in = wide_grad.slice(0, 0, size);
    const at::Tensor after = wide.slice(0, 0, size), of_normal = slope.slice(0, 0, size);
    product(of_in, of_out, mlp.weight2);
    gelu_backward(floats(before) + begin * hidden, floats(mlp.bias1), size, hidden, floats(after),
                  floats(of_in), bias1.next(ceil_div(size, kSumRows)));
    weight2.add(of_out, after);
    weight1.add(of_in, norm(begin, end));
    product(of_normal, of_in, mlp.weight1);
    norm_grad.add(begin, end, of_normal, norm.moments(), {floats(of_out), size, 0});
  }
  return {norm_grad.x_grad, norm_grad.weight.value(), norm_grad.bias.value(),    weight1_grad,
          bias1.value(),    weight2_grad,             norm_grad.residual.value()};
}

class ResidualMlp : public torch::autograd::Function<ResidualMlp> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x,
                            const at::Tensor& norm_weight, const at::Tensor& norm_bias,
                            const at::Tensor& weight1, const at::Tensor& bias1,
                            const at::Tensor& weight2, const at::Tensor& bias2, double eps) {
    const Mlp mlp{norm_weight, norm_bias, weight1, bias1, weight2, bias2, eps};
    const at::Tensor before = empty({x.numel() / mlp.width(), mlp.hidden()}, x, at::kFloat);
    ctx->save_for_backward({x, norm_weight, norm_bias, weight1, bias1, weight2, before});
    ctx->saved_data["eps"] = eps;
    return run_forward(mlp, x, before);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list s = ctx->get_saved_variables();
    std::vector<bool> needed;
    for (size_t i = 0; i < 7; ++i) needed.push_back(ctx->needs_input_grad(i));
    variable_list found = differentiate_once("residual_mlp", [&]() -> variable_list {
      const Mlp mlp{s[1], s[2], s[3], s[4], s[5], {}, ctx->saved_data["eps"].toDouble()};
      return only(needed, run_backward(mlp, s[0], s[6], grads[0], needed));
    });
    found.resize(8);
    return found;
  }
};

MaybeTensor residual_mlp(const at::Tensor& x, const at::Tensor& norm_weight,
                         const at::Tensor& norm_bias, const at::Tensor& weight1,
                         const at::Tensor& bias1, const at::Tensor& weight2,
                         const at::Tensor& bias2, double eps) {
  const Mlp mlp{norm_weight, norm_bias, weight1, bias1, weight2, bias2, eps};
  if (at::autocast::is_autocast_enabled(at::kCPU) || !mlp.fits(x)) return std::nullopt;
  const at::Tensor rows = x.contiguous();
  return wants_gradient(x, norm_weight, norm_bias, weight1, bias1, weight2, bias2)
             ? ResidualMlp::apply(rows, norm_weight, norm_bias, weight1, bias1, weight2, bias2, eps)
             : run_forward(mlp, rows, {});
}

}  // namespace
}  // namespace seamo

void bind_residual_mlp(pybind11::module_& module) {
  using without_gil = pybind11::call_guard<pybind11::gil_scoped_release>;
  module.def("residual_mlp", &seamo::residual_mlp, without_gil());
}
