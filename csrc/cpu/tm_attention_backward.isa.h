// The gradients of one head of one sample, from probabilities computed again: each block of queries
// passes over the blocks of keys that it sees and adds to their gradients, always in this order.

// Probabilities exp(score - total) of a finished softmax.
struct StoreProbabilities {
  float* probabilities;
  const float* totals;

  template <int kRows, int kVectors>
  SEAMO_INLINE void operator()(int64_t row, int64_t column, Floats (&c)[kRows][kVectors]) const {
    float* line = probabilities + row * kBlock + column;
    const float* total = totals + column;
    for (int r = 0; r < kRows; ++r, line += kBlock) {
      for (int v = 0; v < kVectors; ++v) {
        store(line + v * kLanes, power_of_two((c[r][v] - load(total + v * kLanes)) * kLog2e));
      }
    }
  }
};

// Gradients of the scores from gradients of the probabilities: probability * (block - mean).
struct StoreSlopes {
  float* slopes;
  const float* probabilities;
  const float* means;

  template <int kRows, int kVectors>
  SEAMO_INLINE void operator()(int64_t row, int64_t column, Floats (&c)[kRows][kVectors]) const {
    float* line = slopes + row * kBlock + column;
    const float* probability = probabilities + row * kBlock + column;
    const float* mean = means + column;
    for (int r = 0; r < kRows; ++r, line += kBlock, probability += kBlock) {
      for (int v = 0; v < kVectors; ++v) {
        store(line + v * kLanes,
              load(probability + v * kLanes) * (c[r][v] - load(mean + v * kLanes)));
      }
    }
  }
};

struct BackwardScratch {
  int64_t width, tokens;
  float *keys, *values, *key_grads, *value_grads;
  float *queries, *queries_across, *grads, *grads_across, *query_grads;
  float *probabilities, *slopes;  // [keys, queries]
  float *totals, *means;          // of each query: lse, and the sum of grad * out
  int64_t size;

  BackwardScratch(const TmAttention& x, float* memory)
      : width(padded(x.width)), tokens(x.seasons * x.modalities * x.keys) {
    Scratch scratch{memory};
    for (float** rows : {&keys, &values, &key_grads, &value_grads}) {
      *rows = scratch.take(tokens * width);
    }
    for (float** rows : {&queries, &queries_across, &grads, &grads_across, &query_grads}) {
      *rows = scratch.take(kBlock * width);
    }
    probabilities = scratch.take(kBlock * kBlock);
    slopes = scratch.take(kBlock * kBlock);
    totals = scratch.take(kBlock);
    means = scratch.take(kBlock);
    size = scratch.used;
  }
};

// Some of the groups of a head: those whose number has this remainder.
struct Part {
  int64_t count, remainder;

  bool has(int64_t group) const { return group % count == remainder; }
};

float dot(const float* a, const float* b, int64_t width) {
  Floats products = {};
  for (int64_t i = 0; i < width; i += kLanes) products += load(a + i) * load(b + i);
  return sum(products);
}

