// norm_pix_loss: a warp takes a patch, which stays in the L1 cache while it is read three times.

#include <algorithm>
#include <type_traits>

#include "launch.cuh"
#include "numbers.cuh"

namespace seamo::norm_pix_loss {

SEAMO_PARAMS(NormPixLoss, Rows pred, target; int64_t pred_storage, target_storage;
             const void* weight; int64_t weight_is_bool, count, width, normalize; float eps;
             float* partial; int64_t blocks; float* loss; float* total; void* stream;)

SEAMO_PARAMS(NormPixLossBackward, Rows pred, target; int64_t pred_storage, target_storage;
             const void* weight; int64_t weight_is_bool, count, width, normalize; float eps;
             const float* grad; const float* total; void* pred_grad; void* stream;)

constexpr int kWarps = 8;
constexpr int kThreads = kWarp * kWarps;  // of a block

template <typename Params>
__device__ inline float weight_of(const Params& x, int64_t row) {
  if (x.weight_is_bool) return static_cast<const uint8_t*>(x.weight)[row] ? 1.0f : 0.0f;
  return static_cast<const float*>(x.weight)[row];
}

// Makes the target of one patch: (value - mean) * inverse.
struct Target {
  float mean, inverse;
};

template <typename Scalar, typename Params>
__device__ inline Target target_of(const Scalar* target, const Params& x, bool packed) {
  if (!x.normalize) return {0.0f, 1.0f};
  const int first = threadIdx.x * kEight;
  float sum = 0, squares = 0;
  for (int64_t col = first; col < x.width; col += kWarp * kEight) {
    const Eight eight = load_eight(target + col, x.width - col, packed);
    for (int i = 0; i < kEight; ++i) sum += eight.values[i];
  }
  const float mean = warp_sum(sum) / x.width;
  for (int64_t col = first; col < x.width; col += kWarp * kEight) {
    const Eight eight = load_eight(target + col, x.width - col, packed);
    for (int i = 0; i < kEight; ++i) {
      const float centred = col + i < x.width ? eight.values[i] - mean : 0.0f;
      squares += centred * centred;
    }
  }
  return {mean, 1.0f / sqrtf(warp_sum(squares) / (x.width - 1) + x.eps)};
}

// Prediction minus target of eight values; 0 after the last value.
template <typename Pred, typename Goal>
__device__ inline Eight error_of(const Pred* pred, const Goal* target, const Target& made,
                                 int64_t left, bool pred_packed, bool target_packed) {
  Eight error = load_eight(pred, left, pred_packed);
  const Eight goal = load_eight(target, left, target_packed);
  for (int i = 0; i < kEight; ++i) {
    error.values[i] -= (goal.values[i] - made.mean) * made.inverse;
    if (i >= left) error.values[i] = 0;
  }
  return error;
}

template <typename Pred, typename Goal>
__global__ void __launch_bounds__(kThreads)
    loss_kernel(const NormPixLoss x, bool pred_packed, bool target_packed) {
  __shared__ float losses[kWarps], totals[kWarps];
  float loss = 0, total = 0;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kWarps;
  for (int64_t row = blockIdx.x * kWarps + threadIdx.y; row < x.count; row += step) {
    const float weight = weight_of(x, row);
    if (weight == 0) continue;
    const Pred* pred = row_of<Pred>(x.pred, row);
    const Goal* target = row_of<Goal>(x.target, row);
    const Target made = target_of(target, x, target_packed);
    float squares = 0;
    for (int64_t col = threadIdx.x * kEight; col < x.width; col += kWarp * kEight) {
      const Eight error =
          error_of(pred + col, target + col, made, x.width - col, pred_packed, target_packed);
      for (int i = 0; i < kEight; ++i) squares += error.values[i] * error.values[i];
    }
    loss += weight * (warp_sum(squares) / x.width);
    total += weight;
  }
  if (threadIdx.x == 0) {
    losses[threadIdx.y] = loss;
    totals[threadIdx.y] = total;
  }
  __syncthreads();
  if (threadIdx.x == 0 && threadIdx.y == 0) {
    for (int warp = 1; warp < kWarps; ++warp) {
      loss += losses[warp];
      total += totals[warp];
    }
    x.partial[blockIdx.x] = loss;
    x.partial[gridDim.x + blockIdx.x] = total;
  }
}

// One warp adds what the blocks found.
__global__ void finish_kernel(const NormPixLoss x) {
  float loss = 0, total = 0;
  for (int64_t block = threadIdx.x; block < x.blocks; block += kWarp) {
    loss += x.partial[block];
    total += x.partial[x.blocks + block];
  }
  loss = warp_sum(loss);
  total = warp_sum(total);
  if (threadIdx.x == 0) {
    *x.loss = total == 0 ? 0.0f : loss / total;
    *x.total = total;
  }
}

template <typename Pred, typename Goal>
__global__ void __launch_bounds__(kThreads)
    gradient_kernel(const NormPixLossBackward x, bool pred_packed, bool target_packed,
                    bool grad_packed) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.y;
  if (row >= x.count) return;
  const float weight = weight_of(x, row);
  Pred* to = static_cast<Pred*>(x.pred_grad) + row * x.width;
  const int64_t first = threadIdx.x * kEight;
  if (weight == 0) {
    for (int64_t col = first; col < x.width; col += kWarp * kEight) {
      store_eight(to + col, Eight{}, x.width - col, grad_packed);
    }
    return;
  }
  const float factor = *x.total == 0 ? 0.0f : *x.grad * 2 / x.width / *x.total * weight;
  const Pred* pred = row_of<Pred>(x.pred, row);
  const Goal* target = row_of<Goal>(x.target, row);
  const Target made = target_of(target, x, target_packed);
  for (int64_t col = first; col < x.width; col += kWarp * kEight) {
    const int64_t left = x.width - col;
    Eight slope = error_of(pred + col, target + col, made, left, pred_packed, target_packed);
    for (int i = 0; i < kEight; ++i) slope.values[i] *= factor;
    store_eight(to + col, slope, left, grad_packed);
  }
}

