#include "gather_holes.isa.h"

// kWindow pixels, each mixed with the one below it.
template <int kWindow, bool kChecked, typename Pixel>
inline void mix_rows(const Pixel* row, const Pixel* below, float fraction, Losses losses,
                     float* mixed, Found& lost) {
  for (int i = 0; i < kWindow; i += kLanes) {
    const Floats upper = floats_at(row + i), lower = floats_at(below + i);
    if constexpr (kChecked) {
      lost |= lost_among<Pixel>(upper, losses) | lost_among<Pixel>(lower, losses);
    }
    store(mixed + i, upper * (1 - fraction) + lower * fraction);
  }
}

// The same with lost pixels as zeros, and in `marks` what is not 0 where one was mixed in.
template <int kWindow>
inline void mix_rows_with_losses(const auto* row, const auto* below, float fraction, Losses losses,
                                 Holes& holes, int64_t r, float* mixed, float* marks) {
  for (int i = 0; i < kWindow; i += kLanes) {
    const Floats upper = floats_at(row + i), lower = floats_at(below + i);
    const Ints bad_upper = lost_in(upper, losses, holes, r, false, i);
    const Ints bad_lower = lost_in(lower, losses, holes, r, true, i);
    const Floats values = bad_upper ? Floats{} : upper, values_below = bad_lower ? Floats{} : lower;
    store(mixed + i, values * (1 - fraction) + values_below * fraction);
    store(marks + i, (Floats)(fraction != 0 ? bad_upper | bad_lower : bad_upper));
  }
}

// The low and high neighbours of each column among the mixed pixels.
template <int kWindow>
inline void pick(const float* mixed, const int32_t* order, Eight& low, Eight& high) {
#if SEAMO_AVX512
  const __m512i numbers = _mm512_loadu_si512(order);
  const __m512 both = kWindow == kNear ? _mm512_permutexvar_ps(numbers, _mm512_loadu_ps(mixed))
                                       : _mm512_permutex2var_ps(_mm512_loadu_ps(mixed), numbers,
                                                                _mm512_loadu_ps(mixed + kNear));
  low = (Eight)_mm512_castps512_ps256(both);
  high = (Eight)_mm512_extractf32x8_ps(both, 1);
#elif SEAMO_AVX2
  const __m256i* numbers = reinterpret_cast<const __m256i*>(order);
  low = (Eight)_mm256_i32gather_ps(mixed, _mm256_loadu_si256(numbers), 4);
  high = (Eight)_mm256_i32gather_ps(mixed, _mm256_loadu_si256(numbers + 1), 4);
#else
  for (int i = 0; i < kColumns; ++i) {
    low[i] = mixed[order[i]];
    high[i] = mixed[order[i + kColumns]];
  }
#endif
}

// The neighbours of each column in one row.
template <typename Pixel>
inline void read_neighbours(const Pixel* row, const Columns& columns, Eight& low, Eight& high) {
  for (int i = 0; i < kColumns; ++i) {
    low[i] = value_of(row[columns.neighbours[i]]);
    high[i] = value_of(row[columns.neighbours[i + kColumns]]);
  }
}

// Where a chunk of columns of one patch is found in a grid.
struct Place {
  int64_t tile;  // offset
  const Line* lines;
  const Columns* columns;
  Holes* holes;
};

// Patches lie apart in memory: without this, each waits for its first pixels.
template <typename Pixel>
inline void prefetch(const Pixel* plane, const Line& line, const Columns& columns) {
  for (const int64_t row : {line.low, line.high}) {
    __builtin_prefetch(plane + row + columns.neighbours[0]);
    __builtin_prefetch(plane + row + columns.neighbours[2 * kColumns - 1]);
  }
}

template <typename Out>
__attribute__((noinline)) void write_some(Out* to, const Eight& values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = from_float<Out>(values[i]);
}

inline void write_all(float* to, const Eight& values) { std::memcpy(to, &values, sizeof(values)); }

inline void write_all(bf16* to, const Eight& values) {
  for (int i = 0; i < kColumns; ++i) to[i] = from_float<bf16>(values[i]);
}

// One channel of a chunk of columns; returns false if a pixel near it is lost, which this does not
// handle.
template <int kWindow, bool kChecked, typename Pixel, typename Out>
bool gather_channel(const Pixel* plane, const Place& place, const Pixel* next_plane,
                    const Place& next, int64_t patch, Losses losses, float shift, float scale,
                    Out* to) {
  const Columns columns = *place.columns;
  plane += columns.first;
  Found lost = {};
  for (int64_t r = 0; r < patch; ++r, to += patch) {
    const Line& line = place.lines[r];
    prefetch(next_plane, next.lines[r], *next.columns);
    alignas(64) float mixed[kWindow];
    mix_rows<kWindow, kChecked>(plane + line.low, plane + line.high, line.fraction, losses, mixed,
                                lost);
    Eight low, high;
    pick<kWindow>(mixed, columns.order, low, high);
    write_all(to, (low * columns.low_weight + high * columns.high_weight - shift) * scale);
  }
  return !kChecked || !any(lost);
}

