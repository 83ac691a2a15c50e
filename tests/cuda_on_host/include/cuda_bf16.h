// __nv_bfloat16 and __nv_bfloat162 for a host compiler, rounding to nearest even.

#pragma once

#include "sixteen_bit.h"

namespace cuda_on_host {

struct Bfloat16Bits {
  static CUDA_ON_HOST float decode(uint16_t bits) {
    return bit_cast<float>(static_cast<uint32_t>(bits) << 16);
  }
  static CUDA_ON_HOST uint16_t encode(float value) {
    const uint32_t bits = bit_cast<uint32_t>(value);
    return value != value ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  }
};

}  // namespace cuda_on_host

using __nv_bfloat16 = cuda_on_host::SixteenBit<cuda_on_host::Bfloat16Bits>;
using __nv_bfloat162 = cuda_on_host::Pair<__nv_bfloat16>;
using nv_bfloat16 = __nv_bfloat16;
using nv_bfloat162 = __nv_bfloat162;

CUDA_ON_HOST float __bfloat162float(__nv_bfloat16 a) { return a; }
CUDA_ON_HOST __nv_bfloat16 __float2bfloat16(float a) { return __nv_bfloat16(a); }
CUDA_ON_HOST __nv_bfloat16 __float2bfloat16_rn(float a) { return __nv_bfloat16(a); }
CUDA_ON_HOST unsigned short __bfloat16_as_ushort(__nv_bfloat16 a) { return a.bits; }
CUDA_ON_HOST __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) {
  return __nv_bfloat16::from_bits(bits);
}
CUDA_ON_HOST float2 __bfloat1622float2(__nv_bfloat162 a) { return {a.x, a.y}; }
CUDA_ON_HOST __nv_bfloat162 __float22bfloat162_rn(float2 a) {
  return {__nv_bfloat16(a.x), __nv_bfloat16(a.y)};
}
CUDA_ON_HOST __nv_bfloat162 __floats2bfloat162_rn(float a, float b) {
  return {__nv_bfloat16(a), __nv_bfloat16(b)};
}
CUDA_ON_HOST __nv_bfloat162 __float2bfloat162_rn(float a) {
  return {__nv_bfloat16(a), __nv_bfloat16(a)};
}
CUDA_ON_HOST __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 a, __nv_bfloat16 b) { return {a, b}; }
CUDA_ON_HOST __nv_bfloat162 __bfloat162bfloat162(__nv_bfloat16 a) { return {a, a}; }
CUDA_ON_HOST __nv_bfloat162 make_bfloat162(__nv_bfloat16 a, __nv_bfloat16 b) { return {a, b}; }
