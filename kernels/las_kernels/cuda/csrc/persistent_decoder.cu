// A whole sequence of the decoder in one cooperative launch on an NVIDIA GPU: the teacher-forced
// recurrence, or greedy search to the end of every utterance. persistent_decoder.py plans the launch
// and calls LAS_NAME; the definition of right is reference.py. One LSTM layer.
//
// Every block owns some units of the LSTM and some rows of the query, readout and output matrices, and
// holds their weights in shared memory over all steps, as far as they fit. A step has four stages
// (seven in search); between two of them all blocks wait for each other. Sums have a fixed order: the
// same bits each time.

#define LAS_LOAD_CG
#include "attention_step.cuh"
#include "grid_barrier.cuh"
#include "small_batch_gemm.cuh"

#ifndef LAS_LAUNCH_COOPERATIVE  // the tests define it to run the kernel on a CPU
#define LAS_LAUNCH_COOPERATIVE(kernel, grid, bytes, stream, p)                                    \
  do {                                                                                            \
    void* arguments[] = {const_cast<void*>(static_cast<const void*>(&p))};                        \
    cudaLaunchCooperativeKernel(reinterpret_cast<const void*>(kernel), grid, dim3(kThreads),      \
                                arguments, bytes, stream);                                        \
  } while (false)
#endif

