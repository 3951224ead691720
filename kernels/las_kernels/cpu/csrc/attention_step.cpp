// One step of attention for search on a CPU: scores, softmax and context in one pass over the
// memory; and its products and LSTM cells. Float32. The definition of right is reference.py;
// attention_step.py calls what is extern "C".
//
// An utterance is cut into spans of frames (attention_span.h), which threads take one by one.

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

#include "attention_span.h"
#include "panel_product.h"
#include "simd.h"

namespace {

constexpr int64_t kWorth = 1 << 15;  // scores' elements that are worth waking another thread

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
