// Tensors as the structs of csrc/*.h describe them.

#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/utils/pybind.h>

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>

#include "../common.h"

namespace seamo {

// Whether x is an ordinary tensor on the CPU. Others reach the kernels through the dispatcher, or are
// left to the reference.
inline bool is_plain(const at::Tensor& x) {
  constexpr c10::DispatchKeySet special{
      c10::DispatchKey::Python,       c10::DispatchKey::Batched,
      c10::DispatchKey::FuncTorchBatched,
      c10::DispatchKey::Functionalize,    c10::DispatchKey::FuncTorchGradWrapper,
      c10::DispatchKey::Negative,         c10::DispatchKey::ZeroTensor};
  return x.is_cpu() && x.layout() == at::kStrided && !x.key_set().has_any(special);
}

template <typename... Tensors>
bool are_plain(const Tensors&... tensors) {
  return (... && is_plain(tensors));
}

// Whether no gradient can be asked of tensors for which an operation gives none.
template <typename... Tensors>
bool are_constant(const Tensors&... tensors) {
  return (... && !tensors.requires_grad());
}

inline bool is_index(const at::Tensor& x) {
  return is_plain(x) && (x.scalar_type() == at::kInt || x.scalar_type() == at::kLong);
}

// Whether the sizes of x are those of `like` without the last `dropped`, then `last`.
inline bool has_sizes(const at::Tensor& x, const at::Tensor& like, int64_t dropped,
                      std::initializer_list<int64_t> last) {
  const int64_t lead = like.dim() - dropped;
  return lead >= 0 && x.dim() == lead + static_cast<int64_t>(last.size()) &&
         x.sizes().slice(0, lead) == like.sizes().slice(0, lead) &&
         std::equal(last.begin(), last.end(), x.sizes().begin() + lead);
}

inline bool is_half(const at::Tensor& x) { return x.scalar_type() == at::kBFloat16; }

// Whether the kernels read and write this dtype; the reference implementation runs otherwise.
inline bool is_stored(const at::Tensor& x) { return is_half(x) || x.scalar_type() == at::kFloat; }

inline at::Tensor as_floats(const at::Tensor& x) { return x.to(at::kFloat).contiguous(); }

// A copy only where the layout cannot be described: blocks of x.size(-2) rows at equal distances.
inline at::Tensor with_rows(const at::Tensor& x) {
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

// The rows of what with_rows returned.
inline Rows rows_of(const at::Tensor& x) {
  const int64_t dims = x.dim();
  Rows rows{x.data_ptr(), 1, 0, 0, is_half(x)};
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

// Raises IndexError unless all numbers are in [0, size); `index` must be contiguous.
inline Index index_of(const at::Tensor& index, int64_t size) {
  const Index numbers{index.data_ptr(), index.scalar_type() == at::kLong};
  int64_t low = 0, high = -1;
  for (int64_t i = 0; i < index.numel(); ++i) {
    low = std::min(low, numbers[i]);
    high = std::max(high, numbers[i]);
  }
  if (low < 0 || high >= size) {
    throw pybind11::index_error("index must hold patch numbers in [0, " + std::to_string(size) +
                                "), but got " + std::to_string(low < 0 ? low : high));
  }
  return numbers;
}

inline at::Tensor empty(at::IntArrayRef sizes, const at::Tensor& like, at::ScalarType dtype) {
  return at::empty(sizes, like.options().dtype(dtype));
}

using MaybeTensor = std::optional<at::Tensor>;

}  // namespace seamo
