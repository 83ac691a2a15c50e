#include "../embed_patches.h"

#define SEAMO_KERNELS "embed_patches.inc"
#include "every_isa.h"

namespace seamo {

void finish_tokens(const EmbedPatches& x, int64_t begin, int64_t end, const float* projections) {
  SEAMO_DISPATCH(finish)(x, begin, end, projections);
}

}  // namespace seamo
