// What intrinsics compute, written out for the tests to compare.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_pipeline.h>
#include <mma.h>

#include <type_traits>

#include "launch.cuh"

namespace wmma = nvcuda::wmma;

constexpr unsigned kAll = 0xffffffff;

// ---- 16-bit types: decoded[i] of bits i; encoded of values, one by one and in pairs ----

__global__ void half_kernel(float* decoded, const float2* values, __half* one, __half2* two,
                            int count) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < 65536) decoded[i] = __half2float(__ushort_as_half(static_cast<unsigned short>(i)));
  if (i >= count) return;
  const float2 value = values[i];
  one[2 * i] = __float2half(value.x);
  one[2 * i + 1] = __float2half_rn(value.y);
  two[i] = i % 2 == 0 ? __float22half2_rn(value) : __floats2half2_rn(value.x, value.y);
}

__global__ void bfloat16_kernel(float* decoded, const float2* values, __nv_bfloat16* one,
                                __nv_bfloat162* two, int count) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < 65536) {
    decoded[i] = __bfloat162float(__ushort_as_bfloat16(static_cast<unsigned short>(i)));
  }
  if (i >= count) return;
  const float2 value = values[i];
  one[2 * i] = __float2bfloat16(value.x);
  one[2 * i + 1] = __float2bfloat16_rn(value.y);
  two[i] = i % 2 == 0 ? __float22bfloat162_rn(value) : __floats2bfloat162_rn(value.x, value.y);
}

extern "C" int run_half(float* decoded, float2* values, __half* one, __half2* two, int count) {
  return SEAMO_LAUNCH(half_kernel, dim3(256), dim3(256), 0, nullptr, decoded, values, one, two,
                      count);
}
extern "C" int run_bfloat16(float* decoded, float2* values, __nv_bfloat16* one,
                            __nv_bfloat162* two, int count) {
  return SEAMO_LAUNCH(bfloat16_kernel, dim3(256), dim3(256), 0, nullptr, decoded, values, one, two,
                      count);
}

// ---- warps: rows of 64 numbers, one a thread ----

__global__ void warp_kernel(int* out) {
  const int t = threadIdx.x;
  int row = 0;
  const auto put = [&](int value) { out[64 * row++ + t] = value; };
  put(__shfl_sync(kAll, t, 5));
  put(__shfl_sync(kAll, t, t + 3, 8));
  put(__shfl_xor_sync(kAll, t, 9));
  put(__shfl_xor_sync(kAll, t, 8, 8));
  put(__shfl_up_sync(kAll, t, 3));
  put(__shfl_up_sync(kAll, t, 3, 16));
  put(__shfl_down_sync(kAll, t, 3));
  put(__shfl_down_sync(kAll, t, 3, 16));
  put(static_cast<int>(__ballot_sync(kAll, t % 3 == 0)));
  put(__any_sync(kAll, t == 40));
  put(__all_sync(kAll, t < 32));
  put(__syncthreads_count(t % 3 == 0));
  put(__syncthreads_or(t == 40));
  put(__syncthreads_and(t < 63));
}

extern "C" int run_warp(int* out) {
  return SEAMO_LAUNCH(warp_kernel, dim3(1), dim3(64), 0, nullptr, out);
}

// ---- indices and atomics ----

__global__ void index_kernel(int* out, int* count) {
  const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] = atomicAdd(count, 1);
}

extern "C" int run_index(int* out, int* count) {
  return SEAMO_LAUNCH(index_kernel, dim3(2, 3, 2), dim3(5, 4, 3), 0, nullptr, out, count);
}

// ---- shared memory starts as garbage; an asynchronous copy reverses rows, two in flight ----

__global__ void garbage_kernel(float* out) {
  SEAMO_SHARED(float, dynamic);
  __shared__ float fixed[32];
  out[2 * threadIdx.x] = dynamic[threadIdx.x];
  out[2 * threadIdx.x + 1] = fixed[threadIdx.x];
  dynamic[threadIdx.x] = fixed[threadIdx.x] = 0.0f;
}

extern "C" int run_garbage(float* out) {
  return SEAMO_LAUNCH(garbage_kernel, dim3(2), dim3(32), 128, nullptr, out);
}

