// The backward of attention and the LSTM cell for training on a CPU. Float32. The definitions of
// right are the functions of the same names in eager.py; training.py calls these.
//
// What a task adds up, it keeps to itself, and all is summed in the order of tasks, so that the
// number of threads changes no bit. Frames at and beyond `lengths[b]` are not read; what is
// written for them is zero.

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>
#include <new>
#include <vector>

#include "simd.h"

namespace {

constexpr int kFrames = 32;  // frames of a tile

// A tensor whose first two dimensions are strided and whose others are contiguous.
struct View {
  float* data;
  int64_t b, n;  // strides in floats
  float* at(int64_t i, int64_t j) const { return data + i * b + j * n; }
};

// Memory as training.py packs it: eight bytes a member.
struct Problem {
  int64_t B, N, T, A, D, H, C, W;
  double scale;
  const float* keys;        // [B, T, A]
  const float* values;      // [B, T, D]
  const int64_t* lengths;   // [B]
  const float* v;           // [A], null for the dot score
  const float* filters;     // [C, W], null without location features
  const float* projection;  // [A, C]
  View query;               // [B, N, A]
  View dcontext;            // [B, N, D]
  View dalignment;          // [B, N, H, T], null for none
  View alignment;           // [B, N, H, T]
  View features;            // [B, N, H, C, T]
  View previous;            // [B, N, H, T]; backward_dkv only
  View denergy;             // [B, N, H, T], written by backward
  View dquery;              // [B, N, A], written
  View dfeatures;           // [B, N, H, C, T], written
  View dprevious;           // [B, N, H, T], written
  float* dkeys;             // [B, T, A], written by backward_dkv
  float* dv;                // [A], written
  float* dfilters;          // [C, W], written
  float* dprojection;       // [A, C], written
};

inline int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }
inline Vec load_upto(const float* from, int64_t count) {
  return count >= kLanes ? load(from) : load_part(from, count);
}
inline void store_upto(float* to, Vec x, int64_t count) {
  if (count >= kLanes)
    store(to, x);
  else
    store_part(to, x, count);
}

