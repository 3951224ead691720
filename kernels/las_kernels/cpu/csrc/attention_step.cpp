// One step of attention for search on a CPU: scores, softmax and context in one pass over the
// memory. Float32. The definition of right is reference.py; attention_step.py calls `las_attend`.
//
// An utterance is cut into spans of frames. A span is read once for up to kBeams beams and leaves,
// for every beam and head, the largest energy, the sum of the weights relative to it and the
// weighted sum of the values (the online softmax of Milakov & Gimelshein 2018). The task that
// finishes an utterance's last span merges its spans, always in the same order. Where a span starts
// depends on that utterance's length alone, so that neither the rest of the batch nor the number
// of threads can change a bit of the result.
//
// Only frames below `lengths[b]` are read, except for `previous`, which the location filter sees
// as a whole, as the reference does.

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <vector>

#include "simd.h"

namespace {

constexpr int kFrames = 32;  // frames of a tile: its keys stay in the first-level cache
constexpr int kBeams = 8;    // beams that share one reading of a tile
constexpr int kSpans = 16;   // most spans of an utterance: bounds the memory for their sums
constexpr int kChains = 4;   // independent sums, to hide the latency of an addition
constexpr int kRows = 8;     // rows of a product that share one reading of a weight
constexpr int kWide = 3;     // vectors of a panel of a weight: kRows * kWide sums fit the registers
constexpr int kPanel = kWide * kLanes;
constexpr int64_t kWorth = 1 << 15;  // scores' elements that are worth waking another thread
constexpr float kInfinity = std::numeric_limits<float>::infinity();

enum class Kind { kDot, kAdditive, kLocation };

inline int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

// Memory as attention_step.py packs it: eight bytes a member.
struct Problem {
  int64_t B, N, T, A, D, H, C, W;
  double scale;
  const float* query;       // [B, N, A]
  const float* keys;        // [B, T, A]
  const float* values;      // [B, T, D]
  const int64_t* lengths;   // [B]
  const float* v;           // [A], null for the dot score
  const float* filters;     // [C, W], null without location features
  const float* projection;  // [A, C]
  const float* previous;    // [B, N, H, T]
  float* context;           // [B, N, D]
  float* alignment;         // [B, N, H, T]
};

// What every task reads: widths of a head rounded up to whole vectors, weights padded with zeros,
// so that the padding adds v * tanh(0) = 0 to an energy.
struct Plan {
  Problem p;
  int64_t width;      // of a head's keys, whole vectors
  float* v;           // [H, width]
  float* projection;  // [H, C, width]
  float* partial;     // [B, N, spans, sums], see `sums`
  int64_t spans;      // most spans of an utterance of this batch
  int64_t sums;       // floats of a span's result for one beam: [H] maxima, [H] sums, [D] values
};

// What one thread writes while it works on a tile.
struct Scratch {
  float* query;     // [kBeams, H, width]
  float* keys;      // [kFrames, width]
  float* window;    // the part of `previous` under the filters of a tile
  float* features;  // [C, kFrames]
  float* weights;   // [kBeams, kFrames]