// The same where pixels are lost; returns whether a value was.
template <int kWindow, typename Pixel, typename Out>
bool gather_channel_with_losses(const Pixel* plane, const Place& place, int64_t patch,
                                Losses losses, float shift, float scale, Out* to) {
  const Columns columns = *place.columns;
  plane += columns.first;
  Mask any_lost = {};
  for (int64_t r = 0; r < patch; ++r, to += patch) {
    const Line& line = place.lines[r];
    alignas(64) float mixed[kWindow], marks[kWindow];
    mix_rows_with_losses<kWindow>(plane + line.low, plane + line.high, line.fraction, losses,
                                  *place.holes, r, mixed, marks);
    Eight low, high, low_marks, high_marks;
    pick<kWindow>(mixed, columns.order, low, high);
    pick<kWindow>(marks, columns.order, low_marks, high_marks);
    const Mask lost = (Mask)low_marks | ((Mask)high_marks & columns.high_used);
    const Eight values = (low * columns.low_weight + high * columns.high_weight - shift) * scale;
    any_lost |= lost;
    write_all(to, lost ? Eight{} : values);
  }
  return any(any_lost);
}

// The same for any columns and pixels.
template <typename Pixel, typename Out>
__attribute__((noinline)) bool gather_with_losses(const Pixel* plane, const Place& place,
                                                  int64_t patch, Losses losses, float shift,
                                                  float scale, Out* to) {
  const Columns& columns = *place.columns;
  Holes& holes = *place.holes;
  bool any_lost = false;
  for (int64_t r = 0; r < patch; ++r, to += patch) {
    const Line& line = place.lines[r];
    Eight low, high, below_low, below_high;
    read_neighbours(plane + line.low, columns, low, high);
    read_neighbours(plane + line.high, columns, below_low, below_high);
    const Mask bad[] = {lost_in(low, losses, holes, r, false, 0),
                        lost_in(high, losses, holes, r, false, kColumns),
                        lost_in(below_low, losses, holes, r, true, 0),
                        lost_in(below_high, losses, holes, r, true, kColumns)};
    Mask lost = bad[0] | (bad[1] & columns.high_used);
    if (line.fraction != 0) lost |= bad[2] | (bad[3] & columns.high_used);
    low = bad[0] ? Eight{} : low;
    high = bad[1] ? Eight{} : high;
    below_low = bad[2] ? Eight{} : below_low;
    below_high = bad[3] ? Eight{} : below_high;
    low = low * (1 - line.fraction) + below_low * line.fraction;
    high = high * (1 - line.fraction) + below_high * line.fraction;
    const Eight values = (low * columns.low_weight + high * columns.high_weight - shift) * scale;
    any_lost |= any(lost);
    write_some(to, lost ? Eight{} : values, columns.count);
  }
  return any_lost;
}

// One chunk of columns of one patch, all channels of a grid; returns whether a value was lost.
template <bool kChecked, typename Pixel, typename Out>
bool gather_columns(const GatherPatches& x, const Grid& grid, const Place& place, const Place& next,
                    Out* out) {
  const Pixel* pixels = static_cast<const Pixel*>(grid.data);
  const Losses losses{grid.nodata, x.limit};
  bool any_lost = false;
  for (int64_t channel = 0; channel < grid.channels; ++channel) {
    const Pixel* plane = pixels + place.tile + channel * grid.channel;
    const Pixel* next_plane = pixels + next.tile + channel * grid.channel;
    const int64_t out_channel = grid.out_channels[channel];
    const float shift = x.shift[out_channel], scale = x.scale[out_channel];
    Out* to = out + out_channel * x.patch * x.patch;
    const auto gather_in = [&]<int kWindow>() {
      // what one channel lost the next one most often lost too
      const bool done =
          !any_lost && gather_channel<kWindow, kChecked>(plane, place, next_plane, next, x.patch,
                                                         losses, shift, scale, to);
      any_lost |= !done && gather_channel_with_losses<kWindow>(plane, place, x.patch, losses, shift,
                                                               scale, to);
    };
    switch (place.columns->window) {
      case kNear:
        gather_in.template operator()<kNear>();
        break;
      case kFar:
        gather_in.template operator()<kFar>();
        break;
      default:
        any_lost |= gather_with_losses(plane, place, x.patch, losses, shift, scale, to);
    }
  }
  return any_lost;
}

template <typename Pixel, typename Out>
bool gather_pixels(const GatherPatches& x, const Grid& grid, const Place& place, const Place& next,
                   Out* out) {
  if (std::is_same_v<Pixel, float> || std::is_same_v<Pixel, f16> || grid.has_nodata) {
    return gather_columns<true, Pixel>(x, grid, place, next, out);
  }
  return gather_columns<false, Pixel>(x, grid, place, next, out);
}

