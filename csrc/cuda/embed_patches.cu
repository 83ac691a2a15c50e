// embed_patches: a matrix product on tensor cores, whose epilogue adds bias, position and offset.
//
// A block makes 128 x 128 numbers of the result. While its warps multiply one slice of the depth,
// the next one is on its way to the other half of shared memory.

#include <cuda_pipeline.h>
#include <mma.h>

#include <type_traits>

#include "launch.cuh"
#include "numbers.cuh"

namespace seamo::embed_patches {

// out [count, width] = patches weight^T + bias + table[index] + offset[row / group]
SEAMO_PARAMS(EmbedPatches, Matrix patches, weight; int64_t storage; const float* bias;
             const float* table; const void* index; int64_t index_is_long; const float* offset;
             int64_t count, group, values, width, tf32; void* out; void* stream;)

// to [spans, width, values] = grad^T patches, for each span of rows
SEAMO_PARAMS(EmbedPatchesBackward, Matrix grad, patches;
             int64_t storage, count, span, values, width, tf32; float* to; void* stream;)

namespace wmma = nvcuda::wmma;

constexpr int kSide = 128;  // of a block
constexpr int kThreads = 256;
constexpr int kRows = 32, kCols = 64;  // of a warp
constexpr int kFragment = 16;
constexpr int kStaged = kCols + 4;  // a row of float on its way from fragments to the result
constexpr int kStagedBytes = kThreads / kWarp * kFragment * kStaged * sizeof(float);

template <typename Scalar>
constexpr int kDepth = 64 / sizeof(Scalar);  // of a slice

// Part of a matrix in shared memory; the space between its lines avoids bank conflicts.
template <typename Scalar, int lines, int length>
struct Slice {
  static constexpr int kLines = lines, kLength = length;
  static constexpr int kStride = length + Pack<Scalar>::kCount;
  Scalar values[lines * kStride];

  // Rows [first_row, last_row) from column first_col on, 0 where the matrix ends.
  __device__ void fetch(const Matrix& matrix, int64_t first_row, int64_t last_row,
                        int64_t first_col, int64_t width, bool packed) {
    constexpr int count = Pack<Scalar>::kCount, pieces = length / count;
#pragma unroll
    for (int piece = 0; piece < lines * pieces; piece += kThreads) {
      const int line = (piece + threadIdx.x) / pieces;
      const int start = (piece + threadIdx.x) % pieces * count;
      const int64_t left = first_row + line < last_row ? width - first_col - start : 0;
      Scalar* to = values + line * kStride + start;
      if (left <= 0) {
        store_pack(to, Pack<Scalar>{});
      } else {
        const Scalar* from = static_cast<const Scalar*>(matrix.data) +
                             (first_row + line) * matrix.stride + first_col + start;
        if (packed) {
          __pipeline_memcpy_async(to, from, 16);
        } else {
#pragma unroll 1
          for (int i = 0; i < count; ++i) to[i] = i < left ? from[i] : from_float<Scalar>(0.0f);
        }
      }
    }
  }
};

// What tensor cores multiply: 16 x 16 numbers of half precision,
template <typename Scalar, typename Use, typename Layout>
struct Factor {
  static constexpr int kStep = 16;
  wmma::fragment<Use, kFragment, kFragment, kStep, Scalar, Layout> values;

  __device__ void load(const Scalar* from, int stride) {
    wmma::load_matrix_sync(values, from, stride);
  }
};

// or 16 x 8 of float, each as the sum of two numbers of TF32.
template <typename Use, typename Layout>
struct Factor<float, Use, Layout> {
  static constexpr int kStep = 8;
  wmma::fragment<Use, kFragment, kFragment, kStep, wmma::precision::tf32, Layout> values, rest;

