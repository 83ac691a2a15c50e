// One head of one sample at a time: its keys and values are read once into rows of float in the
// cache, then each block of queries passes over the blocks of keys that it may see. Scores are kept
// as [keys, queries], so that maxima, sums and exponentials work on whole vectors.

#include "blocks.isa.h"
#include "exponential.isa.h"

constexpr int64_t kBlock = 64;  // queries and keys of a block

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Scores, and the largest of each query.
struct StoreScores {
  float* scores;
  float* largest;

  template <int kRows, int kVectors>
  SEAMO_INLINE void operator()(int64_t row, int64_t column, Floats (&c)[kRows][kVectors]) const {
    Floats top[kVectors];
    for (int v = 0; v < kVectors; ++v) top[v] = load(largest + column + v * kLanes);
    float* line = scores + row * kBlock + column;
    for (int r = 0; r < kRows; ++r, line += kBlock) {
      for (int v = 0; v < kVectors; ++v) {
        store(line + v * kLanes, c[r][v]);
        top[v] = c[r][v] > top[v] ? c[r][v] : top[v];
      }
    }
    for (int v = 0; v < kVectors; ++v) store(largest + column + v * kLanes, top[v]);
  }
};

// One sample and head.
template <typename Scalar>
struct Head {
  const TmAttention& x;
  int64_t batch, head;

  float scale() const { return static_cast<float>(1 / std::sqrt(static_cast<double>(x.width))); }
  int64_t groups() const { return x.seasons * x.modalities; }
  bool valid(int64_t group) const { return x.valid[batch * groups() + group]; }
  bool sees(int64_t query, int64_t key) const {
    return (x.any_query || valid(query)) && valid(key) && x.adjacency[query * groups() + key];
  }
  bool sees_any(int64_t query) const {
    for (int64_t key = 0; key < groups(); ++key) {
      if (sees(query, key)) return x.keys > 0;
    }
    return false;
  }
  bool seen(int64_t key, int64_t first, int64_t last) const {
    for (int64_t query = first; query < last; ++query) {
      if (sees(query, key)) return true;
    }
    return false;
  }
  Scalar* rows(const Tokens& tokens, int64_t group, int64_t token) const {
    return static_cast<Scalar*>(tokens.data) + batch * tokens.batch +
           group / x.modalities * tokens.season + group % x.modalities * tokens.modality +
           token * tokens.token + head * tokens.head;
  }
  // Of q, k or v: 0, 1 or 2.
  const float* bias(int64_t which) const {
    return x.bias ? x.bias + (which * x.heads + head) * x.width : nullptr;
  }
  float* lse(int64_t group) const {
    return x.lse + ((batch * groups() + group) * x.heads + head) * x.queries;
  }
};

// Hands out parts of the scratch memory; without memory it only counts.
struct Scratch {
  float* memory;
  int64_t used = 0;

  float* take(int64_t floats) {
    const int64_t start = used;
    used += ceil_div(floats, 16) * 16;
    return memory ? memory + start : nullptr;
  }
};

struct ForwardScratch {
  int64_t width, tokens;  // of a row of floats; of all keys
  float *keys, *values, *queries, *transposed, *scores, *out;
  float *largest, *before, *sums, *factors;  // of each query
  int64_t size;

  ForwardScratch(const TmAttention& x, float* memory)
      : width(padded(x.width)), tokens(x.seasons * x.modalities * x.keys) {
    Scratch scratch{memory};
    keys = scratch.take(tokens * width);
    values = scratch.take(tokens * width);
    queries = scratch.take(kBlock * width);
    transposed = scratch.take(kBlock * width);
    scores = scratch.take(kBlock * kBlock);
    out = scratch.take(kBlock * width);
    for (float** row : {&largest, &before, &sums, &factors}) *row = scratch.take(kBlock);
    size = scratch.used;
  }
};

