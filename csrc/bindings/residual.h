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

// Sums of columns: one row for each block of rows, added at the end.
class ColumnSum {
 public:
  ColumnSum(bool wanted, int64_t blocks, int64_t width, const at::Tensor& like)
      : parts_(empty_if(wanted, {blocks, width}, like)) {}

  void add(int64_t block, const at::Tensor& rows) {
    if (!parts_.defined()) return;
    sum_rows({floats(rows), rows.size(0), 0, rows.stride(0), false}, rows.size(0), rows.size(1),
             floats(parts_[block]));
  }

  at::Tensor value() const {
    if (!parts_.defined()) return {};
    at::Tensor sum = empty({parts_.size(1)}, parts_, at::kFloat);
    sum_rows({floats(parts_), parts_.size(0), 0, parts_.size(1), false}, parts_.size(0),
             parts_.size(1), floats(sum));
    return sum;
  }

 private:
  at::Tensor parts_;
};

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

// The gradients of x, by way of the norm and of the residual connection, and of the norm.
class NormGradient {
 public:
  NormGradient(const LayerNorm& norm, const at::Tensor& x, int64_t block)
      : norm_(norm),
        x_(x),
        parts_(ceil_div(block, kNormRows)),
        x_grad(empty(x.sizes(), x, at::kFloat)),
        sums_(empty({2, parts_ * ceil_div(x.numel() / norm.width, block), norm.width}, x,
                    at::kFloat)) {}

  // `grad` is of the norm's result of rows [begin, end); `residual` begins with these rows.
  void add(int64_t block, int64_t begin, int64_t end, const at::Tensor& grad, Moments moments,
           const Residual& residual) {
    const int64_t first = block * parts_ * norm_.width;
    normalize_backward({norm_, floats(x_) + begin * norm_.width, moments, floats(grad), residual,
                        floats(x_grad) + begin * norm_.width, floats(sums_[0]) + first,
                        floats(sums_[1]) + first},
                       end - begin);
    used_ = block * parts_ + ceil_div(end - begin, kNormRows);
  }

  at::Tensor weight() const { return sum(sums_[0]); }
  at::Tensor bias() const { return sum(sums_[1]); }

 private:
  at::Tensor sum(const at::Tensor& parts) const {
    at::Tensor total = empty({norm_.width}, x_, at::kFloat);
    sum_rows({floats(parts), used_, 0, norm_.width, false}, used_, norm_.width, floats(total));
    return total;
  }

  LayerNorm norm_;
  at::Tensor x_;
  int64_t parts_;  // sums of a block

 public:
  at::Tensor x_grad;

 private:
  at::Tensor sums_;
  int64_t used_ = 0;
};

}  // namespace seamo
