// Rows of numbers, as the kernels of every device are given them.

#pragma once

#include <cstdint>

// cuda/params.h has its own, which also exports the declaration.
#ifndef SEAMO_PARAMS
#define SEAMO_PARAMS(name, ...) \
  struct name {                 \
    __VA_ARGS__                 \
  };
#endif

namespace seamo {

// Rows whose values follow one another, in blocks of `inner` rows: a tensor [outer, inner, D] whose
// last stride is 1.
SEAMO_PARAMS(Rows, const void* data; int64_t inner, outer_stride, stride;)

}  // namespace seamo
