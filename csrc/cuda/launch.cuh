// The two things that a host compiler cannot parse: launches and dynamic shared memory.
//
//   auto kernel = rows<float, 64>;                    // templates first: macros split at commas
//   return SEAMO_LAUNCH(kernel, dim3(blocks), dim3(128), bytes, params->stream, arguments);
//
//   SEAMO_SHARED(float, tile);                        // in a kernel: float* tile, 128-byte aligned
//
// SEAMO_LAUNCH is an expression: the cudaError_t of the launch. The tests run the same sources on
// the CPU; the cuda_runtime.h of their executor defines both macros for it.

#pragma once

#include <cuda_runtime.h>

#ifndef SEAMO_LAUNCH

#define SEAMO_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  (::seamo::launch(kernel, grid, block, shared_bytes, stream, __VA_ARGS__))

#define SEAMO_SHARED(type, name)                                       \
  extern __shared__ __align__(128) unsigned char seamo_shared_bytes[]; \
  type* const name = reinterpret_cast<type*>(seamo_shared_bytes)

namespace seamo {

template <typename... Parameters, typename... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
                   void* stream, const Arguments&... arguments) {
  if (shared_bytes > 48 * 1024) {  // what a block gets without asking for more
    const cudaError_t error = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
    if (error != cudaSuccess) return error;
  }
  kernel<<<grid, block, shared_bytes, static_cast<cudaStream_t>(stream)>>>(arguments...);
  return cudaGetLastError();
}

}  // namespace seamo

#endif
