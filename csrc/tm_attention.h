// tm_attention on the CPU: attention of each group of tokens to the groups it may see.

#pragma once

#include "common.h"

namespace seamo {

// A tensor [B, T, M, K, H, d] whose last stride is 1.
struct Tokens {
  void* data;
  int64_t batch, season, modality, token, head;  // strides
};

struct TmAttention {
  int64_t batch, seasons, modalities, queries, keys, heads, width;
  bool half;              // storage: bf16, else float
  const bool* adjacency;  // [T * M, T * M], row: group of the query
  const bool* valid;      // [B, T * M]
  bool any_query;         // queries of groups that are not valid attend as well
  Tokens q, k, v, out;
  const float* bias;  // [3, H, d], added to q, k and v; may be null
  float* lse;         // [B, T, M, H, K]; +inf for a query without keys
};

struct TmAttentionBackward {
  TmAttention forward;  // out and lse as the forward pass wrote them
  Tokens grad;
  Tokens q_grad, k_grad, v_grad;
};

void tm_attention(const TmAttention& x);
void tm_attention_backward(const TmAttentionBackward& x);

}  // namespace seamo
