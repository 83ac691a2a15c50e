#include "../residual.h"

#define SEAMO_KERNELS "residual.isa.h"
#include "every_isa.h"

namespace seamo {

constexpr int64_t kGrain = 16;  // rows that are worth a thread

void normalize(const LayerNorm& norm, const float* x, int64_t count, float* to, Moments moments) {
  const auto kernel = SEAMO_DISPATCH(normalize_rows);
  parallel_for(count, kGrain,
               [&](int64_t begin, int64_t end) { kernel(norm, x, begin, end, to, moments); });
}

// body(block, begin, end) for each block of kSumRows rows of [0, count).
template <typename Body>
static void for_each_block(int64_t count, const Body& body) {
  parallel_for(ceil_div(count, kSumRows), 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      body(block, block * kSumRows, std::min((block + 1) * kSumRows, count));
    }
  });
}

void normalize_backward(const NormalizeBackward& y, int64_t count) {
  const auto kernel = SEAMO_DISPATCH(normalize_backward_rows);
  for_each_block(count,
                 [&](int64_t block, int64_t begin, int64_t end) { kernel(y, begin, end, block); });
}

void gelu(const float* x, const float* bias, int64_t count, int64_t width, float* to) {
  const auto kernel = SEAMO_DISPATCH(gelu_rows);
  parallel_for(count, kGrain,
               [&](int64_t begin, int64_t end) { kernel(x, bias, begin, end, width, to); });
}

void gelu_backward(const float* x, const float* bias, int64_t count, int64_t width, float* to,
                   float* grad, PartialSums sums) {
  const auto kernel = SEAMO_DISPATCH(gelu_backward_rows);
  for_each_block(count, [&](int64_t block, int64_t begin, int64_t end) {
    kernel(x, bias, begin, end, width, to, grad, sums + block * width);
  });
}

void add_bias(const Rows& rows, const float* bias, int64_t count, int64_t width, float* to) {
  const auto kernel = SEAMO_DISPATCH(add_bias_rows);
  parallel_for(count, kGrain,
               [&](int64_t begin, int64_t end) { kernel(rows, bias, begin, end, width, to); });
}

}  // namespace seamo
