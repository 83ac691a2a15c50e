// assemble_tokens on the CPU: visible tokens, then mask tokens, each with its position.

#pragma once

#include "common.h"

namespace seamo {

struct AssembleTokens {
  int64_t sequences, visible_count, length, width;
  StoredRows visible;       // sequences * visible_count rows
  const float* mask_token;  // [width]
  const float* table;       // [positions, width]
  Index index;              // [sequences, length]
  void* out;                // [sequences, length, width], stored like visible
};

// A gradient that is not wanted is null.
struct AssembleTokensBackward {
  int64_t sequences, visible_count, length, width, positions;
  StoredRows grad;  // sequences * length rows
  Index index;
  void* visible_grad;      // [sequences, visible_count, width], stored like grad
  float* mask_token_grad;  // [width]
  float* table_grad;       // [positions, width]
};

void assemble_tokens(const AssembleTokens& x);
void assemble_tokens_backward(const AssembleTokensBackward& x);

}  // namespace seamo
