#include <atomic>

#include "../common.h"

namespace seamo {
namespace {

Isa supported() {
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return avx512 ? Isa::avx512 : avx2 ? Isa::avx2 : Isa::generic;
#else
  return Isa::generic;
#endif
}

std::atomic<Isa> chosen{supported()};

}  // namespace

Isa isa() { return chosen.load(std::memory_order_relaxed); }

void limit_isa(Isa most) { chosen = most < supported() ? most : supported(); }

}  // namespace seamo
