// Asynchronous copies to shared memory: the bytes arrive at __pipeline_wait_prior, not before.

#pragma once

#include "cuda_runtime.h"

CUDA_ON_HOST void __pipeline_memcpy_async(void* to, const void* from, size_t bytes,
                                          size_t zeros = 0) {
  cuda_on_host::copy_async(to, from, bytes, zeros);
}
CUDA_ON_HOST void __pipeline_commit() { cuda_on_host::copy_commit(); }
CUDA_ON_HOST void __pipeline_wait_prior(unsigned newest) { cuda_on_host::copy_wait(newest); }
