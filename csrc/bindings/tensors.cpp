#include "tensors.h"

#include <ATen/ops/empty_ops.h>

#include <algorithm>

namespace seamo {

bool is_plain(const at::Tensor& x) {
  constexpr c10::DispatchKeySet special{c10::DispatchKey::Python,
                                        c10::DispatchKey::Batched,
                                        c10::DispatchKey::FuncTorchBatched,
                                        c10::DispatchKey::Functionalize,
                                        c10::DispatchKey::FuncTorchGradWrapper,
                                        c10::DispatchKey::Negative,
                                        c10::DispatchKey::ZeroTensor};
  return x.is_cpu() && x.layout() == at::kStrided && !x.key_set().has_any(special);
}

bool is_half(const at::Tensor& x) { return x.scalar_type() == at::kBFloat16; }

bool is_stored(const at::Tensor& x) { return is_half(x) || x.scalar_type() == at::kFloat; }

bool is_float(const at::Tensor& x) { return is_plain(x) && x.scalar_type() == at::kFloat; }

bool is_index(const at::Tensor& x) {
  return is_plain(x) && (x.scalar_type() == at::kInt || x.scalar_type() == at::kLong);
}

bool is_vector(const at::Tensor& x, int64_t width) {
  return is_float(x) && x.dim() == 1 && x.size(0) == width && x.is_contiguous();
}

bool is_matrix(const at::Tensor& x, int64_t rows, int64_t columns) {
  return is_float(x) && x.dim() == 2 && x.size(0) == rows && x.size(1) == columns;
}

bool has_sizes(const at::Tensor& x, const at::Tensor& like, int64_t dropped,
               std::initializer_list<int64_t> last) {
  const int64_t lead = like.dim() - dropped;
  return lead >= 0 && x.dim() == lead + static_cast<int64_t>(last.size()) &&
         x.sizes().slice(0, lead) == like.sizes().slice(0, lead) &&
         std::equal(last.begin(), last.end(), x.sizes().begin() + lead);
}

// ATen/ops/empty.h would take longer to compile than all of this file.
at::Tensor empty(at::IntArrayRef sizes, const at::Tensor& like, at::ScalarType dtype) {
  return at::_ops::empty_memory_format::call(c10::fromIntArrayRefSlow(sizes), dtype, at::kStrided,
                                             like.device(), false, std::nullopt);
}

at::Tensor empty_if(bool wanted, at::IntArrayRef sizes, const at::Tensor& like) {
  return wanted ? empty(sizes, like, at::kFloat) : at::Tensor();
}

at::Tensor as_floats(const at::Tensor& x) { return x.to(at::kFloat).contiguous(); }

at::Tensor as_rows(const at::Tensor& x) { return x.reshape({-1, x.size(-1)}); }

at::Tensor with_rows(const at::Tensor& x) {
  const int64_t dims = x.dim();
  bool described = dims < 1 || x.stride(-1) == 1 || x.size(-1) <= 1;
  int64_t expected = -1;
  for (int64_t dim = dims - 3; dim >= 0; --dim) {
    if (x.size(dim) == 1) continue;
    if (expected >= 0) described &= x.stride(dim) == expected;
    expected = x.stride(dim) * x.size(dim);
  }
  return described ? x : x.contiguous();
}

StoredRows rows_of(const at::Tensor& x) {
  const int64_t dims = x.dim();
  StoredRows rows{{x.data_ptr(), 1, 0, 0}, is_half(x)};
  if (dims < 2) return rows;
  rows.inner = std::max<int64_t>(x.size(-2), 1);
  rows.stride = x.stride(-2);
  for (int64_t dim = dims - 3; dim >= 0; --dim) {
    if (x.size(dim) == 1) continue;
    rows.outer_stride = x.stride(dim);
    break;
  }
  return rows;
}

Index index_of(const at::Tensor& index, int64_t size) {
  const Index numbers{index.data_ptr(), index.scalar_type() == at::kLong};
  int64_t low = 0, high = -1;
  for (int64_t i = 0; i < index.numel(); ++i) {
    low = std::min(low, numbers[i]);
    high = std::max(high, numbers[i]);
  }
  if (low < 0 || high >= size) {
    throw IndexError{"index must hold patch numbers in [0, " + std::to_string(size) +
                     "), but got " + std::to_string(low < 0 ? low : high)};
  }
  return numbers;
}

float* floats(const at::Tensor& x) { return x.defined() ? x.data_ptr<float>() : nullptr; }

MatrixView matrix_of(const at::Tensor& x) {
  if (!x.defined()) return {};
  return {floats(x), x.size(0), x.size(1), x.stride(0), x.stride(1)};
}

}  // namespace seamo
