// Some sequences at a time. Queries, keys and values are read where their projection left them, and
// their gradients are written beside one another.

#include "../residual_attention.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "../tm_attention.h"
#include "residual_blocks.h"

namespace seamo {
namespace {

constexpr int64_t kGrain = 16;  // rows that are worth a thread

// What some rows of the weight of qkv give for some sequences: [sequences, length - skip, columns].
struct Projection {
  int64_t first, columns;  // rows of the weight
  int64_t skip;            // leading tokens of a sequence that are not projected
  float* to;

  MatrixView weight(const ResidualAttention& x) const {
    return x.qkv_weight.row_range(first, first + columns);
  }
  MatrixView result(const ResidualAttention& x, int64_t sequences) const {
    return MatrixView::contiguous(to, sequences * (x.length - skip), columns);
  }
};

// One for queries, keys and values together, unless some tokens have no query: then keys and values
// of all sequences come before the queries. `memory` has room for `room` sequences; the projections
// are of those from `begin` on.
std::vector<Projection> projections(const ResidualAttention& x, float* memory, int64_t room,
                                    int64_t begin) {
  const int64_t width = x.width;
  if (x.skip == 0) return {{0, 3 * width, 0, memory + begin * x.length * 3 * width}};
  float* queries = memory + room * x.length * 2 * width;
  return {{width, 2 * width, 0, memory + begin * x.length * 2 * width},
          {0, width, x.skip, queries + begin * x.queries() * width}};
}

// Columns of a projection from `column` on, as groups of heads.
Tokens tokens_of(const ResidualAttention& x, const Projection& p, int64_t column) {
  const int64_t tokens = (x.length - p.skip) / x.groups;
  return {p.to + column,    (x.length - p.skip) * p.columns, 0, tokens * p.columns, p.columns,
          x.width / x.heads};
}

struct QueriesKeysValues {
  Tokens q, k, v;

  QueriesKeysValues(const ResidualAttention& x, const std::vector<Projection>& parts) {
    const int64_t keys = x.skip == 0 ? x.width : 0;
    q = tokens_of(x, parts.back(), 0);
    k = tokens_of(x, parts.front(), keys);
    v = tokens_of(x, parts.front(), keys + x.width);
  }
};

// Rows [sequences, length - skip, width] as one head after another.
Tokens heads_of(const ResidualAttention& x, float* rows) {
  const Projection whole{0, x.width, x.skip, rows};
  return tokens_of(x, whole, 0);
}

// The sequences, block by block, and which keys they may attend to.
class Blocks {
 public:
  const int64_t most;  // sequences

  explicit Blocks(const ResidualAttention& x)
      : most(std::clamp<int64_t>(block_rows() / x.length, 1, x.sequences)),
        x_(x),
        all_(std::max(most, x.groups * x.groups)) {
    std::fill_n(all_.data(), std::max(most, x.groups * x.groups), true);
  }

  // body(begin, end) for the sequences of each block.
  template <typename Body>
  void for_each(const Body& body) const {
    for (int64_t begin = 0; begin < x_.sequences; begin += most) {
      body(begin, std::min(begin + most, x_.sequences));
    }
  }

  int64_t count() const { return ceil_div(x_.sequences, most); }

  TmAttention attention(int64_t begin, int64_t end) const {
    const int64_t queries = x_.queries();
    const auto parts = projections(x_, x_.projected, x_.sequences, begin);
    const QueriesKeysValues from(x_, parts);
    TmAttention y{};
    y.batch = end - begin;
    y.seasons = 1;
    y.modalities = x_.groups;
    y.queries = queries / x_.groups;
    y.keys = x_.length / x_.groups;
    y.heads = x_.heads;
    y.width = x_.width / x_.heads;
    y.adjacency = all_.data();
    y.valid = x_.keep == nullptr ? all_.data() : x_.keep + begin * x_.groups;
    y.any_query = true;
    y.bias = x_.qkv_bias;
    y.q = from.q;
    y.k = from.k;
    y.v = from.v;
    y.out = heads_of(x_, x_.attended + begin * queries * x_.width);
    y.lse = x_.lse + begin * x_.heads * queries;
    return y;
  }

 private:
  const ResidualAttention& x_;
  Scratch<bool> all_;
};

// body(row, full) for rows [0, sequences * queries) that have a query: `full` counts all tokens.
template <typename Body>
void for_queries(const ResidualAttention& x, int64_t sequences, const Body& body) {
  parallel_for(sequences * x.queries(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      body(row, row / x.queries() * x.length + x.skip + row % x.queries());
    }
  });
}

// The rows that a projection takes: of all tokens, or copies of those that have a query.
class Taken {
 public:
  Taken(const ResidualAttention& x, int64_t most)
      : x_(x), queries_(x.skip == 0 ? 0 : most * x.queries() * x.width) {}

  MatrixView operator()(const Projection& p, const MatrixView& rows) const {
    if (p.skip == 0) return rows;
    const int64_t width = x_.width, sequences = rows.rows / x_.length;
    for_queries(x_, sequences, [&](int64_t row, int64_t full) {
      std::copy_n(rows.data + full * width, width, queries_.data() + row * width);
    });
    return MatrixView::contiguous(queries_.data(), sequences * x_.queries(), width);
  }

