// tm_attention: lists of groups, and attention with a softmax that is corrected as it goes.

#include "tm_attention.cuh"

namespace seamo {

namespace {

constexpr int kListThreads = 128;

// One list a thread.
__global__ void links_kernel(AttentionInputs x, int64_t lists) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kListThreads + threadIdx.x;
  if (i >= lists) return;
  const int64_t groups = x.seasons * x.modalities, group = i % groups;
  const int64_t batch = i / groups % x.batch;
  const bool seers = i / groups / x.batch == 1;
  const bool* valid = x.valid + batch * groups;
  int32_t* list = x.links + i * (groups + 1);
  int32_t count = 0;
  for (int64_t other = 0; valid[group] && other < groups; ++other) {
    const int64_t link = seers ? other * groups + group : group * groups + other;
    if (x.adjacency[link] && valid[other]) list[++count] = static_cast<int32_t>(other);
  }
  list[0] = count;
}

// The softmax of a row so far, in units of log2: two lanes have a row, and half the sum each.
struct Softmax {
  float top = -kInfinity, total = 0;

  // Scores to probabilities relative to `top`; returns the factor of all before.
  template <int kLane>
  __device__ float add(float (&scores)[kLane], float scale, int count) {
    const int column = lane() / kTile * kLane;
    float largest = -kInfinity;
#pragma unroll
    for (int i = 0; i < kLane; ++i) {
      if (column + i >= count) scores[i] = -kInfinity;
      largest = fmaxf(largest, scores[i]);
    }
    largest = fmaxf(largest, __shfl_xor_sync(kFullWarp, largest, kTile)) * scale;
    const float new_top = fmaxf(top, largest), decay = exp2f(top - new_top);
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kLane; ++i) {
      scores[i] = exp2f(scores[i] * scale - new_top);
      sum += scores[i];
    }
    top = new_top;
    total = total * decay + sum;
    return decay;
  }

  __device__ float sum() const { return total + __shfl_xor_sync(kFullWarp, total, kTile); }
};

// Rows of sums times a factor of each lane's row, which goes through the right half of the tile.
template <typename T, int kCount>
__device__ inline void scale_rows(Sums<T> (&sums)[kCount], float factor, float* tile) {
  float* spread = tile + kTile;
  float* row = spread + lane() % kTile * kScoreStride + lane() / kTile * 8;
  const Pack<float> four = {factor, factor, factor, factor};
  store_pack(row, four);
  store_pack(row + 4, four);
  __syncwarp();
  Sums<T> factors;
  wmma::load_matrix_sync(factors, spread, kScoreStride, wmma::mem_row_major);
#pragma unroll
  for (int n = 0; n < kCount; ++n) {
#pragma unroll
    for (int i = 0; i < factors.num_elements; ++i) sums[n].x[i] *= factors.x[i];
  }
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(Shape<T, kWidth>::kThreads, kWidth > 96 ? 3 : 4)
    forward_kernel(TmAttention params) {
  using S = Shape<T, kWidth>;
  const AttentionInputs& x = params.inputs;
  const Place place(x, x.queries, S::kRows);
  const Head<T> q(x.q, x, place), k(x.k, x, place), v(x.v, x, place);
  SEAMO_SHARED(T, queries);
  T* buffers = queries + S::kOwn;
  float* tile = reinterpret_cast<float*>(buffers + 4 * S::kWalked) + warp() * kTile * kScoreStride;

  const int rows = x.queries - place.first, own = rows - warp() * kTile;  // own <= 0: none
  const int64_t groups = x.seasons * x.modalities, group = place.batch * groups + place.group;
  const int32_t* list = x.links + group * (groups + 1);
  if (*list > 0 && x.keys > 0) {
    copy_rows<T, kWidth, S::kRows>(queries, q, place.group, place.first, rows);
  }

  Softmax softmax;
  Sums<T> sums[kWidth / kTile];
  clear<T>(sums);
  walk<T, kWidth>(
      list, x.keys, k, v, buffers, [](int, int, int, int) {},
      [&](int count, int, const T* keys, const T* values) {
        if (own <= 0) return;
        float p[S::kLane];
        score<T, kWidth>(p, queries + warp() * kTile * S::kStride, keys, tile, x.tf32);
        const float decay = softmax.add(p, x.scale * kLog2e, count);
        store_factor<T>(p, tile, 0);
        if (__any_sync(kFullWarp, decay != 1)) scale_rows<T>(sums, decay, tile);
        __syncwarp();
        multiply<T, wmma::row_major, S::kStep>(sums, reinterpret_cast<const T*>(tile), S::kFactor,
                                               values, S::kStride, x.tf32);
      });
  if (own <= 0) return;

  const float total = softmax.sum();
  const int64_t first = place.first + warp() * kTile;
  T* out =
      static_cast<T*>(params.out) + ((group * x.queries + first) * x.heads + place.head) * x.width;
  write_rows<T>(out, x.heads * x.width, own, x.width, total == 0 ? 0 : 1 / total, sums, tile);
  if (lane() < min(own, kTile)) {
    const float lse = total == 0 ? kInfinity : (softmax.top + log2f(total)) / kLog2e;
    params.lse[(group * x.heads + place.head) * x.queries + first + lane()] = lse;
  }
}

}  // namespace

int list_links(const AttentionInputs& x, int64_t directions, void* stream) {
  const int64_t lists = directions * x.batch * x.seasons * x.modalities;
  const int64_t blocks = ceil_div(lists, kListThreads);
  if (blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
  return SEAMO_LAUNCH(links_kernel, dim3(blocks), dim3(kListThreads), 0, stream, x, lists);
}

}  // namespace seamo

int seamo_tm_attention(const seamo::TmAttention* params) {
  using namespace seamo;
  const AttentionInputs& x = params->inputs;
  if (const int error = list_links(x, 1, params->stream)) return error;
  return with_shape(x, [&](auto number, auto width) {
    using T = decltype(number);
    return launch_blocks<Shape<T, width>>(forward_kernel<T, width>, *params, x.queries, 1, 0);
  });
}
