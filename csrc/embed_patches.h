// embed_patches on the CPU: what is added to the projection of each patch. The products of matrices
// are PyTorch's.

#pragma once

#include "common.h"

namespace seamo {

struct EmbedPatches {
  int64_t width;        // values a token
  const float* bias;    // [width] or null
  const float* table;   // [positions, width]
  Index index;          // [count]
  const float* offset;  // [count / group, width] or null
  int64_t group;
  void* out;  // [count, width]
  bool half;  // of out
};

// Tokens [begin, end) from their projections, which may lie where the tokens go.
void finish_tokens(const EmbedPatches& x, int64_t begin, int64_t end, const float* projections);

}  // namespace seamo
