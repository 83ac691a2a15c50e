// What the two residual branches of a transformer block share: rows in blocks, whose intermediate
// results stay in the cache, around PyTorch's products of matrices.

#pragma once

#include "../residual.h"

#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>

#include "../row_sums.h"
#include "autograd.h"
#include "tensors.h"

namespace seamo {

// Rows of a block: enough for products near their best rate.
inline int64_t block_rows() { return 1024 * at::get_num_threads(); }

inline bool is_float(const at::Tensor& x) { return is_plain(x) && x.scalar_type() == at::kFloat; }

template <typename... Tensors>
bool are_floats(const Tensors&... tensors) {
  return (... && is_float(tensors));
}

inline bool is_vector(const at::Tensor& x, int64_t width) {
  return is_float(x) && x.dim() == 1 && x.size(0) == width && x.is_contiguous();
}

inline bool is_matrix(const at::Tensor& x, int64_t rows, int64_t columns) {
  return is_float(x) && x.dim() == 2 && x.size(0) == rows && x.size(1) == columns;
}

// to = a @ b, or to += a @ b
inline void product(const at::Tensor& to, const at::Tensor& a, const at::Tensor& b,
                    bool add = false) {
  at::Tensor result = to;
  if (add) {
    at::addmm_out(result, to, a, b);
  } else {
    at::mm_out(result, a, b);
  }
}

inline float* floats(const at::Tensor& x) { return x.data_ptr<float>(); }

inline LayerNorm norm_of(const at::Tensor& weight, const at::Tensor& bias, double eps) {
  return {floats(weight), floats(bias), weight.size(0), static_cast<float>(eps)};
}

// The gradient of a weight, to which blocks of rows add; not defined if nobody asks for it.
class WeightSum {
 public:
  explicit WeightSum(const at::Tensor& to) : to_(to) {}

  void add(const at::Tensor& grad, const at::Tensor& x) {
    if (to_.defined()) product(to_, grad.t(), x, std::exchange(begun_, true));
  }

 private:
  at::Tensor to_;
  bool begun_ = false;
};

inline at::Tensor empty_if(bool wanted, at::IntArrayRef sizes, const at::Tensor& like) {
  return wanted ? empty(sizes, like, at::kFloat) : at::Tensor();
}

// Sums of columns, found for some rows at a time.
class ColumnSum {
 public:
  ColumnSum(int64_t parts, int64_t width, const at::Tensor& like)
      : parts_(empty({parts, width}, like, at::kFloat)) {}

  // Where the sums of the next `count` parts are to be written.
  float* next(int64_t count) {
    const int64_t first = std::exchange(used_, used_ + count);
    return floats(parts_) + first * parts_.size(1);
  }

  at::Tensor value() const {
    const int64_t width = parts_.size(1);
    at::Tensor sum = empty({width}, parts_, at::kFloat);
    sum_rows({floats(parts_), used_, 0, width, false}, used_, width, floats(sum));
    return sum;
  }

 private:
  at::Tensor parts_;
  int64_t used_ = 0;
};

// Parts of `count` rows in blocks of at most `most`, each summed by the kernels.
inline int64_t sum_parts(int64_t count, int64_t most) {
  return ceil_div(count, most) * ceil_div(most, kSumRows);
}

// The layer norm that a branch begins with, block by block, in both directions.
class NormBlock {
 public:
  NormBlock(const LayerNorm& norm, const at::Tensor& x, int64_t most)
      : norm_(norm),
        x_(x),
        normal_(empty({most, norm.width}, x, at::kFloat)),
        moments_(empty({2, most}, x, at::kFloat)) {}

  // The norm of rows [begin, end) of x, until the next call.
  at::Tensor operator()(int64_t begin, int64_t end) {
    const at::Tensor rows = normal_.slice(0, 0, end - begin);
    normalize(norm_, floats(x_) + begin * norm_.width, end - begin, floats(rows), moments());
    return rows;
  }

  Moments moments() const { return {floats(moments_), floats(moments_) + moments_.size(1)}; }

 private:
  LayerNorm norm_;
  at::Tensor x_, normal_, moments_;
};

// The gradients of x, by way of the norm and of the residual connection, and of the norm; and the
// sum of the gradients that the residual branch gets, which is that of its last bias.
class NormGradient {
 public:
  NormGradient(const LayerNorm& norm, const at::Tensor& x, int64_t most)
      : x_grad(empty(x.sizes(), x, at::kFloat)),
        weight(sum_parts(x.numel() / norm.width, most), norm.width, x),
        bias(sum_parts(x.numel() / norm.width, most), norm.width, x),
        residual(sum_parts(x.numel() / norm.width, most), norm.width, x),
        norm_(norm),
        x_(x) {}

  // `grad` is of the norm's result of rows [begin, end); `of_residual` begins with these rows.
  void add(int64_t begin, int64_t end, const at::Tensor& grad, Moments moments,
           const Residual& of_residual) {
    const int64_t parts = ceil_div(end - begin, kSumRows);
    normalize_backward({norm_, floats(x_) + begin * norm_.width, moments, floats(grad), of_residual,
                        floats(x_grad) + begin * norm_.width, weight.next(parts), bias.next(parts),
                        residual.next(parts)},
                       end - begin);
  }

  at::Tensor x_grad;
  ColumnSum weight, bias, residual;

 private:
  LayerNorm norm_;
  at::Tensor x_;
};

}  // namespace seamo
