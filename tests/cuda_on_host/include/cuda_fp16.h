// __half and __half2 for a host compiler: 16 bits, every operation rounds to nearest even.

#pragma once

#include "sixteen_bit.h"

namespace cuda_on_host {

struct HalfBits {
  static CUDA_ON_HOST float decode(uint16_t bits) { return bit_cast<_Float16>(bits); }
  static CUDA_ON_HOST uint16_t encode(float value) {
    return value != value ? 0x7fff : bit_cast<uint16_t>(static_cast<_Float16>(value));
  }
};

}  // namespace cuda_on_host

using __half = cuda_on_host::SixteenBit<cuda_on_host::HalfBits>;
using __half2 = cuda_on_host::Pair<__half>;
using half = __half;
using half2 = __half2;

CUDA_ON_HOST float __half2float(__half a) { return a; }
CUDA_ON_HOST __half __float2half(float a) { return __half(a); }
CUDA_ON_HOST __half __float2half_rn(float a) { return __half(a); }
CUDA_ON_HOST unsigned short __half_as_ushort(__half a) { return a.bits; }
CUDA_ON_HOST __half __ushort_as_half(unsigned short bits) { return __half::from_bits(bits); }
CUDA_ON_HOST float2 __half22float2(__half2 a) { return {a.x, a.y}; }
CUDA_ON_HOST __half2 __float22half2_rn(float2 a) { return {__half(a.x), __half(a.y)}; }
CUDA_ON_HOST __half2 __floats2half2_rn(float a, float b) { return {__half(a), __half(b)}; }
CUDA_ON_HOST __half2 __float2half2_rn(float a) { return {__half(a), __half(a)}; }
CUDA_ON_HOST __half2 __halves2half2(__half a, __half b) { return {a, b}; }
CUDA_ON_HOST __half2 __half2half2(__half a) { return {a, a}; }
CUDA_ON_HOST __half2 make_half2(__half a, __half b) { return {a, b}; }
