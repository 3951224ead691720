// A whole sequence of the decoder in one cooperative launch on an NVIDIA GPU: the teacher-forced
// recurrence, or greedy search to the end of every utterance. decode_cuda.py plans the launch and
// calls LAS_NAME; the definition of right is reference.py. One LSTM layer.
//
// Every block owns some units of the LSTM and some rows of the query and readout matrices, and holds
// their weights in shared memory over all steps, as far as they fit. A step has four stages (six in
// search); between two of them all blocks wait for each other. Sums have a fixed order: the same
// bits each time.

#define LAS_OTHERS_WRITE
#include "attend_cuda.h"

#ifndef LAS_LAUNCH_TOGETHER  // the tests define these two to run the kernel on a CPU
#define LAS_LAUNCH_TOGETHER(kernel, grid, bytes, stream, p)                                         \
  do {                                                                                              \
    void* arguments[] = {const_cast<void*>(static_cast<const void*>(&p))};                          \
    cudaLaunchCooperativeKernel(reinterpret_cast<const void*>(kernel), grid, dim3(kThreads),        \
                                arguments, bytes, stream);                                          \
  } while (false)
#define LAS_PAUSE()
#endif

namespace {

constexpr int kTogether = 8;  // utterances that one reading of the weights serves
constexpr int kRows = 4;      // rows of a matrix that a warp multiplies at once

// Rows of a matrix that every block holds: so many groups of kRows each.
struct Rows {
  const Input* weights;  // [rows, columns]
  int64_t rows, columns, groups;
  int64_t at;  // where they are in shared memory, in elements; negative: not there
};

// Memory as decode_cuda.py packs it: eight bytes a member.
struct Sequence {
  int64_t B, U, D, S, A;
  int64_t V;  // characters; 0: teacher forcing
  int64_t blank, end;  // ids: never written; ends an utterance
  int64_t ring;  // steps that `hidden`, `cells` and the contexts have room for
  int64_t vector;  // whether rows are read four columns at a time
  int64_t resident;  // bytes of weights in shared memory, before what the stages use
  int64_t chunk;  // columns of the inputs that a stage has in shared memory at once
  int64_t shared;  // bytes in all
  int64_t blocks, parts;  // of the launch; of `join_spans` to an utterance and head
  Rows gates;    // [4S, D + S]: the four gates of a unit are neighbours
  Rows query;    // [A, S]
  Rows readout;  // [S, S + D]
  const Input* readout_bias;   // [S]
  const Input* output;         // [V, S]
  const Input* output_bias;    // [V]
  const Input* projected;      // [B, U, 4S], or of every character [V, 4S]
  const Input* hidden_mask;    // [B, S] or null
  const Input* context_mask;   // [B, D] or null
  const Input* start;          // [B, H, T] alignment before the first step
  const int64_t* limits;       // [B] steps of search
  Input* hidden;               // [B, ring, S]
  float* cells;                // [B, ring, S]
  Input* activated;            // [B, U, 4S] gates, or null
  Input* queries;              // [B, A]
  float* read;                 // [B, S]
  int64_t* ids;                // [B, U]
  float* log_probs;            // [B, U]
  unsigned* counters;          // arrivals, utterances that have ended, steps; zero at first
  Attention attention;         // N = 1; context and alignment of step 0
};

// All blocks wait until all have come here; what each wrote before, all see after.
__device__ __forceinline__ void meet(const Sequence& p, unsigned& meetings) {
  __threadfence();
  __syncthreads();
  ++meetings;
  if (threadIdx.x == 0) {
    atomicAdd(p.counters, 1u);
    const volatile unsigned* arrived = p.counters;
    while (*arrived < meetings * gridDim.x) LAS_PAUSE();
    __threadfence();
  }
  __syncthreads();
}

// The block's rows into shared memory; those past the last repeat it.
__device__ __forceinline__ void keep(const Rows& rows, Input* shared) {
  if (rows.at < 0) return;
  const int64_t first = blockIdx.x * rows.groups * kRows;
  for (int64_t i = threadIdx.x; i < rows.groups * kRows * rows.columns; i += kThreads) {
    const int64_t row = first + i / rows.columns;
    const int64_t from = row < rows.rows ? row : rows.rows - 1;
    shared[rows.at + i] = rows.weights[from * rows.columns + i % rows.columns];
  }
}

// The block's rows times the inputs of every utterance. `from(b, column)` gives an input;
// `to(row, b, sum, valid)` is called by all lanes of a warp: lane l has row l / kTogether of a group
// and utterance l % kTogether of those multiplied together.
template <int width, typename From, typename To>
__device__ __forceinline__ void multiply(const Sequence& p, const Rows& rows, const Input* shared,
                                         float* x, From from, To to) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int K = rows.columns, chunk = p.chunk, B = p.B, groups = rows.groups;
  const int first_row = blockIdx.x * groups * kRows, last = rows.rows - 1;
  if (first_row > last) return;
  for (int first = 0; first < B; first += kTogether) {
    for (int round = 0; round < groups; round += kWarps) {
      const int group = round + warp, row = first_row + group * kRows;
      const bool busy = group < groups && row <= last;
      float sums[kRows * kTogether] = {};
      for (int begin = 0; begin < K; begin += chunk) {
        const int columns = min(chunk, K - begin);
        __syncthreads();
        for (int i = threadIdx.x; i < kTogether * columns; i += kThreads) {
          const int n = i / columns, k = i % columns;
          x[n * chunk + k] = first + n < B ? from(first + n, begin + k) : 0.0f;
        }
        __syncthreads();
        if (!busy) continue;
        const Input* weights[kRows];
#pragma unroll
        for (int r = 0; r < kRows; ++r)
          weights[r] = begin + (rows.at < 0
                                    ? rows.weights + static_cast<int64_t>(min(row + r, last)) * K
                                    : shared + rows.at + (group * kRows + r) * K);
        for (int k = lane * width; k < columns; k += 32 * width) {
          float weight[kRows][width];
#pragma unroll
          for (int r = 0; r < kRows; ++r) load<width>(weights[r] + k, weight[r]);
#pragma unroll
          for (int n = 0; n < kTogether; ++n) {
            float input[width];
            load<width>(x + n * chunk + k, input);
#pragma unroll
            for (int r = 0; r < kRows; ++r)
#pragma unroll
              for (int j = 0; j < width; ++j)
                sums[r * kTogether + n] += weight[r][j] * input[j];
          }
        }
      }
      if (!busy) continue;
      const float sum = WarpSums<kRows * kTogether>::of(sums, lane);
      const int r = lane / kTogether, b = first + lane % kTogether;
      to(row + r, b, sum, row + r <= last && b < B);
    }
  }
}

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// LSTM: gates, cell and hidden state of the block's units.
template <int width>
__device__ __forceinline__ void update(const Sequence& p, const Input* shared, float* x, int u) {
  const int S = p.S, D = p.D, here = u % p.ring, before = (u + p.ring - 1) % p.ring;
  const Attention& a = p.attention;
  const auto from = [&](int b, int k) {
    if (u == 0) return 0.0f;
    if (k >= D) return float(fresh(p.hidden + (b * p.ring + before) * S + k - D));
    const float fed = float(fresh(a.context + b * a.context_b + before * a.context_n + k));
    // Rounded as the reference rounds it, for the backward reads it again.
    return p.context_mask == nullptr
               ? fed
               : float(Input(fed * float(p.context_mask[static_cast<int64_t>(b) * D + k])));
  };
  const auto to = [&](int row, int b, float sum, bool valid) {
    const int unit = row / 4, gate = row % 4;
    if (valid) {
      const int64_t id = p.V == 0 ? static_cast<int64_t>(b) * p.U + u
                         : u == 0 ? p.end
                                  : fresh(p.ids + static_cast<int64_t>(b) * p.U + u - 1);
      sum += float(p.projected[id * 4 * S + gate * S + unit]);
    }
    const float active = float(Input(gate == 2 ? tanhf(sum) : sigmoid(sum)));
    if (valid && p.activated != nullptr)
      p.activated[(static_cast<int64_t>(b) * p.U + u) * 4 * S + gate * S + unit] = Input(active);
    // The lanes of the first gate get the others: forget, cell and output.
    const float f = exchange(active, kTogether), g = exchange(active, 2 * kTogether);
    const float o = exchange(f, 2 * kTogether);
    if (valid && gate == 0) {
      const int64_t at = static_cast<int64_t>(b) * p.ring * S + unit;
      float cell = active * g;
      if (u > 0) cell += f * p.cells[at + before * S];  // which this block wrote itself
      p.cells[at + here * S] = cell;
      p.hidden[at + here * S] = Input(o * tanhf(cell));
    }
  };
  multiply<width>(p, p.gates, shared, x, from, to);
}

