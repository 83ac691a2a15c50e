// residual_attention on the CPU: x[:, skip:] + proj(attention(qkv(norm(x)))[:, skip:]), in floats.

#pragma once

#include "matrix.h"
#include "residual.h"

namespace seamo {

struct ResidualAttention {
  int64_t sequences, length, width, heads;
  int64_t skip;      // leading tokens of a sequence that have no query
  int64_t groups;    // of consecutive keys of a sequence
  const bool* keep;  // [sequences, groups], which may be attended to; null: all
  const float* x;    // [sequences, length, width]
  LayerNorm norm;
  MatrixView qkv_weight, proj_weight;  // [3 * width, width], [width, width]
  const float *qkv_bias, *proj_bias;   // [3 * width], [width]
  float* out;                          // [sequences, length - skip, width]

  // What the backward pass needs.
  float* projected;  // projected_size(sequences), what qkv gives before its bias
  float* attended;   // [sequences, length - skip, width]
  float* lse;        // [sequences, heads, length - skip]

  int64_t queries() const { return length - skip; }
  int64_t projected_size(int64_t of_sequences) const {
    return of_sequences * width * (2 * length + queries());
  }
};

// Gradients have the sizes of what they are of. All but that of x may be null: not wanted.
struct ResidualAttentionBackward {
  ResidualAttention forward;  // out and proj_bias are not used
  const float* grad;          // [sequences, length - skip, width]
  float *x_grad, *norm_weight_grad, *norm_bias_grad;
  float *qkv_weight_grad, *qkv_bias_grad, *proj_weight_grad, *proj_bias_grad;
};

void residual_attention(const ResidualAttention& x);
void residual_attention_backward(const ResidualAttentionBackward& y);

}  // namespace seamo
