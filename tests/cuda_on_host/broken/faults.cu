// One kernel a kind of fault: with `broken` it commits the fault, without it is correct.

#include <cuda_pipeline.h>
#include <mma.h>

#include "launch.cuh"

namespace wmma = nvcuda::wmma;

constexpr unsigned kAll = 0xffffffff;
constexpr int kThreads = 64;

#define KERNEL(name) __global__ void name(float* x, int n, int broken)

KERNEL(leaves_before_barrier) {
  if (broken && threadIdx.x >= 32) return;
  __syncthreads();
  x[threadIdx.x] = 1.0f;
}

KERNEL(waits_at_two_barriers) {
  if (broken && threadIdx.x >= 32) {
    __syncthreads();
  } else if (broken) {
    __syncthreads();
  }
  x[threadIdx.x] = 1.0f;
}

KERNEL(waits_in_a_branch) {
  if (!broken || threadIdx.x < 40) __syncthreads();
  if (broken) __syncwarp();
  x[threadIdx.x] = 1.0f;
}

KERNEL(shuffles_without_some) {
  const float value = x[threadIdx.x];
  if (!broken || threadIdx.x % 32 < 16) x[threadIdx.x] = __shfl_xor_sync(kAll, value, 1);
}

KERNEL(shuffles_with_other_masks) {
  const unsigned mask = broken && threadIdx.x % 32 < 16 ? 0xffff : kAll;
  x[threadIdx.x] = __shfl_xor_sync(mask, 1.0f, 1);
}

KERNEL(shuffles_from_nobody) {
  const int bits = broken ? 16 : 4;
  if (threadIdx.x < 8) x[threadIdx.x] = __shfl_xor_sync(0xff, 1.0f, bits);
}

KERNEL(reads_beside) { x[threadIdx.x] = x[broken ? n + threadIdx.x : threadIdx.x] + 1.0f; }

KERNEL(writes_beside) { x[broken ? n + threadIdx.x : threadIdx.x] = 2.0f; }

KERNEL(writes_before) {
  const int i = static_cast<int>(threadIdx.x);
  x[broken ? -1 - i : i] = 2.0f;
}

KERNEL(writes_beside_shared) {
  SEAMO_SHARED(float, tile);
  tile[broken ? kThreads + threadIdx.x : threadIdx.x] = 1.0f;
}

KERNEL(indexes_beside_array) {
  __shared__ float tile[kThreads];
  tile[threadIdx.x] = 1.0f;
  __syncthreads();
  x[threadIdx.x] = tile[broken ? threadIdx.x + 1 : threadIdx.x];
}

KERNEL(reads_uninitialised_static) {
  __shared__ float tile[kThreads + 1];
  tile[threadIdx.x] = 1.0f;
  __syncthreads();
  x[threadIdx.x] = tile[broken ? threadIdx.x + 1 : threadIdx.x];
}

KERNEL(reads_uninitialised_dynamic) {
  SEAMO_SHARED(float, tile);
  if (!broken || threadIdx.x != 5) tile[threadIdx.x] = 1.0f;
  __syncthreads();
  x[threadIdx.x] = tile[threadIdx.x];
}

KERNEL(forgets_barrier) {
  __shared__ float tile[kThreads];
  tile[threadIdx.x] = 0.0f;
  __syncthreads();
  tile[threadIdx.x] = 1.0f;
  if (!broken) __syncthreads();
  x[threadIdx.x] = tile[kThreads - 1 - threadIdx.x];
}

KERNEL(forgets_second_barrier) {
  SEAMO_SHARED(float, tile);
  for (int step = 0; step < 2; ++step) {
    tile[threadIdx.x] = static_cast<float>(step);
    __syncthreads();
    x[threadIdx.x] = tile[kThreads - 1 - threadIdx.x];
    if (!broken) __syncthreads();
  }
}

KERNEL(forgets_warp_barrier) {
  __shared__ float tile[kThreads];
  tile[threadIdx.x] = 0.0f;
  __syncthreads();
  tile[threadIdx.x] = 1.0f;
  if (!broken) __syncwarp();
  x[threadIdx.x] = tile[threadIdx.x ^ 1];
}

KERNEL(takes_shuffle_for_barrier) {
  __shared__ float tile[kThreads];
  tile[threadIdx.x] = 0.0f;
  __syncthreads();
  tile[threadIdx.x] = 1.0f;
  const float one = __shfl_xor_sync(kAll, 1.0f, 1);
  if (!broken) __syncwarp();
  x[threadIdx.x] = tile[threadIdx.x ^ 1] * one;
}

