// Nodata by pixel: the pixels of a grid that no band of any grid has measured.

#include "gather_values.isa.h"

// The pixel of `other` pixels at the centre of pixel i of `own`.
inline int64_t at_centre(int64_t i, int64_t own, int64_t other) {
  return (2 * i + 1) * other / (2 * own);
}

// Which pixels that a chunk of columns reads are holes: lost in all channels of all grids. Rows are
// looked at when a value of theirs is first nodata; the other channels share what was found.
class Holes {
  static constexpr int kMost = kFar;  // pixels that a chunk reads of a row

 public:
  explicit Holes(const GatherPatches& x)
      : x_(x), columns_(x.grid_count * kMost), marks_(2 * x.patch * kMost), known_(2 * x.patch) {}

  // What is asked next is of one chunk of a grid.
  void enter(const Grid& grid, int64_t sample, int64_t season, const Line* lines,
             const Columns& columns) {
    grid_ = &grid;
    sample_ = sample;
    season_ = season;
    lines_ = lines;
    chunk_ = &columns;
    fresh_ = true;
  }

  // Whether nodata is a value elsewhere.
  bool matter() const { return x_.whole_pixel; }

  // -1 for holes, else 0: of the window of the chunk, or of its neighbours where it has none, in
  // the low or the high row of line r.
  const int32_t* marks(int64_t r, bool high) {
    if (std::exchange(fresh_, false)) begin();
    int32_t* marks = marks_.data() + (2 * r + high) * kMost;
    if (std::exchange(known_.data()[2 * r + high], true)) return marks;
    const int64_t row = std::min<int64_t>(lines_[r].row + high, grid_->height - 1);
    if (row == last_row_) {  // lines next to each other share a row
      std::copy(last_, last_ + kMost, marks);
    } else {
      find(row, marks);
    }
    last_row_ = row;
    last_ = marks;
    return marks;
  }

 private:
  void begin() {
    std::fill(known_.data(), known_.data() + 2 * x_.patch, false);
    last_row_ = -1;
    count_ = chunk_->window ? chunk_->window : 2 * kColumns;
    for (int64_t g = 0; g < x_.grid_count; ++g) {
      for (int i = 0; i < count_; ++i) {
        const int64_t column = chunk_->window ? chunk_->first + i : chunk_->neighbours[i];
        const int64_t other = at_centre(column, grid_->width, x_.grids[g].width);
        columns_.data()[g * kMost + i] = static_cast<int32_t>(other);
      }
    }
  }

  void find(int64_t row, int32_t* marks) {
    std::fill(marks, marks + kMost, -1);
    if (!narrow(*grid_, row, marks)) return;  // the nearest in memory first
    for (int64_t g = 0; g < x_.grid_count; ++g) {
      const Grid& grid = x_.grids[g];
      if (&grid == grid_) continue;
      if (!narrow(grid, at_centre(row, grid_->height, grid.height), marks)) return;
    }
  }

  // Takes away the marks of what a grid measured; returns whether any is left.
  bool narrow(const Grid& grid, int64_t row, int32_t* marks) const {
    switch (grid.pixel) {
      case Pixel::u8:
        return narrow_by<uint8_t>(grid, row, marks);
      case Pixel::u16:
        return narrow_by<uint16_t>(grid, row, marks);
      case Pixel::i16:
        return narrow_by<int16_t>(grid, row, marks);
      case Pixel::f16:
        return narrow_by<f16>(grid, row, marks);
      default:
        return narrow_by<float>(grid, row, marks);
    }
  }

  template <typename Stored>
  bool narrow_by(const Grid& grid, int64_t row, int32_t* marks) const {
    const int32_t* columns = columns_.data() + (&grid - x_.grids) * kMost;
    const Stored* from = static_cast<const Stored*>(grid.data) + sample_ * grid.batch +
                         season_ * grid.season + row * grid.row;
    int32_t left = -1;
    for (int64_t channel = 0; channel < grid.channels && left; ++channel, from += grid.channel) {
      left = 0;
      for (int i = 0; i < count_; ++i) {
        const float value = value_of(from[columns[i]]);
        const bool within = std::is_integral_v<Stored> || std::fabs(value) <= x_.limit;
        marks[i] &= -static_cast<int32_t>(!within | (value == grid.nodata));
        left |= marks[i];
      }
    }
    return left;
  }

  const GatherPatches& x_;
  Scratch<int32_t> columns_;  // [grids, kMost]
  Scratch<int32_t> marks_;    // [lines, low and high, kMost]
  Scratch<bool> known_;       // [lines, low and high]
  const Grid* grid_ = nullptr;
  const Line* lines_ = nullptr;
  const Columns* chunk_ = nullptr;
  const int32_t* last_ = nullptr;  // marks of last_row_
  int64_t sample_ = 0, season_ = 0, last_row_ = -1;
  int count_ = 0;
  bool fresh_ = true;
};

// Where values of a row of line r are lost; they are those from `first` on that `holes` marks.
template <typename Values>
inline auto lost_in(const Values& values, Losses losses, Holes& holes, int64_t r, bool high,
                    int first) {
  auto lost = lost_in(values, losses);
  if (holes.matter() && any(lost)) {
    decltype(lost) marks;
    std::memcpy(&marks, holes.marks(r, high) + first, sizeof(marks));
    lost &= marks | beyond(values, losses.limit);
  }
  return lost;
}