// Turns a block of scores into exp(score - largest), and updates the sums of the queries.
void exponentiate(const ForwardScratch& s, int64_t keys, int64_t columns) {
  for (int64_t column = 0; column < columns; column += kLanes) {
    const Floats largest = load(s.largest + column);
    float* line = s.scores + column;
    Floats sum = {};
    for (int64_t key = 0; key < keys; ++key, line += kBlock) {
      const Floats p = power_of_two((load(line) - largest) * kLog2e);
      sum += p;
      store(line, p);
    }
    const Floats factor = power_of_two((load(s.before + column) - largest) * kLog2e);
    store(s.before + column, largest);
    store(s.factors + column, factor);
    store(s.sums + column, load(s.sums + column) * factor + sum);
  }
}

// A block of queries of one group.
template <typename Scalar>
void attend(const Head<Scalar>& head, const ForwardScratch& s, int64_t group, int64_t start,
            int64_t queries) {
  const TmAttention& x = head.x;
  const int64_t columns = padded(queries);
  read_rows(s.queries, head.rows(x.q, group, start), x.q.token, queries, x.width, head.bias(0));
  transpose_rows(s.transposed, kBlock, s.queries, s.width, queries, head.scale());
  std::fill_n(s.out, queries * s.width, 0.0f);
  std::fill_n(s.sums, kBlock, 0.0f);
  std::fill_n(s.largest, kBlock, -kInfinity);
  std::fill_n(s.before, kBlock, -kInfinity);
  for (int64_t other = 0; other < head.groups(); ++other) {
    if (!head.sees(group, other)) continue;
    for (int64_t key = 0; key < x.keys; key += kBlock) {
      const int64_t keys = std::min(kBlock, x.keys - key);
      const int64_t at = (other * x.keys + key) * s.width;
      multiply<false>(keys, columns, x.width, s.keys + at, s.width, s.transposed, kBlock,
                      StoreScores{s.scores, s.largest});
      exponentiate(s, keys, columns);
      multiply<true>(queries, s.width, keys, s.scores, kBlock, s.values + at, s.width,
                     ScaleAndAdd{s.out, s.width, s.factors});
    }
  }
  float* lse = head.lse(group) + start;
  for (int64_t i = 0; i < queries; ++i) {
    lse[i] = s.largest[i] + std::log(s.sums[i]);
    write_rows(head.rows(x.out, group, start + i), 0, s.out + i * s.width, 1, x.width,
               1.0f / s.sums[i]);
  }
}

// Items are query groups: of a head, of a sample.
template <typename Scalar>
void forward(const TmAttention& x, int64_t begin, int64_t end, float* memory) {
  const ForwardScratch s(x, memory);
  const int64_t groups = x.seasons * x.modalities;
  while (begin < end) {
    const Head<Scalar> head{x, begin / groups / x.heads, begin / groups % x.heads};
    const int64_t first = begin % groups;
    const int64_t last = std::min(groups, first + end - begin);
    begin += last - first;
    for (int64_t other = 0; other < groups; ++other) {
      if (!head.seen(other, first, last)) continue;
      const int64_t at = other * x.keys * s.width;
      read_rows(s.keys + at, head.rows(x.k, other, 0), x.k.token, x.keys, x.width, head.bias(1));
      read_rows(s.values + at, head.rows(x.v, other, 0), x.v.token, x.keys, x.width, head.bias(2));
    }
    for (int64_t group = first; group < last; ++group) {
      if (head.sees_any(group)) {
        for (int64_t start = 0; start < x.queries; start += kBlock) {
          attend(head, s, group, start, std::min(kBlock, x.queries - start));
        }
      } else {
        write_zeros(head.rows(x.out, group, 0), x.out.token, x.queries, x.width);
        std::fill_n(head.lse(group), x.queries, kInfinity);
      }
    }
  }
}

void attention(const TmAttention& x, int64_t begin, int64_t end) {
  const ::seamo::Scratch<float> memory(ForwardScratch(x, nullptr).size);
  (x.half ? &forward<bf16> : &forward<float>)(x, begin, end, memory.data());
}

#include "tm_attention_backward.isa.h"