  static int64_t size(const Problem& p, int64_t width) {
    return kBeams * p.H * width + kFrames * width + round_up(kFrames + p.W, kLanes) +
           p.C * kFrames + kBeams * kFrames;
  }
  Scratch(float* at, const Problem& p, int64_t width) {
    query = at;
    keys = query + kBeams * p.H * width;
    window = keys + kFrames * width;
    features = window + round_up(kFrames + p.W, kLanes);
    weights = features + p.C * kFrames;
  }
};

struct Task {
  int64_t b, n, beams, span, block;  // beams n .. n + beams - 1; `block` counts (b, n)
};

// Frames of a span: whole tiles, at most kSpans of them in an utterance.
inline int64_t span_frames(int64_t length) {
  return kFrames * ((length + kFrames * kSpans - 1) / (kFrames * kSpans));
}
inline int64_t span_count(int64_t length) {
  return (length + span_frames(length) - 1) / span_frames(length);
}

// Convolve `previous` (one beam, one head) around the tile at `start`: [C, kFrames].
template <int channels>
void convolve(const float* filters, const float* window, int64_t W, float* features) {
  for (int f = 0; f < kFrames; f += 2 * kLanes) {
    Vec sum[channels][2] = {};
    for (int64_t w = 0; w < W; ++w) {
      const Vec left = load(window + f + w), right = load(window + f + w + kLanes);
      for (int c = 0; c < channels; ++c) {
        sum[c][0] += filters[c * W + w] * left;
        sum[c][1] += filters[c * W + w] * right;
      }
    }
    for (int c = 0; c < channels; ++c) {
      store(features + c * kFrames + f, sum[c][0]);
      store(features + c * kFrames + f + kLanes, sum[c][1]);
    }
  }
}

void location(const Problem& p, const float* previous, int64_t start, const Scratch& scratch) {
  const int64_t first = start - p.W / 2, size = kFrames + p.W - 1;
  for (int64_t i = 0; i < size; ++i) {
    const int64_t t = first + i;
    scratch.window[i] = t < 0 || t >= p.T ? 0.0f : previous[t];
  }
  int64_t c = 0;
  for (; c + kChains <= p.C; c += kChains)
    convolve<kChains>(p.filters + c * p.W, scratch.window, p.W, scratch.features + c * kFrames);
  for (; c < p.C; ++c)
    convolve<1>(p.filters + c * p.W, scratch.window, p.W, scratch.features + c * kFrames);
}

// Energies of a tile for one beam and head: rows[f] . query, or v . tanh(rows[f] + query + ...).
template <Kind kind>
void scores(const Plan& plan, const float* const* rows, int64_t frames, const float* query,
            int64_t h, const float* features, float* energy) {
  const int64_t width = plan.width, C = plan.p.C;
  const float* v = plan.v + h * width;
  const float* projection = plan.projection + h * C * width;
  for (int64_t f = 0; f < frames; f += kChains) {
    Vec sum[kChains] = {};
    for (int64_t a = 0; a < width; a += kLanes) {
      const Vec q = load(query + a);
      if constexpr (kind == Kind::kDot) {
        for (int j = 0; j < kChains; ++j) sum[j] += q * load(rows[f + j] + a);
      } else {
        Vec x[kChains];
        for (int j = 0; j < kChains; ++j) x[j] = q + load(rows[f + j] + a);
        if constexpr (kind == Kind::kLocation) {
          for (int64_t c = 0; c < C; ++c) {
            const Vec u = load(projection + c * width + a);
            for (int j = 0; j < kChains; ++j) x[j] += features[c * kFrames + f + j] * u;
          }
        }
        const Vec weight = load(v + a);
        for (int j = 0; j < kChains; ++j) sum[j] += weight * tanh(x[j]);
      }
    }
    for (int j = 0; j < kChains; ++j) energy[f + j] = sum_lanes(sum[j]);
  }
  if constexpr (kind == Kind::kDot) {
    const float scale = static_cast<float>(plan.p.scale);
    for (int64_t f = 0; f < frames; ++f) energy[f] *= scale;
  }
}

// Energies -> weights relative to the running maximum, in place; returns what the sums so far
// must be multiplied by. A NaN energy loses every comparison and reaches `total` through exp.
float reweigh(float* energy, int64_t frames, float& maximum, float& total) {
  float largest = maximum;
  for (int64_t f = 0; f < frames; ++f) largest = energy[f] > largest ? energy[f] : largest;
  const float base = largest == -kInfinity ? 0.0f : largest;  // -inf - -inf is not a number
  const float correction = exp1(maximum - base);
  Vec sum = {};
  for (int64_t f = frames; f < kFrames; ++f) energy[f] = -kInfinity;
  for (int f = 0; f < kFrames; f += kLanes) {
    const Vec weight = exp(load(energy + f) - base);
    store(energy + f, weight);
    sum += weight;
  }
  maximum = largest;
  total = total * correction + sum_lanes(sum);
  return correction;
}

// sums[g] = sums[g] * correction[g] + weights[g] . values for a group of beams and a head's values.
template <int beams>
void accumulate(const float* values, int64_t stride, int64_t frames, int64_t width,
                const float* weights, const float* correction, float* const* sums) {
  for (int64_t d = 0; d < width; d += kLanes) {
    const int64_t count = std::min<int64_t>(kLanes, width - d);
    const bool whole = count == kLanes;
    Vec sum[beams];
    for (int g = 0; g < beams; ++g)
      sum[g] = (whole ? load(sums[g] + d) : load_part(sums[g] + d, count)) * correction[g];
    for (int64_t f = 0; f < frames; ++f) {
      const float* from = values + f * stride + d;
      const Vec value = whole ? load(from) : load_part(from, count);
      for (int g = 0; g < beams; ++g) sum[g] = fused(weights[g * kFrames + f], value, sum[g]);
    }
    for (int g = 0; g < beams; ++g) {
      if (whole)
        store(sums[g] + d, sum[g]);
      else
        store_part(sums[g] + d, sum[g], count);
    }
  }
}

template <Kind kind>
void run_span(const Plan& plan, const Task& task, const Scratch& scratch) {
  const Problem& p = plan.p;
  const int64_t head = p.A / p.H, value_head = p.D / p.H, width = plan.width;
  const int64_t length = p.lengths[task.b];
  const int64_t begin = task.span * span_frames(length);
  const int64_t end = std::min(length, begin + span_frames(length));
  float* partial[kBeams];
  for (int64_t n = 0; n < task.beams; ++n) {
    const int64_t row = task.b * p.N + task.n + n;
    partial[n] = plan.partial + (row * plan.spans + task.span) * plan.sums;
    std::fill_n(partial[n], p.H, -kInfinity);
    std::fill_n(partial[n] + p.H, p.H + p.D, 0.0f);
    for (int64_t h = 0; h < p.H; ++h) {
      float* to = scratch.query + (n * p.H + h) * width;
      std::copy_n(p.query + row * p.A + h * head, head, to);
      std::fill(to + head, to + width, 0.0f);
    }
  }
  for (int64_t start = begin; start < end; start += kFrames) {
    const int64_t frames = std::min<int64_t>(kFrames, end - start);
    for (int64_t h = 0; h < p.H; ++h) {
      const float* rows[kFrames];
      for (int64_t f = 0; f < kFrames; ++f) {
        // Frames past the end repeat the last one, to fill a group of kChains.
        rows[f] = p.keys + (task.b * p.T + start + std::min(f, frames - 1)) * p.A + h * head;
        if (width == head) continue;
        float* to = scratch.keys + f * width;
        std::copy_n(rows[f], head, to);
        std::fill(to + head, to + width, 0.0f);
        rows[f] = to;
      }
      float correction[kBeams];
      float* sums[kBeams];
      for (int64_t n = 0; n < task.beams; ++n) {
        const int64_t row = (task.b * p.N + task.n + n) * p.H + h;
        float* energy = scratch.weights + n * kFrames;
        if constexpr (kind == Kind::kLocation) location(p, p.previous + row * p.T, start, scratch);
        scores<kind>(plan, rows, frames, scratch.query + (n * p.H + h) * width, h,
                     scratch.features, energy);
        std::copy_n(energy, frames, p.alignment + row * p.T + start);
        correction[n] = reweigh(energy, frames, partial[n][h], partial[n][p.H + h]);
        sums[n] = partial[n] + 2 * p.H + h * value_head;
      }
      const float* values = p.values + (task.b * p.T + start) * p.D + h * value_head;
      int64_t n = 0;
      for (; n + kChains <= task.beams; n += kChains)
        accumulate<kChains>(values, p.D, frames, value_head, scratch.weights + n * kFrames,
                            correction + n, sums + n);
      for (; n < task.beams; ++n)
        accumulate<1>(values, p.D, frames, value_head, scratch.weights + n * kFrames,
                      correction + n, sums + n);
    }
  }
}

// Merge the spans of some beams of an utterance, in order, and turn energies into the alignment.
void merge(const Plan& plan, const Task& task) {
  const Problem& p = plan.p;
  const int64_t length = p.lengths[task.b], spans = span_count(length), value_head = p.D / p.H;
  for (int64_t n = task.n; n < task.n + task.beams; ++n) {
    const int64_t row = task.b * p.N + n;
    const float* partial = plan.partial + row * plan.spans * plan.sums;
    for (int64_t h = 0; h < p.H; ++h) {
      float largest = -kInfinity, total = 0.0f, factor[kSpans];
      for (int64_t s = 0; s < spans; ++s) largest = std::max(largest, partial[s * plan.sums + h]);
      const float base = largest == -kInfinity ? 0.0f : largest;
      for (int64_t s = 0; s < spans; ++s) {
        factor[s] = exp1(partial[s * plan.sums + h] - base);
        total += factor[s] * partial[s * plan.sums + p.H + h];
      }
      const float scale = 1.0f / total;
      float* context = p.context + row * p.D + h * value_head;
      for (int64_t d = 0; d < value_head; d += kLanes) {
        const int64_t count = std::min<int64_t>(kLanes, value_head - d);
        Vec sum = {};
        for (int64_t s = 0; s < spans; ++s) {
          const float* from = partial + s * plan.sums + 2 * p.H + h * value_head + d;
          sum += factor[s] * (count == kLanes ? load(from) : load_part(from, count));
        }
        if (count == kLanes)
          store(context + d, sum * scale);
        else
          store_part(context + d, sum * scale, count);
      }
      float* alignment = p.alignment + (row * p.H + h) * p.T;
      int64_t t = 0;
      for (; t + kLanes <= length; t += kLanes)
        store(alignment + t, exp(load(alignment + t) - base) * scale);
      if (t < length) {
        const Vec weight = exp(load_part(alignment + t, length - t) - base) * scale;
        store_part(alignment + t, weight, length - t);
      }
      std::fill(alignment + length, alignment + p.T, 0.0f);
    }
  }
}

template <Kind kind>
void run(const Plan& plan, const Task& task, const Scratch& scratch, std::atomic<int64_t>* open) {
  run_span<kind>(plan, task, scratch);
  if (open[task.block].fetch_sub(1, std::memory_order_acq_rel) == 1) merge(plan, task);
}

// Rows of `start + x weight` for one panel: kPanel columns of the weight, [K, kPanel], one after
// another in memory, so that a step of search reads them as fast as they come. The order of the
// sums is the same for any number of rows.
template <int rows>
void multiply(const float* x, int64_t x_stride, const float* panel, int64_t K, const float* start,
              int64_t start_stride, float* out, int64_t N, int64_t columns) {
  Vec sum[rows][kWide];
  float part[kPanel] = {};
  for (int row = 0; row < rows; ++row) {
    const float* from = start + row * start_stride;
    if (columns < kPanel) from = std::copy_n(from, columns, part) - columns;
    for (int j = 0; j < kWide; ++j) sum[row][j] = load(from + j * kLanes);
  }
  for (int64_t k = 0; k < K; ++k) {
    Vec weight[kWide];
    for (int j = 0; j < kWide; ++j) weight[j] = load(panel + k * kPanel + j * kLanes);
    for (int row = 0; row < rows; ++row) {
      const float factor = x[row * x_stride + k];
      for (int j = 0; j < kWide; ++j) sum[row][j] = fused(factor, weight[j], sum[row][j]);
    }
  }
  for (int row = 0; row < rows; ++row) {
    float* to = out + row * N;
    if (columns == kPanel) {
      for (int j = 0; j < kWide; ++j) store(to + j * kLanes, sum[row][j]);
    } else {
      for (int j = 0; j < kWide; ++j) store(part + j * kLanes, sum[row][j]);
      std::copy_n(part, columns, to);
    }
  }
}

template <int rows>
void multiply_rows(int64_t count, const float* x, int64_t x_stride, const float* panel, int64_t K,
                   const float* start, int64_t start_stride, float* out, int64_t N,
                   int64_t columns) {
  if (count == rows)
    multiply<rows>(x, x_stride, panel, K, start, start_stride, out, N, columns);
  else if constexpr (rows > 1)
    multiply_rows<rows - 1>(count, x, x_stride, panel, K, start, start_stride, out, N, columns);
}

struct Free {
  void operator()(float* at) const { ::operator delete(at, std::align_val_t(64)); }
};

void attend(const Problem& p) {
  Plan plan;
  plan.p = p;
  plan.width = round_up(p.A / p.H, kLanes);
  plan.spans = 0;
  plan.sums = round_up(2 * p.H + p.D, kLanes);
  const int64_t width = plan.width, head = p.A / p.H;
  std::vector<Task> tasks;
  int64_t blocks = 0, work = 0;
  for (int64_t b = 0; b < p.B; ++b) {
    work += p.lengths[b] * p.N * p.A;
    plan.spans = std::max(plan.spans, span_count(p.lengths[b]));
    for (int64_t n = 0; n < p.N; n += kBeams, ++blocks)
      for (int64_t span = 0; span < span_count(p.lengths[b]); ++span)
        tasks.push_back({b, n, std::min<int64_t>(kBeams, p.N - n), span, blocks});
  }
  if (tasks.empty()) return;
  std::vector<std::atomic<int64_t>> open(blocks);
  for (const Task& task : tasks) open[task.block].store(span_count(p.lengths[task.b]));

  const int64_t count = static_cast<int64_t>(tasks.size());
  const int64_t workers =
      std::max<int64_t>(1, std::min({(int64_t)at::get_num_threads(), count, work / kWorth}));
  const int64_t scratch = round_up(Scratch::size(p, width), 16);
  const int64_t v_size = round_up(p.H * width, 16);
  const int64_t projection_size = round_up(p.H * p.C * width, 16);
  const int64_t floats = v_size + projection_size + workers * scratch +
                         p.B * p.N * plan.spans * plan.sums;
  std::unique_ptr<float, Free> memory(
      static_cast<float*>(::operator new(sizeof(float) * floats, std::align_val_t(64))));
  plan.v = memory.get();
  plan.projection = plan.v + v_size;
  float* scratches = plan.projection + projection_size;
  plan.partial = scratches + workers * scratch;
  if (p.v != nullptr) {
    std::fill_n(plan.v, v_size + projection_size, 0.0f);
    for (int64_t h = 0; h < p.H; ++h) {
      std::copy_n(p.v + h * head, head, plan.v + h * width);
      for (int64_t a = 0; a < head; ++a)
        for (int64_t c = 0; c < p.C; ++c)
          plan.projection[(h * p.C + c) * width + a] = p.projection[(h * head + a) * p.C + c];
    }
  }
  const auto step = p.v == nullptr         ? run<Kind::kDot>
                    : p.filters == nullptr ? run<Kind::kAdditive>
                                           : run<Kind::kLocation>;
  // Tasks differ in length, so each thread takes the next one when it is free.
  std::atomic<int64_t> next{0};
  at::parallel_for(0, workers, 1, [&](int64_t begin, int64_t end) {
    for (int64_t worker = begin; worker < end; ++worker) {
      const Scratch own(scratches + worker * scratch, p, width);
      for (int64_t i = next++; i < count; i = next++) step(plan, tasks[i], own, open.data());
    }
  });
}

}  // namespace

