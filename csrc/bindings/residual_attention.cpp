// x + proj(attention(qkv(norm(x)))), some sequences at a time. Queries, keys and values are read
// where their projection left them, and their gradients are written beside one another.

#include <pybind11/stl.h>

#include "../tm_attention.h"
#include "residual.h"

namespace seamo {
namespace {

struct Branch {
  at::Tensor norm_weight, norm_bias, weight, bias, out_weight, out_bias;
  MaybeTensor keep;  // [sequences, groups], keys that may be attended to; groups are consecutive
  int64_t heads, skip;
  double eps;

  int64_t width() const { return norm_weight.size(0); }
  int64_t groups() const { return keep ? keep->size(1) : 1; }
  LayerNorm norm() const { return norm_of(norm_weight, norm_bias, eps); }

  bool fits(const at::Tensor& x) const {
    if (!is_float(x) || x.dim() != 3 || x.numel() == 0) return false;
    const int64_t width = x.size(2), length = x.size(1);
    const bool kept = !keep || (skip == 0 && is_plain(*keep) && keep->scalar_type() == at::kBool &&
                                keep->dim() == 2 && keep->size(0) == x.size(0) &&
                                keep->size(1) > 0 && length % keep->size(1) == 0);
    return kept && heads > 0 && width % heads == 0 && skip >= 0 && skip < length &&
           is_matrix(weight, 3 * width, width) && is_vector(bias, 3 * width) &&
           is_matrix(out_weight, width, width) && is_vector(out_bias, width) &&
           is_vector(norm_weight, width) && is_vector(norm_bias, width);
  }
};

// Rows [first, last) of the weight: what they project and from which tokens.
struct Projection {
  int64_t first, last;
  bool skips;
};

// One for queries, keys and values together, unless some tokens have no query.
std::vector<Projection> projections(const Branch& branch) {
  const int64_t width = branch.width();
  if (branch.skip == 0) return {{0, 3 * width, false}};
  return {{width, 3 * width, false}, {0, width, true}};
}

// What the projections give before their bias, or gradients of it: [S, L, 3D], or [S, L, 2D] and
// [S, L - skip, D].
struct Projected {
  std::vector<at::Tensor> parts;

  static Projected like(const Branch& branch, const at::Tensor& x) {
    Projected result;
    for (const Projection& p : projections(branch)) {
      result.parts.push_back(empty(
          {x.size(0), x.size(1) - (p.skips ? branch.skip : 0), p.last - p.first}, x, at::kFloat));
    }
    return result;
  }

  Projected of(int64_t begin, int64_t end) const {
    Projected result;
    for (const at::Tensor& part : parts) result.parts.push_back(part.slice(0, begin, end));
    return result;
  }

  const at::Tensor& q() const { return parts.back(); }
  const at::Tensor& kv() const { return parts.front(); }
  int64_t key_column(int64_t width) const { return parts.size() == 1 ? width : 0; }
};

at::Tensor matrix(const at::Tensor& x) { return x.reshape({-1, x.size(-1)}); }

// The rows that a projection takes, of [sequences * length, D].
at::Tensor taken(const Projection& p, const at::Tensor& rows, int64_t length, int64_t skip) {
  return p.skips ? matrix(rows.view({-1, length, rows.size(1)}).slice(1, skip).contiguous()) : rows;
}

Tokens tokens_of(const at::Tensor& x, int64_t column, int64_t tokens, int64_t head) {
  return {floats(x) + column, x.stride(0), 0, tokens * x.stride(1), x.stride(1), head};
}

// Some sequences, of what must outlive the forward pass.
struct Kept {
  Projected projected;
  at::Tensor attended, lse;

  static Kept like(const Branch& branch, const at::Tensor& x) {
    const int64_t queries = x.size(1) - branch.skip;
    return {Projected::like(branch, x), empty({x.size(0), queries, x.size(2)}, x, at::kFloat),
            empty({x.size(0), branch.heads, queries}, x, at::kFloat)};
  }

  Kept of(int64_t begin, int64_t end) const {
    return {projected.of(begin, end), attended.slice(0, begin, end), lse.slice(0, begin, end)};
  }
};

// The sequences, block by block, and which keys they may attend to.
struct Blocks {
  int64_t sequences, most;
  at::Tensor keep, all;

  Blocks(const Branch& branch, const at::Tensor& x)
      : sequences(x.size(0)),
        most(std::clamp<int64_t>(block_rows() / x.size(1), 1, x.size(0))),
        keep(branch.keep ? branch.keep->contiguous()
                         : at::ones({x.size(0), 1}, x.options().dtype(at::kBool))),
        all(at::ones({branch.groups(), branch.groups()}, x.options().dtype(at::kBool))) {}

  int64_t count() const { return ceil_div(sequences, most); }
  int64_t begin(int64_t block) const { return block * most; }
  int64_t end(int64_t block) const { return std::min((block + 1) * most, sequences); }

