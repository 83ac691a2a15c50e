// Tensors as the structs of csrc/*.h describe them.

#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "../matrix.h"

namespace seamo {

using MaybeTensor = std::optional<at::Tensor>;
using Tensors = std::vector<at::Tensor>;

// What is wrong with an index: an IndexError in Python.
struct IndexError {
  std::string message;
};

// Whether x is an ordinary tensor on the CPU. Others reach the kernels through the dispatcher, or
// are left to the reference.
bool is_plain(const at::Tensor& x);

// Whether the kernels read and write this dtype; the reference implementation runs otherwise.
bool is_stored(const at::Tensor& x);

bool is_half(const at::Tensor& x);
bool is_float(const at::Tensor& x);  // and plain
bool is_index(const at::Tensor& x);  // and plain
bool is_vector(const at::Tensor& x, int64_t width);
bool is_matrix(const at::Tensor& x, int64_t rows, int64_t columns);

template <typename... Given>
bool are_plain(const Given&... tensors) {
  return (... && is_plain(tensors));
}

// Whether no gradient can be asked of tensors for which an operation gives none.
template <typename... Given>
bool are_constant(const Given&... tensors) {
  return (... && !tensors.requires_grad());
}

// Whether the sizes of x are those of `like` without the last `dropped`, then `last`.
bool has_sizes(const at::Tensor& x, const at::Tensor& like, int64_t dropped,
               std::initializer_list<int64_t> last);

// New memory, not initialised; NaN where torch.use_deterministic_algorithms fills it.
at::Tensor empty(at::IntArrayRef sizes, const at::Tensor& like, at::ScalarType dtype);

// The same of floats, or an undefined tensor.
at::Tensor empty_if(bool wanted, at::IntArrayRef sizes, const at::Tensor& like);

at::Tensor as_floats(const at::Tensor& x);

// [..., D] as [rows, D]
at::Tensor as_rows(const at::Tensor& x);

// A copy only where the layout cannot be described: blocks of x.size(-2) rows at equal distances.
at::Tensor with_rows(const at::Tensor& x);

// The rows of what with_rows returned.
StoredRows rows_of(const at::Tensor& x);

// Raises IndexError unless all numbers are in [0, size); `index` must be contiguous.
Index index_of(const at::Tensor& index, int64_t size);

// A null pointer for an undefined tensor.
float* floats(const at::Tensor& x);

// A matrix of floats; its data is null for an undefined tensor.
MatrixView matrix_of(const at::Tensor& x);

// The first values of a list, to be given names: const auto [rows, weight] = named<2>(list).
template <size_t kCount, typename Value>
std::array<Value, kCount> named(const std::vector<Value>& list) {
  std::array<Value, kCount> values;
  for (size_t i = 0; i < kCount; ++i) values[i] = list.at(i);
  return values;
}

}  // namespace seamo