// 0, or -1 where memory is short, or 1 + the index of an utterance whose length is not in 1..T.
extern "C" int64_t las_attend(const Problem* problem) {
  for (int64_t b = 0; b < problem->B; ++b)
    if (problem->lengths[b] < 1 || problem->lengths[b] > problem->T) return b + 1;
  try {
    attend(*problem);
  } catch (const std::bad_alloc&) {
    return -1;
  }
  return 0;
}

extern "C" int64_t las_problem_size() { return sizeof(Problem); }

extern "C" int64_t las_panel() { return kPanel; }

// out [M, N] = start + x [M, K] weight, the weight as panels [ceil(N / kPanel), K, kPanel], zero
// beyond N. Rows of x and start are so many floats apart; 0 for a start that all rows share.
extern "C" void las_product(const float* x, const float* panels, const float* start, float* out,
                            int64_t M, int64_t K, int64_t N, int64_t x_stride,
                            int64_t start_stride) {
  const int64_t grain = std::max<int64_t>(1, 8 * kWorth / (M * K * kPanel));
  at::parallel_for(0, (N + kPanel - 1) / kPanel, grain, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) {
      const int64_t column = panel * kPanel, columns = std::min<int64_t>(kPanel, N - column);
      for (int64_t row = 0; row < M; row += kRows)
        multiply_rows<kRows>(std::min<int64_t>(kRows, M - row), x + row * x_stride, x_stride,
                             panels + panel * K * kPanel, K, start + row * start_stride + column,
                             start_stride, out + row * N + column, N, columns);
    }
  });
}

