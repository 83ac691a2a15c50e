// CUDA's language and runtime for a host compiler: see ../README.md.

#pragma once

#include <math.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "../executor.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __shared__ static thread_local  // one block of thread-local storage that we can poison

#define CUDA_ON_HOST inline __attribute__((always_inline))

// ---- launches ----

#define SEAMO_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  (::cuda_on_host::run(#kernel, kernel, grid, block, shared_bytes, stream, __VA_ARGS__))
#define SEAMO_SHARED(type, name) \
  type* const name = static_cast<type*>(::cuda_on_host::dynamic_shared())

// ---- vectors ----

#define CUDA_ON_HOST_VECTOR2(name, type, bytes)            \
  struct __align__(bytes) name {                           \
    type x, y;                                             \
  };                                                       \
  CUDA_ON_HOST name make_##name(type x, type y) { return {x, y}; }
#define CUDA_ON_HOST_VECTOR3(name, type)                   \
  struct name {                                            \
    type x, y, z;                                          \
  };                                                       \
  CUDA_ON_HOST name make_##name(type x, type y, type z) { return {x, y, z}; }
#define CUDA_ON_HOST_VECTOR4(name, type, bytes)            \
  struct __align__(bytes) name {                           \
    type x, y, z, w;                                       \
  };                                                       \
  CUDA_ON_HOST name make_##name(type x, type y, type z, type w) { return {x, y, z, w}; }

CUDA_ON_HOST_VECTOR2(char2, signed char, 2)
CUDA_ON_HOST_VECTOR4(char4, signed char, 4)
CUDA_ON_HOST_VECTOR2(uchar2, unsigned char, 2)
CUDA_ON_HOST_VECTOR4(uchar4, unsigned char, 4)
CUDA_ON_HOST_VECTOR2(short2, short, 4)
CUDA_ON_HOST_VECTOR4(short4, short, 8)
CUDA_ON_HOST_VECTOR2(ushort2, unsigned short, 4)
CUDA_ON_HOST_VECTOR4(ushort4, unsigned short, 8)
CUDA_ON_HOST_VECTOR2(int2, int, 8)
CUDA_ON_HOST_VECTOR3(int3, int)
CUDA_ON_HOST_VECTOR4(int4, int, 16)
CUDA_ON_HOST_VECTOR2(uint2, unsigned, 8)
CUDA_ON_HOST_VECTOR3(uint3, unsigned)
CUDA_ON_HOST_VECTOR4(uint4, unsigned, 16)
CUDA_ON_HOST_VECTOR2(float2, float, 8)
CUDA_ON_HOST_VECTOR3(float3, float)
CUDA_ON_HOST_VECTOR4(float4, float, 16)
CUDA_ON_HOST_VECTOR2(longlong2, long long, 16)
CUDA_ON_HOST_VECTOR2(ulonglong2, unsigned long long, 16)
CUDA_ON_HOST_VECTOR2(double2, double, 16)

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// Constant for a thread; the executor sets them whenever it changes threads.
extern const uint3 threadIdx, blockIdx;
extern const dim3 blockDim, gridDim;
static constexpr int warpSize = 32;

// ---- runtime ----

using cudaStream_t = struct CUstream_st*;

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorLaunchFailure = 719,
};
enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
  cudaFuncAttributePreferredSharedMemoryCarveout = 9,
};
enum cudaDeviceAttr {
  cudaDevAttrWarpSize = 10,
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};

inline cudaError_t cudaGetLastError() {
  return static_cast<cudaError_t>(cuda_on_host::last_error(true));
}
inline cudaError_t cudaPeekAtLastError() {
  return static_cast<cudaError_t>(cuda_on_host::last_error(false));
}
inline const char* cudaGetErrorString(cudaError_t error) {
  return cuda_on_host::error_string(error);
}
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }

inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrWarpSize: *value = warpSize; return cudaSuccess;
    case cudaDevAttrMultiProcessorCount: *value = 2; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor: *value = 8; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(cuda_on_host::shared_limit());
      return cudaSuccess;
  }
  return cudaErrorInvalidValue;
}

template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel*, cudaFuncAttribute attribute, int value) {
  const bool over = attribute == cudaFuncAttributeMaxDynamicSharedMemorySize &&
                    static_cast<size_t>(value) > cuda_on_host::shared_limit();
  return over ? cudaErrorInvalidValue : cudaSuccess;
}

inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t = nullptr) {
  return static_cast<cudaError_t>(cuda_on_host::memset_device(to, value, bytes));
}

namespace cuda_on_host {

template <typename... Parameters, typename... Arguments>
cudaError_t run(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block,
                size_t shared_bytes, void* /*stream*/, const Arguments&... arguments) {
  const auto call = [&]() __attribute__((no_sanitize_thread)) { kernel(arguments...); };
  using Call = decltype(call);
  return static_cast<cudaError_t>(
      launch({name, reinterpret_cast<const void*>(kernel), {grid.x, grid.y, grid.z},
              {block.x, block.y, block.z}, shared_bytes,
              [](const void* call) { (*static_cast<Call*>(call))(); }, &call}));
}

}  // namespace cuda_on_host

