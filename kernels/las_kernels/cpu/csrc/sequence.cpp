// The teacher-forced recurrence of a decoder with additive attention on a CPU, all steps in one call,
// forward and backward. Float32. The definition of right is ../../sequence.py, of which this is what the
// steps need one after another, and the sums that the backward of attention can take as it goes;
// sequence.py calls it.
//
// Products of all utterances of a step are shared out by columns, attention by utterance and head.
// Neither the number of threads nor the other utterances change a bit of an utterance's results.

#include "attention.h"
#include "lstm_cell.h"

namespace {

// Memory as sequence.py packs it: eight bytes a member.
struct Sequence {
  int64_t B, U, T, A, D, H, C, W, L, S;
  const float *keys, *values;       // [B, T, A], [B, T, D]
  const int64_t* lengths;           // [B], each 1..T
  const float* v;                   // [A]
  const float* filters;             // [C, W]; null without location features, as the next
  const float* projection;          // [A, C]
  const float* mask_hidden;         // [B, L, S], null for none
  const float* mask_context;        // [B, D], null for none
  const float* context_weight;      // [4S, D]
  const float* query_weight;        // [A, S]
  const float* const* recurrent;    // L of [4S, S]
  const float* const* inputs;       // L - 1 of [4S, S]
  const float* const* biases;       // L - 1 of [4S]
  const float* projected;           // [B, U, 4S]
  float *hidden, *contexts;         // [B, U, L, S], [B, U, D]
  float* alignments;                // [B, U, H, T]
  float *cells, *gates;             // [B, U, L, S], [B, U, L, 4S]
  const float* dhidden;             // [B, U, L, S], null for none; from here on of the backward
  const float* dcontexts;           // [B, U, D], likewise
  const float* dalignments;         // [B, U, H, T], likewise
  float *dgates, *dqueries, *dfed;  // [B, U, L, 4S], [B, U, A], [B, U, D], written as the rest
  float *dkeys, *dv;                // [B, T, A], [A]
  float *dfilters, *dprojection;    // [C, W], [A, C]
};

// A weight as products read it.
struct Weight {
  int64_t N, K;
  Floats packed;

  Weight(const float* from, int64_t n_stride, int64_t k_stride, int64_t N, int64_t K)
      : N(N), K(K), packed(floats(vectors::packed_size(N, K))) {
    vectors::pack_all(from, n_stride, k_stride, N, K, packed.get());
  }

