// Numbers as they are stored and as kernels compute with them, and sums in a fixed order.

#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "params.h"

namespace seamo {

using bf16 = __nv_bfloat16;

__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(__half value) { return __half2float(value); }
__device__ inline float to_float(bf16 value) { return __bfloat162float(value); }
__device__ inline float to_float(uint8_t value) { return value; }
__device__ inline float to_float(uint16_t value) { return value; }
__device__ inline float to_float(int16_t value) { return value; }

// Rounds to nearest, ties to even.
template <typename Scalar>
__device__ inline Scalar from_float(float value);
template <>
__device__ inline float from_float<float>(float value) {
  return value;
}
template <>
__device__ inline __half from_float<__half>(float value) {
  return __float2half_rn(value);
}
template <>
__device__ inline bf16 from_float<bf16>(float value) {
  return __float2bfloat16_rn(value);
}

// 128 bits of numbers: what one load or store of a thread moves.
template <typename Scalar>
struct alignas(16) Pack {
  static constexpr int kCount = 16 / sizeof(Scalar);
  Scalar values[kCount];
};

// From an address that 16 divides.
template <typename Scalar>
__device__ inline Pack<Scalar> load_pack(const Scalar* from) {
  Pack<Scalar> pack;
  *reinterpret_cast<int4*>(&pack) = *reinterpret_cast<const int4*>(from);
  return pack;
}

template <typename Scalar>
__device__ inline void store_pack(Scalar* to, const Pack<Scalar>& pack) {
  *reinterpret_cast<int4*>(to) = *reinterpret_cast<const int4*>(&pack);
}

// What a thread of a memory-bound kernel computes at once: one pack of half, two of float.
constexpr int kEight = 8;

struct Eight {
  float values[kEight];
};

// The next eight of `left` numbers, 0 after them. `packed`: 16 divides the address, 8 divides left.
template <typename Scalar>
__device__ inline Eight load_eight(const Scalar* from, int64_t left, bool packed) {
  constexpr int count = Pack<Scalar>::kCount;
  Eight eight;
  if (packed) {
#pragma unroll
    for (int first = 0; first < kEight; first += count) {
      const Pack<Scalar> pack = load_pack(from + first);
#pragma unroll
      for (int i = 0; i < count; ++i) eight.values[first + i] = to_float(pack.values[i]);
    }
  } else {
#pragma unroll
    for (int i = 0; i < kEight; ++i) eight.values[i] = i < left ? to_float(from[i]) : 0.0f;
  }
  return eight;
}

template <typename Scalar>
__device__ inline void store_eight(Scalar* to, const Eight& eight, int64_t left, bool packed) {
  constexpr int count = Pack<Scalar>::kCount;
  if (packed) {
#pragma unroll
    for (int first = 0; first < kEight; first += count) {
      Pack<Scalar> pack;
#pragma unroll
      for (int i = 0; i < count; ++i) pack.values[i] = from_float<Scalar>(eight.values[first + i]);
      store_pack(to + first, pack);
    }
  } else {
#pragma unroll
    for (int i = 0; i < kEight; ++i) {
      if (i < left) to[i] = from_float<Scalar>(eight.values[i]);
    }
  }
}

constexpr int kWarp = 32;
constexpr unsigned kFullWarp = 0xffffffff;

// The sum over the threads of a warp, known to each.
__device__ inline float warp_sum(float value) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) value += __shfl_xor_sync(kFullWarp, value, step);
  return value;
}

// Patch numbers, contiguous: int64_t if `is_long`, else int32_t.
__device__ inline int64_t number_at(const void* index, int64_t is_long, int64_t i) {
  return is_long ? static_cast<const int64_t*>(index)[i] : static_cast<const int32_t*>(index)[i];
}

template <typename Scalar>
__device__ inline const Scalar* row_of(const Rows& rows, int64_t row) {
  int64_t offset = row * rows.stride;
  if (row >= rows.inner) {
    offset = row / rows.inner * rows.outer_stride + row % rows.inner * rows.stride;
  }
  return static_cast<const Scalar*>(rows.data) + offset;
}

// Whether rows of `width` numbers can be read by eights from addresses that 16 divides.
template <typename Scalar>
bool is_packed(const Rows& rows, int64_t width) {
  constexpr int count = Pack<Scalar>::kCount;
  return reinterpret_cast<uintptr_t>(rows.data) % 16 == 0 && width % kEight == 0 &&
         rows.stride % count == 0 && rows.outer_stride % count == 0;
}

template <typename Scalar>
bool is_packed(const Matrix& matrix, int64_t width) {
  return is_packed<Scalar>(Rows{matrix.data, 1, 0, matrix.stride}, width);
}

inline bool is_packed(const void* contiguous, int64_t width) {
  return reinterpret_cast<uintptr_t>(contiguous) % 16 == 0 && width % kEight == 0;
}

// Calls body with a number of the floating-point type that `storage` names.
template <typename Body>
int with_float(int64_t storage, const Body& body) {
  switch (storage) {
    case kFloat:
      return body(float{});
    case kHalf:
      return body(__half{});
    case kBfloat16:
      return body(bf16{});
    default:
      return cudaErrorInvalidValue;
  }
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace seamo
