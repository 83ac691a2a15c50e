// Block of rows by block of rows. Of the wide layer only what enters the GELU is kept for the
// backward pass; its result is computed again there.

#include "../residual_mlp.h"

#include <algorithm>

#include "residual_blocks.h"

namespace seamo {

void residual_mlp(const ResidualMlp& x) {
  const int64_t width = x.width, hidden = x.hidden;
  const int64_t most = std::min(block_rows(), x.count);
  const Scratch<float> wide(most * hidden);
  NormBlock norm(x.norm, x.x, most);
  for (int64_t begin = 0; begin < x.count; begin += most) {
    const int64_t end = std::min(begin + most, x.count), size = end - begin;
    float* before = x.before != nullptr ? x.before + begin * hidden : wide.data();
    float* out = x.out + begin * width;
    product(MatrixView::contiguous(before, size, hidden), norm(begin, end), x.weight1.transposed());
    gelu(before, x.bias1, size, hidden, wide.data());
    add_bias({x.x + begin * width, size, 0, width}, x.bias2, size, width, out);
    add_product(MatrixView::contiguous(out, size, width),
                MatrixView::contiguous(wide.data(), size, hidden), x.weight2.transposed());
  }
}

void residual_mlp_backward(const ResidualMlpBackward& y) {
  const ResidualMlp& x = y.forward;
  const int64_t width = x.width, hidden = x.hidden;
  const int64_t most = std::min(block_rows(), x.count);
  const Scratch<float> wide(most * hidden), wide_grad(most * hidden), normal_grad(most * width);
  NormBlock norm(x.norm, x.x, most);
  NormGradient norm_grad(x.norm, x.x, x.count, most, y.x_grad);
  WeightSum weight1(MatrixView::contiguous(y.weight1_grad, hidden, width));
  WeightSum weight2(MatrixView::contiguous(y.weight2_grad, width, hidden));
  ColumnSum bias1(sum_parts(x.count, most), hidden);
  for (int64_t begin = 0; begin < x.count; begin += most) {
    const int64_t end = std::min(begin + most, x.count), size = end - begin;
    float* grad = const_cast<float*>(y.grad) + begin * width;
    const MatrixView of_out = MatrixView::contiguous(grad, size, width);
    const MatrixView of_in = MatrixView::contiguous(wide_grad.data(), size, hidden);
    const MatrixView after = MatrixView::contiguous(wide.data(), size, hidden);
    const MatrixView of_normal = MatrixView::contiguous(normal_grad.data(), size, width);
    product(of_in, of_out, x.weight2);
    gelu_backward(x.before + begin * hidden, x.bias1, size, hidden, after.data, of_in.data,
                  bias1.next(ceil_div(size, kSumRows)));
    weight2.add(of_out, after);
    weight1.add(of_in, norm(begin, end));
    product(of_normal, of_in, x.weight1);
    norm_grad.add(begin, end, of_normal.data, norm.moments(), {grad, size, 0});
  }
  norm_grad.weight.write(y.norm_weight_grad);
  norm_grad.bias.write(y.norm_bias_grad);
  norm_grad.residual.write(y.bias2_grad);
  bias1.write(y.bias1_grad);
}

}  // namespace seamo
