#include "../residual_attention.h"

#include "autograd.h"
#include "exported.h"

namespace seamo {
namespace {

// The arguments but x, and what points into them.
struct Branch {
  at::Tensor norm_weight, norm_bias, qkv_weight, qkv_bias, proj_weight;
  at::Tensor keep;  // bool [B, groups], contiguous; undefined: all
  int64_t heads, skip;
  double eps;

  bool fits(const at::Tensor& x, const at::Tensor& proj_bias) const {
    if (!is_float(x) || x.dim() != 3 || x.numel() == 0) return false;
    const int64_t width = x.size(2), length = x.size(1);
    return heads > 0 && width % heads == 0 && skip >= 0 && skip < length && keep_fits(x) &&
           is_matrix(qkv_weight, 3 * width, width) && is_vector(qkv_bias, 3 * width) &&
           is_matrix(proj_weight, width, width) && is_vector(proj_bias, width) &&
           is_vector(norm_weight, width) && is_vector(norm_bias, width);
  }

  bool keep_fits(const at::Tensor& x) const {
    if (!keep.defined()) return true;
    return skip == 0 && is_plain(keep) && keep.scalar_type() == at::kBool && keep.dim() == 2 &&
           keep.size(0) == x.size(0) && keep.size(1) > 0 && x.size(1) % keep.size(1) == 0;
  }

  // `x` must be contiguous.
  ResidualAttention params(const at::Tensor& x) const {
    ResidualAttention y{};
    y.sequences = x.size(0);
    y.length = x.size(1);
    y.width = x.size(2);
    y.heads = heads;
    y.skip = skip;
    y.groups = keep.defined() ? keep.size(1) : 1;
    y.keep = keep.defined() ? keep.const_data_ptr<bool>() : nullptr;
    y.x = floats(x);
    y.norm = {floats(norm_weight), floats(norm_bias), x.size(2), static_cast<float>(eps)};
    y.qkv_weight = matrix_of(qkv_weight);
    y.qkv_bias = floats(qkv_bias);
    y.proj_weight = matrix_of(proj_weight);
    return y;
  }
};

Tensors differentiate(const at::Tensor& grad, const Kept& kept, const std::vector<bool>& needed) {
  const auto [x, norm_weight, norm_bias, qkv_weight, qkv_bias, proj_weight, keep, projected,
              attended, lse] = named<10>(kept.tensors);
  const auto [heads, skip] = named<2>(kept.numbers);
  const auto [needs_x, needs_norm_weight, needs_norm_bias, needs_qkv_weight, needs_qkv_bias,
              needs_proj_weight, needs_proj_bias] = named<7>(needed);
  const Branch branch{norm_weight, norm_bias, qkv_weight, qkv_bias, proj_weight,
                      keep,        heads,     skip,       kept.eps};
  const at::Tensor grads = grad.contiguous();
  const at::Tensor x_grad = empty(x.sizes(), x, at::kFloat);
  const at::Tensor norm_weight_grad = empty_if(needs_norm_weight, norm_weight.sizes(), x);
  const at::Tensor norm_bias_grad = empty_if(needs_norm_bias, norm_bias.sizes(), x);
  const at::Tensor qkv_weight_grad = empty_if(needs_qkv_weight, qkv_weight.sizes(), x);
  const at::Tensor qkv_bias_grad = empty_if(needs_qkv_bias, qkv_bias.sizes(), x);
  const at::Tensor proj_weight_grad = empty_if(needs_proj_weight, proj_weight.sizes(), x);
  const at::Tensor proj_bias_grad = empty_if(needs_proj_bias, norm_bias.sizes(), x);
  ResidualAttentionBackward y{};
  y.forward = branch.params(x);
  y.forward.projected = floats(projected);
  y.forward.attended = floats(attended);
  y.forward.lse = floats(lse);
  y.grad = floats(grads);
  y.x_grad = floats(x_grad);
  y.norm_weight_grad = floats(norm_weight_grad);
  y.norm_bias_grad = floats(norm_bias_grad);
  y.qkv_weight_grad = floats(qkv_weight_grad);
  y.qkv_bias_grad = floats(qkv_bias_grad);
  y.proj_weight_grad = floats(proj_weight_grad);
  y.proj_bias_grad = floats(proj_bias_grad);
  residual_attention_backward(y);
  return {x_grad,        norm_weight_grad, norm_bias_grad, qkv_weight_grad,
          qkv_bias_grad, proj_weight_grad, proj_bias_grad};
}

const Differentiable operation("residual_attention", &differentiate);

Tensors forward(const at::Tensor& x, const at::Tensor& norm_weight, const at::Tensor& norm_bias,
                const at::Tensor& qkv_weight, const at::Tensor& qkv_bias,
                const at::Tensor& proj_weight, const at::Tensor& proj_bias, const MaybeTensor& keep,
                int64_t heads, int64_t skip, double eps) {
  const at::Tensor kept_groups = keep ? keep->contiguous() : at::Tensor();
  const Branch branch{norm_weight, norm_bias, qkv_weight, qkv_bias, proj_weight,
                      kept_groups, heads,     skip,       eps};
  if (!branch.fits(x, proj_bias)) return {};
  const Tensors inputs{x, norm_weight, norm_bias, qkv_weight, qkv_bias, proj_weight, proj_bias};
  return operation(inputs, [&](Kept* kept) -> Tensors {
    const at::Tensor rows = x.contiguous();
    ResidualAttention y = branch.params(rows);
    const at::Tensor out = empty({y.sequences, y.queries(), y.width}, x, at::kFloat);
    const at::Tensor projected = empty({y.projected_size(y.sequences)}, x, at::kFloat);
    const at::Tensor attended = empty(out.sizes(), x, at::kFloat);
    const at::Tensor lse = empty({y.sequences, heads, y.queries()}, x, at::kFloat);
    y.proj_bias = floats(proj_bias);
    y.out = floats(out);
    y.projected = floats(projected);
    y.attended = floats(attended);
    y.lse = floats(lse);
    residual_attention(y);
    if (kept != nullptr) {
      *kept = {{rows, norm_weight, norm_bias, qkv_weight, qkv_bias, proj_weight, kept_groups,
                projected, attended, lse},
               {heads, skip},
               eps};
    }
    return {out};
  });
}

const Exported exported("residual_attention", &forward);

}  // namespace
}  // namespace seamo
