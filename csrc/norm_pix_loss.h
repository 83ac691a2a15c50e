// norm_pix_loss on the CPU: mean squared error against patches normalised one by one.

#pragma once

#include "common.h"

namespace seamo {

struct NormPixLoss {
  StoredRows pred, target;  // `count` patches of `values` values
  int64_t count, values;
  const void* weight;  // [count]: float, or bool if weight_is_bool
  bool weight_is_bool;
  bool normalize;
  float eps;
  float* loss;      // sum of weight * mean squared error / total; 0 if total is 0
  float* total;     // sum of the weights
  void* pred_grad;  // [count, values], contiguous, stored like pred: the gradient of loss; or null
};

struct NormPixLossBackward {
  NormPixLoss forward;  // loss is not used; pred_grad becomes grad times the gradient of loss
  float grad;
};

void norm_pix_loss(const NormPixLoss& x);
void norm_pix_loss_backward(const NormPixLossBackward& x);

}  // namespace seamo