  TmAttention attention(const Branch& branch, const Kept& x, int64_t block) const {
    const int64_t width = branch.width(), key = x.projected.key_column(width);
    const at::Tensor &q = x.projected.q(), &kv = x.projected.kv();
    TmAttention y{};
    y.batch = q.size(0);
    y.seasons = 1;
    y.modalities = branch.groups();
    y.queries = q.size(1) / y.modalities;
    y.keys = kv.size(1) / y.modalities;
    y.heads = branch.heads;
    y.width = width / branch.heads;
    y.adjacency = all.const_data_ptr<bool>();
    y.valid = keep.const_data_ptr<bool>() + begin(block) * y.modalities;
    y.any_query = true;
    y.bias = floats(branch.bias);
    y.q = tokens_of(q, 0, y.queries, y.width);
    y.k = tokens_of(kv, key, y.keys, y.width);
    y.v = tokens_of(kv, key + width, y.keys, y.width);
    y.out = tokens_of(x.attended, 0, y.queries, y.width);
    y.lse = floats(x.lse);
    return y;
  }
};

at::Tensor run_forward(const Branch& branch, const at::Tensor& x, const Kept& kept) {
  const at::AutoDispatchBelowADInplaceOrView no_autograd;
  const Blocks blocks(branch, x);
  const int64_t length = x.size(1), width = x.size(2), queries = length - branch.skip;
  at::Tensor out = empty({x.size(0), queries, width}, x, at::kFloat);
  NormBlock norm(branch.norm(), x, blocks.most * length);
  for (int64_t block = 0; block < blocks.count(); ++block) {
    const int64_t begin = blocks.begin(block), end = blocks.end(block);
    const Kept part = kept.of(begin, end);
    const at::Tensor to = matrix(out.slice(0, begin, end));
    const at::Tensor normal = norm(begin * length, end * length);
    size_t next = 0;
    for (const Projection& p : projections(branch)) {
      product(matrix(part.projected.parts[next++]), taken(p, normal, length, branch.skip),
              branch.weight.slice(0, p.first, p.last).t());
    }
    tm_attention(blocks.attention(branch, part, block));
    add_bias({floats(x) + (begin * length + branch.skip) * width, queries, length * width, width,
              false},
             floats(branch.out_bias), (end - begin) * queries, width, floats(to));
    product(to, matrix(part.attended), branch.out_weight.t(), true);
  }
  return out;
}

// Gradients of the projections: of their weight and bias, and of what they take.
class ProjectionGradient {
 public:
  ProjectionGradient(const Branch& branch, const Blocks& blocks, const at::Tensor& x,
                     const std::vector<bool>& needed)
      : branch_(branch),
        length_(x.size(1)),
        parts_(projections(branch)),
        slope_(empty({blocks.most * length_, branch.width()}, x, at::kFloat)),
        weight(empty_if(needed[3], branch.weight.sizes(), x)),
        bias(empty_if(needed[4], branch.bias.sizes(), x)) {
    for (const Projection& p : parts_) {
      weights_.emplace_back(weight.defined() ? weight.slice(0, p.first, p.last) : weight);
      biases_.emplace_back(blocks.count(), p.last - p.first, x);
    }
  }

  // Returns the gradient of the rows that are projected, until the next call.
  at::Tensor add(const Projected& grads, const at::Tensor& normal) {
    const at::Tensor slope = slope_.slice(0, 0, normal.size(0));
    for (size_t i = 0; i < parts_.size(); ++i) {
      const Projection& p = parts_[i];
      const at::Tensor grad = matrix(grads.parts[i]);
      weights_[i].add(grad, taken(p, normal, length_, branch_.skip));
      if (bias.defined()) {
        sum_rows({floats(grad), grad.size(0), 0, grad.stride(0), false}, grad.size(0), grad.size(1),
                 biases_[i].next(1));
      }
      const at::Tensor rows = branch_.weight.slice(0, p.first, p.last);
      if (p.skips) {
        const at::Tensor found = at::mm(grad, rows);
        slope.view({-1, length_, slope.size(1)})
            .slice(1, branch_.skip)
            .add_(found.view({-1, length_ - branch_.skip, slope.size(1)}));
      } else {
        product(slope, grad, rows);
      }
    }
    return slope;
  }

  void finish() const {
    for (size_t i = 0; i < parts_.size() && bias.defined(); ++i) {
      bias.slice(0, parts_[i].first, parts_[i].last).copy_(biases_[i].value());
    }
  }

 private:
  const Branch& branch_;
  int64_t length_;
  std::vector<Projection> parts_;
  at::Tensor slope_;
  std::vector<WeightSum> weights_;
  std::vector<ColumnSum> biases_;