// The target is stored like the prediction, or in float.
template <typename Params, typename Body>
int with_types(const Params& x, const Body& body) {
  return with_float(x.pred_storage, [&](auto pred) {
    if (x.target_storage == kFloat) return body(pred, float{});
    if (x.target_storage != x.pred_storage) return static_cast<int>(cudaErrorInvalidValue);
    return body(pred, pred);
  });
}

SEAMO_EXPORT int seamo_norm_pix_loss(const NormPixLoss* params) {
  const NormPixLoss& x = *params;
  return with_types(x, [&](auto pred, auto target) -> int {
    using Pred = decltype(pred);
    using Goal = decltype(target);
    auto kernel = loss_kernel<Pred, Goal>;
    const cudaError_t error =
        SEAMO_LAUNCH(kernel, dim3(x.blocks), dim3(kWarp, kWarps), 0, x.stream, x,
                     is_packed<Pred>(x.pred, x.width), is_packed<Goal>(x.target, x.width));
    if (error != cudaSuccess) return error;
    return SEAMO_LAUNCH(finish_kernel, dim3(1), dim3(kWarp), 0, x.stream, x);
  });
}

SEAMO_EXPORT int seamo_norm_pix_loss_backward(const NormPixLossBackward* params) {
  const NormPixLossBackward& x = *params;
  return with_types(x, [&](auto pred, auto target) -> int {
    using Pred = decltype(pred);
    using Goal = decltype(target);
    auto kernel = gradient_kernel<Pred, Goal>;
    return SEAMO_LAUNCH(kernel, dim3(ceil_div(x.count, kWarps)), dim3(kWarp, kWarps), 0, x.stream,
                        x, is_packed<Pred>(x.pred, x.width), is_packed<Goal>(x.target, x.width),
                        is_packed(x.pred_grad, x.width));
  });
}

}  // namespace seamo::norm_pix_loss