  __device__ void load(const float* from, int stride) {
    wmma::load_matrix_sync(values, from, stride);
#pragma unroll
    for (int i = 0; i < values.num_elements; ++i) {
      const float value = values.x[i];
      values.x[i] = wmma::__float_to_tf32(value);
      rest.x[i] = wmma::__float_to_tf32(value - values.x[i]);
    }
  }
};

template <typename Sum, typename A, typename B>
__device__ inline void add_product(Sum& sum, const A& a, const B& b, bool tf32) {
  if constexpr (A::kStep == 16) {
    wmma::mma_sync(sum, a.values, b.values, sum);
  } else {
    // long sums are rounded to nearest here: tensor cores cut them off
    Sum product;
    wmma::fill_fragment(product, 0.0f);
    if (!tf32) {
      wmma::mma_sync(product, a.rest, b.values, product);
      wmma::mma_sync(product, a.values, b.rest, product);
    }
    wmma::mma_sync(product, a.values, b.values, product);
#pragma unroll
    for (int i = 0; i < sum.num_elements; ++i) sum.x[i] += product.x[i];
  }
}

// Both factors by lines of the depth (their products are sums over columns), or, if `across`, by
// lines that lie across it.
template <typename Scalar, bool across>
struct Product {
  static constexpr int kDepth = embed_patches::kDepth<Scalar>;
  using Part =
      std::conditional_t<across, Slice<Scalar, kDepth, kSide>, Slice<Scalar, kSide, kDepth>>;
  using A =
      Factor<Scalar, wmma::matrix_a, std::conditional_t<across, wmma::col_major, wmma::row_major>>;
  using B =
      Factor<Scalar, wmma::matrix_b, std::conditional_t<across, wmma::row_major, wmma::col_major>>;
  using Sum = wmma::fragment<wmma::accumulator, kFragment, kFragment, A::kStep, float>;

  struct Stage {
    Part left, right;
  };
  static constexpr int kBytes = 2 * sizeof(Stage) > kStagedBytes ? 2 * sizeof(Stage) : kStagedBytes;

  // Where the fragment is that begins at `line` of a factor and at `depth`.
  static __device__ const Scalar* at(const Part& part, int line, int depth) {
    return part.values + (across ? depth * Part::kStride + line : line * Part::kStride + depth);
  }

  static __device__ void add(Sum (&sums)[kRows / kFragment][kCols / kFragment], const Stage& stage,
                             int row, int col, bool tf32) {
#pragma unroll
    for (int depth = 0; depth < kDepth; depth += A::kStep) {
      A a[kRows / kFragment];
#pragma unroll
      for (int i = 0; i < kRows / kFragment; ++i) {
        a[i].load(at(stage.left, row + i * kFragment, depth), Part::kStride);
      }
#pragma unroll
      for (int j = 0; j < kCols / kFragment; ++j) {
        B b;
        b.load(at(stage.right, col + j * kFragment, depth), Part::kStride);
#pragma unroll
        for (int i = 0; i < kRows / kFragment; ++i) add_product(sums[i][j], a[i], b, tf32);
      }
    }
  }

