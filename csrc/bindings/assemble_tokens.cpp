#include "../assemble_tokens.h"

#include "autograd.h"
#include "exported.h"

namespace seamo {
namespace {

int64_t sequences_of(const at::Tensor& index) {
  return index.size(-1) == 0 ? 0 : index.numel() / index.size(-1);
}

Tensors run_forward(const at::Tensor& visible, const at::Tensor& mask_token,
                    const at::Tensor& table, const at::Tensor& index) {
  const at::Tensor tokens = with_rows(visible), mask = as_floats(mask_token);
  const at::Tensor positions = as_floats(table), numbers = index.contiguous();
  std::vector<int64_t> sizes = index.sizes().vec();
  sizes.push_back(visible.size(-1));
  const at::Tensor out = empty(sizes, visible, visible.scalar_type());

  AssembleTokens x{};
  x.visible_count = visible.size(-2);
  x.length = index.size(-1);
  x.sequences = sequences_of(index);
  x.width = visible.size(-1);
  x.visible = rows_of(tokens);
  x.mask_token = floats(mask);
  x.table = floats(positions);
  x.index = index_of(numbers, table.size(0));
  x.out = out.data_ptr();
  assemble_tokens(x);
  return {out};
}

// `needed`: the gradients of visible, mask_token and table; others are empty.
Tensors backward(const at::Tensor& grad, const at::Tensor& index, int64_t count, int64_t positions,
                 const std::vector<bool>& needed) {
  const bool good = is_plain(grad) && is_index(index) && is_stored(grad) && grad.dim() >= 2 &&
                    has_sizes(index, grad, 1, {}) && needed.size() == 3 && count >= 0 &&
                    count <= grad.size(-2);
  if (!good) return {};
  const auto [needs_visible, needs_mask_token, needs_table] = named<3>(needed);
  const at::Tensor rows = with_rows(grad), numbers = index.contiguous();
  const int64_t width = grad.size(-1);
  std::vector<int64_t> sizes = grad.sizes().vec();
  sizes[sizes.size() - 2] = count;
  if (!needs_visible) sizes = {0};
  const at::Tensor visible_grad = empty(sizes, grad, grad.scalar_type());
  const at::Tensor mask_token_grad = empty({needs_mask_token ? width : 0}, grad, at::kFloat);
  const at::Tensor table_grad =
      needs_table ? empty({positions, width}, grad, at::kFloat) : empty({0}, grad, at::kFloat);

  AssembleTokensBackward x{};
  x.visible_count = count;
  x.length = index.size(-1);
  x.sequences = sequences_of(index);
  x.width = width;
  x.positions = positions;
  x.grad = rows_of(rows);
  x.index = needs_table ? index_of(numbers, positions) : Index{};
  if (needs_visible) x.visible_grad = visible_grad.data_ptr();
  if (needs_mask_token) x.mask_token_grad = floats(mask_token_grad);
  if (needs_table) x.table_grad = floats(table_grad);
  assemble_tokens_backward(x);
  return {visible_grad, mask_token_grad, table_grad};
}

Tensors differentiate(const at::Tensor& grad, const Kept& kept, const std::vector<bool>& needed) {
  const auto [index] = named<1>(kept.tensors);
  const auto [count, positions] = named<2>(kept.numbers);
  if (is_plain(grad)) return backward(grad, index, count, positions, needed);
  return call_operator("seamo::_assemble_tokens_backward", {grad, index, count, positions, needed});
}

const Differentiable operation("assemble_tokens", &differentiate);

Tensors forward(const at::Tensor& visible, const at::Tensor& mask_token, const at::Tensor& table,
                const at::Tensor& index) {
  const bool good =
      are_plain(visible, mask_token, table) && is_index(index) && is_stored(visible) &&
      visible.dim() >= 2 && table.dim() == 2 && mask_token.is_floating_point() &&
      table.is_floating_point() && mask_token.sizes() == visible.sizes().slice(visible.dim() - 1) &&
      table.size(1) == visible.size(-1) && index.dim() == visible.dim() - 1 &&
      has_sizes(index, visible, 2, {index.size(-1)}) && index.size(-1) >= visible.size(-2);
  if (!good) return {};
  return operation({visible, mask_token, table}, [&](Kept* kept) {
    if (kept != nullptr) *kept = {{index}, {visible.size(-2), table.size(0)}};
    return run_forward(visible, mask_token, table, index);
  });
}

const Exported exported[] = {{"assemble_tokens", &forward},
                             {"assemble_tokens_backward", &backward}};

}  // namespace
}  // namespace seamo
