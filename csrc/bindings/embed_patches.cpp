#include "../embed_patches.h"

#include "autograd.h"
#include "exported.h"

namespace seamo {
namespace {

// Whether a bias or offset is absent or has the sizes of `like` without `dropped`, then `width`.
bool is_term(const MaybeTensor& x, const at::Tensor& like, int64_t dropped, int64_t width) {
  return !x || (is_plain(*x) && x->is_floating_point() && has_sizes(*x, like, dropped, {width}));
}

at::Tensor floats_of(const MaybeTensor& x) { return x ? as_floats(*x) : at::Tensor(); }

Tensors run_forward(const at::Tensor& patches, const at::Tensor& weight, const MaybeTensor& bias,
                    const at::Tensor& table, const at::Tensor& index, const MaybeTensor& offset) {
  const at::Tensor rows = as_rows(patches), weights = as_floats(weight);
  const at::Tensor positions = as_floats(table), numbers = index.contiguous();
  const at::Tensor biases = floats_of(bias), offsets = floats_of(offset);
  std::vector<int64_t> sizes = patches.sizes().vec();
  sizes.back() = weight.size(0);
  const at::Tensor out = empty(sizes, patches, patches.scalar_type());

  EmbedPatches x{};
  x.count = rows.size(0);
  x.values = rows.size(1);
  x.width = weight.size(0);
  x.patches = rows.const_data_ptr();
  x.stride = rows.stride(0);
  x.value_stride = rows.stride(1);
  x.weight = matrix_of(weights);
  x.bias = floats(biases);
  x.table = floats(positions);
  x.index = index_of(numbers, table.size(0));
  x.offset = floats(offsets);
  x.group = patches.size(-2);
  x.out = out.data_ptr();
  x.half = is_half(out);
  embed_patches(x);
  return {out};
}

// `needed`: the gradients of weight, bias, table and offset; others are empty.
Tensors backward(const at::Tensor& grad, const at::Tensor& patches, const at::Tensor& index,
                 int64_t positions, const std::vector<bool>& needed) {
  const bool good = are_plain(grad, patches) && is_index(index) && is_stored(grad) &&
                    is_stored(patches) && grad.dim() >= 2 && patches.dim() >= 2 &&
                    grad.numel() > 0 && patches.numel() > 0 && has_sizes(index, grad, 1, {}) &&
                    has_sizes(patches, grad, 1, {patches.size(-1)}) && needed.size() == 4;
  if (!good) return {};
  const auto [needs_weight, needs_bias, needs_table, needs_offset] = named<4>(needed);
  const int64_t width = grad.size(-1), values = patches.size(-1);
  std::vector<int64_t> offset_sizes = grad.sizes().vec();
  offset_sizes.erase(offset_sizes.end() - 2);
  const at::Tensor weight_grad = empty_if(needs_weight, {width, values}, grad);
  const at::Tensor bias_grad = empty_if(needs_bias, {width}, grad);
  const at::Tensor table_grad = empty_if(needs_table, {positions, width}, grad);
  const at::Tensor offset_grad = empty_if(needs_bias || needs_offset, offset_sizes, grad);
  const at::Tensor rows = with_rows(grad), numbers = index.contiguous();
  at::Tensor slopes, matrix;
  if (needs_weight) {
    slopes = as_rows(grad).to(at::kFloat);
    matrix = as_rows(patches).to(at::kFloat);
  }

  EmbedPatchesBackward x{};
  x.count = index.numel();
  x.group = grad.size(-2);
  x.positions = positions;
  x.width = width;
  x.grad = rows_of(rows);
  x.slopes = matrix_of(slopes);
  x.patches = matrix_of(matrix);
  x.index = needs_table ? index_of(numbers, positions) : Index{};
  x.weight_grad = matrix_of(weight_grad);
  x.bias_grad = floats(bias_grad);
  x.table_grad = floats(table_grad);
  x.offset_grad = floats(offset_grad);
  embed_patches_backward(x);
  const auto or_empty = [&](bool is_needed, const at::Tensor& found) {
    return is_needed ? found : empty({0}, grad, at::kFloat);
  };
  return {or_empty(needs_weight, weight_grad), or_empty(needs_bias, bias_grad),
          or_empty(needs_table, table_grad), or_empty(needs_offset, offset_grad)};
}

Tensors differentiate(const at::Tensor& grad, const Kept& kept, const std::vector<bool>& needed) {
  const auto [patches, index] = named<2>(kept.tensors);
  const auto [positions] = named<1>(kept.numbers);
  if (is_plain(grad)) return backward(grad, patches, index, positions, needed);
  return call_operator("seamo::_embed_patches_backward", {grad, patches, index, positions, needed});
}

const Differentiable operation("embed_patches", &differentiate);

Tensors forward(const at::Tensor& patches, const at::Tensor& weight, const MaybeTensor& bias,
                const at::Tensor& table, const at::Tensor& index, const MaybeTensor& offset) {
  const bool good = are_plain(patches, weight, table) && are_constant(patches) && is_index(index) &&
                    is_stored(patches) && patches.dim() >= 2 && patches.numel() > 0 &&
                    weight.dim() == 2 && weight.size(0) > 0 && table.dim() == 2 &&
                    weight.is_floating_point() && table.is_floating_point() &&
                    weight.size(1) == patches.size(-1) && table.size(1) == weight.size(0) &&
                    has_sizes(index, patches, 1, {}) && is_term(bias, weight, 2, weight.size(0)) &&
                    is_term(offset, patches, 2, weight.size(0));
  if (!good) return {};
  return operation({weight, or_undefined(bias), table, or_undefined(offset)}, [&](Kept* kept) {
    if (kept != nullptr) *kept = {{patches, index}, {table.size(0)}};
    return run_forward(patches, weight, bias, table, index, offset);
  });
}

const Exported exported[] = {{"embed_patches", &forward}, {"embed_patches_backward", &backward}};

}  // namespace
}  // namespace seamo