 private:
  const ResidualAttention& x_;
  Scratch<float> queries_;
};

// Gradients of the projections: of their weight and bias, and of what they take.
class ProjectionGradient {
 public:
  ProjectionGradient(const ResidualAttentionBackward& y, const Blocks& blocks)
      : y_(y),
        x_(y.forward),
        taken_(x_, blocks.most),
        normal_grad_(blocks.most * x_.length * x_.width),
        of_queries_(x_.skip == 0 ? 0 : blocks.most * x_.queries() * x_.width) {
    const MatrixView weight = MatrixView::contiguous(y.qkv_weight_grad, 3 * x_.width, x_.width);
    for (const Projection& p : projections(x_, nullptr, 0, 0)) {
      const bool wanted = weight.data != nullptr;
      weights_.emplace_back(wanted ? weight.row_range(p.first, p.first + p.columns) : weight);
      biases_.push_back(std::make_unique<ColumnSum>(blocks.count(), p.columns));
    }
  }

  // Returns the gradient of the rows that are projected, until the next call.
  MatrixView add(const std::vector<Projection>& grads, const MatrixView& normal) {
    const MatrixView slope =
        MatrixView::contiguous(normal_grad_.data(), normal.rows, normal.columns);
    const int64_t sequences = normal.rows / x_.length;
    for (size_t i = 0; i < grads.size(); ++i) {
      const Projection& p = grads[i];
      const MatrixView grad = p.result(x_, sequences);
      weights_[i].add(grad, taken_(p, normal));
      if (y_.qkv_bias_grad != nullptr) {
        sum_rows({{grad.data, grad.rows, 0, p.columns}, false}, grad.rows, p.columns,
                 biases_[i]->next(1));
      }
      p.skip == 0 ? product(slope, grad, p.weight(x_)) : add_to_queries(slope, grad, p.weight(x_));
    }
    return slope;
  }

  void write() const {
    if (y_.qkv_bias_grad == nullptr) return;
    size_t next = 0;
    for (const Projection& p : projections(x_, nullptr, 0, 0)) {
      biases_[next++]->write(y_.qkv_bias_grad + p.first);
    }
  }

 private:
  void add_to_queries(const MatrixView& slope, const MatrixView& grad, const MatrixView& weight) {
    const int64_t width = x_.width;
    float* found = of_queries_.data();
    product(MatrixView::contiguous(found, grad.rows, width), grad, weight);
    for_queries(x_, slope.rows / x_.length, [&](int64_t row, int64_t full) {
      for (int64_t i = 0; i < width; ++i) slope.data[full * width + i] += found[row * width + i];
    });
  }

  const ResidualAttentionBackward& y_;
  const ResidualAttention& x_;
  Taken taken_;
  Scratch<float> normal_grad_, of_queries_;
  std::vector<WeightSum> weights_;
  std::vector<std::unique_ptr<ColumnSum>> biases_;
};

}  // namespace

void residual_attention(const ResidualAttention& x) {
  const Blocks blocks(x);
  const int64_t length = x.length, width = x.width, queries = x.queries();
  NormBlock norm(x.norm, x.x, blocks.most * length);
  const Taken taken(x, blocks.most);
  blocks.for_each([&](int64_t begin, int64_t end) {
    const int64_t rows = (end - begin) * queries;
    const MatrixView normal = norm(begin * length, end * length);
    for (const Projection& p : projections(x, x.projected, x.sequences, begin)) {
      product(p.result(x, end - begin), taken(p, normal), p.weight(x).transposed());
    }
    tm_attention(blocks.attention(begin, end));
    float* out = x.out + begin * queries * width;
    add_bias({x.x + (begin * length + x.skip) * width, queries, length * width, width}, x.proj_bias,
             rows, width, out);
    float* attended = x.attended + begin * queries * width;
    add_product(MatrixView::contiguous(out, rows, width),
                MatrixView::contiguous(attended, rows, width), x.proj_weight.transposed());
  });
}

void residual_attention_backward(const ResidualAttentionBackward& y) {
  const ResidualAttention& x = y.forward;
  const Blocks blocks(x);
  const int64_t length = x.length, width = x.width, queries = x.queries();
  const Scratch<float> projected(x.projected_size(blocks.most));
  const Scratch<float> attended_grad(blocks.most * queries * width);
  WeightSum proj_weight(MatrixView::contiguous(y.proj_weight_grad, width, width));
  NormBlock norm(x.norm, x.x, blocks.most * length);
  NormGradient norm_grad(x.norm, x.x, x.sequences * length, blocks.most * length, y.x_grad);
  ProjectionGradient projection(y, blocks);
  blocks.for_each([&](int64_t begin, int64_t end) {
    const int64_t first = begin * queries * width, rows = (end - begin) * queries;
    const MatrixView of_out =
        MatrixView::contiguous(const_cast<float*>(y.grad) + first, rows, width);
    product(MatrixView::contiguous(attended_grad.data(), rows, width), of_out, x.proj_weight);
    proj_weight.add(of_out, MatrixView::contiguous(x.attended + first, rows, width));
    const auto grads = projections(x, projected.data(), blocks.most, 0);
    const QueriesKeysValues to(x, grads);
    tm_attention_backward(
        {blocks.attention(begin, end), heads_of(x, attended_grad.data()), to.q, to.k, to.v});
    const MatrixView slope = projection.add(grads, norm(begin * length, end * length));
    norm_grad.add(begin * length, end * length, slope.data, norm.moments(),
                  {of_out.data, length, x.skip});
  });
  projection.write();
  norm_grad.weight.write(y.norm_weight_grad);
  norm_grad.bias.write(y.norm_bias_grad);
  norm_grad.residual.write(y.proj_bias_grad);
}

}  // namespace seamo
