template <typename Out>
static void write_tokens(const EmbedPatches& x, int64_t begin, int64_t end, const float* from) {
  Out* to = static_cast<Out*>(x.out) + begin * x.width;
  for (int64_t row = begin; row < end; ++row, from += x.width, to += x.width) {
    const float* position = x.table + x.index[row] * x.width;
    const float* offset = x.offset == nullptr ? nullptr : x.offset + row / x.group * x.width;
    for_each(x.width, [&]<typename Vector>(int64_t i) {
      Vector sum = read<Vector>(from + i) + read<Vector>(position + i);
      if (x.bias != nullptr) sum += read<Vector>(x.bias + i);
      if (offset != nullptr) sum += read<Vector>(offset + i);
      write(to + i, sum);
    });
  }
}

static void finish(const EmbedPatches& x, int64_t begin, int64_t end, const float* projections) {
  x.half ? write_tokens<bf16>(x, begin, end, projections)
         : write_tokens<float>(x, begin, end, projections);
}
