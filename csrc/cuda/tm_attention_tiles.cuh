// Tiles of tm_attention in shared memory, and products of them on tensor cores. Which lane holds
// which number of a product is not known: scores and results go through a tile that each warp has.

#pragma once

#include <mma.h>

#include <type_traits>

#include "numbers.cuh"

namespace seamo {

namespace wmma = nvcuda::wmma;

constexpr int kTile = 16;         // rows and columns of a product of a warp
constexpr int kScoreStride = 36;  // of a warp's tile: 32 scores, and 4 to spread rows over banks

// Sizes for one way of storage and heads of at most kWidth numbers.
template <typename T, int kWidth>
struct Shape {
  static constexpr int kStride = kWidth + Pack<T>::kCount;          // of rows in shared memory
  static constexpr int kRows = kWidth * sizeof(T) > 384 ? 32 : 64;  // of a block
  static constexpr int kStep = sizeof(T) == 2 ? 32 : 16;            // rows of a step
  static constexpr int kLane = kStep / 2;                           // scores of a lane in a step
  static constexpr int kThreads = kRows / kTile * kWarp;
  static constexpr int kOwn = kRows * kStride;     // numbers of a tile of the block's rows
  static constexpr int kWalked = kStep * kStride;  // numbers of a tile of a step
  static constexpr int kFactor = kScoreStride * sizeof(float) / sizeof(T);  // stride of factors

  // Tiles of the block's rows, two tiles of a step twice, a tile of scores a warp, more floats.
  static constexpr size_t shared_bytes(int tiles, int floats) {
    return (tiles * kOwn + 4 * kWalked) * sizeof(T) +
           (kRows * kScoreStride + floats) * sizeof(float);
  }
};

// Products: half precision as it is; float as three products of TF32 numbers, or as one.

template <typename T>
constexpr int kDepthOf = sizeof(T) == 2 ? 16 : 8;

template <typename T>
using Sums = wmma::fragment<wmma::accumulator, kTile, kTile, kDepthOf<T>, float>;

template <typename T, typename Use, typename Layout>
struct Factor {
  wmma::fragment<Use, kTile, kTile, kDepthOf<T>, T, Layout> numbers;

  __device__ Factor(const T* from, int stride) { wmma::load_matrix_sync(numbers, from, stride); }
};

template <typename Use, typename Layout>
struct Factor<float, Use, Layout> {
  wmma::fragment<Use, kTile, kTile, kDepthOf<float>, wmma::precision::tf32, Layout> high, low;