KERNEL(takes_warp_barrier_for_block) {
  __shared__ float tile[kThreads];
  tile[threadIdx.x] = 0.0f;
  __syncthreads();
  tile[threadIdx.x] = 1.0f;
  if (broken) {
    __syncwarp();
  } else {
    __syncthreads();
  }
  x[threadIdx.x] = tile[threadIdx.x ^ 32];
}

KERNEL(writes_same_value) {
  __shared__ float tile[1];
  if (broken || threadIdx.x == 0) tile[0] = 1.0f;
  __syncthreads();
  x[threadIdx.x] = tile[0];
}

KERNEL(writes_after_two_readers) {
  __shared__ float tile[kThreads];
  tile[threadIdx.x] = 1.0f;
  __syncthreads();
  const float sum = tile[0];
  if (!broken) __syncthreads();
  if (threadIdx.x == 7) tile[0] = sum;
  x[threadIdx.x] = sum;
}

KERNEL(misaligns_vector) {
  int4* const to = reinterpret_cast<int4*>(x + (broken ? 2 : 0));
  if (threadIdx.x == 0) *to = make_int4(1, 2, 3, 4);
}

KERNEL(forgets_wait) {
  __shared__ __align__(16) float tile[kThreads];
  __pipeline_memcpy_async(tile + threadIdx.x, x + threadIdx.x, 4);
  __pipeline_commit();
  __pipeline_wait_prior(broken ? 1 : 0);
  x[threadIdx.x] = tile[threadIdx.x] + 1.0f;
}

KERNEL(forgets_commit) {
  __shared__ __align__(16) float tile[kThreads];
  __pipeline_memcpy_async(tile + threadIdx.x, x + threadIdx.x, 4);
  if (!broken) __pipeline_commit();
  __pipeline_wait_prior(0);
  x[threadIdx.x] = tile[threadIdx.x] + 1.0f;
}

KERNEL(reads_others_copy) {
  __shared__ __align__(16) float tile[kThreads];
  __pipeline_memcpy_async(tile + threadIdx.x, x + threadIdx.x, 4);
  __pipeline_commit();
  if (broken) __syncthreads();
  __pipeline_wait_prior(0);
  if (!broken) __syncthreads();
  x[threadIdx.x] = tile[threadIdx.x ^ 32] + 1.0f;
}

KERNEL(misaligns_copy) {
  __shared__ __align__(16) float tile[kThreads];
  if (threadIdx.x == 0) __pipeline_memcpy_async(tile, x + (broken ? 1 : 0), 16);
}

KERNEL(asks_for_too_much) {
  SEAMO_SHARED(float, tile);
  tile[threadIdx.x] = 1.0f;
}

KERNEL(blocks_write_same_place) {
  x[threadIdx.x + (broken ? 0 : blockIdx.x * kThreads)] = 1.0f;
}

KERNEL(blocks_read_what_others_write) {
  const int block = broken ? 1 - blockIdx.x : blockIdx.x;
  x[blockIdx.x * kThreads + threadIdx.x] = x[block * kThreads + threadIdx.x] + 1.0f;
}

KERNEL(threads_race_on_tensor) {
  x[threadIdx.x] = 1.0f;
  if (!broken) __syncthreads();
  if (threadIdx.x < 32) x[threadIdx.x + 32] = 2.0f;
}

KERNEL(follows_null) {
  const float* const from = broken ? nullptr : x;
  x[threadIdx.x] = from[threadIdx.x];
}

KERNEL(divides_by_zero) {
  const int one = 1 + static_cast<int>(threadIdx.x), divisor = broken ? one - one : one;
  x[threadIdx.x] = static_cast<float>(one / divisor);
}

KERNEL(misaligns_matrix) {
  wmma::fragment<wmma::accumulator, 16, 16, 16, float> sum;
  wmma::fill_fragment(sum, 1.0f);
  if (threadIdx.x < 32) {
    wmma::store_matrix_sync(x + (broken ? 4 : 0), sum, 16, wmma::mem_row_major);
  }
}

KERNEL(strides_matrix_badly) {
  wmma::fragment<wmma::accumulator, 16, 16, 16, float> sum;
  wmma::fill_fragment(sum, 1.0f);
  if (threadIdx.x < 32) wmma::store_matrix_sync(x, sum, broken ? 17 : 16, wmma::mem_row_major);
}

