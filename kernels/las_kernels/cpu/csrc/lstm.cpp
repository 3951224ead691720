// A bidirectional LSTM layer over a ragged batch on a CPU, forward and backward. Float32. The
// definitions of right are the functions of the same names in lstm_plain.py; lstm.py calls these.
//
// The products with the inputs and all gradients of weights are one large product each; between
// them runs the recurrence, whose weights stay in the cache while all utterances of a group go a
// step forward. A direction and a group of utterances is a task. Frames at and beyond `lengths[b]`
// are not read; what is written for them is zero. Neither the number of threads nor the other
// utterances change a bit of an utterance's results.

//
// With LAS_TILES the products are of numbers rounded to bfloat16 (gemm_amx.h).

#include "lstm_cell.h"
#include "gemm.h"
#if defined(LAS_TILES)
#include "gemm_amx.h"
#endif

namespace {

#if defined(LAS_TILES)
using namespace tiles;
#else
using namespace vectors;
#endif

constexpr int kDirections = 2;  // forwards and backwards in time

// Memory as lstm.py packs it: eight bytes a member.
struct Layer {
  int64_t B, T, I, S;
  const float* x;           // [B, T, I]
  const int64_t* lengths;   // [B], each 0..T
  const float* input[2];    // [4S, I], of each direction
  const float* hidden[2];   // [4S, S]
  const float* bias[2];     // [4S], the sum of torch's two
  float* gates;             // [B, T, 2, 4S], activated: i, f, g, o
  float* cells;             // [B, T, 2, S]
  float* out;               // [B, T, 2S]
  const float* dout;        // [B, T, 2S]; from here on of the backward
  float* dgates;            // [B, T, 2, 4S], before their functions; written
  float* dx;                // [B, T, I], written; null where nobody asks
  float* dinput[2];         // [4S, I], written
  float* dhidden[2];        // [4S, S], written
  float* dbias;             // [2, 4S], written
};

// Utterances that go through the recurrence together, the longest first.
struct Task {
  int direction;
  std::vector<int64_t> utterances;
};

std::vector<Task> tasks(const Layer& p) {
  std::vector<int64_t> order(p.B);
  for (int64_t b = 0; b < p.B; ++b) order[b] = b;
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return p.lengths[a] > p.lengths[b]; });
  const int64_t threads = at::get_num_threads();
  const int64_t groups = std::max<int64_t>(1, std::min(threads / kDirections, p.B));
  std::vector<Task> found(kDirections * groups);
  for (int64_t i = 0; i < kDirections * groups; ++i) found[i].direction = i % kDirections;
  for (int64_t b = 0; b < p.B; ++b)
    for (int d = 0; d < kDirections; ++d)
      found[b % groups * kDirections + d].utterances.push_back(order[b]);
  return found;
}

// How many of a task's utterances are longer than `step`, and where its frames are.
struct Place {
  const Layer& p;
  const Task& task;
  int64_t live(int64_t step, int64_t from) const {
    while (from > 0 && p.lengths[task.utterances[from - 1]] <= step) --from;
    return from;
  }
  // Index of the frame that an utterance reads in this step of its direction.
  int64_t frame(int64_t i, int64_t step) const {
    const int64_t b = task.utterances[i];
    return b * p.T + (task.direction == 0 ? step : p.lengths[b] - 1 - step);
  }
};

// The steps of a task; `weight` packed, [4S, S].
void forward_task(const Layer& p, const Task& task, const float* weight) {
  const Place place{p, task};
  const int64_t S = p.S, d = task.direction, rows = task.utterances.size();
  if (rows == 0) return;
  Rows before(rows), cell_before(rows);
  OutRows gates(rows);
  int64_t live = rows;
  for (int64_t step = 0; (live = place.live(step, live)) > 0; ++step) {
    for (int64_t i = 0; i < live; ++i)
      gates[i] = p.gates + (place.frame(i, step) * kDirections + d) * 4 * S;
    if (step > 0)
      few_rows(live, before.data(), weight, S, 4 * S, gates.data(), gates.data());
    for (int64_t i = 0; i < live; ++i) {
      const int64_t at = (place.frame(i, step) * kDirections + d) * S;
      cell_forward(S, gates[i], step ? cell_before[i] : nullptr, p.cells + at, p.out + at);
      before[i] = p.out + at;
      cell_before[i] = p.cells + at;
    }
  }
}

// The steps of a task, the last first; `weight` packed, [S, 4S].
void backward_task(const Layer& p, const Task& task, const float* weight) {
  const Place place{p, task};
  const int64_t S = p.S, d = task.direction, rows = task.utterances.size();
  if (rows == 0) return;
  const std::vector<float> zero(S);
  std::vector<float> dhidden(rows * S), dcell(rows * S);
  Rows start(rows, zero.data()), dgates(rows);
  OutRows to(rows);
  for (int64_t i = 0; i < rows; ++i) to[i] = dhidden.data() + i * S;
  for (int64_t step = p.lengths[task.utterances[0]] - 1; step >= 0; --step) {
    const int64_t live = place.live(step, rows);
    for (int64_t i = 0; i < live; ++i) {
      const int64_t frame = place.frame(i, step) * kDirections + d;
      const bool last = step == p.lengths[task.utterances[i]] - 1;
      const float* cell = p.cells + frame * S;
      const float* before = nullptr;
      if (step > 0) before = p.cells + (place.frame(i, step - 1) * kDirections + d) * S;
      float* here = p.dgates + frame * 4 * S;
      cell_backward(S, p.dout + frame * S, last ? nullptr : to[i], p.gates + frame * 4 * S, before,
                    cell, dcell.data() + i * S, here);
      dgates[i] = here;
    }
    if (step > 0)
      few_rows(live, dgates.data(), weight, 4 * S, S, start.data(), to.data());
  }
}