namespace {

// Memory as persistent_decoder.py packs it: eight bytes a member.
struct DecoderParams {
  int64_t B, U, D, S, A;
  int64_t V;  // characters; 0: teacher forcing
  int64_t blank, end;  // ids: never written; ends an utterance
  int64_t history;  // steps that `hidden`, `cells` and the contexts have room for
  int64_t vector;  // whether rows are read four columns at a time
  int64_t tensor_cores;  // whether products are made on tensor cores, and rows read eight at a time
  int64_t resident;  // bytes of weights in shared memory, before what the stages use
  int64_t chunk;  // columns of the inputs that a stage has in shared memory at once
  int64_t shared;  // bytes in all
  int64_t blocks, parts;  // of the launch; of `combine_splits` to an utterance and head
  WeightSlice gates;    // [4S, D + S]: the four gates of a unit are neighbours
  WeightSlice query;    // [A, S]
  WeightSlice readout;  // [S, S + D]
  WeightSlice output;   // [V, S]
  const Input* readout_bias;   // [S]
  const Input* output_bias;    // [V]
  const Input* projected;      // [B, U, 4S], or of every character [V, 4S]
  const Input* hidden_mask;    // [B, S] or null
  const Input* context_mask;   // [B, D] or null
  const Input* start;          // [B, H, T] alignment before the first step
  const int64_t* limits;       // [B] steps of search
  Input* hidden;               // [B, history, S]
  float* cells;                // [B, history, S]
  Input* activated;            // [B, U, 4S] gates, or null
  Input* queries;              // [B, A]
  Input* read;                 // [B, S]
  float* logits;               // [B, V]
  int64_t* ids;                // [B, U]
  float* log_probs;            // [B, U]
  unsigned* counters;          // arrivals, utterances that have ended, steps; zero at first
  AttentionParams attention;   // N = 1; context and alignment of step 0
};

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// Rounded as the reference rounds it, for the backward reads it again.
template <int count>
__device__ __forceinline__ void apply_mask(Pack<Input, count>& x, const Input* mask) {
  const auto factors = as_pack<count>(mask);
#pragma unroll
  for (int j = 0; j < count; ++j) x.x[j] = Input(float(x.x[j]) * float(factors.x[j]));
}

// LSTM: gates, cell and hidden state of the block's units.
template <typename Gemm>
__device__ __forceinline__ void lstm_update(const DecoderParams& p, const Input* shared,
                                            float* scratch, int u) {
  const int S = p.S, D = p.D, here = u % p.history, before = (u + p.history - 1) % p.history;
  const AttentionParams& a = p.attention;
  const auto load_fed = [&](int b, int k, auto count) {
    auto fed = load_cg_vec<count>(k >= D
                                      ? p.hidden + (b * p.history + before) * S + k - D
                                      : a.context + b * a.context_b + before * a.context_n + k);
    if (p.context_mask != nullptr && k < D)
      apply_mask(fed, p.context_mask + static_cast<int64_t>(b) * D + k);
    return fed;
  };
  const auto gates_epilogue = [&](int row, int b, float sum, bool valid) {
    const int unit = row / 4, gate = row % 4;
    if (valid) {
      const int64_t id = p.V == 0 ? static_cast<int64_t>(b) * p.U + u
                         : u == 0 ? p.end
                                  : load_cg(p.ids + static_cast<int64_t>(b) * p.U + u - 1);
      sum += float(p.projected[id * 4 * S + gate * S + unit]);
    }
    const float active = float(Input(gate == 2 ? tanhf(sum) : sigmoid(sum)));
    if (valid && p.activated != nullptr)
      p.activated[(static_cast<int64_t>(b) * p.U + u) * 4 * S + gate * S + unit] = Input(active);
    // The lanes of the first gate get the others: forget, cell and output.
    const float f = shfl_xor(active, kBatchTile), g = shfl_xor(active, 2 * kBatchTile);
    const float o = shfl_xor(f, 2 * kBatchTile);
    if (valid && gate == 0) {
      const int64_t at = static_cast<int64_t>(b) * p.history * S + unit;
      float cell = active * g;
      if (u > 0) cell += f * p.cells[at + before * S];  // which this block wrote itself
      p.cells[at + here * S] = cell;
      p.hidden[at + here * S] = Input(o * tanhf(cell));
    }
  };
  const int columns = u == 0 ? 0 : p.gates.columns;  // nothing is fed back to the first step
  Gemm::multiply(p.B, p.chunk, p.gates, columns, shared, scratch, load_fed, gates_epilogue);
}

// The likeliest character of each utterance that is this block's.
__device__ __forceinline__ void select_token(const DecoderParams& p, float* parts, int u) {
  const int V = p.V;
  for (int b = blockIdx.x; b < p.B; b += gridDim.x) {
    const float* logits = p.logits + static_cast<int64_t>(b) * V;
    float best = -INFINITY;
    for (int id = threadIdx.x; id < V; id += kThreads)
      if (id != p.blank) best = fmaxf(best, load_cg(logits + id));
    best = block_max(best, parts);
    const float largest = fmaxf(best, load_cg(logits + p.blank));
    float total = 0.0f, choice = 1.0f - V;  // one of the ids, even if no logit is a number
    for (int id = threadIdx.x; id < V; id += kThreads) {
      const float logit = load_cg(logits + id);
      total += expf(logit - largest);
      if (id != p.blank && logit == best) choice = fmaxf(choice, -static_cast<float>(id));
    }
    total = block_sum(total, parts);
    const int chosen = static_cast<int>(-block_max(choice, parts));  // the first of equals
    if (threadIdx.x > 0) continue;
    const int64_t at = static_cast<int64_t>(b) * p.U + u;
    // An utterance that has ended goes on with its end until all have.
    const bool ended = u > 0 && (p.ids[at - 1] == p.end || u >= p.limits[b]);
    p.ids[at] = ended ? p.end : chosen;
    p.log_probs[at] = ended ? 0.0f : best - largest - logf(total);
    if (!ended && (chosen == p.end || u + 1 >= p.limits[b])) atomicAdd(p.counters + 1, 1u);
  }
}

template <typename Gemm, int width, bool dot>
__global__ void __launch_bounds__(kThreads, 1) persistent_decoder_kernel(DecoderParams p) {
  LAS_SHARED(whole);
  Input* shared = reinterpret_cast<Input*>(whole);
  float* scratch = whole + p.resident / sizeof(float);
  load_resident<Gemm::width>(p.gates, shared);
  load_resident<Gemm::width>(p.query, shared);
  if (p.V > 0) {
    load_resident<Gemm::width>(p.readout, shared);
    load_resident<Gemm::width>(p.output, shared);
  }
  __syncthreads();  // a product reads what other threads have put there
  unsigned generation = 0;
  AttentionParams a = p.attention;
  const int S = p.S, num_splits = a.num_splits, H = a.H;
  for (int u = 0; u < p.U; ++u) {
    const int here = u % p.history;
    lstm_update<Gemm>(p, shared, scratch, u);
    grid_barrier(p.counters, generation);
    const auto load_hidden = [&](int b, int k, auto count) {
      auto x = load_cg_vec<count>(p.hidden + (b * p.history + here) * S + k);
      if (p.hidden_mask != nullptr) apply_mask(x, p.hidden_mask + static_cast<int64_t>(b) * S + k);
      return x;
    };
    const auto query_epilogue = [&](int row, int b, float sum, bool valid) {
      if (valid) p.queries[b * p.A + row] = Input(sum);
    };
    Gemm::multiply(p.B, p.chunk, p.query, S, shared, scratch, load_hidden, query_epilogue);
    grid_barrier(p.counters, generation);
    a.previous = u == 0 ? p.start : p.attention.alignment + (u - 1) * a.alignment_n;
    a.previous_b = u == 0 ? H * a.T : a.alignment_b;
    a.context = p.attention.context + here * a.context_n;
    a.alignment = p.attention.alignment + u * a.alignment_n;
    for (int item = blockIdx.x; item < p.B * H * num_splits; item += gridDim.x) {
      SplitTile k;
      k.s = item % num_splits;
      k.h = item / num_splits % H;
      k.b = item / num_splits / H;
      k.first = 0;
      __syncthreads();
      attend_split<1, width, dot>(a, k, scratch);
    }
    grid_barrier(p.counters, generation);
    for (int item = blockIdx.x; item < p.B * H * p.parts; item += gridDim.x) {
      __syncthreads();
      combine_splits(a, item / p.parts / H, 0, item / p.parts % H, item % p.parts, p.parts,
                     scratch);
    }
    grid_barrier(p.counters, generation);
    if (p.V == 0) continue;
    const auto load_both = [&](int b, int k, auto count) {
      return load_cg_vec<count>(k < S ? p.hidden + (b * p.history + here) * S + k
                                      : a.context + b * a.context_b + k - S);
    };
    const auto readout_epilogue = [&](int row, int b, float sum, bool valid) {
      if (!valid) return;
      p.read[static_cast<int64_t>(b) * S + row] = Input(tanhf(sum + float(p.readout_bias[row])));
    };
    Gemm::multiply(p.B, p.chunk, p.readout, p.readout.columns, shared, scratch, load_both,
                   readout_epilogue);
    grid_barrier(p.counters, generation);
    const auto load_read = [&](int b, int k, auto count) {
      return load_cg_vec<count>(p.read + static_cast<int64_t>(b) * S + k);
    };
    const auto output_epilogue = [&](int row, int b, float sum, bool valid) {
      if (valid) p.logits[b * p.V + row] = sum + float(p.output_bias[row]);
    };
    Gemm::multiply(p.B, p.chunk, p.output, S, shared, scratch, load_read, output_epilogue);
    grid_barrier(p.counters, generation);
    select_token(p, scratch, u);
    grid_barrier(p.counters, generation);
    if (blockIdx.x == 0 && threadIdx.x == 0) p.counters[2] = u + 1;
    if (load_cg(p.counters + 1) == static_cast<unsigned>(p.B)) break;  // the same for all blocks
  }
}

template <typename Gemm, int width, bool dot>
cudaError_t launch(const DecoderParams& p, cudaStream_t stream) {
  const auto kernel = persistent_decoder_kernel<Gemm, width, dot>;
  const cudaError_t error =
      cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                           cudaFuncAttributeMaxDynamicSharedMemorySize, int(p.shared));
  if (error != cudaSuccess) return error;
  LAS_LAUNCH_COOPERATIVE(kernel, dim3(p.blocks), p.shared, stream, p);
  return cudaGetLastError();
}

template <typename Gemm, int width>
cudaError_t launch(const DecoderParams& p, cudaStream_t stream) {
  return p.attention.v == nullptr ? launch<Gemm, width, true>(p, stream)
                                  : launch<Gemm, width, false>(p, stream);
}

template <typename T>
cudaError_t launch(const DecoderParams& p, cudaStream_t stream) {
  if constexpr (sizeof(T) == 2)
    if (p.tensor_cores) return launch<TensorCoreGemm, 8>(p, stream);
  return p.vector ? launch<SimtGemm<4>, 4>(p, stream) : launch<SimtGemm<1>, 1>(p, stream);
}

}  // namespace

// A cudaError_t, 0 for none; returns before the kernel has run, on the current device.
// With a type of this file as argument nvcc would take the function for one of this file alone.
extern "C" int LAS_NAME(const void* sequence, void* stream) {
  const DecoderParams& p = *static_cast<const DecoderParams*>(sequence);
  return launch<Input>(p, static_cast<cudaStream_t>(stream));
}

extern "C" int64_t LAS_SIZE(void) { return sizeof(DecoderParams); }

extern "C" const char* LAS_MESSAGE(int error) {
  return cudaGetErrorString(static_cast<cudaError_t>(error));
}