__global__ void pipeline_kernel(const float4* from, float* to, int rows) {
  __shared__ __align__(16) float tile[2][128];
  const int t = threadIdx.x;
  const auto fetch = [&](int row) {
    const size_t zeros = row % 2 == 1 && t == 31 ? 8 : 0;
    __pipeline_memcpy_async(&tile[row % 2][4 * t], from + row * 32 + t, 16, zeros);
    __pipeline_commit();
  };
  fetch(0);
  for (int row = 0; row < rows; ++row) {
    if (row + 1 < rows) fetch(row + 1);
    __pipeline_wait_prior(row + 1 < rows ? 1 : 0);
    __syncthreads();
    for (int i = 0; i < 4; ++i) to[row * 128 + i * 32 + t] = tile[row % 2][127 - i * 32 - t];
    __syncthreads();
  }
}

extern "C" int run_pipeline(const float4* from, float* to, int rows) {
  return SEAMO_LAUNCH(pipeline_kernel, dim3(1), dim3(32), 0, nullptr, from, to, rows);
}

// ---- products of 16 x 16 matrices: (2 (a b + c)) by elements ----

template <typename T>
__device__ T as_operand(T value) { return value; }
__device__ float as_operand(float value) { return wmma::__float_to_tf32(value); }

template <typename T, typename Number, int k, typename LayoutA, typename LayoutB>
__global__ void product_kernel(const Number* a, const Number* b, const float* c, float* d,
                               int by_column) {
  wmma::fragment<wmma::matrix_a, 16, 16, k, T, LayoutA> left;
  wmma::fragment<wmma::matrix_b, 16, 16, k, T, LayoutB> right;
  wmma::fragment<wmma::accumulator, 16, 16, k, float> sum;
  constexpr bool a_rows = std::is_same<LayoutA, wmma::row_major>::value;
  constexpr bool b_rows = std::is_same<LayoutB, wmma::row_major>::value;
  const auto layout = by_column ? wmma::mem_col_major : wmma::mem_row_major;
  wmma::load_matrix_sync(sum, c, 20, layout);
  for (int step = 0; step < 16; step += k) {
    wmma::load_matrix_sync(left, a + (a_rows ? step : step * 24), 24);
    wmma::load_matrix_sync(right, b + (b_rows ? step * 24 : step), 24);
    for (int i = 0; i < left.num_elements; ++i) left.x[i] = as_operand(left.x[i]);
    for (int i = 0; i < right.num_elements; ++i) right.x[i] = as_operand(right.x[i]);
    wmma::mma_sync(sum, left, right, sum);
  }
  for (int i = 0; i < sum.num_elements; ++i) sum.x[i] *= 2.0f;
  wmma::store_matrix_sync(d, sum, 20, layout);
}

template <typename T, typename Number, int k, typename LayoutA, typename LayoutB>
int product(const void* a, const void* b, const float* c, float* d, int by_column) {
  auto kernel = product_kernel<T, Number, k, LayoutA, LayoutB>;
  return SEAMO_LAUNCH(kernel, dim3(1), dim3(32), 0, nullptr, static_cast<const Number*>(a),
                      static_cast<const Number*>(b), c, d, by_column);
}

template <typename T, typename Number, int k>
int any_product(int a_columns, int b_columns, const void* a, const void* b, const float* c,
                float* d) {
  using R = wmma::row_major;
  using C = wmma::col_major;
  if (a_columns && b_columns) return product<T, Number, k, C, C>(a, b, c, d, 1);
  if (a_columns) return product<T, Number, k, C, R>(a, b, c, d, 0);
  if (b_columns) return product<T, Number, k, R, C>(a, b, c, d, 0);
  return product<T, Number, k, R, R>(a, b, c, d, 1);
}

extern "C" int run_product(int type, int a_columns, int b_columns, const void* a, const void* b,
                           const float* c, float* d) {
  using tf32 = wmma::precision::tf32;
  if (type == 0) return any_product<__half, __half, 16>(a_columns, b_columns, a, b, c, d);
  if (type == 1) {
    return any_product<__nv_bfloat16, __nv_bfloat16, 16>(a_columns, b_columns, a, b, c, d);
  }
  return any_product<tf32, float, 8>(a_columns, b_columns, a, b, c, d);
}