// Valid frames of a tensor whose frames are `width` floats, from column `column` on.
template <class Pointer>
std::vector<Pointer> frames(const Layer& p, Pointer from, int64_t width, int64_t column = 0) {
  std::vector<Pointer> found;
  for (int64_t b = 0; b < p.B; ++b)
    for (int64_t t = 0; t < p.lengths[b]; ++t)
      found.push_back(from + (b * p.T + t) * width + column);
  return found;
}

void clear_padding(const Layer& p, float* x, int64_t width) {
  for (int64_t b = 0; b < p.B; ++b)
    std::fill(x + (b * p.T + p.lengths[b]) * width, x + (b + 1) * p.T * width, 0.0f);
}

void forward(const Layer& p) {
  const int64_t N = 4 * p.S, size = packed_size(N, p.S);
  const Rows x = frames<const float*>(p, p.x, p.I);
  const Floats input = floats(packed_size(N, p.I)), hidden = floats(kDirections * size);
  for (int d = 0; d < kDirections; ++d) {
    pack_all(p.input[d], p.I, 1, N, p.I, input.get());
    many_rows(x, input.get(), p.I, N, p.bias[d],
              frames<float*>(p, p.gates, kDirections * N, d * N));
    pack_all(p.hidden[d], p.S, 1, N, p.S, hidden.get() + d * size);
  }
  const std::vector<Task> all = tasks(p);
  at::parallel_for(0, all.size(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      forward_task(p, all[i], hidden.get() + all[i].direction * size);
  });
  clear_padding(p, p.out, kDirections * p.S);
  clear_padding(p, p.cells, kDirections * p.S);
  clear_padding(p, p.gates, kDirections * N);
}

void backward(const Layer& p) {
  const int64_t S = p.S, N = 4 * S, width = kDirections * N;
  const int64_t size = packed_size(S, N);
  const Floats hidden = floats(kDirections * size);
  for (int d = 0; d < kDirections; ++d)
    pack_all(p.hidden[d], 1, S, S, N, hidden.get() + d * size);
  const std::vector<Task> all = tasks(p);
  at::parallel_for(0, all.size(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      backward_task(p, all[i], hidden.get() + all[i].direction * size);
  });
  const Rows x = frames<const float*>(p, p.x, p.I), both = frames<const float*>(p, p.dgates, width);
  row_sum(both, width, p.dbias);
  OutRows dinput;
  for (int64_t n = 0; n < width; ++n) dinput.push_back(p.dinput[n / N] + n % N * p.I);
  outer_sum(both, x, p.I, dinput);
  for (int d = 0; d < kDirections; ++d) {
    // Each frame but the first of its direction with the output before it.
    Rows after, before;
    OutRows dhidden;
    for (int64_t n = 0; n < N; ++n) dhidden.push_back(p.dhidden[d] + n * S);
    for (int64_t b = 0; b < p.B; ++b)
      for (int64_t t = 1; t < p.lengths[b]; ++t) {
        const int64_t late = b * p.T + (d == 0 ? t : t - 1), early = b * p.T + (d == 0 ? t - 1 : t);
        after.push_back(p.dgates + late * width + d * N);
        before.push_back(p.out + early * kDirections * S + d * S);
      }
    outer_sum(after, before, S, dhidden);
  }
  if (p.dx == nullptr) return;
  const Floats input = floats(packed_size(p.I, width));
  // [8S, I]: the rows of both directions, one below the other.
  std::vector<float> joined(width * p.I);
  for (int d = 0; d < kDirections; ++d)
    std::copy_n(p.input[d], N * p.I, joined.data() + d * N * p.I);
  pack_all(joined.data(), 1, p.I, p.I, width, input.get());
  many_rows(both, input.get(), width, p.I, nullptr, frames<float*>(p, p.dx, p.I));
  clear_padding(p, p.dx, p.I);
}

// 0, or 1 + the index of an utterance whose length is not in 0..T.
int64_t wrong_length(const Layer& p) {
  for (int64_t b = 0; b < p.B; ++b)
    if (p.lengths[b] < 0 || p.lengths[b] > p.T) return b + 1;
  return 0;
}

int64_t guarded(const Layer& p, void (*run)(const Layer&)) {
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
extern "C" int64_t las_lstm_size() { return sizeof(Layer); }
extern "C" int64_t las_lstm_forward(const Layer* layer) { return guarded(*layer, forward); }
extern "C" int64_t las_lstm_backward(const Layer* layer) { return guarded(*layer, backward); }

#if defined(LAS_TILES)
// 0 where the system lets this process use the processor's tiles.
extern "C" int64_t las_lstm_allow() { return tiles::allow(); }
#endif