KERNEL(disagrees_on_matrix) {
  wmma::fragment<wmma::accumulator, 16, 16, 16, float> sum;
  wmma::fill_fragment(sum, 1.0f);
  const int past = broken && threadIdx.x == 3 ? 8 : 0;
  if (threadIdx.x < 32) wmma::store_matrix_sync(x + past, sum, 16, wmma::mem_row_major);
}

KERNEL(reads_matrix_too_early) {
  __shared__ __align__(32) float tile[256];
  wmma::fragment<wmma::accumulator, 16, 16, 16, float> sum;
  wmma::fill_fragment(sum, 1.0f);
  if (threadIdx.x < 32) wmma::store_matrix_sync(tile, sum, 16, wmma::mem_row_major);
  if (!broken) __syncwarp();
  if (threadIdx.x < 32) x[threadIdx.x] = tile[threadIdx.x];
}

KERNEL(forgets_tf32_rounding) {
  wmma::fragment<wmma::matrix_a, 16, 16, 8, wmma::precision::tf32, wmma::row_major> a;
  wmma::fragment<wmma::matrix_b, 16, 16, 8, wmma::precision::tf32, wmma::row_major> b;
  wmma::fragment<wmma::accumulator, 16, 16, 8, float> sum;
  const float third = 1.0f / 3.0f;
  wmma::fill_fragment(a, broken ? third : wmma::__float_to_tf32(third));
  wmma::fill_fragment(b, 1.0f);
  wmma::fill_fragment(sum, 0.0f);
  wmma::mma_sync(sum, a, b, sum);
  if (threadIdx.x < 32) wmma::store_matrix_sync(x, sum, 16, wmma::mem_row_major);
}

using Kernel = void (*)(float*, int, int);

// Two blocks on n >= 256 numbers, which 64 threads divide.
static int start(Kernel kernel, float* x, int n, int broken, int shared_bytes) {
  return SEAMO_LAUNCH(kernel, dim3(2), dim3(kThreads), shared_bytes, nullptr, x, n, broken);
}

static int start_one(Kernel kernel, float* x, int n, int broken, int shared_bytes) {
  return SEAMO_LAUNCH(kernel, dim3(1), dim3(kThreads), shared_bytes, nullptr, x, n, broken);
}

#define EXPORT(name)                                                 \
  extern "C" int run_##name(float* x, int n, int broken) {           \
    return start_one(name, x, n, broken, kThreads * sizeof(float));  \
  }
EXPORT(leaves_before_barrier)
EXPORT(waits_at_two_barriers)
EXPORT(waits_in_a_branch)
EXPORT(shuffles_without_some)
EXPORT(shuffles_with_other_masks)
EXPORT(shuffles_from_nobody)
EXPORT(reads_beside)
EXPORT(writes_beside)
EXPORT(writes_before)
EXPORT(writes_beside_shared)
EXPORT(indexes_beside_array)
EXPORT(reads_uninitialised_static)
EXPORT(reads_uninitialised_dynamic)
EXPORT(forgets_barrier)
EXPORT(forgets_second_barrier)
EXPORT(forgets_warp_barrier)
EXPORT(takes_shuffle_for_barrier)
EXPORT(takes_warp_barrier_for_block)
EXPORT(writes_same_value)
EXPORT(writes_after_two_readers)
EXPORT(misaligns_vector)
EXPORT(forgets_wait)
EXPORT(forgets_commit)
EXPORT(reads_others_copy)
EXPORT(misaligns_copy)
EXPORT(threads_race_on_tensor)
EXPORT(follows_null)
EXPORT(divides_by_zero)
EXPORT(misaligns_matrix)
EXPORT(strides_matrix_badly)
EXPORT(disagrees_on_matrix)
EXPORT(reads_matrix_too_early)
EXPORT(forgets_tf32_rounding)

extern "C" int run_asks_for_too_much(float* x, int n, int broken) {
  return start_one(asks_for_too_much, x, n, broken, broken ? 300 * 1024 : 64 * 1024);
}
extern "C" int run_blocks_write_same_place(float* x, int n, int broken) {
  return start(blocks_write_same_place, x, n, broken, 0);
}
extern "C" int run_blocks_read_what_others_write(float* x, int n, int broken) {
  return start(blocks_read_what_others_write, x, n, broken, 0);
}
