#include "../gather_patches.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace seamo {
namespace {

struct f16 {
  uint16_t bits;
};

inline float to_float(f16 value) {
  // exponents are 112 apart; a product gets subnormal numbers right as well
  const uint32_t magnitude = (value.bits & 0x7fffu) << 13;
  float result;
  std::memcpy(&result, &magnitude, sizeof(result));
  result *= 0x1p112f;
  uint32_t bits;
  std::memcpy(&bits, &result, sizeof(bits));
  if (magnitude >= 0x0f800000) bits |= 0x7f800000;
  bits |= (value.bits & 0x8000u) << 16;
  std::memcpy(&result, &bits, sizeof(result));
  return result;
}

// The neighbours of pixels along one axis; fraction is the weight of `high`.
struct Taps {
  int32_t *low, *high;
  float* fraction;
};

// The neighbours of a row of pixels, as offsets of rows.
struct Line {
  int64_t low, high;
  float fraction;
  int32_t row;  // number of the low one
};

}  // namespace
}  // namespace seamo

#define SEAMO_KERNELS "gather_patches.isa.h"
#include "every_isa.h"

namespace seamo {

constexpr int64_t kGrain = 8;  // patches worth another thread

void gather_patches(const GatherPatches& x) {
  const auto gather = SEAMO_DISPATCH(gather_range);
  parallel_for(x.batch * x.seasons * x.wanted, kGrain,
               [&](int64_t begin, int64_t end) { gather(x, begin, end); });
}

}  // namespace seamo