 public:
  at::Tensor weight, bias;
};

// Gradients of x, the norm's weight and bias, those of the projections, and of what follows.
variable_list run_backward(const Branch& branch, const at::Tensor& x, const Kept& kept,
                           const at::Tensor& grad, const std::vector<bool>& needed) {
  const Blocks blocks(branch, x);
  const int64_t length = x.size(1), width = x.size(2), queries = length - branch.skip;
  const at::Tensor grads = grad.contiguous();
  const at::Tensor first = x.slice(0, 0, blocks.most);
  const Projected scratch = Projected::like(branch, first);
  const at::Tensor heads = empty({blocks.most, queries, width}, x, at::kFloat);
  const at::Tensor out_weight = empty_if(needed[5], {width, width}, x);
  WeightSum out_weights(out_weight);
  NormBlock norm(branch.norm(), x, blocks.most * length);
  NormGradient norm_grad(branch.norm(), x, blocks.most * length);
  ProjectionGradient projection(branch, blocks, x, needed);
  for (int64_t block = 0; block < blocks.count(); ++block) {
    const int64_t begin = blocks.begin(block), end = blocks.end(block), size = end - begin;
    const Kept part = kept.of(begin, end);
    const at::Tensor of_out = matrix(grads.slice(0, begin, end));
    const at::Tensor of_heads = heads.slice(0, 0, size);
    const Projected found = scratch.of(0, size);
    product(matrix(of_heads), of_out, branch.out_weight);
    out_weights.add(of_out, matrix(part.attended));
    TmAttentionBackward y{};
    y.forward = blocks.attention(branch, part, block);
    y.grad = tokens_of(of_heads, 0, y.forward.queries, y.forward.width);
    const int64_t key = found.key_column(width);
    y.q_grad = tokens_of(found.q(), 0, y.forward.queries, y.forward.width);
    y.k_grad = tokens_of(found.kv(), key, y.forward.keys, y.forward.width);
    y.v_grad = tokens_of(found.kv(), key + width, y.forward.keys, y.forward.width);
    tm_attention_backward(y, at::get_num_threads());
    const at::Tensor slope = projection.add(found, norm(begin * length, end * length));
    norm_grad.add(begin * length, end * length, slope, norm.moments(),
                  {floats(of_out), length, branch.skip});
  }
  projection.finish();
  return {norm_grad.x_grad, norm_grad.weight.value(), norm_grad.bias.value(),    projection.weight,
          projection.bias,  out_weight,               norm_grad.residual.value()};
}

class ResidualAttention : public torch::autograd::Function<ResidualAttention> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x,
                            const at::Tensor& norm_weight, const at::Tensor& norm_bias,
                            const at::Tensor& weight, const at::Tensor& bias,
                            const at::Tensor& out_weight, const at::Tensor& out_bias,
                            const MaybeTensor& keep, int64_t heads, int64_t skip, double eps) {
    const Branch branch{norm_weight, norm_bias, weight, bias, out_weight,
                        out_bias,    keep,      heads,  skip, eps};
    const Kept kept = Kept::like(branch, x);
    variable_list saved{x,        norm_weight,   norm_bias, weight, bias, out_weight,
                        keep.value_or(at::Tensor()), kept.attended, kept.lse};
    saved.insert(saved.end(), kept.projected.parts.begin(), kept.projected.parts.end());
    ctx->save_for_backward(saved);
    ctx->saved_data["heads"] = heads;
    ctx->saved_data["skip"] = skip;
    ctx->saved_data["eps"] = eps;
    return run_forward(branch, x, kept);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list s = ctx->get_saved_variables();
    std::vector<bool> needed;
    for (size_t i = 0; i < 7; ++i) needed.push_back(ctx->needs_input_grad(i));
    variable_list found = differentiate_once("residual_attention", [&]() -> variable_list {
      const Branch branch{s[1], s[2], s[3], s[4], s[5], {},
                          s[6].defined() ? MaybeTensor(s[6]) : std::nullopt,
                          ctx->saved_data["heads"].toInt(), ctx->saved_data["skip"].toInt(),
                          ctx->saved_data["eps"].toDouble()};
      const Kept kept{{{s.begin() + 9, s.end()}}, s[7], s[8]};
      return only(needed, run_backward(branch, s[0], kept, grads[0], needed));
    });
    found.resize(11);
    return found;
  }
};

MaybeTensor residual_attention(const at::Tensor& x, const at::Tensor& norm_weight,
                               const at::Tensor& norm_bias, const at::Tensor& weight,
                               const at::Tensor& bias, const at::Tensor& out_weight,
                               const at::Tensor& out_bias, const MaybeTensor& keep, int64_t heads,
                               int64_t skip, double eps) {
  const Branch branch{norm_weight, norm_bias, weight, bias, out_weight,
                      out_bias,    keep,      heads,  skip, eps};
  if (at::autocast::is_autocast_enabled(at::kCPU) || !branch.fits(x)) return std::nullopt;
  const at::Tensor tokens = x.contiguous();
  return wants_gradient(x, norm_weight, norm_bias, weight, bias, out_weight, out_bias)
             ? ResidualAttention::apply(tokens, norm_weight, norm_bias, weight, bias, out_weight,
                                        out_bias, keep, heads, skip, eps)
             : run_forward(branch, tokens, Kept::like(branch, tokens));
}

}  // namespace
}  // namespace seamo

void bind_residual_attention(pybind11::module_& module) {
  using without_gil = pybind11::call_guard<pybind11::gil_scoped_release>;
  module.def("residual_attention", &seamo::residual_attention, without_gil());
}
