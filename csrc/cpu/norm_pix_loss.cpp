#include "../norm_pix_loss.h"

#include <vector>

namespace seamo {
namespace {

inline float weight_of(const NormPixLoss& x, int64_t row) {
  return x.weight_is_bool ? static_cast<const uint8_t*>(x.weight)[row] != 0
                          : static_cast<const float*>(x.weight)[row];
}

}  // namespace
}  // namespace seamo

#define SEAMO_KERNELS "norm_pix_loss.isa.h"
#include "every_isa.h"

namespace seamo {

constexpr int64_t kBlock = 16;  // patches whose losses are added before any other

void norm_pix_loss(const NormPixLoss& x) {
  const auto losses = SEAMO_DISPATCH(norm_pix_loss_rows);
  const auto gradients = SEAMO_DISPATCH(norm_pix_loss_gradients);
  double total = 0;
  for (int64_t row = 0; row < x.count; ++row) total += weight_of(x, row);
  *x.total = static_cast<float>(total);
  const int64_t blocks = ceil_div(x.count, kBlock);
  std::vector<double> sums(blocks);
  parallel_for(blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kBlock, last = std::min(first + kBlock, x.count);
      sums[block] = losses(x, first, last);
      if (x.pred_grad != nullptr) gradients({x, 1}, first, last);
    }
  });
  double loss = 0;
  for (const double sum : sums) loss += sum;
  *x.loss = *x.total == 0 ? 0 : static_cast<float>(loss / total);
}

void norm_pix_loss_backward(const NormPixLossBackward& x) {
  const auto gradients = SEAMO_DISPATCH(norm_pix_loss_gradients);
  parallel_for(x.forward.count, kBlock,
               [&](int64_t begin, int64_t end) { gradients(x, begin, end); });
}

}  // namespace seamo
