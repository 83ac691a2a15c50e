// Products of matrices, which are PyTorch's.

#pragma once

#include "common.h"

namespace seamo {

// Floats; the strides are of rows and of columns.
struct MatrixView {
  float* data;
  int64_t rows, columns, stride, column_stride;

  static MatrixView contiguous(float* data, int64_t rows, int64_t columns) {
    return {data, rows, columns, columns, 1};
  }

  MatrixView transposed() const { return {data, columns, rows, column_stride, stride}; }
  MatrixView row_range(int64_t begin, int64_t end) const {
    return {data + begin * stride, end - begin, columns, stride, column_stride};
  }
  MatrixView column_range(int64_t begin, int64_t end) const {
    return {data + begin * column_stride, rows, end - begin, stride, column_stride};
  }
};

// to = a @ b
void product(const MatrixView& to, const MatrixView& a, const MatrixView& b);

// to += a @ b
void add_product(const MatrixView& to, const MatrixView& a, const MatrixView& b);

// Keeps MKL, where PyTorch uses it, from splitting sums by the number of threads it might use.
class OneThread {
 public:
  OneThread();
  ~OneThread();
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_;
};

}  // namespace seamo
