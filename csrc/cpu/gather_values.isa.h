// Where pixels are sampled, their values as floats, and which of them are lost.

typedef float Eight __attribute__((vector_size(32)));
typedef int32_t Mask __attribute__((vector_size(32)));

constexpr int kColumns = 8;           // pixels of a row that are computed at once
constexpr int kNear = 16, kFar = 32;  // pixels of a grid that they may come from, for the fast way

// Keeps the compiler from fusing what computed x with what uses it.
inline Floats rounded(Floats x) {
#if defined(__x86_64__)
  asm("" : "+x"(x));
#elif defined(__aarch64__)
  asm("" : "+w"(x));
#endif
  return x;
}

// Rounded after every operation, like the reference: a fused multiply-add could move a position
// that falls on a pixel off it. Writes whole vectors.
inline void find_taps(int64_t first, int64_t count, float start, float extent, int64_t image,
                      int64_t grid, const Taps& taps) {
  const float step = std::fabs(extent) * static_cast<float>(grid) / static_cast<float>(image);
  const float origin = start * static_cast<float>(grid);
  const float last = static_cast<float>(grid - 1);
  const Ints end = Ints{} + static_cast<int32_t>(grid - 1);
  Floats ahead;
  for (int lane = 0; lane < kLanes; ++lane) ahead[lane] = static_cast<float>(lane);
  for (int64_t i = 0; i < count; i += kLanes) {
    const Floats pixel = extent < 0 ? static_cast<float>(image - 1 - first - i) - ahead
                                    : static_cast<float>(first + i) + ahead;
    Floats position = rounded((pixel + 0.5f) * step);
    position = rounded(origin + position) - 0.5f;
    position = position > 0 ? position : Floats{};  // 0 for NaN too
    position = position < last ? position : broadcast(last);
    const Ints low = __builtin_convertvector(position, Ints);
    const Ints high = low < end ? low + 1 : end;
    const Floats fraction = position - __builtin_convertvector(low, Floats);
    std::memcpy(taps.low + i, &low, sizeof(low));
    std::memcpy(taps.high + i, &high, sizeof(high));
    store(taps.fraction + i, fraction);
  }
}

// What the pixels of one chunk of columns have in common.
struct Columns {
  int64_t count;                     // the last one stands in for those beyond
  int32_t neighbours[2 * kColumns];  // eight low ones, eight high ones
  Eight low_weight, high_weight;
  Mask high_used;
  // all neighbours lie among `window` pixels from `first` on; 0: they do not
  int64_t first;
  int window;
  int32_t order[2 * kColumns];  // neighbours as numbers among them
};

inline Columns columns_of(const Taps& taps, int64_t count, int64_t width) {
  Columns columns;
  columns.count = count;
  for (int i = 0; i < kColumns; ++i) {
    const int64_t tap = std::min<int64_t>(i, count - 1);
    columns.neighbours[i] = taps.low[tap];
    columns.neighbours[i + kColumns] = taps.high[tap];
    columns.high_weight[i] = taps.fraction[tap];
  }
  columns.low_weight = 1 - columns.high_weight;
  columns.high_used = columns.high_weight != 0;
  // positions rise, or fall where the axis is flipped
  const int32_t first = std::min(taps.low[0], taps.low[count - 1]);
  const int32_t span = std::max(taps.high[0], taps.high[count - 1]) - first;
  columns.window = span < kNear ? kNear : kFar;
  columns.first = std::min<int64_t>(first, width - columns.window);
  if (columns.first < 0 || span >= kFar || count < kColumns) columns.window = 0;
  for (int i = 0; i < 2 * kColumns; ++i) {
    columns.order[i] = columns.neighbours[i] - static_cast<int32_t>(columns.first);
  }
  return columns;
}

inline float value_of(float pixel) { return pixel; }
inline float value_of(uint8_t pixel) { return pixel; }
inline float value_of(uint16_t pixel) { return pixel; }
inline float value_of(int16_t pixel) { return pixel; }
inline float value_of(f16 pixel) { return to_float(pixel); }

inline Floats floats_at(const float* from) { return load(from); }

#if SEAMO_AVX512
inline Floats floats_at(const uint8_t* from) {
  const __m128i pixels = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return (Floats)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(pixels));
}
inline __m256i words_at(const void* from) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}
inline Floats floats_at(const uint16_t* from) {
  return (Floats)_mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(words_at(from)));
}
inline Floats floats_at(const int16_t* from) {
  return (Floats)_mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(words_at(from)));
}
inline Floats floats_at(const f16* from) { return (Floats)_mm512_cvtph_ps(words_at(from)); }
#elif SEAMO_AVX2
inline Floats floats_at(const uint8_t* from) {
  const __m128i pixels = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
  return (Floats)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(pixels));
}
inline __m128i words_at(const void* from) {
  return _mm_loadu_si128(static_cast<const __m128i*>(from));
}
inline Floats floats_at(const uint16_t* from) {
  return (Floats)_mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(words_at(from)));
}
inline Floats floats_at(const int16_t* from) {
  return (Floats)_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(words_at(from)));
}
inline Floats floats_at(const f16* from) { return (Floats)_mm256_cvtph_ps(words_at(from)); }
#else
template <typename Pixel>
inline Floats floats_at(const Pixel* from) {
  Floats values;
  for (int lane = 0; lane < kLanes; ++lane) values[lane] = value_of(from[lane]);
  return values;
}
#endif

// What is no measurement: nodata, what is larger than the limit, and NaN.
struct Losses {
  float nodata, limit;
};

// Where values are NaN or larger than the limit.
template <typename Values>
inline auto beyond(const Values& values, float limit) {
  typedef decltype(values == values) Result;
  const Values magnitude = (Values)((Result)values & 0x7fffffff);
  return ~(magnitude <= limit);
}

// Where values are lost.
template <typename Values>
inline auto lost_in(const Values& values, Losses losses) {
  return beyond(values, losses.limit) | (values == losses.nodata);
}

template <typename Values>
inline bool any(const Values& mask) {
  uint64_t words[sizeof(mask) / 8], all = 0;
  std::memcpy(words, &mask, sizeof(mask));
  for (const uint64_t word : words) all |= word;
  return all != 0;
}

// Whether a value of many is lost: `found |= lost_among<Pixel>(values, losses)`, then any(found).
#if SEAMO_AVX512
typedef __mmask16 Found;
inline bool any(Found found) { return found != 0; }
#else
typedef Ints Found;
#endif

template <typename Pixel>
inline Found lost_among(Floats values, Losses losses) {
#if SEAMO_AVX512
  const __m512 all = (__m512)values, limit = _mm512_set1_ps(losses.limit);
  const Found equal = _mm512_cmpeq_ps_mask(all, _mm512_set1_ps(losses.nodata));
  if constexpr (std::is_integral_v<Pixel>) return equal;
  return equal | _mm512_cmp_ps_mask(_mm512_abs_ps(all), limit, _CMP_NLE_UQ);
#else
  if constexpr (std::is_integral_v<Pixel>) return (Found)(values == losses.nodata);
  return lost_in(values, losses);
#endif
}
