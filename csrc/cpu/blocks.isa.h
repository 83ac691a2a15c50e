// Products of small matrices that lie in the cache as rows of floats, padded to whole vectors: what
// becomes of a block of the result is decided while it is in the registers.

#if SEAMO_AVX512 || defined(__aarch64__)
constexpr int kPanel = 4;  // vectors of columns that a block has at most
constexpr int panel_rows(int panel) { return panel > 3 ? 6 : panel > 2 ? 8 : 12; }
#else
constexpr int kPanel = 2;
constexpr int panel_rows(int panel) { return panel > 1 ? 6 : 12; }
#endif

#define SEAMO_INLINE inline __attribute__((always_inline))

inline int64_t padded(int64_t width) { return ceil_div(width, kLanes) * kLanes; }

// finish(row, column, c) for c = a[row:, :] @ b[:, column:], a block of kRows x kVectors vectors.
// Element (row, k) of a is a[row * stride + k], or a[row + k * stride] if kTransposed.
template <int kRows, int kVectors, bool kTransposed, typename Finish>
SEAMO_INLINE void multiply_block(int64_t row, int64_t column, int64_t depth, const float* a,
                                 int64_t a_stride, const float* b, int64_t b_stride,
                                 Finish finish) {
  Floats c[kRows][kVectors] = {};
  a += kTransposed ? row : row * a_stride;
  b += column;
  for (int64_t k = 0; k < depth; ++k) {
    Floats line[kVectors];
    for (int v = 0; v < kVectors; ++v) line[v] = load(b + k * b_stride + v * kLanes);
    for (int r = 0; r < kRows; ++r) {
      const float factor = kTransposed ? a[k * a_stride + r] : a[r * a_stride + k];
      for (int v = 0; v < kVectors; ++v) c[r][v] += line[v] * factor;
    }
  }
  finish(row, column, c);
}

template <int kRows, int kVectors, bool kTransposed, typename... Rest>
SEAMO_INLINE void multiply_rows(int64_t row, int64_t rows, int64_t column, const Rest&... rest) {
  for (; row + kRows <= rows; row += kRows) {
    multiply_block<kRows, kVectors, kTransposed>(row, column, rest...);
  }
  if constexpr (kRows > 1) {
    constexpr int kFewer = kRows > 8 ? 8 : kRows > 4 ? 4 : kRows / 2;
    multiply_rows<kFewer, kVectors, kTransposed>(row, rows, column, rest...);
  }
}

template <int kVectors, bool kTransposed, typename... Rest>
__attribute__((noinline)) void multiply_panel(int64_t rows, int64_t column, const Rest&... rest) {
  multiply_rows<panel_rows(kVectors), kVectors, kTransposed>(0, rows, column, rest...);
}

// The product of a [rows, depth] and b [depth, columns], block by block; columns are padded.
template <bool kTransposed, typename Finish>
inline void multiply(int64_t rows, int64_t columns, int64_t depth, const float* a, int64_t a_stride,
                     const float* b, int64_t b_stride, const Finish& finish) {
  int64_t vectors = columns / kLanes;
  for (int64_t column = 0; vectors > 0;) {
    const int64_t panel = ceil_div(vectors, ceil_div(vectors, kPanel));
    if constexpr (kPanel == 4) {
      if (panel == 4) {
        multiply_panel<4, kTransposed>(rows, column, depth, a, a_stride, b, b_stride, finish);
      } else if (panel == 3) {
        multiply_panel<3, kTransposed>(rows, column, depth, a, a_stride, b, b_stride, finish);
      }
    }
    if (panel == 2) {
      multiply_panel<2, kTransposed>(rows, column, depth, a, a_stride, b, b_stride, finish);
    } else if (panel == 1) {
      multiply_panel<1, kTransposed>(rows, column, depth, a, a_stride, b, b_stride, finish);
    }
    vectors -= panel;
    column += panel * kLanes;
  }
}

struct Add {
  float* to;
  int64_t stride;

  template <int kRows, int kVectors>
  SEAMO_INLINE void operator()(int64_t row, int64_t column, Floats (&c)[kRows][kVectors]) const {
    float* line = to + row * stride + column;
    for (int r = 0; r < kRows; ++r, line += stride) {
      for (int v = 0; v < kVectors; ++v) {
        store(line + v * kLanes, load(line + v * kLanes) + c[r][v]);
      }
    }
  }
};

