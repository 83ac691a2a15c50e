#include "../tm_attention.h"

#include "autograd.h"
#include "exported.h"

namespace seamo {
namespace {

at::Tensor with_unit_stride(const at::Tensor& x) { return x.stride(-1) == 1 ? x : x.contiguous(); }

Tokens tokens_of(const at::Tensor& x) {
  return {x.data_ptr(), x.stride(0), x.stride(1), x.stride(2), x.stride(3), x.stride(4)};
}

bool is_same(const at::Tensor& x, const at::Tensor& like) {
  return x.sizes() == like.sizes() && x.scalar_type() == like.scalar_type();
}

// Tensors that a struct points into.
struct Inputs {
  at::Tensor q, k, v, adjacency, valid;

  Inputs(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& adjacency,
         const at::Tensor& valid)
      : q(with_unit_stride(q)),
        k(with_unit_stride(k)),
        v(with_unit_stride(v)),
        adjacency(adjacency.contiguous()),
        valid(valid.contiguous()) {}

  static bool are_good(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                       const at::Tensor& adjacency, const at::Tensor& valid) {
    if (!are_plain(q, k, v, adjacency, valid) || !is_stored(q) || q.dim() != 6) return false;
    const int64_t groups = q.size(1) * q.size(2);
    return q.size(5) > 0 && k.dim() == 6 && v.sizes() == k.sizes() &&
           has_sizes(k, q, 3, {k.size(3), q.size(4), q.size(5)}) &&
           k.scalar_type() == q.scalar_type() && v.scalar_type() == q.scalar_type() &&
           adjacency.scalar_type() == at::kBool && valid.scalar_type() == at::kBool &&
           adjacency.sizes() == at::IntArrayRef{groups, groups} &&
           valid.sizes() == q.sizes().slice(0, 3);
  }

  TmAttention params(const at::Tensor& out, const at::Tensor& lse) const {
    TmAttention x{};
    x.batch = q.size(0);
    x.seasons = q.size(1);
    x.modalities = q.size(2);
    x.queries = q.size(3);
    x.keys = k.size(3);
    x.heads = q.size(4);
    x.width = q.size(5);
    x.half = is_half(q);
    x.adjacency = adjacency.const_data_ptr<bool>();
    x.valid = valid.const_data_ptr<bool>();
    x.q = tokens_of(q);
    x.k = tokens_of(k);
    x.v = tokens_of(v);
    x.out = tokens_of(out);
    x.lse = floats(lse);
    return x;
  }
};

// The result, and lse.
Tensors run_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                    const at::Tensor& adjacency, const at::Tensor& valid) {
  const Inputs inputs(q, k, v, adjacency, valid);
  const at::Tensor out = empty(q.sizes(), q, q.scalar_type());
  const at::Tensor lse =
      empty({q.size(0), q.size(1), q.size(2), q.size(4), q.size(3)}, q, at::kFloat);
  tm_attention(inputs.params(out, lse));
  return {out, lse};
}

Tensors backward(const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k,
                 const at::Tensor& v, const at::Tensor& out, const at::Tensor& lse,
                 const at::Tensor& adjacency, const at::Tensor& valid) {
  const bool good = Inputs::are_good(q, k, v, adjacency, valid) && are_plain(grad, out, lse) &&
                    is_same(grad, q) && is_same(out, q) && lse.scalar_type() == at::kFloat &&
                    has_sizes(lse, q, 3, {q.size(4), q.size(3)});
  if (!good) return {};
  const Inputs inputs(q, k, v, adjacency, valid);
  const at::Tensor grads = with_unit_stride(grad), outs = with_unit_stride(out);
  const at::Tensor totals = lse.contiguous();
  const at::Tensor q_grad = empty(q.sizes(), q, q.scalar_type());
  const at::Tensor k_grad = empty(k.sizes(), k, k.scalar_type());
  const at::Tensor v_grad = empty(v.sizes(), v, v.scalar_type());
  TmAttentionBackward x{};
  x.forward = inputs.params(outs, totals);
  x.grad = tokens_of(grads);
  x.q_grad = tokens_of(q_grad);
  x.k_grad = tokens_of(k_grad);
  x.v_grad = tokens_of(v_grad);
  tm_attention_backward(x);
  return {q_grad, k_grad, v_grad};
}

Tensors differentiate(const at::Tensor& grad, const Kept& kept, const std::vector<bool>&) {
  const auto [q, k, v, out, lse, adjacency, valid] = named<7>(kept.tensors);
  if (is_plain(grad)) return backward(grad, q, k, v, out, lse, adjacency, valid);
  return call_operator("seamo::_tm_attention_backward",
                       {grad, q, k, v, out, lse, adjacency, valid});
}

const Differentiable operation("tm_attention", &differentiate);

Tensors forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                const at::Tensor& adjacency, const at::Tensor& valid) {
  if (!Inputs::are_good(q, k, v, adjacency, valid)) return {};
  return operation({q, k, v}, [&](Kept* kept) {
    const Tensors results = run_forward(q, k, v, adjacency, valid);
    if (kept != nullptr) *kept = {{q, k, v, results[0], results[1], adjacency, valid}, {}};
    return results;
  });
}

const Exported exported[] = {{"tm_attention", &forward}, {"tm_attention_backward", &backward}};

}  // namespace
}  // namespace seamo
