// What the residual branches of a transformer block do between their products of matrices, on the
// CPU: layer norm, GELU and their gradients, over contiguous rows of floats.

#pragma once

#include "common.h"

namespace seamo {

struct LayerNorm {
  const float* weight;  // [width]
  const float* bias;    // [width]
  int64_t width;
  float eps;
};

// Moments of the rows that a layer norm has seen.
struct Moments {
  float* mean;   // [count]
  float* scale;  // [count], 1 / standard deviation
};

// to [count, width] = norm(x [count, width]).
void normalize(const LayerNorm& norm, const float* x, int64_t count, float* to, Moments moments);

// Rows in blocks: of each `length` rows the first `skip` have no gradient from the residual branch.
struct Residual {
  const float* grad;  // [count - skipped, width], contiguous
  int64_t length, skip;
};

constexpr int64_t kSumRows = 64;

// [ceil(count / kSumRows), width]: each row is the sum of kSumRows rows.
using PartialSums = float*;

struct NormalizeBackward {
  LayerNorm norm;
  const float* x;  // [count, width]
  Moments moments;
  const float* grad;  // [count, width], of the norm's result
  Residual residual;  // added to x_grad
  float* x_grad;      // [count, width]
  PartialSums weight_grad, bias_grad;
  PartialSums residual_sum;  // of residual.grad
};

void normalize_backward(const NormalizeBackward& y, int64_t count);

// to [count, width] = gelu(x + bias), the exact one.
void gelu(const float* x, const float* bias, int64_t count, int64_t width, float* to);

// to = gelu(x + bias) once more, and grad, of it, becomes the gradient of x, which is summed too.
void gelu_backward(const float* x, const float* bias, int64_t count, int64_t width, float* to,
                   float* grad, PartialSums sums);

// to [count, width] = rows + bias
void add_bias(const Rows& rows, const float* bias, int64_t count, int64_t width, float* to);

}  // namespace seamo
