// Compiles one file of kernels once for each instruction set:
//
//   #define SEAMO_KERNELS "norm_pix_loss.isa.h"
//   #include "every_isa.h"
//
// The file is included in the namespaces seamo::generic, seamo::avx2 and seamo::avx512 (the last
// two on x86-64 only), after vector.isa.h, with SEAMO_AVX2 and SEAMO_AVX512 set to 0 or 1. Its
// names are local to the .cpp; it must include no header and hold no state. The generic kernels are
// plain C++ with vectors of 16 bytes: SSE2 on x86-64, NEON on Arm.
// SEAMO_DISPATCH(function)(arguments) calls the best that the processor can run.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "../common.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define SEAMO_DISPATCH(function)                                       \
  (::seamo::isa() == ::seamo::Isa::avx512 ? &::seamo::avx512::function \
   : ::seamo::isa() == ::seamo::Isa::avx2 ? &::seamo::avx2::function   \
                                          : &::seamo::generic::function)
#else
#define SEAMO_DISPATCH(function) (&::seamo::generic::function)
#endif

#define SEAMO_AVX2 0
#define SEAMO_AVX512 0
namespace seamo::generic {
namespace {
#include "vector.isa.h"
#include SEAMO_KERNELS
}  // namespace
}  // namespace seamo::generic

#if defined(__x86_64__)

#undef SEAMO_AVX2
#define SEAMO_AVX2 1
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif
namespace seamo::avx2 {
namespace {
#include "vector.isa.h"
#include SEAMO_KERNELS
}  // namespace
}  // namespace seamo::avx2
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#undef SEAMO_AVX512
#define SEAMO_AVX512 1
#if defined(__clang__)
#pragma clang attribute push(                                                    \
    __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl"))), \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
#endif
namespace seamo::avx512 {
namespace {
#include "vector.isa.h"
#include SEAMO_KERNELS
}  // namespace
}  // namespace seamo::avx512
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif  // __x86_64__
