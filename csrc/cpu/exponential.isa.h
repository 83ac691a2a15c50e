constexpr float kLog2e = 1.44269504f;

// 2^x for x <= 0, within one unit in the last place; 0 below 2^-100, NaN for NaN.
inline __attribute__((always_inline)) Floats power_of_two(Floats x) {
  // adding this rounds to an integer and leaves the biased exponent in the low bits
  const Floats shifted = x + (12582912.0f + 127.0f);
  const Floats f = x - (shifted - (12582912.0f + 127.0f));
  Floats p = f * 0.00015345812f + 0.0013399931f;
  p = p * f + 0.009618489f;
  p = p * f + 0.055503286f;
  p = p * f + 0.24022646f;
  p = p * f + 0.6931472f;
  p = p * f + 1.0f;
  p *= (Floats)((Words)shifted << 23);
  // smaller ones would lead to denormal numbers, which are slow
  return x < -100.0f ? Floats{} : p;
}