float dot(const float* x, const float* y, int64_t size) {
  Vec sum[4] = {};
  int64_t i = 0;
  for (; i + 4 * kLanes <= size; i += 4 * kLanes)
    for (int j = 0; j < 4; ++j) sum[j] += load(x + i + j * kLanes) * load(y + i + j * kLanes);
  for (; i < size; i += kLanes) sum[0] += load_upto(x + i, size - i) * load_upto(y + i, size - i);
  return sum_lanes((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

// Projections [H, C, width] and v [H, width] with heads padded to whole vectors by zeros.
struct Weights {
  int64_t width;
  std::vector<float> v, projection;

  explicit Weights(const Problem& p) : width(round_up(p.A / p.H, kLanes)) {
    if (p.v == nullptr) return;
    const int64_t head = p.A / p.H;
    v.assign(p.H * width, 0.0f);
    projection.assign(p.H * p.C * width, 0.0f);
    for (int64_t h = 0; h < p.H; ++h) {
      std::copy_n(p.v + h * head, head, v.data() + h * width);
      for (int64_t a = 0; a < head; ++a)
        for (int64_t c = 0; c < p.C; ++c)
          projection[(h * p.C + c) * width + a] = p.projection[(h * head + a) * p.C + c];
    }
  }
};

// The gradient of tanh's argument: de v (1 - tanh^2), for one vector of one frame.
inline Vec hidden(Vec query, Vec key, const float* features, int64_t stride, int64_t C,
                  const float* projection, int64_t width) {
  Vec x = query + key;
  for (int64_t c = 0; c < C; ++c) x += features[c * stride] * load(projection + c * width);
  return tanh(x);
}

// One step of one head: from the gradient of the context to those of the energies, the query, the
// location features and the alignment before.
void backward_row(const Problem& p, const Weights& weights, int64_t b, int64_t n, int64_t h,
                  std::vector<float>& scratch) {
  const int64_t T = p.T, head = p.A / p.H, value_head = p.D / p.H, width = weights.width;
  const int64_t length = p.lengths[b];
  const float* alignment = p.alignment.at(b, n) + h * T;
  const float* outside = p.dalignment.data ? p.dalignment.at(b, n) + h * T : nullptr;
  const float* dcontext = p.dcontext.at(b, n) + h * value_head;
  float* denergy = p.denergy.at(b, n) + h * T;
  float total = 0.0f;
  for (int64_t t = 0; t < length; ++t) {
    const float* value = p.values + (b * T + t) * p.D + h * value_head;
    const float g = dot(dcontext, value, value_head) + (outside ? outside[t] : 0.0f);
    denergy[t] = g;
    total += alignment[t] * g;
  }
  for (int64_t t = 0; t < length; ++t) denergy[t] = alignment[t] * (denergy[t] - total);
  std::fill(denergy + length, denergy + T, 0.0f);

  const float* query = p.query.at(b, n) + h * head;
  float* dquery = p.dquery.at(b, n) + h * head;
  const float* keys = p.keys + b * T * p.A + h * head;
  if (p.v == nullptr) {
    const float scale = static_cast<float>(p.scale);
    for (int64_t a = 0; a < head; a += kLanes) {
      Vec sum = {};
      for (int64_t t = 0; t < length; ++t)
        sum += denergy[t] * load_upto(keys + t * p.A + a, head - a);
      store_upto(dquery + a, scale * sum, head - a);
    }
    return;
  }
  const bool located = p.filters != nullptr;
  const int64_t C = located ? p.C : 0;
  const float* v = weights.v.data() + h * width;
  const float* projection = weights.projection.data() + h * p.C * width;
  const float* features = located ? p.features.at(b, n) + h * C * T : nullptr;
  float* dfeatures = located ? p.dfeatures.at(b, n) + h * C * T : nullptr;
  scratch.resize((kFrames + 1) * width);
  float* slopes = scratch.data();           // [kFrames, width]
  float* sums = slopes + kFrames * width;   // [width]
  std::fill_n(sums, width, 0.0f);
  for (int64_t start = 0; start < length; start += kFrames) {
    const int64_t frames = std::min<int64_t>(kFrames, length - start);
    for (int64_t a = 0; a < width; a += kLanes) {
      const Vec q = load_upto(query + a, head - a), weight = load(v + a);
      Vec sum = load(sums + a);
      for (int64_t f = 0; f < frames; ++f) {
        const int64_t t = start + f;
        const Vec key = load_upto(keys + t * p.A + a, head - a);
        const Vec y = hidden(q, key, features + t, T, C, projection + a, width);
        const Vec dhidden = denergy[t] * weight * (1.0f - y * y);
        sum += dhidden;
        store(slopes + f * width + a, dhidden);
      }
      store(sums + a, sum);
    }
    for (int64_t f = 0; f < frames && located; ++f)
      for (int64_t c = 0; c < C; ++c)
        dfeatures[c * T + start + f] = dot(slopes + f * width, projection + c * width, width);
  }
  std::copy_n(sums, head, dquery);
  if (!located) return;

  // The transposed convolution, over frames with zeros on either side.
  const int64_t half = p.W / 2, row = T + 2 * half + kLanes;
  scratch.assign(row, 0.0f);
  float* dprevious = p.dprevious.at(b, n) + h * T;
  std::fill_n(dprevious, T, 0.0f);
  for (int64_t c = 0; c < C; ++c) {
    std::fill(dfeatures + c * T + length, dfeatures + (c + 1) * T, 0.0f);
    std::copy_n(dfeatures + c * T, T, scratch.data() + half);
    const float* filter = p.filters + c * p.W;
    for (int64_t t = 0; t < T; t += kLanes) {
      Vec sum = load_upto(dprevious + t, T - t);
      for (int64_t w = 0; w < p.W; ++w) sum += filter[w] * load(scratch.data() + t + p.W - 1 - w);
      store_upto(dprevious + t, sum, T - t);
    }
  }
}

// What one task of `backward_dkv` adds to gradients that all tasks share.
struct Sums {
  std::vector<float> v, projection, filters;
};

// Gradients that no step waits for, from one tile of one utterance, over all steps.
void backward_dkv_tile(const Problem& p, const Weights& weights, int64_t b, int64_t start,
                       Sums& sums) {
  const int64_t T = p.T, head = p.A / p.H, width = weights.width;
  const int64_t frames = std::min<int64_t>(kFrames, p.lengths[b] - start);
  const bool located = p.filters != nullptr;
  const int64_t C = located ? p.C : 0, W = located ? p.W : 0, taps = round_up(W, kLanes);
  sums.v.assign(p.H * width, 0.0f);
  sums.projection.assign(p.H * C * width, 0.0f);
  sums.filters.assign(C * taps, 0.0f);
  std::vector<Vec> own(C);
  for (int64_t h = 0; h < p.H; ++h) {
    const float* v = weights.v.data() + h * width;
    const float* projection = weights.projection.data() + h * p.C * width;
    for (int64_t a = 0; a < width; a += kLanes) {
      const int64_t count = std::min<int64_t>(kLanes, head - a);
      const Vec weight = load(v + a);
      Vec dv = {}, dkey[kFrames] = {};
      std::fill(own.begin(), own.end(), Vec{});
      for (int64_t n = 0; n < p.N; ++n) {
        const Vec q = load_upto(p.query.at(b, n) + h * head + a, count);
        const float* denergy = p.denergy.at(b, n) + h * T + start;
        const float* features = located ? p.features.at(b, n) + h * C * T + start : nullptr;
        for (int64_t f = 0; f < frames; ++f) {
          const Vec key = load_upto(p.keys + (b * T + start + f) * p.A + h * head + a, count);
          const Vec y = hidden(q, key, features + f, T, C, projection + a, width);
          const Vec dhidden = denergy[f] * weight * (1.0f - y * y);
          dkey[f] += dhidden;
          dv += denergy[f] * y;
          for (int64_t c = 0; c < C; ++c) own[c] += features[c * T + f] * dhidden;
        }
      }
      for (int64_t f = 0; f < frames; ++f)
        store_upto(p.dkeys + (b * T + start + f) * p.A + h * head + a, dkey[f], count);
      store(sums.v.data() + h * width + a, dv);
      for (int64_t c = 0; c < C; ++c)
        store(sums.projection.data() + (h * C + c) * width + a, own[c]);
    }
  }
  if (!located) return;
  // dfilters[c, w] = sum of dfeatures[c, t] previous[t + w - W/2].
  std::vector<float> window(kFrames + taps + kLanes);
  for (int64_t h = 0; h < p.H; ++h) {
    for (int64_t n = 0; n < p.N; ++n) {
      const float* previous = p.previous.at(b, n) + h * T;
      for (int64_t i = 0; i < (int64_t)window.size(); ++i) {
        const int64_t t = start + i - W / 2;
        window[i] = t < 0 || t >= T ? 0.0f : previous[t];
      }
      const float* dfeatures = p.dfeatures.at(b, n) + h * C * T + start;
      for (int64_t c = 0; c < C; ++c) {
        for (int64_t w = 0; w < taps; w += kLanes) {
          Vec sum = load(sums.filters.data() + c * taps + w);
          for (int64_t f = 0; f < frames; ++f)
            sum += dfeatures[c * T + f] * load(window.data() + f + w);
          store(sums.filters.data() + c * taps + w, sum);
        }
      }
    }
  }
}

void backward_dkv(const Problem& p) {
  const Weights weights(p);
  struct Task {
    int64_t b, start;
  };
  std::vector<Task> tasks;
  for (int64_t b = 0; b < p.B; ++b) {
    for (int64_t start = 0; start < p.lengths[b]; start += kFrames) tasks.push_back({b, start});
    float* end = p.dkeys + (b + 1) * p.T * p.A;
    std::fill(p.dkeys + (b * p.T + p.lengths[b]) * p.A, end, 0.0f);
  }
  const int64_t count = static_cast<int64_t>(tasks.size());
  std::vector<Sums> sums(count);
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      backward_dkv_tile(p, weights, tasks[i].b, tasks[i].start, sums[i]);
  });
  const int64_t head = p.A / p.H, width = weights.width;
  const int64_t C = p.filters ? p.C : 0, taps = round_up(p.filters ? p.W : 0, kLanes);
  std::fill_n(p.dv, p.A, 0.0f);
  if (C > 0) std::fill_n(p.dprojection, p.A * C, 0.0f);
  if (C > 0) std::fill_n(p.dfilters, C * p.W, 0.0f);
  for (const Sums& own : sums) {
    for (int64_t h = 0; h < p.H; ++h) {
      for (int64_t a = 0; a < head; ++a) {
        p.dv[h * head + a] += own.v[h * width + a];
        for (int64_t c = 0; c < C; ++c)
          p.dprojection[(h * head + a) * C + c] += own.projection[(h * C + c) * width + a];
      }
    }
    for (int64_t c = 0; c < C; ++c)
      for (int64_t w = 0; w < p.W; ++w) p.dfilters[c * p.W + w] += own.filters[c * taps + w];
  }
}

// An LSTM cell; rows of gates [B, 4S] and states [B, S] are strided.
struct Cell {
  int64_t B, S;
  View gates, before, cell, hidden;  // before: null for zero
  View dhidden, dcell, dgates, dbefore;  // of the backward; dcell: null for zero
};

void cell_row(const Cell& p, int64_t b) {
  const int64_t S = p.S;
  float *gates = p.gates.at(b, 0), *cell = p.cell.at(b, 0), *out = p.hidden.at(b, 0);
  const float* before = p.before.data ? p.before.at(b, 0) : nullptr;
  for (int64_t s = 0; s < S; s += kLanes) {
    const int64_t count = S - s;
    const Vec i = sigmoid(load_upto(gates + s, count));
    const Vec f = sigmoid(load_upto(gates + S + s, count));
    const Vec g = tanh(load_upto(gates + 2 * S + s, count));
    const Vec o = sigmoid(load_upto(gates + 3 * S + s, count));
    Vec c = i * g;
    if (before) c += f * load_upto(before + s, count);
    store_upto(gates + s, i, count);
    store_upto(gates + S + s, f, count);
    store_upto(gates + 2 * S + s, g, count);
    store_upto(gates + 3 * S + s, o, count);
    store_upto(cell + s, c, count);
    store_upto(out + s, o * tanh(c), count);
  }
}

void cell_backward_row(const Cell& p, int64_t b) {
  const int64_t S = p.S;
  const float *gates = p.gates.at(b, 0), *cell = p.cell.at(b, 0), *dhidden = p.dhidden.at(b, 0);
  const float* before = p.before.data ? p.before.at(b, 0) : nullptr;
  const float* dcell = p.dcell.data ? p.dcell.at(b, 0) : nullptr;
  float *dgates = p.dgates.at(b, 0), *dbefore = p.dbefore.at(b, 0);
  for (int64_t s = 0; s < S; s += kLanes) {
    const int64_t count = S - s;
    const Vec i = load_upto(gates + s, count), f = load_upto(gates + S + s, count);
    const Vec g = load_upto(gates + 2 * S + s, count), o = load_upto(gates + 3 * S + s, count);
    const Vec dh = load_upto(dhidden + s, count), y = tanh(load_upto(cell + s, count));
    Vec dc = dh * o * (1.0f - y * y);
    if (dcell) dc += load_upto(dcell + s, count);
    const Vec old = before ? load_upto(before + s, count) : Vec{};
    store_upto(dgates + s, dc * g * i * (1.0f - i), count);
    store_upto(dgates + S + s, dc * old * f * (1.0f - f), count);
    store_upto(dgates + 2 * S + s, dc * i * (1.0f - g * g), count);
    store_upto(dgates + 3 * S + s, dh * y * o * (1.0f - o), count);
    store_upto(dbefore + s, dc * f, count);
  }
}

// 0, or 1 + the index of an utterance whose length is not in 1..T.
int64_t wrong_length(const Problem& p) {
  for (int64_t b = 0; b < p.B; ++b)
    if (p.lengths[b] < 1 || p.lengths[b] > p.T) return b + 1;
  return 0;
}

}  // namespace

