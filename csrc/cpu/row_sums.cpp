#include "../row_sums.h"

#include <algorithm>
#include <vector>

#define SEAMO_KERNELS "row_sums.isa.h"
#include "every_isa.h"

namespace seamo {
namespace {

constexpr int64_t kInOrder = 16;   // rows that are added one after another
constexpr int64_t kBlock = 128;    // rows of one piece of work
constexpr int64_t kColumns = 256;  // columns of one piece of work

// Adds by halves, so that rounding errors grow with the logarithm of the number of rows.
struct Adder {
  const StoredRows& rows;
  int64_t column, columns;
  const int64_t* order = nullptr;  // row i is order[i], or i
  decltype(SEAMO_DISPATCH(add_row)) add = SEAMO_DISPATCH(add_row);

  // to = the sum of rows [begin, end); scratch: `columns` for each time that they can be halved.
  void operator()(int64_t begin, int64_t end, float* to, float* scratch) const {
    if (end - begin > kInOrder) {
      const int64_t middle = begin + (end - begin) / 2;
      (*this)(begin, middle, to, scratch + columns);
      (*this)(middle, end, scratch, scratch + columns);
      add({{scratch, 1, 0, 0}, false}, 0, 0, columns, to);
      return;
    }
    std::fill_n(to, columns, 0.0f);
    for (int64_t i = begin; i < end; ++i) {
      add(rows, order == nullptr ? i : order[i], column, columns, to);
    }
  }

  void operator()(int64_t begin, int64_t end, float* to) const {
    int64_t levels = 0;
    for (int64_t count = end - begin; count > kInOrder; count = ceil_div(count, 2)) ++levels;
    (*this)(begin, end, to, Scratch<float>(levels * columns).data());
  }
};

}  // namespace

void sum_rows(const StoredRows& rows, int64_t count, int64_t width, float* to) {
  const int64_t blocks = ceil_div(count, kBlock);
  const Scratch<float> partial(blocks * width);
  const Adder adder{rows, 0, width};
  parallel_for(blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      adder(block * kBlock, std::min((block + 1) * kBlock, count), partial.data() + block * width);
    }
  });
  const StoredRows sums{{partial.data(), std::max<int64_t>(blocks, 1), 0, width}, false};
  Adder{sums, 0, width}(0, blocks, to);
}

void sum_groups(const StoredRows& rows, int64_t groups, int64_t group, int64_t width, float* to) {
  const Adder adder{rows, 0, width};
  parallel_for(groups, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) adder(i * group, (i + 1) * group, to + i * width);
  });
}

void sum_by_index(const StoredRows& rows, const Index& index, int64_t count, int64_t width,
                  int64_t positions, float* to) {
  // rows of position p: order[first[p]], ..., order[first[p + 1] - 1], in ascending order
  std::vector<int64_t> first(positions + 1), order(count);
  for (int64_t row = 0; row < count; ++row) ++first[index[row] + 1];
  for (int64_t position = 0; position < positions; ++position) {
    first[position + 1] += first[position];
  }
  std::vector<int64_t> next(first.begin(), first.end());
  for (int64_t row = 0; row < count; ++row) order[next[index[row]]++] = row;

  const int64_t pieces = ceil_div(width, kColumns);
  parallel_for(positions * pieces, 1, [&](int64_t begin, int64_t end) {
    for (int64_t work = begin; work < end; ++work) {
      const int64_t position = work / pieces, column = work % pieces * kColumns;
      const Adder adder{rows, column, std::min(kColumns, width - column), order.data()};
      adder(first[position], first[position + 1], to + position * width + column);
    }
  });
}

}  // namespace seamo
