// embed_patches for the module of the CPU kernels: PyTorch's products of matrices, each within one
// thread and of a size that its sums do not depend on, so that no number of threads changes a bit.

#include "../embed_patches.h"

#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/mm.h>
#include <pybind11/stl.h>

#include <vector>

#include "../row_sums.h"
#include "autograd.h"
#include "tensors.h"

extern "C" int MKL_Set_Num_Threads_Local(int) __attribute__((weak));

namespace seamo {
namespace {

// Keeps MKL, where PyTorch uses it, from splitting sums by the number of threads it might use.
class OneThread {
 public:
  OneThread() : before_(MKL_Set_Num_Threads_Local ? MKL_Set_Num_Threads_Local(1) : 0) {}
  ~OneThread() {
    if (MKL_Set_Num_Threads_Local) MKL_Set_Num_Threads_Local(before_);
  }

 private:
  int before_;
};

// body(begin, end) for `parts` of [0, count), on torch's threads.
template <typename Body>
void for_parts(int64_t count, int64_t parts, const Body& body) {
  at::parallel_for(0, parts, 1, [&](int64_t first, int64_t last) {
    const at::AutoDispatchBelowADInplaceOrView no_autograd;  // a thread has its own
    const OneThread one_thread;
    for (int64_t part = first; part < last; ++part) {
      body(count * part / parts, count * (part + 1) / parts);
    }
  });
}

at::Tensor as_matrix(const at::Tensor& x) { return x.reshape({-1, x.size(-1)}); }

// A row's sums do not depend on how many rows there are, if not very few: a part for each thread,
// since each packs the weight anew.
void project(const EmbedPatches& x, const at::Tensor& patches, const at::Tensor& weight,
             const at::Tensor& out) {
  constexpr int64_t kLeast = 64;
  const int64_t count = patches.size(0), most = std::max<int64_t>(1, count / kLeast);
  for_parts(count, std::min<int64_t>(at::get_num_threads(), most), [&](int64_t begin, int64_t end) {
    at::Tensor rows = patches.slice(0, begin, end), to = out.slice(0, begin, end);
    if (x.half) to = at::empty(to.sizes(), weight.options());
    at::mm_out(to, rows.to(at::kFloat), weight.t());
    finish_tokens(x, begin, end, to.const_data_ptr<float>());
  });
}

// Sums over all patches are split as the size of the result suggests: parts of one size always.
void weight_gradient(const at::Tensor& grad, const at::Tensor& patches, const at::Tensor& to) {
  constexpr int64_t kRows = 192;
  const int64_t width = to.size(0);
  for_parts(width, std::max<int64_t>(2, width / kRows), [&](int64_t begin, int64_t end) {
    at::Tensor part = to.slice(0, begin, end);
    at::mm_out(part, grad.slice(1, begin, end).t(), patches);
  });
}

// Whether a bias or offset is absent or has the sizes of `like` without `dropped`, then `width`.
bool is_term(const MaybeTensor& x, const at::Tensor& like, int64_t dropped, int64_t width) {
  return !x || (is_plain(*x) && x->is_floating_point() && has_sizes(*x, like, dropped, {width}));
}

at::Tensor run_forward(const at::Tensor& patches, const at::Tensor& weight, const MaybeTensor& bias,
                       const at::Tensor& table, const at::Tensor& index,
                       const MaybeTensor& offset) {
  const at::Tensor positions = as_floats(table), numbers = index.contiguous();
  const at::Tensor biases = bias ? as_floats(*bias) : at::Tensor();
  const at::Tensor offsets = offset ? as_floats(*offset) : at::Tensor();
  std::vector<int64_t> sizes = patches.sizes().vec();
  sizes.back() = weight.size(0);
  at::Tensor out = empty(sizes, patches, patches.scalar_type());

  EmbedPatches x{};
  x.width = weight.size(0);
  x.bias = bias ? biases.const_data_ptr<float>() : nullptr;
  x.table = positions.const_data_ptr<float>();
  x.index = index_of(numbers, table.size(0));
  x.offset = offset ? offsets.const_data_ptr<float>() : nullptr;
  x.group = patches.size(-2);
  x.out = out.data_ptr();
  x.half = is_half(out);
  if (out.numel() > 0) project(x, as_matrix(patches), as_floats(weight), as_matrix(out));
  return out;
}

std::optional<std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>> embed_backward(
    const at::Tensor& grad, const at::Tensor& patches, const at::Tensor& index, int64_t positions,
    const std::vector<bool>& needed) {
  const bool good = are_plain(grad, patches) && is_index(index) && is_stored(grad) &&
                    is_stored(patches) && grad.dim() >= 2 && patches.dim() >= 2 &&
                    grad.numel() > 0 && patches.numel() > 0 && has_sizes(index, grad, 1, {}) &&
                    has_sizes(patches, grad, 1, {patches.size(-1)}) && needed.size() == 4;
  if (!good) return std::nullopt;
  const int64_t width = grad.size(-1), values = patches.size(-1), group = grad.size(-2);
  const int64_t count = index.numel(), groups = count / group;
  std::vector<int64_t> offset_sizes = grad.sizes().vec();
  offset_sizes.erase(offset_sizes.end() - 2);
  const auto make = [&](bool wanted, at::IntArrayRef sizes) {
    return empty(wanted ? sizes : at::IntArrayRef{0}, grad, at::kFloat);
  };
  const at::Tensor weight_grad = make(needed[0], {width, values});
  const at::Tensor bias_grad = make(needed[1], {width});
  const at::Tensor table_grad = make(needed[2], {positions, width});
  const at::Tensor offset_grad = make(needed[1] || needed[3], offset_sizes);

  const at::Tensor grad_rows = with_rows(grad), numbers = index.contiguous();
  const Rows rows = rows_of(grad_rows);
  if (needed[0]) {
    weight_gradient(as_matrix(grad).to(at::kFloat), as_matrix(patches).to(at::kFloat), weight_grad);
  }
  if (needed[1] || needed[3]) {
    sum_groups(rows, groups, group, width, offset_grad.data_ptr<float>());
  }
  if (needed[1]) {
    const Rows sums{offset_grad.data_ptr(), groups, 0, width, false};
    sum_rows(sums, groups, width, bias_grad.data_ptr<float>());
  }
  if (needed[2]) {
    sum_by_index(rows, index_of(numbers, positions), count, width, positions,
                 table_grad.data_ptr<float>());
  }
  return std::make_tuple(weight_grad, bias_grad, table_grad,
                         needed[3] ? offset_grad : make(false, {}));
}

class Embed : public torch::autograd::Function<Embed> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& patches,
                            const at::Tensor& weight, const MaybeTensor& bias,
                            const at::Tensor& table, const at::Tensor& index,
                            const MaybeTensor& offset) {
    ctx->save_for_backward({patches, index});
    ctx->saved_data["positions"] = table.size(0);
    ctx->saved_data["needed"] = requires_grad(weight) + 2 * requires_grad(bias) +
                                4 * requires_grad(table) + 8 * requires_grad(offset);
    return run_forward(patches, weight, bias, table, index, offset);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    return differentiate_once("embed_patches", [&]() -> variable_list {
      const variable_list saved = ctx->get_saved_variables();
      const int64_t bits = ctx->saved_data["needed"].toInt();
      const std::vector<bool> needed = {(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0,
                                        (bits & 8) != 0};
      const int64_t positions = ctx->saved_data["positions"].toInt();
      variable_list found;
      if (is_plain(grads[0])) {
        const auto [weight, bias, table, offset] =
            embed_backward(grads[0], saved[0], saved[1], positions, needed).value();
        found = {weight, bias, table, offset};
      } else {
        found = call_operator("seamo::_embed_patches_backward",
                              {grads[0], saved[0], saved[1], positions, needed});
      }
      found = only(needed, found);
      return {{}, found[0], found[1], found[2], {}, found[3]};
    });
  }
};

MaybeTensor embed_forward(const at::Tensor& patches, const at::Tensor& weight,
                          const MaybeTensor& bias, const at::Tensor& table, const at::Tensor& index,
                          const MaybeTensor& offset) {
  const bool good = are_plain(patches, weight, table) && are_constant(patches) &&
                    is_index(index) && is_stored(patches) && patches.dim() >= 2 &&
                    patches.numel() > 0 && weight.dim() == 2 && weight.size(0) > 0 && table.dim() == 2 &&
                    weight.is_floating_point() && table.is_floating_point() &&
                    weight.size(1) == patches.size(-1) && table.size(1) == weight.size(0) &&
                    has_sizes(index, patches, 1, {}) &&
                    is_term(bias, weight, 2, weight.size(0)) &&
                    is_term(offset, patches, 2, weight.size(0));
  if (!good) return std::nullopt;
  return wants_gradient(weight, bias, table, offset)
             ? Embed::apply(patches, weight, bias, table, index, offset)
             : run_forward(patches, weight, bias, table, index, offset);
}

}  // namespace
}  // namespace seamo

void bind_embed_patches(pybind11::module_& module) {
  using without_gil = pybind11::call_guard<pybind11::gil_scoped_release>;
  module.def("embed_patches", &seamo::embed_forward, without_gil());
  module.def("embed_patches_backward", &seamo::embed_backward, without_gil());
}
