#include "../tm_attention.h"

#include <initializer_list>
#include <limits>
#include <memory>
#include <new>
#include <utility>

#include "../common.h"

namespace seamo {
namespace {

struct Free {
  void operator()(float* memory) const { operator delete[](memory, std::align_val_t(64)); }
};

// Scratch memory of a thread, not initialised.
struct Memory : std::unique_ptr<float[], Free> {
  explicit Memory(int64_t floats)
      : unique_ptr(
            static_cast<float*>(operator new[](floats * sizeof(float), std::align_val_t(64)))) {}
};

}  // namespace
}  // namespace seamo

#define SEAMO_KERNELS "tm_attention.inc"
#include "every_isa.h"

namespace seamo {

void tm_attention(const TmAttention& x) {
  parallel_for(x.batch * x.heads * x.seasons * x.modalities, 1,
               [&](int64_t begin, int64_t end) { SEAMO_DISPATCH(attention)(x, begin, end); });
}

void tm_attention_backward(const TmAttentionBackward& x, int64_t threads) {
  const int64_t heads = x.forward.batch * x.forward.heads;
  const int64_t groups = x.forward.seasons * x.forward.modalities;
  if (heads * groups == 0) return;
  const int64_t parts = std::clamp(threads / heads, int64_t{1}, groups);
  parallel_for(heads * parts, 1, [&](int64_t begin, int64_t end) {
    SEAMO_DISPATCH(attention_backward)(x, parts, begin, end);
  });
}

}  // namespace seamo