// ---- barriers, votes and shuffles ----

CUDA_ON_HOST void __syncthreads(CUDA_ON_HOST_SITE) {
  cuda_on_host::block_barrier(cuda_on_host::Barrier::plain, false, site);
}
CUDA_ON_HOST int __syncthreads_or(int predicate, CUDA_ON_HOST_SITE) {
  return cuda_on_host::block_barrier(cuda_on_host::Barrier::any, predicate != 0, site);
}
CUDA_ON_HOST int __syncthreads_and(int predicate, CUDA_ON_HOST_SITE) {
  return cuda_on_host::block_barrier(cuda_on_host::Barrier::all, predicate != 0, site);
}
CUDA_ON_HOST int __syncthreads_count(int predicate, CUDA_ON_HOST_SITE) {
  return cuda_on_host::block_barrier(cuda_on_host::Barrier::count, predicate != 0, site);
}
CUDA_ON_HOST void __syncwarp(unsigned mask = 0xffffffff, CUDA_ON_HOST_SITE) {
  cuda_on_host::warp_barrier(mask, site);
}
CUDA_ON_HOST unsigned __activemask() { return cuda_on_host::active_lanes(); }
CUDA_ON_HOST unsigned __ballot_sync(unsigned mask, int predicate, CUDA_ON_HOST_SITE) {
  return cuda_on_host::ballot(mask, predicate != 0, site);
}
CUDA_ON_HOST int __any_sync(unsigned mask, int predicate, CUDA_ON_HOST_SITE) {
  return cuda_on_host::ballot(mask, predicate != 0, site) != 0;
}
CUDA_ON_HOST int __all_sync(unsigned mask, int predicate, CUDA_ON_HOST_SITE) {
  return cuda_on_host::ballot(mask, predicate == 0, site) == 0;
}

namespace cuda_on_host {

template <typename T>
CUDA_ON_HOST T shuffle_value(unsigned mask, T value, unsigned source, Site site) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable<T>::value, "a shuffle moves 8 bytes");
  uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof(T));
  bits = shuffle(mask, bits, source, site);
  __builtin_memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace cuda_on_host

// A source outside of the segment of `width` lanes means the own value.
template <typename T>
CUDA_ON_HOST T __shfl_sync(unsigned mask, T value, int source, int width = 32, CUDA_ON_HOST_SITE) {
  const unsigned first = cuda_on_host::lane() & ~(width - 1);
  return cuda_on_host::shuffle_value(mask, value, first | (source & (width - 1)), site);
}
template <typename T>
CUDA_ON_HOST T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32,
                               CUDA_ON_HOST_SITE) {
  const unsigned self = cuda_on_host::lane(), source = self ^ bits;
  const bool inside = source < (self & ~(width - 1)) + width;
  return cuda_on_host::shuffle_value(mask, value, inside ? source : self, site);
}
template <typename T>
CUDA_ON_HOST T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                              CUDA_ON_HOST_SITE) {
  const unsigned self = cuda_on_host::lane();
  const bool inside = (self & (width - 1)) >= delta;
  return cuda_on_host::shuffle_value(mask, value, inside ? self - delta : self, site);
}
template <typename T>
CUDA_ON_HOST T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                                CUDA_ON_HOST_SITE) {
  const unsigned self = cuda_on_host::lane();
  const bool inside = (self & (width - 1)) + delta < static_cast<unsigned>(width);
  return cuda_on_host::shuffle_value(mask, value, inside ? self + delta : self, site);
}

CUDA_ON_HOST void __threadfence() {}
CUDA_ON_HOST void __threadfence_block() {}
CUDA_ON_HOST void __trap(CUDA_ON_HOST_SITE) { cuda_on_host::trap("__trap()", site); }

// ---- memory ----

template <typename T>
CUDA_ON_HOST T __ldg(const T* from) {
  cuda_on_host::check_vector(from, sizeof(T), "__ldg");
  return *from;
}
template <typename T>
CUDA_ON_HOST T __ldcg(const T* from) { return __ldg(from); }
template <typename T>
CUDA_ON_HOST T __ldcs(const T* from) { return __ldg(from); }
template <typename T>
CUDA_ON_HOST void __stcg(T* to, T value) {
  cuda_on_host::check_vector(to, sizeof(T), "__stcg");
  *to = value;
}
template <typename T>
CUDA_ON_HOST void __stcs(T* to, T value) { __stcg(to, value); }

