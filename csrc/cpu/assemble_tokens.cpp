#include "../assemble_tokens.h"

#include "../row_sums.h"

#define SEAMO_KERNELS "assemble_tokens.isa.h"
#include "every_isa.h"

namespace seamo {

constexpr int64_t kGrain = 32;  // rows worth another thread

void assemble_tokens(const AssembleTokens& x) {
  const auto rows = SEAMO_DISPATCH(assemble_tokens_rows);
  parallel_for(x.sequences * x.length, kGrain,
               [&](int64_t begin, int64_t end) { rows(x, begin, end); });
}

void assemble_tokens_backward(const AssembleTokensBackward& x) {
  const int64_t size = x.grad.half ? sizeof(bf16) : sizeof(float);
  const char* data = static_cast<const char*>(x.grad.data);
  if (x.visible_grad != nullptr) {
    StoredRows visible = x.grad;
    visible.inner = std::max<int64_t>(x.visible_count, 1);
    parallel_for(x.sequences * x.visible_count, kGrain, [&](int64_t begin, int64_t end) {
      char* to = static_cast<char*>(x.visible_grad);
      for (int64_t row = begin; row < end; ++row) {
        std::memcpy(to + row * x.width * size, data + offset_of(visible, row) * size,
                    x.width * size);
      }
    });
  }
  if (x.mask_token_grad != nullptr) {
    const int64_t count = x.length - x.visible_count;
    StoredRows hidden = x.grad;
    hidden.data = data + x.visible_count * x.grad.stride * size;
    hidden.inner = std::max<int64_t>(count, 1);
    sum_rows(hidden, x.sequences * count, x.width, x.mask_token_grad);
  }
  if (x.table_grad != nullptr) {
    sum_by_index(x.grad, x.index, x.sequences * x.length, x.width, x.positions, x.table_grad);
  }
}

}  // namespace seamo
