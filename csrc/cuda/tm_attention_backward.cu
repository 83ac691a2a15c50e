// Gradients of tm_attention: of queries over the groups they see, then of keys and values over the
// groups that see them, so that no two blocks add to the same number.

#include "tm_attention.cuh"

namespace seamo {

namespace {

// delta = sum(grad * out) of row lane % 16 of a warp; grad in shared memory, out from row 0 on.
template <typename T, int kWidth>
__device__ inline float row_delta(const T* grad, const T* out, int64_t stride, int rows,
                                  int width) {
  const bool packed = width % kEight == 0 && reinterpret_cast<uintptr_t>(out) % 16 == 0;
  const int row = lane() / 2;
  float sum = 0;
#pragma unroll
  for (int column = lane() % 2 * kEight; column < kWidth; column += 2 * kEight) {
    const int left = row < rows ? width - column : 0;
    const Eight a = load_eight(grad + row * Shape<T, kWidth>::kStride + column, kEight, true);
    const Eight b = load_eight(out + row * stride + column, left, packed && left > 0);
#pragma unroll
    for (int i = 0; i < kEight; ++i) sum += a.values[i] * b.values[i];
  }
  sum += __shfl_xor_sync(kFullWarp, sum, 1);
  return __shfl_sync(kFullWarp, sum, lane() % kTile * 2);
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(Shape<T, kWidth>::kThreads, kWidth > 64 ? 3 : 4)
    query_grad_kernel(TmAttentionBackward params) {
  using S = Shape<T, kWidth>;
  const AttentionInputs& x = params.inputs;
  const Place place(x, x.queries, S::kRows);
  const Head<T> grad(params.grad, x, place);
  const Head<T> q(x.q, x, place), k(x.k, x, place), v(x.v, x, place);
  SEAMO_SHARED(T, queries);
  T* slopes = queries + S::kOwn;
  T* buffers = slopes + S::kOwn;
  float* tile = reinterpret_cast<float*>(buffers + 4 * S::kWalked) + warp() * kTile * kScoreStride;

  const int rows = x.queries - place.first, own = rows - warp() * kTile;
  const int64_t groups = x.seasons * x.modalities, group = place.batch * groups + place.group;
  const int64_t first = place.first + warp() * kTile;
  const int64_t offset = ((group * x.queries + first) * x.heads + place.head) * x.width;
  const int64_t row = (group * x.heads + place.head) * x.queries + first + lane() % kTile;
  const int32_t* list = x.links + group * (groups + 1);

  float lse = kInfinity, delta = 0;
  if (*list > 0) {
    copy_rows<T, kWidth, S::kRows>(queries, q, place.group, place.first, rows);
    copy_rows<T, kWidth, S::kRows>(slopes, grad, place.group, place.first, rows);
    __pipeline_commit();
    __pipeline_wait_prior(0);
    __syncthreads();
    delta = row_delta<T, kWidth>(slopes + warp() * kTile * S::kStride,
                                 static_cast<const T*>(params.out) + offset, x.heads * x.width, own,
                                 x.width);
    if (lane() % kTile < own) {
      lse = params.lse[row] * kLog2e;
      if (lane() < kTile) params.delta[row] = delta;
    }
  }

  Sums<T> sums[kWidth / kTile];
  clear<T>(sums);
  walk<T, kWidth>(
      list, x.keys, k, v, buffers, [](int, int, int, int) {},
      [&](int count, int, const T* keys, const T* values) {
        if (own <= 0) return;
        const int corner = warp() * kTile * S::kStride, column = lane() / kTile * S::kLane;
        float p[S::kLane], p_grad[S::kLane];
        score<T, kWidth>(p, queries + corner, keys, tile, x.tf32);
        score<T, kWidth>(p_grad, slopes + corner, values, tile, x.tf32);
#pragma unroll
        for (int i = 0; i < S::kLane; ++i) {
          p[i] = exp2f(p[i] * (x.scale * kLog2e) - lse) * (p_grad[i] - delta);
          if (column + i >= count) p[i] = 0;
        }
        store_factor<T>(p, tile, 0);
        __syncwarp();
        multiply<T, wmma::row_major, S::kStep>(sums, reinterpret_cast<const T*>(tile), S::kFactor,
                                               keys, S::kStride, x.tf32);
      });
  if (own <= 0) return;
  write_rows<T>(static_cast<T*>(params.q_grad) + offset, x.heads * x.width, own, x.width, x.scale,
                sums, tile);
}

// lse and delta of the queries of a step, zeros after `count`: the rows of these queries are zeros
// too, and add nothing.
template <int kStep>
__device__ inline void copy_floats(float* to, const float* lse, const float* delta, int count) {
  const int i = threadIdx.x % kStep;
  if (threadIdx.x >= 2 * kStep) return;
  const float* from = threadIdx.x < kStep ? lse : delta;
  if (i < count) {
    __pipeline_memcpy_async(to + threadIdx.x, from + i, sizeof(float));
  } else {
    to[threadIdx.x] = 0;
  }
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(Shape<T, kWidth>::kThreads, kWidth > 80 ? 2 : 3)
    key_grad_kernel(TmAttentionBackward params) {
  using S = Shape<T, kWidth>;
  const AttentionInputs& x = params.inputs;
  const Place place(x, x.keys, S::kRows);
  const Head<T> grad(params.grad, x, place);
  const Head<T> q(x.q, x, place), k(x.k, x, place), v(x.v, x, place);
  SEAMO_SHARED(T, keys);
  T* values = keys + S::kOwn;
  T* buffers = values + S::kOwn;
  float* floats = reinterpret_cast<float*>(buffers + 4 * S::kWalked);
  float* tile = floats + 4 * S::kStep + warp() * kTile * kScoreStride;

  const int rows = x.keys - place.first, own = rows - warp() * kTile;
  const int64_t groups = x.seasons * x.modalities, group = place.batch * groups + place.group;
  const int32_t* list = x.links + ((x.batch + place.batch) * groups + place.group) * (groups + 1);
  if (*list > 0) {
    copy_rows<T, kWidth, S::kRows>(keys, k, place.group, place.first, rows);
    copy_rows<T, kWidth, S::kRows>(values, v, place.group, place.first, rows);
  }

  Sums<T> k_sums[kWidth / kTile], v_sums[kWidth / kTile];
  clear<T>(k_sums);
  clear<T>(v_sums);
  walk<T, kWidth>(
      list, x.queries, q, grad, buffers,
      [&](int other, int first, int count, int buffer) {
        const int64_t row =
            ((place.batch * groups + other) * x.heads + place.head) * x.queries + first;
        copy_floats<S::kStep>(floats + buffer * 2 * S::kStep, params.lse + row, params.delta + row,
                              count);
      },
      [&](int, int buffer, const T* queries, const T* slopes) {
        if (own <= 0) return;
        const float* lse = floats + buffer * 2 * S::kStep + lane() / kTile * S::kLane;
        const float* delta = lse + S::kStep;
        const T* factor = reinterpret_cast<const T*>(tile);
        const int corner = warp() * kTile * S::kStride;
        float p[S::kLane], p_grad[S::kLane];
        score<T, kWidth>(p, keys + corner, queries, tile, x.tf32);
        score<T, kWidth>(p_grad, values + corner, slopes, tile, x.tf32);
#pragma unroll
        for (int i = 0; i < S::kLane; ++i) {
          p[i] = exp2f(p[i] * (x.scale * kLog2e) - lse[i] * kLog2e);
          p_grad[i] = p[i] * (p_grad[i] - delta[i]);
        }
        store_factor<T>(p, tile, 0);
        store_factor<T>(p_grad, tile, 1);
        __syncwarp();
        multiply<T, wmma::row_major, S::kStep>(v_sums, factor, S::kFactor, slopes, S::kStride,
                                               x.tf32);
        multiply<T, wmma::row_major, S::kStep>(k_sums, factor + S::kStep, S::kFactor, queries,
                                               S::kStride, x.tf32);
      });
  if (own <= 0) return;
  const int64_t offset =
      ((group * x.keys + place.first + warp() * kTile) * x.heads + place.head) * x.width;
  write_rows<T>(static_cast<T*>(params.k_grad) + offset, x.heads * x.width, own, x.width, x.scale,
                k_sums, tile);
  write_rows<T>(static_cast<T*>(params.v_grad) + offset, x.heads * x.width, own, x.width, 1.0f,
                v_sums, tile);
}

}  // namespace

}  // namespace seamo

int seamo_tm_attention_backward(const seamo::TmAttentionBackward* params) {
  using namespace seamo;
  const AttentionInputs& x = params->inputs;
  if (const int error = list_links(x, 2, params->stream)) return error;
  return with_shape(x, [&](auto number, auto width) {
    using T = decltype(number);
    using S = Shape<T, width>;
    const int error = launch_blocks<S>(query_grad_kernel<T, width>, *params, x.queries, 2, 0);
    if (error) return error;
    return launch_blocks<S>(key_grad_kernel<T, width>, *params, x.keys, 2, 4 * S::kStep);
  });
}
