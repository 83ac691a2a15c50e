struct Moments {
  float mean, scale;
};

template <typename Scalar>
static inline Moments moments(const Scalar* values, int64_t count, float eps) {
  const float mean =
      sum_of(count, [&]<typename Vector>(int64_t i) { return read<Vector>(values + i); }) / count;
  const float squares = sum_of(count, [&]<typename Vector>(int64_t i) {
    const Vector distance = read<Vector>(values + i) - mean;
    return distance * distance;
  });
  return {mean, 1 / std::sqrt(squares / (count - 1) + eps)};
}

// body.template operator()<Vector>(i, error) or a sum of it: see for_each and sum_of.
template <typename Pred, typename Target>
struct Patch {
  const Pred* pred;
  const Target* target;
  Moments of_target;

  Patch(const NormPixLoss& x, int64_t row)
      : pred(static_cast<const Pred*>(x.pred.data) + offset_of(x.pred, row)),
        target(static_cast<const Target*>(x.target.data) + offset_of(x.target, row)),
        of_target(x.normalize ? moments(target, x.values, x.eps) : Moments{0, 1}) {}

  template <typename Vector>
  Vector error(int64_t i) const {
    return read<Vector>(pred + i) - (read<Vector>(target + i) - of_target.mean) * of_target.scale;
  }
};

template <typename Pred, typename Target>
static double losses(const NormPixLoss& x, int64_t begin, int64_t end) {
  double sum = 0;
  for (int64_t row = begin; row < end; ++row) {
    const float weight = weight_of(x, row);
    if (weight == 0) continue;
    const Patch<Pred, Target> patch(x, row);
    const float squares = sum_of(x.values, [&]<typename Vector>(int64_t i) {
      const Vector error = patch.template error<Vector>(i);
      return error * error;
    });
    sum += static_cast<double>(weight) * squares;
  }
  return sum / x.values;
}

template <typename Pred, typename Target>
static void gradients(const NormPixLossBackward& y, int64_t begin, int64_t end) {
  const NormPixLoss& x = y.forward;
  const float factor = *x.total == 0 ? 0 : y.grad * 2 / x.values / *x.total;
  for (int64_t row = begin; row < end; ++row) {
    Pred* grad = static_cast<Pred*>(x.pred_grad) + row * x.values;
    const float weight = weight_of(x, row) * factor;
    if (weight == 0) {
      std::memset(grad, 0, x.values * sizeof(Pred));
      continue;
    }
    const Patch<Pred, Target> patch(x, row);
    for_each(x.values, [&]<typename Vector>(int64_t i) {
      write(grad + i, patch.template error<Vector>(i) * weight);
    });
  }
}

static double norm_pix_loss_rows(const NormPixLoss& x, int64_t begin, int64_t end) {
  if (x.pred.half) {
    return x.target.half ? losses<bf16, bf16>(x, begin, end) : losses<bf16, float>(x, begin, end);
  }
  return x.target.half ? losses<float, bf16>(x, begin, end) : losses<float, float>(x, begin, end);
}

static void norm_pix_loss_gradients(const NormPixLossBackward& y, int64_t begin, int64_t end) {
  if (y.forward.pred.half) {
    y.forward.target.half ? gradients<bf16, bf16>(y, begin, end)
                          : gradients<bf16, float>(y, begin, end);
  } else {
    y.forward.target.half ? gradients<float, bf16>(y, begin, end)
                          : gradients<float, float>(y, begin, end);
  }
}