// The likeliest character of each utterance that is this block's.
__device__ __forceinline__ void write(const Sequence& p, float* logits, int u) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, V = p.V, S = p.S;
  for (int b = blockIdx.x; b < p.B; b += gridDim.x) {
    __syncthreads();
    for (int id = warp; id < V; id += kWarps) {
      const Input* weights = p.output + static_cast<int64_t>(id) * S;
      float sum = 0.0f;
      for (int k = lane; k < S; k += 32)
        sum += float(weights[k]) * fresh(p.read + static_cast<int64_t>(b) * S + k);
      sum = warp_sum(sum);
      if (lane == 0) logits[id] = sum + float(p.output_bias[id]);
    }
    __syncthreads();
    if (warp > 0) continue;
    float largest = -INFINITY, best = -INFINITY;
    for (int id = lane; id < V; id += 32) {
      largest = fmaxf(largest, logits[id]);
      if (id != p.blank) best = fmaxf(best, logits[id]);
    }
    largest = warp_max(largest);
    best = warp_max(best);
    float total = 0.0f, choice = -static_cast<float>(V);
    for (int id = lane; id < V; id += 32) {
      total += expf(logits[id] - largest);
      if (id != p.blank && logits[id] == best) choice = fmaxf(choice, -static_cast<float>(id));
    }
    total = warp_sum(total);
    const int chosen = static_cast<int>(-warp_max(choice));  // the first of equals
    if (lane > 0) continue;
    const int64_t at = static_cast<int64_t>(b) * p.U + u;
    // An utterance that has ended goes on with its end until all have.
    const bool ended = u > 0 && (p.ids[at - 1] == p.end || u >= p.limits[b]);
    p.ids[at] = ended ? p.end : chosen;
    p.log_probs[at] = ended ? 0.0f : best - largest - logf(total);
    if (!ended && (chosen == p.end || u + 1 >= p.limits[b])) atomicAdd(p.counters + 1, 1u);
  }
}

