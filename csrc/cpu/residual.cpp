#include "../residual.h"

#define SEAMO_KERNELS "residual.inc"
#include "every_isa.h"

namespace seamo {

constexpr int64_t kGrain = 16;  // rows that are worth a thread

void normalize(const LayerNorm& norm, const float* x, int64_t count, float* to, Moments moments) {
  const auto kernel = SEAMO_DISPATCH(normalize_rows);
  parallel_for(count, kGrain, [&](int64_t begin, int64_t end) {
    kernel(norm, x, begin, end, to, moments);
  });
}

void normalize_backward(const NormalizeBackward& y, int64_t count) {
  const auto kernel = SEAMO_DISPATCH(normalize_backward_rows);
  parallel_for(ceil_div(count, kNormRows), 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      kernel(y, block * kNormRows, std::min((block + 1) * kNormRows, count), block);
    }
  });
}

void gelu(const float* x, const float* bias, int64_t count, int64_t width, float* to) {
  const auto kernel = SEAMO_DISPATCH(gelu_rows);
  parallel_for(count, kGrain, [&](int64_t begin, int64_t end) {
    kernel(x, bias, begin, end, width, to);
  });
}

void gelu_backward(const float* x, const float* bias, int64_t count, int64_t width, float* to,
                   float* grad) {
  const auto kernel = SEAMO_DISPATCH(gelu_backward_rows);
  parallel_for(count, kGrain, [&](int64_t begin, int64_t end) {
    kernel(x, bias, begin, end, width, to, grad);
  });
}

void add_bias(const Rows& rows, const float* bias, int64_t count, int64_t width, float* to) {
  const auto kernel = SEAMO_DISPATCH(add_bias_rows);
  parallel_for(count, kGrain, [&](int64_t begin, int64_t end) {
    kernel(rows, bias, begin, end, width, to);
  });
}

}  // namespace seamo
