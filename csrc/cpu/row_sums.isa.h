template <typename Scalar>
static void add_row_of(const Scalar* from, int64_t width, float* to) {
  for_each(width, [&]<typename Vector>(int64_t i) {
    write(to + i, read<Vector>(to + i) + read<Vector>(from + i));
  });
}

// to [width] += values first, first + 1, ... of a row.
static void add_row(const StoredRows& rows, int64_t row, int64_t first, int64_t width, float* to) {
  const int64_t offset = offset_of(rows, row) + first;
  rows.half ? add_row_of(static_cast<const bf16*>(rows.data) + offset, width, to)
            : add_row_of(static_cast<const float*>(rows.data) + offset, width, to);
}