template <int width, bool dot>
__global__ void __launch_bounds__(kThreads, 1) decode(Sequence p) {
  LAS_SHARED(whole);
  Input* shared = reinterpret_cast<Input*>(whole);
  float* scratch = whole + p.resident / sizeof(float);
  keep(p.gates, shared);
  keep(p.query, shared);
  if (p.V > 0) keep(p.readout, shared);
  unsigned meetings = 0;
  Attention a = p.attention;
  const int S = p.S, spans = a.spans, H = a.H;
  for (int u = 0; u < p.U; ++u) {
    const int here = u % p.ring;
    update<width>(p, shared, scratch, u);
    meet(p, meetings);
    const auto hidden = [&](int b, int k) {
      const float x = float(fresh(p.hidden + (b * p.ring + here) * S + k));
      if (p.hidden_mask == nullptr) return x;
      return float(Input(x * float(p.hidden_mask[static_cast<int64_t>(b) * S + k])));
    };
    multiply<width>(p, p.query, shared, scratch, hidden, [&](int row, int b, float sum, bool valid) {
      if (valid) p.queries[b * p.A + row] = Input(sum);
    });
    meet(p, meetings);
    a.previous = u == 0 ? p.start : p.attention.alignment + (u - 1) * a.alignment_n;
    a.previous_b = u == 0 ? H * a.T : a.alignment_b;
    a.context = p.attention.context + here * a.context_n;
    a.alignment = p.attention.alignment + u * a.alignment_n;
    for (int item = blockIdx.x; item < p.B * H * spans; item += gridDim.x) {
      Block k;
      k.s = item % spans;
      k.h = item / spans % H;
      k.b = item / spans / H;
      k.first = 0;
      __syncthreads();
      attend_span<1, width, dot>(a, k, scratch);
    }
    meet(p, meetings);
    for (int item = blockIdx.x; item < p.B * H * p.parts; item += gridDim.x) {
      __syncthreads();
      join_spans(a, item / p.parts / H, 0, item / p.parts % H, item % p.parts, p.parts, scratch);
    }
    meet(p, meetings);
    if (p.V == 0) continue;
    const auto both = [&](int b, int k) {
      return k < S ? float(fresh(p.hidden + (b * p.ring + here) * S + k))
                   : float(fresh(a.context + b * a.context_b + k - S));
    };
    multiply<width>(p, p.readout, shared, scratch, both, [&](int row, int b, float sum, bool valid) {
      if (valid) p.read[static_cast<int64_t>(b) * S + row] = tanhf(sum + float(p.readout_bias[row]));
    });
    meet(p, meetings);
    write(p, scratch, u);
    meet(p, meetings);
    if (blockIdx.x == 0 && threadIdx.x == 0) p.counters[2] = u + 1;
    if (fresh(p.counters + 1) == static_cast<unsigned>(p.B)) break;  // the same for all blocks
  }
}

template <int width, bool dot>
cudaError_t launch(const Sequence& p, cudaStream_t stream) {
  const auto kernel = decode<width, dot>;
  const cudaError_t error =
      cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                           cudaFuncAttributeMaxDynamicSharedMemorySize, int(p.shared));
  if (error != cudaSuccess) return error;
  LAS_LAUNCH_TOGETHER(kernel, dim3(p.blocks), p.shared, stream, p);
  return cudaGetLastError();
}

}  // namespace

// A cudaError_t, 0 for none; returns before the kernel has run.
extern "C" int LAS_NAME(const Sequence* sequence, void* stream) {
  const Sequence& p = *sequence;
  int device;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess && device != p.attention.device)
    error = cudaSetDevice(int(p.attention.device));
  if (error != cudaSuccess) return error;
  const auto on = static_cast<cudaStream_t>(stream);
  if (p.vector) {
    if (p.attention.v == nullptr) return launch<4, true>(p, on);
    return launch<4, false>(p, on);
  }
  if (p.attention.v == nullptr) return launch<1, true>(p, on);
  return launch<1, false>(p, on);
}

extern "C" const char* LAS_MESSAGE(int error) {
  return cudaGetErrorString(static_cast<cudaError_t>(error));
}
