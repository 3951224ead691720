// Spans of frames: the scores of a tile, its softmax and weighted sum, and the merge of an
// utterance's spans.
//
// A span is read once for up to kBeams beams and leaves, for every beam and head, the largest
// energy, the sum of the weights relative to it and the weighted sum of the values (the online
// softmax of Milakov & Gimelshein 2018). The task that finishes an utterance's last span merges its
// spans, always in the same order. Where a span starts depends on that utterance's length alone, so
// that neither the rest of the batch nor the number of threads can change a bit of the result.
//
// Only frames below `lengths[b]` are read, except for `previous`, which the location filter sees
// as a whole, as the reference does.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>

#include "simd.h"

namespace {

constexpr int kFrames = 32;  // frames of a tile: its keys stay in the first-level cache
constexpr int kBeams = 8;    // beams that share one reading of a tile
constexpr int kSpans = 16;   // most spans of an utterance: bounds the memory for their sums
constexpr int kChains = 4;   // independent sums, to hide the latency of an addition
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

}  // namespace
