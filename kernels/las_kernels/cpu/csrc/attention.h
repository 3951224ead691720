// Additive attention, with or without location features, of one head of one utterance: a step
// forward, and a step backward that also adds up the gradients of keys and parameters. Frames go in
// tiles, whose hidden layers stay in the first cache; the tanh of a tile is computed again in the
// backward. Formulas: eager.py.

#pragma once

#include "gemm.h"

namespace {

constexpr int64_t kFrames = 32;  // of a tile

inline float dot(const float* x, const float* y, int64_t size) {
  Vec sum[4] = {};
  int64_t i = 0;
  for (; i + 4 * kLanes <= size; i += 4 * kLanes)
    for (int j = 0; j < 4; ++j) sum[j] += load(x + i + j * kLanes) * load(y + i + j * kLanes);
  for (; i < size; i += kLanes) sum[0] += load_upto(x + i, size - i) * load_upto(y + i, size - i);
  return sum_lanes((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

// The memory and the parameters of all heads; widths of one head.
struct Attention {
  int64_t T, A, D, H, C, W;  // C, W: 0 without location features
  const float *keys, *values;       // [B, T, A], [B, T, D]
  const float *v, *filters;         // [A], [C, W]
  const float* projection;          // [A, C]
  int64_t head = A / H, value_head = D / H, panels = panel_count(head);
  int64_t tile_size = panels * kFrames * kPanel;
  Floats padded_v{}, packed{}, turned{};  // of every head

  // Lay the parameters out; the members above are given.
  void prepare() {
    const int64_t width = panels * kPanel;
    padded_v = floats(H * width);
    packed = floats(H * vectors::packed_size(head, C));
    turned = floats(H * vectors::packed_size(C, head));
    std::fill_n(padded_v.get(), H * width, 0.0f);
    for (int64_t h = 0; h < H; ++h) {
      std::copy_n(v + h * head, head, padded_v.get() + h * width);
      if (C == 0) continue;
      const float* own = projection + h * head * C;
      vectors::pack(own, C, 1, head, C, 0, panels, packed.get() + h * vectors::packed_size(head, C));
      vectors::pack(own, 1, C, C, head, 0, panel_count(C),
                    turned.get() + h * vectors::packed_size(C, head));
    }
  }
};

// What one head of one utterance works in, and adds up over the steps.
struct Head {
  const Attention& p;
  const int64_t b, h, length;
  // Numbers of columns beyond the head's are zero in a tile, as in `v`.
  Floats tile, features, by_frame, window, query, dfeatures, row;
  std::vector<float> dv, dprojection, dfilters, dprevious;
  const int64_t taps;

  Head(const Attention& p, int64_t b, int64_t h, int64_t length)
      : p(p), b(b), h(h), length(length), tile(floats(p.tile_size)),
        features(floats(p.C * kFrames)), by_frame(floats(p.C * kFrames)),
        window(floats(kFrames + p.W + 2 * kLanes)), query(floats(p.panels * kPanel)),
        dfeatures(floats(p.C * round_up(length + 2 * (p.W / 2) + 8 * kLanes, kLanes))),
        row(floats(kFrames * round_up(std::max<int64_t>(p.C, 1), kPanel))),
        taps(round_up(p.W, kLanes)) {
    std::fill_n(tile.get(), p.tile_size, 0.0f);
    std::fill_n(query.get(), p.panels * kPanel, 0.0f);
  }

  const float* key(int64_t t) const { return p.keys + (b * p.T + t) * p.A + h * p.head; }
  const float* value(int64_t t) const { return p.values + (b * p.T + t) * p.D + h * p.value_head; }
  const float* v() const { return p.padded_v.get() + h * p.panels * kPanel; }
  // Row of a tile's panel.
  float* at(int64_t panel, int64_t frame) const {
    return tile.get() + (panel * kFrames + frame) * kPanel;
  }

  // Part of the alignment before, from `W / 2` frames before `start` on.
  void read_window(const float* previous, int64_t start) {
    const int64_t size = kFrames + p.W + 2 * kLanes;
    for (int64_t i = 0; i < size; ++i) {
      const int64_t t = start + i - p.W / 2;
      window.get()[i] = t < 0 || t >= length ? 0.0f : previous[t];
    }
  }

  // The tile from `start` on: keys and location features, without the query.
  void fill(const float* previous, int64_t start, int64_t count) {
    if (p.C > 0) read_window(previous, start);
    for (int64_t c = 0; c < p.C; ++c) {
      Vec sum[kFrames / kLanes] = {};
      for (int64_t w = 0; w < p.W; ++w)
        for (int i = 0; i < kFrames / kLanes; ++i)
          sum[i] = fused(p.filters[c * p.W + w], load(window.get() + w + i * kLanes), sum[i]);
      for (int i = 0; i < kFrames / kLanes; ++i)
        store(features.get() + c * kFrames + i * kLanes, sum[i]);
      for (int64_t f = 0; f < kFrames; ++f)
        by_frame.get()[f * p.C + c] = features.get()[c * kFrames + f];
    }
    const float* weight = p.packed.get() + h * vectors::packed_size(p.head, p.C);
    for (int64_t panel = 0; panel < p.panels; ++panel) {
      const int64_t columns = std::min<int64_t>(kPanel, p.head - panel * kPanel);
      for (int64_t f = 0; f < count; f += kRows) {
        const int64_t rows = std::min<int64_t>(kRows, count - f);
        const float *a[kRows], *first[kRows];
        float* to[kRows];
        for (int64_t r = 0; r < rows; ++r) {
          a[r] = by_frame.get() + (f + r) * p.C;
          first[r] = key(start + f + r) + panel * kPanel;
          to[r] = at(panel, f + r);
        }
        vectors::micro_rows<false>(rows, a, 0, weight + panel * p.C * kPanel, p.C, first, to, 0,
                                   columns);
      }
    }
  }

  // alignment [T] and context [D / H] of a step.
  void forward(const float* given, const float* previous, float* alignment, float* context) {
    std::copy_n(given, p.head, query.get());
    float largest = 0.0f;
    for (int64_t start = 0; start < length; start += kFrames) {
      const int64_t count = std::min(kFrames, length - start);
      fill(previous, start, count);
      Vec energy[kFrames] = {};
      for (int64_t column = 0; column < p.panels * kPanel; column += kLanes) {
        if (column >= p.head) break;
        const Vec q = load(query.get() + column), weight = load(v() + column);
        const float* from = at(column / kPanel, 0) + column % kPanel;
        for (int64_t f = 0; f < count; ++f)
          energy[f] += weight * tanh(load(from + f * kPanel) + q);
      }
      for (int64_t f = 0; f < count; ++f) {
        const float e = alignment[start + f] = sum_lanes(energy[f]);
        // Not std::max: NaN has to stay.
        largest = start + f == 0 || !(e <= largest) ? e : largest;
      }
    }
    Vec sum = {};
    for (int64_t t = 0; t < length; t += kLanes) {
      // What lies beyond the length becomes zero by a difference of minus infinity.
      float lanes[kLanes];
      for (int64_t i = 0; i < kLanes; ++i)
        lanes[i] = t + i < length ? alignment[t + i] - largest : -kFar;
      const Vec x = exp(load(lanes));
      sum += x;
      store_upto(alignment + t, x, length - t);
    }
    const float scale = 1.0f / sum_lanes(sum);
    for (int64_t t = 0; t < length; ++t) alignment[t] *= scale;
    std::fill(alignment + length, alignment + p.T, 0.0f);
    std::fill_n(context, p.value_head, 0.0f);
    for (int64_t t = 0; t < length; t += 4) {
      float share[4];
      const float* rows[4];
      for (int64_t i = 0; i < 4; ++i) {
        const bool valid = t + i < length;
        share[i] = valid ? alignment[t + i] : 0.0f;
        rows[i] = value(valid ? t + i : t);
      }
      for (int64_t d = 0; d < p.value_head; d += kLanes) {
        const int64_t left = p.value_head - d;
        Vec x = load_upto(context + d, left);
        for (int i = 0; i < 4; ++i) x = fused(share[i], load_upto(rows[i] + d, left), x);
        store_upto(context + d, x, left);
      }
    }
  }

  // Sums of the backward, zero; before its first step.
  void start_backward(float* dkeys) {
    dv.assign(p.panels * kPanel, 0.0f);
    dprojection.assign(p.C * p.panels * kPanel, 0.0f);
    dfilters.assign(p.C * taps, 0.0f);
    dprevious.assign(p.C > 0 ? round_up(length, kLanes) : 0, 0.0f);
    for (int64_t t = 0; t < p.T; ++t)
      std::fill_n(dkeys + (b * p.T + t) * p.A + h * p.head, p.head, 0.0f);
  }

  // One step, the last first. `outside` [T] or null: the gradient of this step's alignment, to which
  // that of the step after, in `dprevious`, is added; it is replaced by this step's.
  void backward(const float* given, const float* previous, const float* alignment,
                const float* dcontext, const float* outside, std::vector<float>& denergy,
                float* dquery, float* dkeys) {
    std::copy_n(given, p.head, query.get());
    float total = 0.0f;
    for (int64_t t = 0; t < length; ++t) {
      float g = dot(dcontext, value(t), p.value_head);
      if (outside) g += outside[t];
      if (p.C > 0) g += dprevious[t];
      denergy[t] = g;
      total += alignment[t] * g;
    }
    for (int64_t t = 0; t < length; ++t) denergy[t] = alignment[t] * (denergy[t] - total);
    std::fill_n(dquery, p.head, 0.0f);
    for (int64_t start = 0; start < length; start += kFrames) {
      const int64_t count = std::min(kFrames, length - start);
      fill(previous, start, count);
      for (int64_t column = 0; column < p.head; column += kLanes) {
        const int64_t left = p.head - column;
        const Vec q = load(query.get() + column), weight = load(v() + column);
        Vec sum = {}, sum_v = {};
        float* from = at(column / kPanel, 0) + column % kPanel;
        float* key_gradient = dkeys + (b * p.T + start) * p.A + h * p.head + column;
        for (int64_t f = 0; f < count; ++f) {
          const float de = denergy[start + f];
          const Vec y = tanh(load(from + f * kPanel) + q);
          const Vec dhidden = de * weight * (1.0f - y * y);
          sum_v = fused(de, y, sum_v);
          sum += dhidden;
          store(from + f * kPanel, dhidden);
          store_upto(key_gradient + f * p.A, load_upto(key_gradient + f * p.A, left) + dhidden, left);
        }
        store_upto(dquery + column, load_upto(dquery + column, left) + sum, left);
        store(dv.data() + column, load(dv.data() + column) + sum_v);
      }
      if (p.C > 0) located(start, count);
    }
    if (p.C > 0) to_previous();
  }

 private:
  static constexpr float kFar = 1e30f;

  int64_t stride() const { return round_up(length + 2 * (p.W / 2) + 8 * kLanes, kLanes); }

  // From the gradient of the hidden layer, in the tile, to those of features, projection and filters.
  void located(int64_t start, int64_t count) {
    const int64_t half = p.W / 2, width = p.panels * kPanel;
    const int64_t wide = panel_count(p.C) * kPanel;
    const float* weight = p.turned.get() + h * vectors::packed_size(p.C, p.head);
    std::fill_n(row.get(), kFrames * wide, 0.0f);
    for (int64_t panel = 0; panel < p.panels; ++panel) {
      const int64_t depth = std::min<int64_t>(kPanel, p.head - panel * kPanel);
      for (int64_t f = 0; f < count; f += kRows) {
        const int64_t rows = std::min<int64_t>(kRows, count - f);
        const float* a[kRows];
        float* to[kRows];
        for (int64_t r = 0; r < rows; ++r) {
          a[r] = at(panel, f + r);
          to[r] = row.get() + (f + r) * wide;
        }
        for (int64_t n = 0; n < panel_count(p.C); ++n) {
          const int64_t column = n * kPanel;
          vectors::micro_rows<false>(rows, a, 0, weight + (n * p.head + panel * kPanel) * kPanel,
                                     depth, to, to, column, round_up(std::min<int64_t>(
                                         kPanel, p.C - column), kLanes));
        }
      }
      for (int64_t c = 0; c < p.C;) {
        const int64_t rows = vectors::group(p.C - c);
        const float* a[kRows];
        float* to[kRows];
        for (int64_t r = 0; r < rows; ++r) {
          a[r] = features.get() + (c + r) * kFrames;
          to[r] = dprojection.data() + (c + r) * width + panel * kPanel;
        }
        vectors::micro_rows<false>(rows, a, 0, at(panel, 0), count, to, to, 0, kPanel);
        c += rows;
      }
    }
    for (int64_t c = 0; c < p.C; ++c) {
      float* own = dfeatures.get() + c * stride() + half + start;
      for (int64_t f = 0; f < count; ++f) own[f] = row.get()[f * wide + c];
      for (int64_t w = 0; w < taps; w += kLanes) {
        Vec sum = load(dfilters.data() + c * taps + w);
        for (int64_t f = 0; f < count; ++f) sum = fused(own[f], load(window.get() + f + w), sum);
        store(dfilters.data() + c * taps + w, sum);
      }
    }
  }

  // The transposed convolution: the gradient of the alignment before.
  void to_previous() {
    constexpr int kTogether = 4;  // vectors whose sums do not wait for each other
    const int64_t half = p.W / 2;
    for (int64_t c = 0; c < p.C; ++c) {
      float* own = dfeatures.get() + c * stride();
      std::fill_n(own, half, 0.0f);
      std::fill(own + half + length, own + stride(), 0.0f);
    }
    for (int64_t t = 0; t < length; t += kTogether * kLanes) {
      Vec sum[kTogether] = {};
      for (int64_t c = 0; c < p.C; ++c) {
        const float* own = dfeatures.get() + c * stride() + t + 2 * half;
        for (int64_t w = 0; w < p.W; ++w)
          for (int i = 0; i < kTogether; ++i)
            sum[i] = fused(p.filters[c * p.W + w], load(own - w + i * kLanes), sum[i]);
      }
      for (int i = 0; i < kTogether; ++i)
        if (t + i * kLanes < length) store(dprevious.data() + t + i * kLanes, sum[i]);
    }
  }
};

}  // namespace
