// assemble_tokens for the module of the CPU kernels.

#include <pybind11/stl.h>

#include <vector>

#include "../assemble_tokens.h"
#include "autograd.h"
#include "tensors.h"

namespace seamo {
namespace {

at::Tensor run_forward(const at::Tensor& visible, const at::Tensor& mask_token,
                       const at::Tensor& table, const at::Tensor& index) {
  const at::Tensor tokens = with_rows(visible), mask = as_floats(mask_token);
  const at::Tensor positions = as_floats(table), numbers = index.contiguous();
  std::vector<int64_t> sizes = index.sizes().vec();
  sizes.push_back(visible.size(-1));
  at::Tensor out = empty(sizes, visible, visible.scalar_type());

  AssembleTokens x{};
  x.visible_count = visible.size(-2);
  x.length = index.size(-1);
  x.sequences = x.length == 0 ? 0 : index.numel() / x.length;
  x.width = visible.size(-1);
  x.visible = rows_of(tokens);
  x.mask_token = mask.const_data_ptr<float>();
  x.table = positions.const_data_ptr<float>();
  x.index = index_of(numbers, table.size(0));
  x.out = out.data_ptr();
  assemble_tokens(x);
  return out;
}

std::optional<std::tuple<at::Tensor, at::Tensor, at::Tensor>> assemble_backward(
    const at::Tensor& grad, const at::Tensor& index, int64_t count, int64_t positions,
    const std::vector<bool>& needed) {
  const bool good = is_plain(grad) && is_index(index) && is_stored(grad) && grad.dim() >= 2 &&
                    has_sizes(index, grad, 1, {}) && needed.size() == 3 && count >= 0 &&
                    count <= grad.size(-2);
  if (!good) return std::nullopt;
  const at::Tensor rows = with_rows(grad), numbers = index.contiguous();
  const int64_t width = grad.size(-1);
  std::vector<int64_t> sizes = grad.sizes().vec();
  sizes[sizes.size() - 2] = count;
  if (!needed[0]) sizes = {0};
  at::Tensor visible_grad = empty(sizes, grad, grad.scalar_type());
  at::Tensor mask_token_grad = empty({needed[1] ? width : 0}, grad, at::kFloat);
  at::Tensor table_grad = needed[2] ? empty({positions, width}, grad, at::kFloat)
                                    : empty({0}, grad, at::kFloat);

  AssembleTokensBackward x{};
  x.visible_count = count;
  x.length = index.size(-1);
  x.sequences = x.length == 0 ? 0 : index.numel() / x.length;
  x.width = width;
  x.positions = positions;
  x.grad = rows_of(rows);
  x.index = needed[2] ? index_of(numbers, positions) : Index{};
  if (needed[0]) x.visible_grad = visible_grad.data_ptr();
  if (needed[1]) x.mask_token_grad = mask_token_grad.data_ptr<float>();
  if (needed[2]) x.table_grad = table_grad.data_ptr<float>();
  assemble_tokens_backward(x);
  return std::make_tuple(visible_grad, mask_token_grad, table_grad);
}

class Assemble : public torch::autograd::Function<Assemble> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& visible,
                            const at::Tensor& mask_token, const at::Tensor& table,
                            const at::Tensor& index) {
    ctx->save_for_backward({index});
    ctx->saved_data["count"] = visible.size(-2);
    ctx->saved_data["positions"] = table.size(0);
    return run_forward(visible, mask_token, table, index);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    return differentiate_once("assemble_tokens", [&]() -> variable_list {
      const std::vector<bool> needed = {ctx->needs_input_grad(0), ctx->needs_input_grad(1),
                                        ctx->needs_input_grad(2)};
      const at::Tensor index = ctx->get_saved_variables()[0];
      const int64_t count = ctx->saved_data["count"].toInt();
      const int64_t positions = ctx->saved_data["positions"].toInt();
      variable_list found;
      if (is_plain(grads[0])) {
        const auto [visible, mask_token, table] =
            assemble_backward(grads[0], index, count, positions, needed).value();
        found = {visible, mask_token, table};
      } else {
        found = call_operator("seamo::_assemble_tokens_backward",
                              {grads[0], index, count, positions, needed});
      }
      found = only(needed, found);
      return {found[0], found[1], found[2], {}};
    });
  }
};

MaybeTensor assemble_forward(const at::Tensor& visible, const at::Tensor& mask_token,
                             const at::Tensor& table, const at::Tensor& index) {
  const bool good = are_plain(visible, mask_token, table) && is_index(index) &&
                    is_stored(visible) && visible.dim() >= 2 && table.dim() == 2 &&
                    mask_token.is_floating_point() && table.is_floating_point() &&
                    mask_token.sizes() == visible.sizes().slice(visible.dim() - 1) &&
                    table.size(1) == visible.size(-1) && index.dim() == visible.dim() - 1 &&
                    has_sizes(index, visible, 2, {index.size(-1)}) &&
                    index.size(-1) >= visible.size(-2);
  if (!good) return std::nullopt;
  return wants_gradient(visible, mask_token, table)
             ? Assemble::apply(visible, mask_token, table, index)
             : run_forward(visible, mask_token, table, index);
}

}  // namespace
}  // namespace seamo

void bind_assemble_tokens(pybind11::module_& module) {
  using without_gil = pybind11::call_guard<pybind11::gil_scoped_release>;
  module.def("assemble_tokens", &seamo::assemble_forward, without_gil());
  module.def("assemble_tokens_backward", &seamo::assemble_backward, without_gil());
}
