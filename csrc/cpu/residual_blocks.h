// What the two residual branches of a transformer block share: rows in blocks, whose intermediate
// results stay in the cache, around PyTorch's products of matrices.

#pragma once

#include <utility>

#include "../matrix.h"
#include "../residual.h"
#include "../row_sums.h"

namespace seamo {

// Rows of a block: enough for products near their best rate.
inline int64_t block_rows() { return 1024 * thread_count(); }

// The gradient of a weight, to which blocks of rows add; nothing if nobody asks for it.
class WeightSum {
 public:
  explicit WeightSum(const MatrixView& to) : to_(to) {}

  void add(const MatrixView& grad, const MatrixView& x) {
    if (to_.data == nullptr) return;
    (std::exchange(begun_, true) ? add_product : product)(to_, grad.transposed(), x);
  }

 private:
  MatrixView to_;
  bool begun_ = false;
};

// Sums of columns, found for some rows at a time.
class ColumnSum {
 public:
  ColumnSum(int64_t parts, int64_t width) : width_(width), parts_(parts * width) {}

  // Where the sums of the next `count` parts are to be written.
  float* next(int64_t count) {
    return parts_.data() + std::exchange(used_, used_ + count) * width_;
  }

  void write(float* to) const {
    if (to != nullptr) sum_rows({{parts_.data(), used_, 0, width_}, false}, used_, width_, to);
  }

 private:
  int64_t width_, used_ = 0;
  Scratch<float> parts_;
};

// Parts of `count` rows in blocks of at most `most`, each summed by the kernels.
inline int64_t sum_parts(int64_t count, int64_t most) {
  return ceil_div(count, most) * ceil_div(most, kSumRows);
}

// The layer norm that a branch begins with, block by block, in both directions.
class NormBlock {
 public:
  NormBlock(const LayerNorm& norm, const float* x, int64_t most)
      : norm_(norm), x_(x), most_(most), normal_(most * norm.width), moments_(2 * most) {}

  // The norm of rows [begin, end) of x, until the next call.
  MatrixView operator()(int64_t begin, int64_t end) {
    const float* rows = x_ + begin * norm_.width;
    normalize(norm_, rows, end - begin, normal_.data(), moments());
    return MatrixView::contiguous(normal_.data(), end - begin, norm_.width);
  }

  Moments moments() const { return {moments_.data(), moments_.data() + most_}; }

 private:
  LayerNorm norm_;
  const float* x_;
  int64_t most_;
  Scratch<float> normal_, moments_;
};

// The gradients of x, by way of the norm and of the residual connection, and of the norm; and the
// sum of the gradients that the residual branch gets, which is that of its last bias.
class NormGradient {
 public:
  NormGradient(const LayerNorm& norm, const float* x, int64_t count, int64_t most, float* x_grad)
      : weight(sum_parts(count, most), norm.width),
        bias(sum_parts(count, most), norm.width),
        residual(sum_parts(count, most), norm.width),
        norm_(norm),
        x_(x),
        x_grad_(x_grad) {}

  // `grad` is of the norm's result of rows [begin, end); `of_residual` begins with these rows.
  void add(int64_t begin, int64_t end, const float* grad, Moments moments,
           const Residual& of_residual) {
    const int64_t parts = ceil_div(end - begin, kSumRows), first = begin * norm_.width;
    normalize_backward({norm_, x_ + first, moments, grad, of_residual, x_grad_ + first,
                        weight.next(parts), bias.next(parts), residual.next(parts)},
                       end - begin);
  }

  ColumnSum weight, bias, residual;

 private:
  LayerNorm norm_;
  const float* x_;
  float* x_grad_;
};

}  // namespace seamo