  void times(const Rows& a, const Rows& start, const OutRows& out) const {
    const int64_t rows = static_cast<int64_t>(a.size());
    const int64_t grain = 1 + (int64_t{1} << 18) / (rows * K * kPanel + 1);
    at::parallel_for(0, panel_count(N), grain, [&](int64_t begin, int64_t end) {
      vectors::some_panels(begin, end, rows, a.data(), packed.get(), K, N, start.data(),
                           out.data());
    });
  }
};

// Row b of a tensor whose rows are so many floats apart.
template <class Pointer>
std::vector<Pointer> rows(const Sequence& p, Pointer first, int64_t apart) {
  std::vector<Pointer> found(p.B);
  for (int64_t b = 0; b < p.B; ++b) found[b] = first + b * apart;
  return found;
}

Rows seen(const OutRows& from) { return Rows(from.begin(), from.end()); }

// x times a mask, or x itself where there is none; in `memory`.
Rows masked(const Rows& x, const float* mask, int64_t apart, int64_t size, float* memory) {
  if (mask == nullptr) return x;
  Rows found(x.size());
  for (size_t b = 0; b < x.size(); ++b) {
    float* to = memory + b * size;
    for (int64_t i = 0; i < size; ++i) to[i] = x[b][i] * mask[b * apart + i];
    found[b] = to;
  }
  return found;
}

Attention attention(const Sequence& p) {
  Attention made{p.T,    p.A,      p.D, p.H,       p.filters ? p.C : 0, p.filters ? p.W : 0,
                 p.keys, p.values, p.v, p.filters, p.projection};
  made.prepare();
  return made;
}

std::vector<Head> heads(const Sequence& p, const Attention& shared) {
  std::vector<Head> found;
  found.reserve(p.B * p.H);
  for (int64_t b = 0; b < p.B; ++b)
    for (int64_t h = 0; h < p.H; ++h) found.emplace_back(shared, b, h, p.lengths[b]);
  return found;
}

// Alignments before the first step: the same for all valid frames.
std::vector<float> uniform(const Sequence& p) {
  std::vector<float> found(p.B * p.T, 0.0f);
  for (int64_t b = 0; b < p.B; ++b)
    std::fill_n(found.data() + b * p.T, p.lengths[b], 1.0f / p.lengths[b]);
  return found;
}

const float* previous(const Sequence& p, const std::vector<float>& first, int64_t b, int64_t u,
                      int64_t h) {
  return u ? p.alignments + ((b * p.U + u - 1) * p.H + h) * p.T : first.data() + b * p.T;
}

void forward(const Sequence& p) {
  const int64_t S = p.S, N = 4 * S, LS = p.L * S;
  const Attention shared = attention(p);
  std::vector<Head> all = heads(p, shared);
  const std::vector<float> first = uniform(p), zero(p.A, 0.0f);
  const Weight context(p.context_weight, p.D, 1, N, p.D), query(p.query_weight, S, 1, p.A, S);
  std::vector<Weight> recurrent, inputs;
  for (int64_t l = 0; l < p.L; ++l) recurrent.emplace_back(p.recurrent[l], S, 1, N, S);
  for (int64_t l = 1; l < p.L; ++l) inputs.emplace_back(p.inputs[l - 1], S, 1, N, S);
  const Floats fed = floats(p.B * p.D), dropped = floats(p.B * S), queries = floats(p.B * p.A);
  const OutRows asked = rows(p, queries.get(), p.A);
  for (int64_t u = 0; u < p.U; ++u) {
    Rows output;
    for (int64_t l = 0; l < p.L; ++l) {
      const OutRows here = rows(p, p.gates + (u * p.L + l) * N, p.U * p.L * N);
      const OutRows cell = rows(p, p.cells + u * LS + l * S, p.U * LS);
      const OutRows hidden = rows(p, p.hidden + u * LS + l * S, p.U * LS);
      if (l > 0) {
        inputs[l - 1].times(output, Rows(p.B, p.biases[l - 1]), here);
      } else if (u > 0) {
        const Rows before = rows<const float*>(p, p.contexts + (u - 1) * p.D, p.U * p.D);
        context.times(masked(before, p.mask_context, p.D, p.D, fed.get()),
                      rows(p, p.projected + u * N, p.U * N), here);
      } else {
        for (int64_t b = 0; b < p.B; ++b) std::copy_n(p.projected + b * p.U * N, N, here[b]);
      }
      if (u > 0)
        recurrent[l].times(rows<const float*>(p, p.hidden + (u - 1) * LS + l * S, p.U * LS),
                           seen(here), here);
      for (int64_t b = 0; b < p.B; ++b)
        cell_forward(S, here[b], u ? cell[b] - LS : nullptr, cell[b], hidden[b]);
      const float* mask = p.mask_hidden ? p.mask_hidden + l * S : nullptr;
      output = masked(seen(hidden), mask, LS, S, dropped.get());
    }
    query.times(output, Rows(p.B, zero.data()), asked);
    at::parallel_for(0, p.B * p.H, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t b = i / p.H, h = i % p.H;
        all[i].forward(asked[b] + h * shared.head, previous(p, first, b, u, h),
                       p.alignments + ((b * p.U + u) * p.H + h) * p.T,
                       p.contexts + (b * p.U + u) * p.D + h * shared.value_head);
      }
    });
  }
}

// What utterances and heads have added up, in their order.
void collect(const Sequence& p, const std::vector<Head>& all, const Attention& shared) {
  const int64_t width = shared.panels * kPanel;
  std::fill_n(p.dv, p.A, 0.0f);
  if (shared.C > 0) {
    std::fill_n(p.dfilters, p.C * p.W, 0.0f);
    std::fill_n(p.dprojection, p.A * p.C, 0.0f);
  }
  for (const Head& own : all) {
    for (int64_t a = 0; a < shared.head; ++a) {
      const int64_t at = own.h * shared.head + a;
      p.dv[at] += own.dv[a];
      for (int64_t c = 0; c < shared.C; ++c)
        p.dprojection[at * p.C + c] += own.dprojection[c * width + a];
    }
    for (int64_t c = 0; c < shared.C; ++c)
      for (int64_t w = 0; w < p.W; ++w) p.dfilters[c * p.W + w] += own.dfilters[c * own.taps + w];
  }
}