  __device__ Factor(const float* from, int stride) {
    wmma::load_matrix_sync(high, from, stride);
#pragma unroll
    for (int i = 0; i < high.num_elements; ++i) {
      const float number = high.x[i];
      high.x[i] = wmma::__float_to_tf32(number);
      low.x[i] = wmma::__float_to_tf32(number - high.x[i]);
    }
  }
};

template <typename T, typename A, typename B>
__device__ inline void add_product(Sums<T>& sums, const A& a, const B& b, bool tf32) {
  if constexpr (sizeof(T) == 2) {
    wmma::mma_sync(sums, a.numbers, b.numbers, sums);
  } else {
    if (!tf32) {
      wmma::mma_sync(sums, a.low, b.high, sums);
      wmma::mma_sync(sums, a.high, b.low, sums);
    }
    wmma::mma_sync(sums, a.high, b.high, sums);
  }
}

// sums += a @ b for a [16, kDepth] and b [kDepth, 16 * kCount]; col_major: for the transpose of b.
template <typename T, typename Layout, int kDepth, int kCount>
__device__ inline void multiply(Sums<T> (&sums)[kCount], const T* a, int a_stride, const T* b,
                                int b_stride, bool tf32) {
  constexpr bool transposed = std::is_same_v<Layout, wmma::col_major>;
  constexpr int kUnroll = kCount > 2 ? 1 : 2;  // more loads at once would not fit in registers
#pragma unroll kUnroll
  for (int d = 0; d < kDepth; d += kDepthOf<T>) {
    const Factor<T, wmma::matrix_a, wmma::row_major> left(a + d, a_stride);
#pragma unroll
    for (int n = 0; n < kCount; ++n) {
      const int corner = transposed ? n * kTile * b_stride + d : d * b_stride + n * kTile;
      const Factor<T, wmma::matrix_b, Layout> right(b + corner, b_stride);
      add_product<T>(sums[n], left, right, tf32);
    }
  }
}

template <typename T, int kCount>
__device__ inline void clear(Sums<T> (&sums)[kCount]) {
#pragma unroll
  for (int n = 0; n < kCount; ++n) wmma::fill_fragment(sums[n], 0.0f);
}

__device__ inline int lane() { return threadIdx.x % kWarp; }
__device__ inline int warp() { return threadIdx.x / kWarp; }

// a @ b.T for 16 rows of a warp and the rows of a step, through the warp's tile: a lane gets half a
// row, columns from lane / 16 * kLane of row lane % 16.
template <typename T, int kWidth>
__device__ inline void score(float (&scores)[Shape<T, kWidth>::kLane], const T* a, const T* b,
                             float* tile, bool tf32) {
  using S = Shape<T, kWidth>;
  Sums<T> sums[S::kStep / kTile];
  clear<T>(sums);
  multiply<T, wmma::col_major, kWidth>(sums, a, S::kStride, b, S::kStride, tf32);
#pragma unroll
  for (int n = 0; n < S::kStep / kTile; ++n) {
    wmma::store_matrix_sync(tile + n * kTile, sums[n], kScoreStride, wmma::mem_row_major);
  }
  __syncwarp();
  const float* row = tile + lane() % kTile * kScoreStride + lane() / kTile * S::kLane;
#pragma unroll
  for (int i = 0; i < S::kLane; i += 4) {
    const Pack<float> pack = load_pack(row + i);
#pragma unroll
    for (int j = 0; j < 4; ++j) scores[i + j] = pack.values[j];
  }
  __syncwarp();
}

// The left factor of a product from the half rows of the lanes; a tile has room for parts 0 and 1.
template <typename T, int kLane>
__device__ inline void store_factor(const float (&numbers)[kLane], float* tile, int part) {
  T* row = reinterpret_cast<T*>(tile + lane() % kTile * kScoreStride);
  row += part * 2 * kLane + lane() / kTile * kLane;
#pragma unroll
  for (int i = 0; i < kLane; i += Pack<T>::kCount) {
    Pack<T> pack;
#pragma unroll
    for (int j = 0; j < Pack<T>::kCount; ++j) pack.values[j] = from_float<T>(numbers[i + j]);
    store_pack(row + i, pack);
  }
}

// Writes the first `rows` rows of a warp, each times a factor, that of row i from lane i.
template <typename T, int kCount>
__device__ inline void write_rows(T* to, int64_t stride, int rows, int width, float factor,
                                  const Sums<T> (&sums)[kCount], float* tile) {
  const bool packed = width % kEight == 0 && reinterpret_cast<uintptr_t>(to) % 16 == 0;
  const int row = lane() / 2, side = lane() % 2 * kEight;
  const float row_factor = __shfl_sync(kFullWarp, factor, row);
  __syncwarp();
#pragma unroll
  for (int n = 0; n < kCount; ++n) {
    float* half = tile + n % 2 * kTile;  // two halves in turn: what is read is not written yet
    wmma::store_matrix_sync(half, sums[n], kScoreStride, wmma::mem_row_major);
    __syncwarp();
    const int column = n * kTile + side, left = row < rows ? width - column : 0;
    Eight eight = load_eight(half + row * kScoreStride + side, kEight, true);
#pragma unroll
    for (int i = 0; i < kEight; ++i) eight.values[i] *= row_factor;
    if (left > 0) store_eight(to + row * stride + column, eight, left, packed);
  }
}

}  // namespace seamo