// Not inlined: a kernel's own copy would count as an ordinary load and store.
#define CUDA_ON_HOST_ATOMIC(name, result)                                                  \
  template <typename T>                                                                    \
  __attribute__((noinline, no_sanitize_thread)) T name(T* address,                         \
                                                       std::common_type_t<T> value) {      \
    static_assert(std::is_integral<T>::value, "atomics on floats depend on the order");    \
    cuda_on_host::atomic_access(address, sizeof(T), __builtin_return_address(0));          \
    const T old = *address;                                                                \
    *address = result;                                                                     \
    return old;                                                                            \
  }
CUDA_ON_HOST_ATOMIC(atomicAdd, old + value)
CUDA_ON_HOST_ATOMIC(atomicSub, old - value)
CUDA_ON_HOST_ATOMIC(atomicMin, value < old ? value : old)
CUDA_ON_HOST_ATOMIC(atomicMax, value > old ? value : old)
CUDA_ON_HOST_ATOMIC(atomicAnd, old & value)
CUDA_ON_HOST_ATOMIC(atomicOr, old | value)
CUDA_ON_HOST_ATOMIC(atomicExch, value)

// ---- numbers ----

template <typename A, typename B,
          typename = std::enable_if_t<std::is_arithmetic<A>::value && std::is_arithmetic<B>::value>>
CUDA_ON_HOST constexpr std::common_type_t<A, B> min(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point<T>::value) return b != b || a < b ? a : b;
  return static_cast<T>(b) < static_cast<T>(a) ? b : a;
}
template <typename A, typename B,
          typename = std::enable_if_t<std::is_arithmetic<A>::value && std::is_arithmetic<B>::value>>
CUDA_ON_HOST constexpr std::common_type_t<A, B> max(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point<T>::value) return b != b || a > b ? a : b;
  return static_cast<T>(a) < static_cast<T>(b) ? b : a;
}

CUDA_ON_HOST float rsqrtf(float x) { return 1.0f / sqrtf(x); }
CUDA_ON_HOST double rsqrt(double x) { return 1.0 / sqrt(x); }
CUDA_ON_HOST float fdividef(float a, float b) { return a / b; }
CUDA_ON_HOST float __fdividef(float a, float b) { return a / b; }
CUDA_ON_HOST float __fadd_rn(float a, float b) { return a + b; }
CUDA_ON_HOST float __fsub_rn(float a, float b) { return a - b; }
CUDA_ON_HOST float __fmul_rn(float a, float b) { return a * b; }
CUDA_ON_HOST float __fdiv_rn(float a, float b) { return a / b; }
CUDA_ON_HOST float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
CUDA_ON_HOST float __frcp_rn(float x) { return 1.0f / x; }
CUDA_ON_HOST float __fsqrt_rn(float x) { return sqrtf(x); }
CUDA_ON_HOST float __frsqrt_rn(float x) { return static_cast<float>(1.0 / sqrt(double(x))); }
CUDA_ON_HOST float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
// glibc declares the names of the fast versions as its own, with the same meaning: macros replace
// them without declaring them again.
#define __expf(x) expf(x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __exp10f(x) exp10f(x)
#define __powf(x, y) powf(x, y)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)

namespace cuda_on_host {

template <typename To, typename From>
CUDA_ON_HOST To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "");
  To to;
  __builtin_memcpy(&to, &from, sizeof(To));
  return to;
}

}  // namespace cuda_on_host

CUDA_ON_HOST int __float_as_int(float x) { return cuda_on_host::bit_cast<int>(x); }
CUDA_ON_HOST unsigned __float_as_uint(float x) { return cuda_on_host::bit_cast<unsigned>(x); }
CUDA_ON_HOST float __int_as_float(int x) { return cuda_on_host::bit_cast<float>(x); }
CUDA_ON_HOST float __uint_as_float(unsigned x) { return cuda_on_host::bit_cast<float>(x); }
CUDA_ON_HOST int __float2int_rn(float x) { return static_cast<int>(rintf(x)); }
CUDA_ON_HOST int __float2int_rz(float x) { return static_cast<int>(x); }
CUDA_ON_HOST int __float2int_rd(float x) { return static_cast<int>(floorf(x)); }
CUDA_ON_HOST int __float2int_ru(float x) { return static_cast<int>(ceilf(x)); }
CUDA_ON_HOST float __int2float_rn(int x) { return static_cast<float>(x); }
CUDA_ON_HOST float __uint2float_rn(unsigned x) { return static_cast<float>(x); }
CUDA_ON_HOST int __popc(unsigned x) { return __builtin_popcount(x); }
CUDA_ON_HOST int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
CUDA_ON_HOST int __ffs(int x) { return __builtin_ffs(x); }
CUDA_ON_HOST int __ffsll(long long x) { return __builtin_ffsll(x); }
CUDA_ON_HOST int __clz(int x) { return x == 0 ? 32 : __builtin_clz(x); }
CUDA_ON_HOST int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll(x); }
CUDA_ON_HOST unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32);
}
