#include "exponential.isa.h"

// What a row leaves over is padded, so that every value takes the same way.
template <typename Body>
static inline void for_vectors(int64_t width, const Body& body) {
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) body(i, kLanes);
  if (i < width) body(i, width - i);
}

static inline Floats part(const float* from, int64_t count) {
  return count == kLanes ? load(from) : load(from, count);
}

static inline void put(float* to, Floats values, int64_t count) {
  count == kLanes ? store(to, values) : store(to, values, count);
}

static void normalize_rows(const LayerNorm& norm, const float* x, int64_t begin, int64_t end,
                           float* to, Moments moments) {
  const int64_t width = norm.width;
  for (int64_t row = begin; row < end; ++row) {
    const float* from = x + row * width;
    float* into = to + row * width;
    const float mean =
        sum_of(width, [&]<typename Vector>(int64_t i) { return read<Vector>(from + i); }) / width;
    const float squares = sum_of(width, [&]<typename Vector>(int64_t i) {
      const Vector distance = read<Vector>(from + i) - mean;
      return distance * distance;
    });
    const float scale = 1 / std::sqrt(squares / width + norm.eps);
    for_each(width, [&]<typename Vector>(int64_t i) {
      write(into + i, (read<Vector>(from + i) - mean) * scale * read<Vector>(norm.weight + i) +
                          read<Vector>(norm.bias + i));
    });
    moments.mean[row] = mean;
    moments.scale[row] = scale;
  }
}

static void normalize_backward_rows(const NormalizeBackward& y, int64_t begin, int64_t end,
                                    int64_t block) {
  const int64_t width = y.norm.width;
  const Residual& residual = y.residual;
  float* weight_grad = y.weight_grad + block * width;
  float* bias_grad = y.bias_grad + block * width;
  float* residual_sum = y.residual_sum + block * width;
  std::fill_n(weight_grad, width, 0.0f);
  std::fill_n(bias_grad, width, 0.0f);
  std::fill_n(residual_sum, width, 0.0f);
  for (int64_t row = begin; row < end; ++row) {
    const float *x = y.x + row * width, *grad = y.grad + row * width, *weight = y.norm.weight;
    const float mean = y.moments.mean[row], scale = y.moments.scale[row];
    const auto of_bias = [&]<typename Vector>(int64_t i) {
      return read<Vector>(grad + i) * read<Vector>(weight + i);
    };
    const auto of_weight = [&]<typename Vector>(int64_t i) {
      return read<Vector>(grad + i) * read<Vector>(weight + i) *
             ((read<Vector>(x + i) - mean) * scale);
    };
    const float by_bias = sum_of(width, of_bias) / width;
    const float by_weight = sum_of(width, of_weight) / width;
    const int64_t place = row % residual.length - residual.skip;
    const float* added =
        place < 0 ? nullptr
                  : residual.grad +
                        (row / residual.length * (residual.length - residual.skip) + place) * width;
    float* to = y.x_grad + row * width;
    for_each(width, [&]<typename Vector>(int64_t i) {
      const Vector slope = read<Vector>(grad + i);
      const Vector normal = (read<Vector>(x + i) - mean) * scale;
      write(weight_grad + i, read<Vector>(weight_grad + i) + slope * normal);
      write(bias_grad + i, read<Vector>(bias_grad + i) + slope);
      const Vector found =
          (slope * read<Vector>(weight + i) - by_bias - normal * by_weight) * scale;
      if (added == nullptr) return write(to + i, found);
      const Vector residual_grad = read<Vector>(added + i);
      write(to + i, found + residual_grad);
      write(residual_sum + i, read<Vector>(residual_sum + i) + residual_grad);
    });
  }
}

// The standard normal distribution: P(X <= x), within two units of float at 1, and its density.
struct Normal {
  Floats below, density;

  explicit Normal(Floats x) {
    const Floats size = x < 0.0f ? -x : x;
    const Floats bell = power_of_two(x * x * (-0.5f * kLog2e));
    // P(X > size) / bell in t, fitted for sizes up to 14, where the bell is 0 already
    const Floats t = 1.0f / (size * 0.35f + 1.0f);
    Floats p = t * -0.028045787f + 0.1382589f;
    p = p * t - 0.24294704f;
    p = p * t + 0.1431056f;
    p = p * t - 0.010598819f;
    p = p * t + 0.09927932f;
    p = p * t + 0.12180925f;
    p = p * t + 0.13947758f;
    p = p * t + 0.13966285f;
    p = p * t - 1.8864159e-06f;
    const Floats above = p * bell;
    below = x < 0.0f ? above : 1.0f - above;
    density = bell * 0.3989423f;
  }
};

static void gelu_rows(const float* x, const float* bias, int64_t begin, int64_t end, int64_t width,
                      float* to) {
  for (int64_t row = begin; row < end; ++row) {
    const float* from = x + row * width;
    float* into = to + row * width;
    for_vectors(width, [&](int64_t i, int64_t count) {
      const Floats value = part(from + i, count) + part(bias + i, count);
      put(into + i, value * Normal(value).below, count);
    });
  }
}

static void gelu_backward_rows(const float* x, const float* bias, int64_t begin, int64_t end,
                               int64_t width, float* to, float* grad, float* sum) {
  std::fill_n(sum, width, 0.0f);
  for (int64_t row = begin; row < end; ++row) {
    const float* from = x + row * width;
    float *into = to + row * width, *slope = grad + row * width;
    for_vectors(width, [&](int64_t i, int64_t count) {
      const Floats value = part(from + i, count) + part(bias + i, count);
      const Normal normal(value);
      put(into + i, value * normal.below, count);
      const Floats found = part(slope + i, count) * (normal.below + value * normal.density);
      put(slope + i, found, count);
      put(sum + i, part(sum + i, count) + found, count);
    });
  }
}

static void add_bias_rows(const Rows& rows, const float* bias, int64_t begin, int64_t end,
                          int64_t width, float* to) {
  for (int64_t row = begin; row < end; ++row) {
    const float* from = static_cast<const float*>(rows.data) + offset_of(rows, row);
    for_each(width, [&]<typename Vector>(int64_t i) {
      write(to + row * width + i, read<Vector>(from + i) + read<Vector>(bias + i));
    });
  }
}
