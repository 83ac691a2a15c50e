// Sums of rows of tokens: the gradients of what is added to many tokens.

#include "launch.cuh"
#include "numbers.cuh"

namespace seamo::row_sums {

// to [groups, width]: the sums of `group` rows each, of `count` rows; the last may be shorter.
SEAMO_PARAMS(GroupSums, Rows rows; int64_t storage, count, group, width; float* to; void* stream;)

// to [spans, positions, width]: for each position the sum of the rows of a span whose index it is.
SEAMO_PARAMS(PositionSums, Rows rows; int64_t storage; const void* index;
             int64_t index_is_long, count, span, positions, width; float* to; void* stream;)

constexpr int kWarps = 8;
constexpr int kThreads = kWarp * kWarps;  // of a block
constexpr int kColumns = kWarp * kEight;  // of a block
constexpr int kTile = 1024;               // index numbers in shared memory

__device__ inline void add(Eight& sum, const Eight& eight) {
  for (int i = 0; i < kEight; ++i) sum.values[i] += eight.values[i];
}

// Each warp adds every eighth row of a group, then each thread one column of all warps.
template <typename Scalar>
__global__ void __launch_bounds__(kThreads)
    group_kernel(const GroupSums x, int64_t chunks, bool packed) {
  __shared__ float sums[kWarps][kColumns];
  const int64_t group = blockIdx.x / chunks, chunk = blockIdx.x % chunks * kColumns;
  const int64_t first = group * x.group;
  const int64_t last = first + x.group < x.count ? first + x.group : x.count;
  const int64_t col = chunk + threadIdx.x * kEight;
  Eight sum{};
  if (col < x.width) {
#pragma unroll 4
    for (int64_t row = first + threadIdx.y; row < last; row += kWarps) {
      add(sum, load_eight(row_of<Scalar>(x.rows, row) + col, x.width - col, packed));
    }
  }
  for (int i = 0; i < kEight; ++i) sums[threadIdx.y][threadIdx.x * kEight + i] = sum.values[i];
  __syncthreads();
  const int own = threadIdx.y * kWarp + threadIdx.x;
  float total = 0;
  for (int warp = 0; warp < kWarps; ++warp) total += sums[warp][own];
  if (chunk + own < x.width) x.to[group * x.width + chunk + own] = total;
}

// Each warp has a position, and adds the rows of the span that it finds there, in their order.
template <typename Scalar>
__global__ void __launch_bounds__(kThreads)
    position_kernel(const PositionSums x, bool packed, bool to_packed) {
  __shared__ int numbers[kTile];
  const int64_t position = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.y;
  const int64_t col = static_cast<int64_t>(blockIdx.y) * kColumns + threadIdx.x * kEight;
  const int64_t first = static_cast<int64_t>(blockIdx.z) * x.span;
  const int64_t last = first + x.span < x.count ? first + x.span : x.count;
  Eight sum{};
  for (int64_t tile = first; tile < last; tile += kTile) {
    for (int i = threadIdx.y * kWarp + threadIdx.x; i < kTile; i += kThreads) {
      const bool inside = tile + i < last;
      numbers[i] = inside ? static_cast<int>(number_at(x.index, x.index_is_long, tile + i)) : -1;
    }
    __syncthreads();
    for (int base = 0; base < kTile && tile + base < last; base += kWarp) {
      const bool own = numbers[base + threadIdx.x] == position;
      for (unsigned found = __ballot_sync(kFullWarp, own); found != 0; found &= found - 1) {
        const int64_t row = tile + base + __ffs(found) - 1;
        if (col >= x.width) continue;
        add(sum, load_eight(row_of<Scalar>(x.rows, row) + col, x.width - col, packed));
      }
    }
    __syncthreads();
  }
  if (position >= x.positions || col >= x.width) return;
  float* to = x.to + (blockIdx.z * x.positions + position) * x.width + col;
  store_eight(to, sum, x.width - col, to_packed);
}

SEAMO_EXPORT int seamo_group_sums(const GroupSums* params) {
  const GroupSums& x = *params;
  return with_float(x.storage, [&](auto scalar) -> int {
    using Scalar = decltype(scalar);
    auto kernel = group_kernel<Scalar>;
    const int64_t chunks = ceil_div(x.width, kColumns);
    return SEAMO_LAUNCH(kernel, dim3(ceil_div(x.count, x.group) * chunks), dim3(kWarp, kWarps), 0,
                        x.stream, x, chunks, is_packed<Scalar>(x.rows, x.width));
  });
}

SEAMO_EXPORT int seamo_position_sums(const PositionSums* params) {
  const PositionSums& x = *params;
  return with_float(x.storage, [&](auto scalar) -> int {
    using Scalar = decltype(scalar);
    auto kernel = position_kernel<Scalar>;
    const dim3 grid(ceil_div(x.positions, kWarps), ceil_div(x.width, kColumns),
                    ceil_div(x.count, x.span));
    return SEAMO_LAUNCH(kernel, grid, dim3(kWarp, kWarps), 0, x.stream, x,
                        is_packed<Scalar>(x.rows, x.width), is_packed(x.to, x.width));
  });
}

}  // namespace seamo::row_sums
