// tm_attention on NVIDIA GPUs: what Python passes.

#pragma once

#include "params.h"

namespace seamo {

// A tensor [B, T, M, K, H, d] whose last stride is 1.
SEAMO_PARAMS(Tokens, const void* data; int64_t batch, season, modality, token, head;)

// `links` is room for the lists of groups, [directions, B, T * M, 1 + T * M]: how many groups a
// group sees, then which; in the backward pass also how many see it, then which.
SEAMO_PARAMS(AttentionInputs, Tokens q, k, v;
             const bool* adjacency;  // [T * M, T * M], row: group of the query
             const bool* valid;      // [B, T * M]
             int32_t* links;
             int64_t storage, batch, seasons, modalities, queries, keys, heads, width; float scale;
             int32_t tf32;)

// out is contiguous; lse [B, T, M, H, K], +inf for a query without keys.
SEAMO_PARAMS(TmAttention, AttentionInputs inputs; void* out; float* lse; void* stream;)

// All but grad is contiguous; delta, sum(grad * out) of each query, is room that it needs.
SEAMO_PARAMS(TmAttentionBackward, AttentionInputs inputs; Tokens grad; const void* out;
             const float* lse; float* delta; void *q_grad, *k_grad, *v_grad; void* stream;)

constexpr int64_t kWidestHead = 128;

// Makes the lists of groups: in the first direction, or in both.
int list_links(const AttentionInputs& x, int64_t directions, void* stream);

}  // namespace seamo

SEAMO_EXPORT int seamo_tm_attention(const seamo::TmAttention* params);
SEAMO_EXPORT int seamo_tm_attention_backward(const seamo::TmAttentionBackward* params);
