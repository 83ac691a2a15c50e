// embed_patches on the CPU: a product of matrices, to which the other terms are added while it is
// in the cache.

#pragma once

#include "matrix.h"

namespace seamo {

struct EmbedPatches {
  int64_t count, values, width;  // patches, values of a patch, values of a token
  const void* patches;           // [count, values], stored like out
  int64_t stride, value_stride;  // of patches
  MatrixView weight;             // [width, values]
  const float* bias;             // [width] or null
  const float* table;            // [positions, width]
  Index index;                   // [count]
  const float* offset;           // [count / group, width] or null
  int64_t group;
  void* out;  // [count, width]
  bool half;  // of out
};

// A gradient that is not wanted is null.
struct EmbedPatchesBackward {
  int64_t count, group, positions;
  StoredRows grad;     // count rows
  MatrixView slopes;   // [count, width], the same as floats; used for the weight alone
  MatrixView patches;  // [count, values], used for the weight alone
  Index index;         // [count]
  int64_t width;
  MatrixView weight_grad;  // [width, values]; data is null if it is not wanted
  float* bias_grad;        // [width]
  float* table_grad;       // [positions, width]
  float* offset_grad;      // [count / group, width]; the bias needs it too
};

void embed_patches(const EmbedPatches& x);
void embed_patches_backward(const EmbedPatchesBackward& x);

}  // namespace seamo
