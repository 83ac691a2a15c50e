// Each product of matrices stays within one thread and has a size that its sums do not depend on,
// so that no number of threads changes a bit.

#include "../embed_patches.h"

#include "../row_sums.h"

#define SEAMO_KERNELS "embed_patches.isa.h"
#include "every_isa.h"

namespace seamo {
namespace {

// body(begin, end) for `parts` of [0, count).
template <typename Body>
void for_parts(int64_t count, int64_t parts, const Body& body) {
  parallel_for(parts, 1, [&](int64_t first, int64_t last) {
    const OneThread one_thread;
    for (int64_t part = first; part < last; ++part) {
      body(count * part / parts, count * (part + 1) / parts);
    }
  });
}

// Patches [begin, end) of bf16 as floats.
void read_patches(const EmbedPatches& x, int64_t begin, int64_t end, float* to) {
  const bf16* patches = static_cast<const bf16*>(x.patches);
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t i = 0; i < x.values; ++i) {
      *to++ = to_float(patches[row * x.stride + i * x.value_stride]);
    }
  }
}

void embed_floats(const EmbedPatches& x, int64_t begin, int64_t end) {
  float* patches = const_cast<float*>(static_cast<const float*>(x.patches));
  const MatrixView rows{patches, x.count, x.values, x.stride, x.value_stride};
  const MatrixView tokens =
      MatrixView::contiguous(static_cast<float*>(x.out), x.count, x.width).row_range(begin, end);
  product(tokens, rows.row_range(begin, end), x.weight.transposed());
  SEAMO_DISPATCH(finish)(x, begin, end, tokens.data);
}

void embed_halves(const EmbedPatches& x, int64_t begin, int64_t end) {
  const int64_t count = end - begin;
  const Scratch<float> rows(count * x.values), projections(count * x.width);
  read_patches(x, begin, end, rows.data());
  product(MatrixView::contiguous(projections.data(), count, x.width),
          MatrixView::contiguous(rows.data(), count, x.values), x.weight.transposed());
  SEAMO_DISPATCH(finish)(x, begin, end, projections.data());
}

// Sums over all patches are split as the size of the result suggests: parts of one size always.
void weight_gradient(const EmbedPatchesBackward& x) {
  constexpr int64_t kRows = 192;
  for_parts(x.width, std::max<int64_t>(2, x.width / kRows), [&](int64_t begin, int64_t end) {
    product(x.weight_grad.row_range(begin, end), x.slopes.column_range(begin, end).transposed(),
            x.patches);
  });
}

}  // namespace

// A row's sums do not depend on how many rows there are, if not very few: a part for each thread,
// since each packs the weight anew.
void embed_patches(const EmbedPatches& x) {
  constexpr int64_t kLeast = 64;
  const auto embed = x.half ? &embed_halves : &embed_floats;
  for_parts(x.count, std::clamp<int64_t>(x.count / kLeast, 1, thread_count()),
            [&](int64_t begin, int64_t end) { embed(x, begin, end); });
}

void embed_patches_backward(const EmbedPatchesBackward& x) {
  const int64_t groups = x.count / x.group;
  if (x.weight_grad.data != nullptr) weight_gradient(x);
  if (x.offset_grad != nullptr) sum_groups(x.grad, groups, x.group, x.width, x.offset_grad);
  if (x.bias_grad != nullptr) {
    const StoredRows sums{{x.offset_grad, groups, 0, x.width}, false};
    sum_rows(sums, groups, x.width, x.bias_grad);
  }
  if (x.table_grad != nullptr) {
    sum_by_index(x.grad, x.index, x.count, x.width, x.positions, x.table_grad);
  }
}

}  // namespace seamo