extern "C" int64_t las_problem_size() { return sizeof(Problem); }
extern "C" int64_t las_lstm_cell_size() { return sizeof(Cell); }

// These return 0, or -1 where memory is short, or 1 + the index of a wrong length.
extern "C" int64_t las_backward(const Problem* problem) {
  const Problem& p = *problem;
  if (const int64_t wrong = wrong_length(p)) return wrong;
  try {
    const Weights weights(p);
    at::parallel_for(0, p.B * p.N * p.H, 1, [&](int64_t begin, int64_t end) {
      std::vector<float> scratch;
      for (int64_t i = begin; i < end; ++i)
        backward_row(p, weights, i / (p.N * p.H), i / p.H % p.N, i % p.H, scratch);
    });
  } catch (const std::bad_alloc&) {
    return -1;
  }
  return 0;
}

extern "C" int64_t las_backward_dkv(const Problem* problem) {
  if (const int64_t wrong = wrong_length(*problem)) return wrong;
  try {
    backward_dkv(*problem);
  } catch (const std::bad_alloc&) {
    return -1;
  }
  return 0;
}

extern "C" int64_t las_lstm_cell(const Cell* cell) {
  at::parallel_for(0, cell->B, 16, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) cell_row(*cell, b);
  });
  return 0;
}

extern "C" int64_t las_lstm_cell_backward(const Cell* cell) {
  at::parallel_for(0, cell->B, 16, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) cell_backward_row(*cell, b);
  });
  return 0;
}