// to = to * factor[row] + block
struct ScaleAndAdd {
  float* to;
  int64_t stride;
  const float* factor;

  template <int kRows, int kVectors>
  SEAMO_INLINE void operator()(int64_t row, int64_t column, Floats (&c)[kRows][kVectors]) const {
    float* line = to + row * stride + column;
    for (int r = 0; r < kRows; ++r, line += stride) {
      for (int v = 0; v < kVectors; ++v) {
        store(line + v * kLanes, load(line + v * kLanes) * factor[row + r] + c[r][v]);
      }
    }
  }
};

// Rows of floats, padded with zeros; `bias`, if any, is added to each.
template <typename Scalar>
void read_rows(float* to, const Scalar* from, int64_t stride, int64_t rows, int64_t width,
               const float* bias = nullptr) {
  const int64_t whole = width / kLanes * kLanes, rest = width - whole;
  for (int64_t row = 0; row < rows; ++row, from += stride) {
    for (int64_t i = 0; i < whole; i += kLanes, to += kLanes) {
      store(to, bias ? load(from + i) + load(bias + i) : load(from + i));
    }
    if (rest > 0) {
      const Floats last = load(from + whole, rest);
      store(to, bias ? last + load(bias + whole, rest) : last);
      to += kLanes;
    }
  }
}

template <typename Scalar>
void write_rows(Scalar* to, int64_t stride, const float* from, int64_t rows, int64_t width,
                float factor) {
  const int64_t whole = width / kLanes * kLanes;
  for (int64_t row = 0; row < rows; ++row, to += stride) {
    for (int64_t i = 0; i < whole; i += kLanes, from += kLanes) {
      store(to + i, load(from) * factor);
    }
    if (whole < width) {
      store(to + whole, load(from) * factor, width - whole);
      from += kLanes;
    }
  }
}

template <typename Scalar>
void write_zeros(Scalar* to, int64_t stride, int64_t rows, int64_t width) {
  for (int64_t row = 0; row < rows; ++row, to += stride) std::fill_n(to, width, Scalar{});
}

// Of two rows, the lanes of the lower half of each pair of blocks of kStep lanes, or of the upper.
template <int kStep, bool kUpper, size_t... kLane>
SEAMO_INLINE Floats halves(Floats a, Floats b, std::index_sequence<kLane...>) {
  constexpr int kOffset = kUpper ? kStep : 0;
#if defined(__clang__)
  return __builtin_shufflevector(a, b,
                                 int((kLane & kStep ? kLanes - kStep : 0) + kLane + kOffset)...);
#else
  return __builtin_shuffle(a, b,
                           Ints{int((kLane & kStep ? kLanes - kStep : 0) + kLane + kOffset)...});
#endif
}

template <int kStep>
SEAMO_INLINE void transpose_block(Floats (&rows)[kLanes]) {
  constexpr auto lanes = std::make_index_sequence<kLanes>();
  for (int r = 0; r < kLanes; ++r) {
    if (r & kStep) continue;
    const Floats a = rows[r], b = rows[r + kStep];
    rows[r] = halves<kStep, false>(a, b, lanes);
    rows[r + kStep] = halves<kStep, true>(a, b, lanes);
  }
  if constexpr (kStep > 1) transpose_block<kStep / 2>(rows);
}

// to[i * to_stride + row] = from[row * stride + i] * factor; rows are padded with zeros.
void transpose_rows(float* to, int64_t to_stride, const float* from, int64_t stride, int64_t rows,
                    float factor) {
  for (int64_t row = 0; row < rows; row += kLanes) {
    for (int64_t i = 0; i < stride; i += kLanes) {
      Floats block[kLanes];
      for (int r = 0; r < kLanes; ++r) {
        block[r] = row + r < rows ? load(from + (row + r) * stride + i) * factor : Floats{};
      }
      transpose_block<kLanes / 2>(block);
      for (int r = 0; r < kLanes; ++r) store(to + (i + r) * to_stride + row, block[r]);
    }
  }
}
