template <typename From, typename To>
static inline void add_row(const From* token, const float* position, int64_t width, To* to) {
  for_each(width, [&]<typename Vector>(int64_t i) {
    write(to + i, read<Vector>(token + i) + read<Vector>(position + i));
  });
}

template <typename Scalar>
static void tokens_of(const AssembleTokens& x, int64_t begin, int64_t end) {
  Scalar* to = static_cast<Scalar*>(x.out) + begin * x.width;
  for (int64_t row = begin; row < end; ++row, to += x.width) {
    const int64_t sequence = row / x.length, j = row % x.length;
    const float* position = x.table + x.index[row] * x.width;
    if (j < x.visible_count) {
      const int64_t token = offset_of(x.visible, sequence * x.visible_count + j);
      add_row(static_cast<const Scalar*>(x.visible.data) + token, position, x.width, to);
    } else {
      add_row(x.mask_token, position, x.width, to);
    }
  }
}

static void assemble_tokens_rows(const AssembleTokens& x, int64_t begin, int64_t end) {
  x.visible.half ? tokens_of<bf16>(x, begin, end) : tokens_of<float>(x, begin, end);
}
