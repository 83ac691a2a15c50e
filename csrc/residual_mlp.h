// residual_mlp on the CPU: x + fc2(gelu(fc1(norm(x)))), in rows of floats.

#pragma once

#include "matrix.h"
#include "residual.h"

namespace seamo {

struct ResidualMlp {
  int64_t count, width, hidden;
  const float* x;  // [count, width]
  LayerNorm norm;
  MatrixView weight1, weight2;  // [hidden, width], [width, hidden]
  const float *bias1, *bias2;   // [hidden], [width]
  float* out;                   // [count, width]
  float* before;  // [count, hidden], what the GELU takes less its bias; null if nobody needs it
};

// Gradients have the sizes of what they are of. All but that of x may be null: not wanted.
struct ResidualMlpBackward {
  ResidualMlp forward;  // out and bias2 are not used
  const float* grad;    // [count, width]
  float *x_grad, *norm_weight_grad, *norm_bias_grad;
  float *weight1_grad, *bias1_grad, *weight2_grad, *bias2_grad;
};

void residual_mlp(const ResidualMlp& x);
void residual_mlp_backward(const ResidualMlpBackward& y);

}  // namespace seamo