  // Sums over the depth [first, last). fetch(stage, depth) brings a slice; write(row, col, eight)
  // gets the results of the block.
  template <typename Fetch, typename Write>
  static __device__ void run(unsigned char* memory, int64_t first, int64_t last, bool tf32,
                             const Fetch& fetch, const Write& write) {
    Stage* stages = reinterpret_cast<Stage*>(memory);
    const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    const int row = warp / (kSide / kCols) * kRows, col = warp % (kSide / kCols) * kCols;
    Sum sums[kRows / kFragment][kCols / kFragment];
    for (auto& line : sums) {
      for (auto& sum : line) wmma::fill_fragment(sum, 0.0f);
    }
    if (first < last) fetch(stages[0], first);
    __pipeline_commit();
    int own = 0;
    for (int64_t depth = first; depth < last; depth += kDepth, own = 1 - own) {
      if (depth + kDepth < last) fetch(stages[1 - own], depth + kDepth);
      __pipeline_commit();
      __pipeline_wait_prior(1);
      __syncthreads();
      add(sums, stages[own], row, col, tf32);
      __syncthreads();
    }
    float* staged = reinterpret_cast<float*>(memory) + warp * kFragment * kStaged;
#pragma unroll
    for (int i = 0; i < kRows / kFragment; ++i) {
#pragma unroll
      for (int j = 0; j < kCols / kFragment; ++j) {
        wmma::store_matrix_sync(staged + j * kFragment, sums[i][j], kStaged, wmma::mem_row_major);
      }
      __syncwarp();
      for (int n = lane; n < kFragment * kCols / kEight; n += kWarp) {
        const int down = n / (kCols / kEight), right = n % (kCols / kEight) * kEight;
        write(row + i * kFragment + down, col + right,
              load_eight(staged + down * kStaged + right, kEight, true));
      }
      __syncwarp();
    }
  }
};

__device__ inline void add(Eight& sum, const float* from, int64_t left, bool packed) {
  const Eight more = load_eight(from, left, packed);
  for (int i = 0; i < kEight; ++i) sum.values[i] += more.values[i];
}

// Blocks that share patches are neighbours.
template <typename Scalar>
__global__ void __launch_bounds__(kThreads, sizeof(Scalar) == 2 ? 2 : 1)
    tokens_kernel(const EmbedPatches x, bool patches_packed, bool weight_packed, bool packed) {
  using Tokens = Product<Scalar, false>;
  __shared__ __align__(128) unsigned char memory[Tokens::kBytes];
  const int64_t col_blocks = (x.width + kSide - 1) / kSide;
  const int64_t first_row = blockIdx.x / col_blocks * kSide;
  const int64_t first_col = blockIdx.x % col_blocks * kSide;
  const auto fetch = [&](typename Tokens::Stage& stage, int64_t depth) {
    stage.left.fetch(x.patches, first_row, x.count, depth, x.values, patches_packed);
    stage.right.fetch(x.weight, first_col, x.width, depth, x.values, weight_packed);
  };
  const auto write = [&](int64_t row, int64_t col, Eight token) {
    row += first_row;
    col += first_col;
    if (row >= x.count || col >= x.width) return;
    const int64_t left = x.width - col;
    const int64_t position = number_at(x.index, x.index_is_long, row);
    add(token, x.table + position * x.width + col, left, packed);
    if (x.bias != nullptr) add(token, x.bias + col, left, packed);
    if (x.offset != nullptr) add(token, x.offset + row / x.group * x.width + col, left, packed);
    store_eight(static_cast<Scalar*>(x.out) + row * x.width + col, token, left, packed);
  };
  Tokens::run(memory, 0, x.values, x.tf32, fetch, write);
}

template <typename Scalar>
__global__ void __launch_bounds__(kThreads, sizeof(Scalar) == 2 ? 2 : 1)
    gradient_kernel(const EmbedPatchesBackward x, bool grad_packed, bool patches_packed,
                    bool packed) {
  using Gradient = Product<Scalar, true>;
  __shared__ __align__(128) unsigned char memory[Gradient::kBytes];
  const int64_t col_blocks = (x.values + kSide - 1) / kSide;
  const int64_t first_row = blockIdx.x / col_blocks * kSide;
  const int64_t first_col = blockIdx.x % col_blocks * kSide;
  const int64_t first = blockIdx.y * x.span;
  const int64_t last = first + x.span < x.count ? first + x.span : x.count;
  const auto fetch = [&](typename Gradient::Stage& stage, int64_t depth) {
    stage.left.fetch(x.grad, depth, last, first_row, x.width, grad_packed);
    stage.right.fetch(x.patches, depth, last, first_col, x.values, patches_packed);
  };
  const auto write = [&](int64_t row, int64_t col, const Eight& sum) {
    row += first_row;
    col += first_col;
    if (row >= x.width || col >= x.values) return;
    store_eight(x.to + (blockIdx.y * x.width + row) * x.values + col, sum, x.values - col, packed);
  };
  Gradient::run(memory, first, last, x.tf32, fetch, write);
}

SEAMO_EXPORT int seamo_embed_patches(const EmbedPatches* params) {
  const EmbedPatches& x = *params;
  return with_float(x.storage, [&](auto scalar) -> int {
    using Scalar = decltype(scalar);
    auto kernel = tokens_kernel<Scalar>;
    const bool packed = is_packed(x.out, x.width) && is_packed(x.table, x.width) &&
                        is_packed(x.bias, x.width) && is_packed(x.offset, x.width);
    const dim3 grid(ceil_div(x.count, kSide) * ceil_div(x.width, kSide));
    return SEAMO_LAUNCH(kernel, grid, dim3(kThreads), 0, x.stream, x,
                        is_packed<Scalar>(x.patches, x.values),
                        is_packed<Scalar>(x.weight, x.values), packed);
  });
}

SEAMO_EXPORT int seamo_embed_patches_backward(const EmbedPatchesBackward* params) {
  const EmbedPatchesBackward& x = *params;
  return with_float(x.storage, [&](auto scalar) -> int {
    using Scalar = decltype(scalar);
    auto kernel = gradient_kernel<Scalar>;
    const dim3 grid(ceil_div(x.width, kSide) * ceil_div(x.values, kSide),
                    ceil_div(x.count, x.span));
    return SEAMO_LAUNCH(kernel, grid, dim3(kThreads), 0, x.stream, x,
                        is_packed<Scalar>(x.grad, x.width), is_packed<Scalar>(x.patches, x.values),
                        is_packed(x.to, x.values));
  });
}

}  // namespace seamo::embed_patches