// A block of queries of one group.
template <typename Scalar>
void differentiate(const TmAttentionBackward& y, const Head<Scalar>& head, const Part& part,
                   const BackwardScratch& s, int64_t group, int64_t start, int64_t queries) {
  const TmAttention& x = head.x;
  const int64_t columns = padded(queries), width = s.width;
  read_rows(s.grads, head.rows(y.grad, group, start), y.grad.token, queries, x.width);
  read_rows(s.queries, head.rows(x.out, group, start), x.out.token, queries, x.width);
  for (int64_t i = 0; i < queries; ++i) {
    s.means[i] = dot(s.grads + i * width, s.queries + i * width, width);
    s.totals[i] = head.lse(group)[start + i];
  }
  std::fill(s.means + queries, s.means + kBlock, 0.0f);
  std::fill(s.totals + queries, s.totals + kBlock, 0.0f);
  read_rows(s.queries, head.rows(x.q, group, start), x.q.token, queries, x.width, head.bias(0));
  transpose_rows(s.queries_across, kBlock, s.queries, width, queries, head.scale());
  transpose_rows(s.grads_across, kBlock, s.grads, width, queries, 1.0f);
  std::fill_n(s.query_grads, queries * width, 0.0f);
  for (int64_t other = 0; other < head.groups(); ++other) {
    if (!head.sees(group, other) || !(part.has(group) || part.has(other))) continue;
    for (int64_t key = 0; key < x.keys; key += kBlock) {
      const int64_t keys = std::min(kBlock, x.keys - key);
      const int64_t at = (other * x.keys + key) * width;
      multiply<false>(keys, columns, x.width, s.keys + at, width, s.queries_across, kBlock,
                      StoreProbabilities{s.probabilities, s.totals});
      multiply<false>(keys, columns, x.width, s.values + at, width, s.grads_across, kBlock,
                      StoreSlopes{s.slopes, s.probabilities, s.means});
      if (part.has(other)) {
        multiply<false>(keys, width, queries, s.probabilities, kBlock, s.grads, width,
                        Add{s.value_grads + at, width});
        multiply<false>(keys, width, queries, s.slopes, kBlock, s.queries, width,
                        Add{s.key_grads + at, width});
      }
      if (part.has(group)) {
        multiply<true>(queries, width, keys, s.slopes, kBlock, s.keys + at, width,
                       Add{s.query_grads, width});
      }
    }
  }
  if (part.has(group)) {
    write_rows(head.rows(y.q_grad, group, start), y.q_grad.token, s.query_grads, queries, x.width,
               head.scale());
  }
}

// Items are parts of the groups of a head, of a sample. Every part computes the scores that its
// queries or its keys take part in, so a gradient is summed in the same order for any `parts`.
template <typename Scalar>
void backward(const TmAttentionBackward& y, int64_t parts, int64_t begin, int64_t end,
              float* memory) {
  const TmAttention& x = y.forward;
  const BackwardScratch s(x, memory);
  for (; begin < end; ++begin) {
    const Head<Scalar> head{x, begin / parts / x.heads, begin / parts % x.heads};
    const Part part{parts, begin % parts};
    std::fill_n(s.key_grads, s.tokens * s.width, 0.0f);
    std::fill_n(s.value_grads, s.tokens * s.width, 0.0f);
    for (int64_t other = 0; other < head.groups(); ++other) {
      if (!head.seen(other, 0, head.groups())) continue;
      const int64_t at = other * x.keys * s.width;
      read_rows(s.keys + at, head.rows(x.k, other, 0), x.k.token, x.keys, x.width, head.bias(1));
      read_rows(s.values + at, head.rows(x.v, other, 0), x.v.token, x.keys, x.width, head.bias(2));
    }
    for (int64_t group = 0; group < head.groups(); ++group) {
      if (head.sees_any(group)) {
        for (int64_t start = 0; start < x.queries; start += kBlock) {
          differentiate(y, head, part, s, group, start, std::min(kBlock, x.queries - start));
        }
      } else if (part.has(group)) {
        write_zeros(head.rows(y.q_grad, group, 0), y.q_grad.token, x.queries, x.width);
      }
    }
    for (int64_t other = 0; other < head.groups(); ++other) {
      if (!part.has(other)) continue;
      const int64_t at = other * x.keys * s.width;
      write_rows(head.rows(y.k_grad, other, 0), y.k_grad.token, s.key_grads + at, x.keys, x.width,
                 head.scale());
      write_rows(head.rows(y.v_grad, other, 0), y.v_grad.token, s.value_grads + at, x.keys, x.width,
                 1.0f);
    }
  }
}

void attention_backward(const TmAttentionBackward& x, int64_t parts, int64_t begin, int64_t end) {
  const ::seamo::Scratch<float> memory(BackwardScratch(x.forward, nullptr).size);
  (x.forward.half ? &backward<bf16> : &backward<float>)(x, parts, begin, end, memory.data());
}
