// What __half and __nv_bfloat16 have in common.

#pragma once

#include "cuda_runtime.h"

namespace cuda_on_host {

template <typename Bits>
struct __align__(2) SixteenBit {
  uint16_t bits;

  SixteenBit() = default;  // shared memory holds it: no constructor may run
  CUDA_ON_HOST SixteenBit(float value) : bits(Bits::encode(value)) {}
  CUDA_ON_HOST operator float() const { return Bits::decode(bits); }
  static CUDA_ON_HOST SixteenBit from_bits(uint16_t bits) {
    SixteenBit value;
    value.bits = bits;
    return value;
  }

  // One rounding: the float result of two 16-bit operands rounds as the exact one would.
  friend CUDA_ON_HOST SixteenBit operator+(SixteenBit a, SixteenBit b) {
    return SixteenBit(static_cast<float>(a) + static_cast<float>(b));
  }
  friend CUDA_ON_HOST SixteenBit operator-(SixteenBit a, SixteenBit b) {
    return SixteenBit(static_cast<float>(a) - static_cast<float>(b));
  }
  friend CUDA_ON_HOST SixteenBit operator*(SixteenBit a, SixteenBit b) {
    return SixteenBit(static_cast<float>(a) * static_cast<float>(b));
  }
  friend CUDA_ON_HOST SixteenBit operator/(SixteenBit a, SixteenBit b) {
    return SixteenBit(static_cast<float>(a) / static_cast<float>(b));
  }
};

template <typename T>
struct __align__(4) Pair {
  T x, y;
};

}  // namespace cuda_on_host

template <typename Bits>
using cuda_on_host_16 = cuda_on_host::SixteenBit<Bits>;

template <typename Bits>
CUDA_ON_HOST cuda_on_host_16<Bits> __hadd(cuda_on_host_16<Bits> a, cuda_on_host_16<Bits> b) {
  return a + b;
}
template <typename Bits>
CUDA_ON_HOST cuda_on_host_16<Bits> __hsub(cuda_on_host_16<Bits> a, cuda_on_host_16<Bits> b) {
  return a - b;
}
template <typename Bits>
CUDA_ON_HOST cuda_on_host_16<Bits> __hmul(cuda_on_host_16<Bits> a, cuda_on_host_16<Bits> b) {
  return a * b;
}
template <typename T>
CUDA_ON_HOST float __low2float(cuda_on_host::Pair<T> a) { return a.x; }
template <typename T>
CUDA_ON_HOST float __high2float(cuda_on_host::Pair<T> a) { return a.y; }
