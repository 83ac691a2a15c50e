// assemble_tokens: a warp takes a row of the sequence.

#include "launch.cuh"
#include "numbers.cuh"

namespace seamo::assemble_tokens {

SEAMO_PARAMS(AssembleTokens, Rows visible; int64_t storage; const float* mask_token;
             const float* table; const void* index;
             int64_t index_is_long, count, visible_count, length, width; void* out; void* stream;)

SEAMO_PARAMS(CopyRows, Rows rows; int64_t storage, count, width; void* to; void* stream;)

constexpr int kWarps = 8;
constexpr int kThreads = kWarp * kWarps;  // of a block

template <typename Scalar>
__global__ void __launch_bounds__(kThreads) tokens_kernel(const AssembleTokens x, bool packed) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.y;
  if (row >= x.count) return;
  const int64_t place = row % x.length;
  const bool shown = place < x.visible_count;
  const float* position = x.table + number_at(x.index, x.index_is_long, row) * x.width;
  const Scalar* visible = nullptr;
  if (shown) visible = row_of<Scalar>(x.visible, row / x.length * x.visible_count + place);
  Scalar* out = static_cast<Scalar*>(x.out) + row * x.width;
  for (int64_t col = threadIdx.x * kEight; col < x.width; col += kWarp * kEight) {
    const int64_t left = x.width - col;
    Eight token = load_eight(position + col, left, packed);
    const Eight own = shown ? load_eight(visible + col, left, packed)
                            : load_eight(x.mask_token + col, left, packed);
    for (int i = 0; i < kEight; ++i) token.values[i] += own.values[i];
    store_eight(out + col, token, left, packed);
  }
}

template <typename Scalar>
__global__ void __launch_bounds__(kThreads) copy_kernel(const CopyRows x, bool packed) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.y;
  if (row >= x.count) return;
  const Scalar* from = row_of<Scalar>(x.rows, row);
  Scalar* to = static_cast<Scalar*>(x.to) + row * x.width;
  for (int64_t col = threadIdx.x * kEight; col < x.width; col += kWarp * kEight) {
    const int64_t left = x.width - col;
    store_eight(to + col, load_eight(from + col, left, packed), left, packed);
  }
}

SEAMO_EXPORT int seamo_assemble_tokens(const AssembleTokens* params) {
  const AssembleTokens& x = *params;
  return with_float(x.storage, [&](auto scalar) -> int {
    using Scalar = decltype(scalar);
    auto kernel = tokens_kernel<Scalar>;
    const bool packed = is_packed<Scalar>(x.visible, x.width) && is_packed(x.out, x.width) &&
                        is_packed(x.mask_token, x.width) && is_packed(x.table, x.width);
    return SEAMO_LAUNCH(kernel, dim3(ceil_div(x.count, kWarps)), dim3(kWarp, kWarps), 0, x.stream,
                        x, packed);
  });
}

SEAMO_EXPORT int seamo_copy_rows(const CopyRows* params) {
  const CopyRows& x = *params;
  return with_float(x.storage, [&](auto scalar) -> int {
    using Scalar = decltype(scalar);
    auto kernel = copy_kernel<Scalar>;
    return SEAMO_LAUNCH(kernel, dim3(ceil_div(x.count, kWarps)), dim3(kWarp, kWarps), 0, x.stream,
                        x, is_packed<Scalar>(x.rows, x.width) && is_packed(x.to, x.width));
  });
}

}  // namespace seamo::assemble_tokens