void backward(const Sequence& p) {
  const int64_t S = p.S, N = 4 * S, LS = p.L * S;
  const Attention shared = attention(p);
  std::vector<Head> all = heads(p, shared);
  for (Head& own : all) own.start_backward(p.dkeys);
  const std::vector<float> first = uniform(p), zero(std::max({p.A, p.D, N}), 0.0f);
  const Rows nothing(p.B, zero.data());
  const Weight context(p.context_weight, 1, p.D, p.D, N), query(p.query_weight, 1, S, S, p.A);
  const Weight asking(p.query_weight, S, 1, p.A, S);
  std::vector<Weight> recurrent, inputs;
  for (int64_t l = 0; l < p.L; ++l) recurrent.emplace_back(p.recurrent[l], 1, S, S, N);
  for (int64_t l = 1; l < p.L; ++l) inputs.emplace_back(p.inputs[l - 1], 1, S, S, N);
  const Floats dropped = floats(p.B * S), queries = floats(p.B * p.A);
  // From the step after: gradients of the hidden states and cells of every layer, and the context.
  std::vector<float> dnext(p.L * p.B * S, 0.0f), dcell(p.L * p.B * S, 0.0f), dfed(p.B * p.D, 0.0f);
  std::vector<float> above(p.B * S), dstate(S);
  std::vector<std::vector<float>> denergy(p.B * p.H, std::vector<float>(p.T));
  const OutRows asked = rows(p, queries.get(), p.A), up = rows(p, above.data(), S);
  for (int64_t u = p.U - 1; u >= 0; --u) {
    const Rows last = rows<const float*>(p, p.hidden + u * LS + LS - S, p.U * LS);
    const float* top = p.mask_hidden ? p.mask_hidden + LS - S : nullptr;
    asking.times(masked(last, top, LS, S, dropped.get()), nothing, asked);
    for (int64_t b = 0; b < p.B; ++b) {
      float* to = p.dfed + (b * p.U + u) * p.D;
      const float* outer = p.dcontexts ? p.dcontexts + (b * p.U + u) * p.D : zero.data();
      for (int64_t d = 0; d < p.D; ++d)
        to[d] = outer[d] + dfed[b * p.D + d] * (p.mask_context ? p.mask_context[b * p.D + d] : 1.0f);
    }
    at::parallel_for(0, p.B * p.H, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t b = i / p.H, h = i % p.H, row = ((b * p.U + u) * p.H + h) * p.T;
        all[i].backward(asked[b] + h * shared.head, previous(p, first, b, u, h), p.alignments + row,
                        p.dfed + (b * p.U + u) * p.D + h * shared.value_head,
                        p.dalignments ? p.dalignments + row : nullptr, denergy[i],
                        p.dqueries + (b * p.U + u) * p.A + h * shared.head, p.dkeys);
      }
    });
    query.times(rows<const float*>(p, p.dqueries + u * p.A, p.U * p.A), nothing, up);
    for (int64_t l = p.L - 1; l >= 0; --l) {
      const OutRows here = rows(p, p.dgates + (u * p.L + l) * N, p.U * p.L * N);
      for (int64_t b = 0; b < p.B; ++b) {
        const int64_t at = (b * p.U + u) * LS + l * S;
        const float* mask = p.mask_hidden ? p.mask_hidden + b * LS + l * S : nullptr;
        for (int64_t s = 0; s < S; ++s) {
          const float own = up[b][s] * (mask ? mask[s] : 1.0f);
          dstate[s] = p.dhidden ? own + p.dhidden[at + s] : own;
        }
        const int64_t state = (l * p.B + b) * S;
        cell_backward(S, dstate.data(), dnext.data() + state,
                      p.gates + (b * p.U + u) * p.L * N + l * N, u ? p.cells + at - LS : nullptr,
                      p.cells + at, dcell.data() + state, here[b]);
      }
      if (u > 0) recurrent[l].times(seen(here), nothing, rows(p, dnext.data() + l * p.B * S, S));
      if (l > 0) inputs[l - 1].times(seen(here), nothing, up);
      if (l == 0 && u > 0) context.times(seen(here), nothing, rows(p, dfed.data(), p.D));
    }
  }
  collect(p, all, shared);
}

// 0, or 1 + the index of an utterance whose length is not in 1..T.
int64_t wrong_length(const Sequence& p) {
  for (int64_t b = 0; b < p.B; ++b)
    if (p.lengths[b] < 1 || p.lengths[b] > p.T) return b + 1;
  return 0;
}

int64_t guarded(const Sequence& p, void (*run)(const Sequence&)) {
  if (const int64_t wrong = wrong_length(p)) return wrong;
  try {
    run(p);
  } catch (const std::bad_alloc&) {
    return -1;
  }
  return 0;
}

}  // namespace

// These return 0, or -1 where memory is short, or 1 + the index of a wrong length.
extern "C" int64_t las_sequence_size() { return sizeof(Sequence); }
extern "C" int64_t las_sequence_forward(const Sequence* p) { return guarded(*p, forward); }
extern "C" int64_t las_sequence_backward(const Sequence* p) { return guarded(*p, backward); }
