#include "../tm_attention.h"

#include <initializer_list>
#include <limits>
#include <utility>

#define SEAMO_KERNELS "tm_attention.isa.h"
#include "every_isa.h"

namespace seamo {

void tm_attention(const TmAttention& x) {
  parallel_for(x.batch * x.heads * x.seasons * x.modalities, 1,
               [&](int64_t begin, int64_t end) { SEAMO_DISPATCH(attention)(x, begin, end); });
}

void tm_attention_backward(const TmAttentionBackward& x) {
  const int64_t heads = x.forward.batch * x.forward.heads;
  const int64_t groups = x.forward.seasons * x.forward.modalities;
  if (heads * groups == 0) return;
  const int64_t parts = std::clamp(thread_count() / heads, int64_t{1}, groups);
  parallel_for(heads * parts, 1, [&](int64_t begin, int64_t end) {
    SEAMO_DISPATCH(attention_backward)(x, parts, begin, end);
  });
}

}  // namespace seamo