template <typename Out>
bool gather_chunk(const GatherPatches& x, const Grid& grid, const Place& place, const Place& next,
                  Out* out) {
  switch (grid.pixel) {
    case Pixel::u8:
      return gather_pixels<uint8_t>(x, grid, place, next, out);
    case Pixel::u16:
      return gather_pixels<uint16_t>(x, grid, place, next, out);
    case Pixel::i16:
      return gather_pixels<int16_t>(x, grid, place, next, out);
    case Pixel::f16:
      return gather_pixels<f16>(x, grid, place, next, out);
    default:
      return gather_pixels<float>(x, grid, place, next, out);
  }
}

// Lines and columns of one region for each grid; found when a patch first needs them, since others
// of the region share them.
class Region {
  static constexpr int64_t kPadding = kColumns + kLanes;  // taps are written by vectors

 public:
  explicit Region(const GatherPatches& x)
      : x_(x),
        down_(x.image_height / x.patch),
        across_(x.image_width / x.patch),
        chunks_(ceil_div(x.patch, kColumns)),
        low_(x.patch + kPadding),
        high_(x.patch + kPadding),
        fraction_(x.patch + kPadding),
        lines_(x.grid_count * x.image_height),
        columns_(x.grid_count * across_ * chunks_),
        known_(x.grid_count * (down_ + across_)) {}

  // Region of patches [number * wanted, (number + 1) * wanted).
  void enter(int64_t number) {
    box_ = x_.boxes + number * 4;
    std::fill(known_.data(), known_.data() + x_.grid_count * (down_ + across_), false);
  }

  const Line* lines(int64_t grid, int64_t patch) {
    const int64_t row = patch / across_;
    Line* lines = lines_.data() + (grid * down_ + row) * x_.patch;
    if (is_new(grid * down_ + row)) {
      const int64_t stride = x_.grids[grid].row;
      const Taps taps{low_.data(), high_.data(), fraction_.data()};
      find_taps(row * x_.patch, x_.patch, box_[0], box_[2], x_.image_height, x_.grids[grid].height,
                taps);
      for (int64_t r = 0; r < x_.patch; ++r) {
        lines[r] = {taps.low[r] * stride, taps.high[r] * stride, taps.fraction[r], taps.low[r]};
      }
    }
    return lines;
  }

  const Columns* columns(int64_t grid, int64_t patch) {
    const int64_t column = patch % across_;
    Columns* chunks = columns_.data() + (grid * across_ + column) * chunks_;
    if (is_new(x_.grid_count * down_ + grid * across_ + column)) {
      for (int64_t chunk = 0; chunk < chunks_; ++chunk) {
        const int64_t first = chunk * kColumns;
        const int64_t count = std::min<int64_t>(x_.patch - first, kColumns);
        const Taps taps{low_.data(), high_.data(), fraction_.data()};
        find_taps(column * x_.patch + first, count, box_[1], box_[3], x_.image_width,
                  x_.grids[grid].width, taps);
        chunks[chunk] = columns_of(taps, count, x_.grids[grid].width);
      }
    }
    return chunks;
  }

 private:
  bool is_new(int64_t i) { return !std::exchange(known_.data()[i], true); }

  const GatherPatches& x_;
  int64_t down_, across_, chunks_;
  Scratch<int32_t> low_, high_;
  Scratch<float> fraction_;
  Scratch<Line> lines_;
  Scratch<Columns> columns_;
  Scratch<bool> known_;
  const float* box_ = nullptr;
};

template <typename Out>
void gather(const GatherPatches& x, int64_t begin, int64_t end) {
  Region region(x);
  Holes holes(x);
  const int64_t size = x.channels * x.patch * x.patch;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t number = i / x.wanted, sample = number / x.seasons, season = number % x.seasons;
    if (i == begin || i % x.wanted == 0) region.enter(number);
    const bool last = i + 1 == end || (i + 1) % x.wanted == 0;
    Out* out = static_cast<Out*>(x.out) + i * size;
    bool lost = false;
    for (int64_t g = 0; g < x.grid_count; ++g) {
      const Grid& grid = x.grids[g];
      const int64_t tile = sample * grid.batch + season * grid.season;
      Place place{tile, region.lines(g, x.index[i]), region.columns(g, x.index[i]), &holes};
      const int64_t after = x.index[last ? i : i + 1];
      Place next{tile, region.lines(g, after), region.columns(g, after), &holes};
      for (int64_t first = 0; first < x.patch; first += kColumns) {
        holes.enter(grid, sample, season, place.lines, *place.columns);
        lost |= gather_chunk(x, grid, place, next, out + first);
        ++place.columns;
        ++next.columns;
      }
    }
    x.valid[i] = !lost;
  }
}

void gather_range(const GatherPatches& x, int64_t begin, int64_t end) {
  x.half ? gather<bf16>(x, begin, end) : gather<float>(x, begin, end);
}