// The LSTM cell of `rows` hypotheses: gates [rows, 4S], in torch's order, with the cell before give
// cell and hidden. Rows of the last three are `stride` floats apart, for they are one layer of
// [rows, L, S]. Written over gates nowhere; any number of threads gives the same bits.
extern "C" void las_lstm_cell(const float* gates, const float* before, float* cell, float* hidden,
                         int64_t rows, int64_t S, int64_t stride) {
  const int64_t grain = std::max<int64_t>(1, kWorth / (4 * S));
  at::parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* from = gates + row * 4 * S;
      for (int64_t s = 0; s < S; s += kLanes) {
        const int64_t count = std::min<int64_t>(kLanes, S - s), at = row * stride + s;
        const bool whole = count == kLanes;
        Vec x[4], c = whole ? load(before + at) : load_part(before + at, count);
        for (int gate = 0; gate < 4; ++gate) {
          const float* source = from + gate * S + s;
          x[gate] = whole ? load(source) : load_part(source, count);
        }
        c = sigmoid(x[1]) * c + sigmoid(x[0]) * tanh(x[2]);
        const Vec h = sigmoid(x[3]) * tanh(c);
        if (whole) {
          store(cell + at, c);
          store(hidden + at, h);
        } else {
          store_part(cell + at, c, count);
          store_part(hidden + at, h, count);
        }
      }
    }
  });
}

// For the tests: the functions themselves, and the threads that a parallel region gets.
extern "C" void las_tanh(const float* x, float* y, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t part = std::min<int64_t>(kLanes, count - i);
    store_part(y + i, tanh(load_part(x + i, part)), part);
  }
}

extern "C" void las_exp(const float* x, float* y, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t part = std::min<int64_t>(kLanes, count - i);
    store_part(y + i, exp(load_part(x + i, part)), part);
  }
}

extern "C" void las_thread_numbers(int64_t* numbers, int64_t count) {
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) numbers[i] = at::get_thread_num();
  });
}
