// What the kernels of tm_attention share. A block has some rows of one group, head and sample, 16
// for each of its warps, and walks a list of groups, a few rows of a group in a step: forbidden and
// invalid groups are never met. The next step's rows are copied to shared memory meanwhile.

#pragma once

#include <cuda_pipeline.h>

#include <cmath>
#include <type_traits>

#include "launch.cuh"
#include "tm_attention.h"
#include "tm_attention_tiles.cuh"

namespace seamo {

constexpr float kLog2e = 1.44269504f;
constexpr float kInfinity = INFINITY;

// Which rows a block has. Blocks that read the same groups run side by side.
struct Place {
  int64_t batch, head;
  int group, first;

  __device__ Place(const AttentionInputs& x, int64_t rows, int block_rows) {
    const unsigned blocks = (rows + block_rows - 1) / block_rows;
    const unsigned groups = x.seasons * x.modalities, heads = x.heads;
    unsigned rest = blockIdx.x;
    first = rest % blocks * block_rows;
    rest /= blocks;
    group = rest % groups;
    rest /= groups;
    head = rest % heads;
    batch = rest / heads;
  }
};

// The tokens of one head of one sample.
template <typename T>
struct Head {
  const T* data;
  int64_t season, modality, token;
  int modalities, width;
  bool packs;  // whether 128 bits can be read at once

  __device__ Head(const Tokens& tokens, const AttentionInputs& x, const Place& place)
      : data(static_cast<const T*>(tokens.data) + place.batch * tokens.batch +
             place.head * tokens.head),
        season(tokens.season),
        modality(tokens.modality),
        token(tokens.token),
        modalities(x.modalities),
        width(x.width) {
    const int64_t strides =
        tokens.batch | tokens.season | tokens.modality | tokens.token | tokens.head | x.width;
    packs = strides % Pack<T>::kCount == 0 && reinterpret_cast<uintptr_t>(tokens.data) % 16 == 0;
  }

  __device__ const T* rows(int group, int first) const {
    return data + group / modalities * season + group % modalities * modality + first * token;
  }
};

// The first `left` numbers of a pack, 0 after them.
template <typename T>
__device__ inline Pack<T> load_some(const T* from, int left) {
  Pack<T> pack;
#pragma unroll
  for (int i = 0; i < Pack<T>::kCount; ++i) {
    pack.values[i] = i < left ? from[i] : from_float<T>(0.0f);
  }
  return pack;
}

// Starts to copy rows to shared memory; zeros after `count` rows and after the width of the head.
template <typename T, int kWidth, int kRows>
__device__ inline void copy_rows(T* to, const Head<T>& head, int group, int first, int count) {
  using S = Shape<T, kWidth>;
  constexpr int kPack = Pack<T>::kCount;
  const T* from = head.rows(group, first);
#pragma unroll 1  // registers are dearer: nothing waits for the copies
  for (int i = threadIdx.x; i < kRows * (kWidth / kPack); i += S::kThreads) {
    const int row = i / (kWidth / kPack), column = i % (kWidth / kPack) * kPack;
    const T* source = from + row * head.token + column;
    T* target = to + row * S::kStride + column;
    const int width = row < count ? head.width - column : 0;
    if (head.packs && width > 0) {
      __pipeline_memcpy_async(target, source, sizeof(Pack<T>));
    } else {
      store_pack(target, load_some(source, width));
    }
  }
}

// Walks a list of groups of `rows` rows each: copies the next step's rows of a and b, and what
// load_more(group, first, count, buffer) copies, while compute(count, buffer, a, b) works on those
// of this step. There are two buffers, in turn.
template <typename T, int kWidth, typename LoadMore, typename Compute>
__device__ inline void walk(const int32_t* list, int rows, const Head<T>& a, const Head<T>& b,
                            T* buffers, const LoadMore& load_more, const Compute& compute) {
  using S = Shape<T, kWidth>;
  int steps = *list++ * ((rows + S::kStep - 1) / S::kStep);
  if (steps == 0) return;
  int group = *list++, first = 0;
  const auto load = [&](int buffer) {
    if (steps == 0) return 0;
    const int count = min(S::kStep, rows - first);
    T* to = buffers + buffer * 2 * S::kWalked;
    copy_rows<T, kWidth, S::kStep>(to, a, group, first, count);
    copy_rows<T, kWidth, S::kStep>(to + S::kWalked, b, group, first, count);
    load_more(group, first, count, buffer);
    __pipeline_commit();
    --steps;
    first += S::kStep;
    if (first >= rows) {
      first = 0;
      if (steps > 0) group = *list++;  // a step ahead: copies need not wait for it
    }
    return count;
  };
  int next = load(0);
  for (int buffer = 0; next > 0; buffer ^= 1) {
    __pipeline_wait_prior(0);
    __syncthreads();
    const int count = next;
    next = load(buffer ^ 1);
    const T* at = buffers + buffer * 2 * S::kWalked;
    compute(count, buffer, at, at + S::kWalked);
  }
}

// Calls body with a number of the storage's type and the width that heads are padded to.
template <typename Body>
int with_shape(const AttentionInputs& x, const Body& body) {
  return with_float(x.storage, [&](auto number) {
    const auto call = [&](auto width) { return body(number, width); };
    if (x.width <= 32) return call(std::integral_constant<int, 32>{});
    if (x.width <= 48) return call(std::integral_constant<int, 48>{});
    if (x.width <= 64) return call(std::integral_constant<int, 64>{});
    if (x.width <= 80) return call(std::integral_constant<int, 80>{});
    if (x.width <= 96) return call(std::integral_constant<int, 96>{});
    if (x.width <= kWidestHead) return call(std::integral_constant<int, kWidestHead>{});
    return static_cast<int>(cudaErrorInvalidValue);
  });
}

// Launches a kernel with a block for each `S::kRows` rows of a group, head and sample.
template <typename S, typename Params>
int launch_blocks(void (*kernel)(Params), const Params& params, int64_t rows, int tiles,
                  int floats) {
  const AttentionInputs& x = params.inputs;
  const int64_t blocks = ceil_div(rows, S::kRows) * x.batch * x.seasons * x.modalities * x.heads;
  if (blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
  return SEAMO_LAUNCH(kernel, dim3(blocks), dim3(S::kThreads), S::shared_bytes(tiles, floats),
                      params.stream, params);
}

}  // namespace seamo
