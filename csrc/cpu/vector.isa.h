// The widest vector of floats of this instruction set, with plain operators (+, *, comparisons that
// give masks, mask ? a : b): GCC and Clang vectors. a * b + c is contracted to a fused multiply-add
// where there is one. Loads and stores need no alignment; `count` of them may be less than kLanes.

constexpr int kLanes = SEAMO_AVX512 ? 16 : SEAMO_AVX2 ? 8 : 4;

typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef int32_t Ints __attribute__((vector_size(4 * kLanes)));
typedef uint32_t Words __attribute__((vector_size(4 * kLanes)));
typedef uint16_t Halves __attribute__((vector_size(2 * kLanes)));

static inline Floats broadcast(float value) { return value - Floats{}; }

static inline Floats load(const float* from) {
  Floats result;
  std::memcpy(&result, from, sizeof(result));
  return result;
}

// Compilers split conversions of such vectors in two where instructions do it at once.
static inline Floats load(const bf16* from) {
#if SEAMO_AVX512
  const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return (Floats)_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16);
#elif SEAMO_AVX2
  const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return (Floats)_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16);
#else
  Halves halves;
  std::memcpy(&halves, from, sizeof(halves));
  return (Floats)(__builtin_convertvector(halves, Words) << 16);
#endif
}

static inline void store(float* to, Floats values) { std::memcpy(to, &values, sizeof(values)); }

static inline void store(bf16* to, Floats values) {
  const Words bits = (Words)values;
  const Words rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const Words nan = (Words)(values != values);
  const Words result = (nan & 0x7fc0) | (~nan & rounded);
#if SEAMO_AVX512
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16((__m512i)result));
#else
  const Halves halves = __builtin_convertvector(result, Halves);
  std::memcpy(to, &halves, sizeof(halves));
#endif
}

// The first `count` values, then zeros.
template <typename Scalar>
static inline Floats load(const Scalar* from, int64_t count) {
  Scalar values[kLanes] = {};
  std::memcpy(values, from, count * sizeof(Scalar));
  return load(values);
}

template <typename Scalar>
static inline void store(Scalar* to, Floats vector, int64_t count) {
  Scalar values[kLanes];
  store(values, vector);
  std::memcpy(to, values, count * sizeof(Scalar));
}

// Sum of the lanes, in an order that depends on kLanes alone.
static inline float sum(Floats values) {
  float lanes[kLanes];
  store(lanes, values);
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  }
  return lanes[0];
}

// Vector is Floats, or float for what a row leaves over: one body serves both.
template <typename Vector, typename Scalar>
static inline Vector read(const Scalar* from) {
  if constexpr (std::is_same_v<Vector, float>) {
    return to_float(*from);
  } else {
    return load(from);
  }
}

template <typename Scalar>
static inline void write(Scalar* to, float value) {
  *to = from_float<Scalar>(value);
}

template <typename Scalar>
static inline void write(Scalar* to, Floats values) {
  store(to, values);
}

// body.template operator()<Vector>(i) for i in steps over [0, count).
template <typename Body>
static inline void for_each(int64_t count, const Body& body) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) body.template operator()<Floats>(i);
  for (; i < count; ++i) body.template operator()<float>(i);
}

// The sum over [0, count) of what body.template operator()<Vector>(i) returns, in an order that
// depends on `count` and kLanes alone.
template <typename Body>
static inline float sum_of(int64_t count, const Body& body) {
  Floats totals[4] = {};
  int64_t i = 0;
  for (; i + 4 * kLanes <= count; i += 4 * kLanes) {
    for (int part = 0; part < 4; ++part) {
      totals[part] += body.template operator()<Floats>(i + part * kLanes);
    }
  }
  for (; i + kLanes <= count; i += kLanes) totals[0] += body.template operator()<Floats>(i);
  float rest = 0;
  for (; i < count; ++i) rest += body.template operator()<float>(i);
  return sum((totals[0] + totals[1]) + (totals[2] + totals[3])) + rest;
}
