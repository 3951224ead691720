// Parts of a step of attention on an NVIDIA GPU, for the kernels that include this: attention_step.cu,
// one step a launch, and persistent_decoder.cu, a whole sequence a launch.
//
// `attend_span` takes one span of frames of one utterance, one head and up to eight beams that share
// one reading of the memory. It leaves the energies of its frames, their maximum, the sum of the
// exponentials relative to it and the weighted sum of the values. `join_spans` joins the spans,
// always in the same order: no atomics, the same bits each time. Inputs float32, bfloat16 or float16,
// sums float32.
//
// Only frames below `lengths[b]` are read, except of `previous`, which the location filter sees as
// a whole, as the reference does. No torch header: this compiles in seconds.

#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#ifndef LAS_TYPE  // attention_step.py compiles each source once for each type of the inputs
#define LAS_TYPE float
#define LAS_NAME las_float32
#define LAS_MESSAGE las_message_float32
#define LAS_SIZE las_size_float32
#endif

#ifndef LAS_SHARED  // the tests define it to run the kernels on a CPU
#define LAS_SHARED(name) extern __shared__ __align__(128) float name[]
#endif

namespace {

using Input = LAS_TYPE;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kFrames = 4;  // frames that a warp scores at once
constexpr unsigned kAll = 0xffffffffu;

// Memory as attention_step.py packs it: eight bytes a member. Its size is compared when a library is loaded.
struct Attention {
  int64_t B, N, T, A, D, H, C, W;
  // The plan: frames of a span and spans, both multiples of kFrames; beams of a block; columns of
  // the keys and taps of the filters in shared memory at once; whether rows may be read four
  // columns at a time; bytes of shared memory; blocks of `combine` to a beam and head.
  int64_t span, spans, beams, chunk, taps, vector, shared, parts;
  int64_t query_b, query_n, previous_b, previous_n;  // strides
  int64_t context_b, context_n, alignment_b, alignment_n;
  double scale;
  const Input* query;       // [B, N, A]
  const Input* keys;        // [B, T, A]
  const Input* values;      // [B, T, D]
  const int64_t* lengths;   // [B]
  const Input* v;           // [A], null for the dot score
  const Input* filters;     // [C, W], null without location features
  const Input* projection;  // [A, C]
  const Input* previous;    // [B, N, H, T]
  Input* context;           // [B, N, D]
  Input* alignment;         // [B, N, H, T]
  float* energy;            // [B, N, H, T]
  float* tops;              // [B, H, spans, N]
  float* totals;            // [B, H, spans, N]
  float* sums;              // [B, H, spans, N, D / H]
};

// For 16-bit inputs the GPU's own tanh moves a score less than the rounding of query and keys did.
__device__ __forceinline__ float tanh_of(float x) {
#ifdef __CUDA_ARCH__
  if (sizeof(Input) == 2) {
    float y;
    asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  }
#endif
  return tanhf(x);
}

__device__ __forceinline__ float exp_of(float x) { return sizeof(Input) == 2 ? __expf(x) : expf(x); }

// What other blocks of the same launch may have written: past the first-level cache, which does not
// see it. A source with such a kernel defines LAS_OTHERS_WRITE; elsewhere it would cost registers.
template <typename T>
__device__ __forceinline__ T fresh(const T* from) {
#if defined(__CUDA_ARCH__) && defined(LAS_OTHERS_WRITE)
  return __ldcg(from);
#else
  return *from;
#endif
}

template <typename T, int width>
struct alignas(sizeof(T) * width) Pack {
  T x[width];
};

template <int width, typename T>
__device__ __forceinline__ void load(const T* from, float (&to)[width]) {
  const Pack<T, width> pack = *reinterpret_cast<const Pack<T, width>*>(from);
#pragma unroll
  for (int j = 0; j < width; ++j) to[j] = static_cast<float>(pack.x[j]);
}

__device__ __forceinline__ float exchange(float x, int offset) {
  return __shfl_xor_sync(kAll, x, offset);
}

// Sums each of `count` numbers over the warp; lane l gets number l >> (5 - log2(count)). Each step
// halves the numbers a lane still adds, so that 32 of them take 31 exchanges and not 160.
template <int count, int offset = 16>
struct WarpSums {
  static __device__ __forceinline__ float of(float (&x)[count], int lane) {
    const bool upper = lane & offset;
    float half[count / 2];
#pragma unroll
    for (int i = 0; i < count / 2; ++i) {
      const float mine = upper ? x[i + count / 2] : x[i];
      half[i] = mine + exchange(upper ? x[i] : x[i + count / 2], offset);
    }
    return WarpSums<count / 2, offset / 2>::of(half, lane);
  }
};
template <int offset>
struct WarpSums<1, offset> {
  static __device__ __forceinline__ float of(float (&x)[1], int) {
    float sum = x[0];
#pragma unroll
    for (int o = offset; o > 0; o /= 2) sum += exchange(sum, o);
    return sum;
  }
};

__device__ __forceinline__ float warp_max(float x) {
  for (int o = 16; o > 0; o /= 2) x = fmaxf(x, exchange(x, o));
  return x;
}

__device__ __forceinline__ float warp_sum(float x) {
  for (int o = 16; o > 0; o /= 2) x += exchange(x, o);
  return x;
}

// Of this utterance; a wrong length must not make the kernel read what is not there.
__device__ __forceinline__ int length_of(const Attention& p, int64_t b) {
  const int64_t length = p.lengths[b];
  return static_cast<int>(length < 1 ? 1 : length > p.T ? p.T : length);
}

// What a block works on, and its parts of the shared memory.
struct Block {
  int64_t b;
  int h, first, beams, s, start, frames;  // beams first .. first + beams - 1
  int span, AH, DH;
  float* energy;    // [span, NB]
  float* features;  // [NB, C, span]
  float* rest;      // used by one stage after another
};

// Convolve `previous` with the filters around the span: features [NB, C, span]. A thread takes four
// neighbouring frames of one beam and channel, and four taps at once.
__device__ __forceinline__ void locate(const Attention& p, const Block& k, int NB) {
  const int C = p.C, W = p.W, T = p.T, taps = p.taps, reach = k.span + taps, blocks = k.span / 4;
  float* window = k.rest;               // [NB, reach]
  float* filters = window + NB * reach;  // [C, taps]
  for (int first = 0; first < W; first += taps) {
    __syncthreads();
    for (int i = threadIdx.x; i < k.beams * reach; i += kThreads) {
      const int n = i / reach, t = k.start + first - W / 2 + i % reach;
      const Input* from = p.previous + k.b * p.previous_b + (k.first + n) * p.previous_n;
      window[i] = t >= 0 && t < T ? float(fresh(from + static_cast<int64_t>(k.h) * T + t)) : 0.0f;
    }
    for (int i = threadIdx.x; i < C * taps; i += kThreads) {
      const int c = i / taps, w = first + i % taps;
      filters[i] = w < W ? float(p.filters[c * W + w]) : 0.0f;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < k.beams * C * blocks; i += kThreads) {
      const int f = i % blocks * 4, c = i / blocks % C, n = i / blocks / C;
      const float* seen = window + n * reach + f;
      float* to = k.features + (n * C + c) * k.span + f;
      float sum[4] = {}, low[4], high[4], weight[4];
      load<4>(seen, low);
      for (int w = 0; w < taps; w += 4) {
        load<4>(seen + w + 4, high);
        load<4>(filters + c * taps + w, weight);
#pragma unroll
        for (int j = 0; j < 4; ++j)
#pragma unroll
          for (int tap = 0; tap < 4; ++tap)
            sum[j] += weight[tap] * (j + tap < 4 ? low[(j + tap) % 4] : high[(j + tap) % 4]);
#pragma unroll
        for (int j = 0; j < 4; ++j) low[j] = high[j];
      }
#pragma unroll
      for (int j = 0; j < 4; ++j) to[j] = first == 0 ? sum[j] : to[j] + sum[j];
    }
  }
}

// Energies of the span into k.energy. A warp takes kFrames frames, its lanes the columns.
template <int NB, int width, bool dot>
__device__ __forceinline__ void score(const Attention& p, const Block& k) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, C = p.C, chunk = p.chunk;
  float* query = k.rest;                // [NB, chunk]
  float* v = query + NB * chunk;        // [chunk]
  float* projection = v + chunk;        // [C, chunk]
  for (int from = 0; from < k.AH; from += chunk) {
    const int columns = min(chunk, k.AH - from), column = k.h * k.AH + from;
    const Input* keys = p.keys + (k.b * p.T + k.start) * p.A + column;
    __syncthreads();
    for (int i = threadIdx.x; i < k.beams * columns; i += kThreads) {
      const int n = i / columns, a = i % columns;
      const Input* q = p.query + k.b * p.query_b + (k.first + n) * p.query_n;
      query[n * chunk + a] = float(fresh(q + column + a)) * (dot ? static_cast<float>(p.scale) : 1.0f);
    }
    if (!dot) {
      for (int a = threadIdx.x; a < columns; a += kThreads) v[a] = float(p.v[column + a]);
      for (int i = threadIdx.x; i < C * columns; i += kThreads)
        projection[i % C * chunk + i / C] =
            float(p.projection[static_cast<int64_t>(column) * C + i]);
    }
    __syncthreads();
    for (int f = warp * kFrames; f < k.frames; f += kWarps * kFrames) {
      int rows[kFrames];
#pragma unroll
      for (int i = 0; i < kFrames; ++i)  // those past the end repeat the last
        rows[i] = min(f + i, k.frames - 1) * static_cast<int>(p.A);
      float sums[NB * kFrames] = {};
      for (int a = lane * width; a < columns; a += 32 * width) {
        float key[kFrames][width], weight[width];
#pragma unroll
        for (int i = 0; i < kFrames; ++i) load<width>(keys + rows[i] + a, key[i]);
        if constexpr (!dot) load<width>(v + a, weight);
#pragma unroll
        for (int n = 0; n < NB; ++n) {
          if (n >= k.beams) break;
          float q[width];
          load<width>(query + n * chunk + a, q);
          if constexpr (dot) {
#pragma unroll
            for (int i = 0; i < kFrames; ++i)
#pragma unroll
              for (int j = 0; j < width; ++j) sums[n * kFrames + i] += q[j] * key[i][j];
          } else {
            float x[kFrames][width];
#pragma unroll
            for (int i = 0; i < kFrames; ++i)
#pragma unroll
              for (int j = 0; j < width; ++j) x[i][j] = q[j] + key[i][j];
            for (int c = 0; c < C; ++c) {
              float u[width], feature[kFrames];
              load<width>(projection + c * chunk + a, u);
              load<kFrames>(k.features + (n * C + c) * k.span + f, feature);
#pragma unroll
              for (int i = 0; i < kFrames; ++i)
#pragma unroll
                for (int j = 0; j < width; ++j) x[i][j] += feature[i] * u[j];
            }
#pragma unroll
            for (int i = 0; i < kFrames; ++i)
#pragma unroll
              for (int j = 0; j < width; ++j) sums[n * kFrames + i] += weight[j] * tanh_of(x[i][j]);
          }
        }
      }
      const float sum = WarpSums<NB * kFrames>::of(sums, lane);
      constexpr int each = 32 / (NB * kFrames);  // lanes that hold the same sum
      const int n = lane / each / kFrames, i = lane / each % kFrames;
      if (lane % each == 0) {
        float* to = k.energy + (f + i) * NB + n;
        *to = from == 0 ? sum : *to + sum;
      }
    }
  }
}

// Energies -> weights relative to the span's largest, in place; a warp takes a beam.
template <int NB>
__device__ __forceinline__ void reweigh(const Attention& p, const Block& k) {
  const int lane = threadIdx.x % 32, n = threadIdx.x / 32;
  if (n >= k.beams) return;
  const int64_t row = (k.b * p.N + k.first + n) * p.H + k.h;
  float largest = -INFINITY;
  for (int f = lane; f < k.frames; f += 32) {
    const float e = k.energy[f * NB + n];
    p.energy[row * p.T + k.start + f] = e;
    largest = fmaxf(largest, e);
  }
  largest = warp_max(largest);
  const float base = largest == -INFINITY ? 0.0f : largest;  // -inf - -inf is not a number
  float total = 0.0f;
  for (int f = lane; f < k.frames; f += 32) {
    const float weight = exp_of(k.energy[f * NB + n] - base);
    k.energy[f * NB + n] = weight;
    total += weight;
  }
  total = warp_sum(total);
  if (lane == 0) {
    const int64_t at = ((k.b * p.H + k.h) * p.spans + k.s) * p.N + k.first + n;
    p.tops[at] = largest;
    p.totals[at] = total;
  }
}

// Sum of the weighted values of the span. Where a row is narrow, groups of threads share its frames
// and add up what they have, one after another.
template <int NB, int width>
__device__ __forceinline__ void gather(const Attention& p, const Block& k) {
  const Input* values = p.values + (k.b * p.T + k.start) * p.D + k.h * k.DH;
  float* out = p.sums +
               (((k.b * p.H + k.h) * p.spans + k.s) * p.N + k.first) * static_cast<int64_t>(k.DH);
  for (int from = 0; from < k.DH; from += kThreads * width) {
    const int threads = min((k.DH - from + width - 1) / width, kThreads);
    const int groups = min(kThreads / threads, 8), group = threadIdx.x / threads;
    const int column = threadIdx.x % threads * width;
    float sum[NB][width] = {};
    if (group < groups) {
#pragma unroll 4
      for (int f = group; f < k.frames; f += groups) {
        float value[width], weight[NB];
        load<width>(values + f * p.D + from + column, value);
        load<NB>(k.energy + f * NB, weight);
#pragma unroll
        for (int n = 0; n < NB; ++n)
#pragma unroll
          for (int j = 0; j < width; ++j) sum[n][j] += weight[n] * value[j];
      }
    }
    for (int turn = 0; turn < groups; ++turn) {
      if (group == turn) {
#pragma unroll
        for (int n = 0; n < NB; ++n) {
          if (n >= k.beams) break;
          float* shared = k.rest + n * threads * width + column;
          float* to = out + static_cast<int64_t>(n) * k.DH + from + column;
#pragma unroll
          for (int j = 0; j < width; ++j) {
            const float all = turn == 0 ? sum[n][j] : sum[n][j] + shared[j];
            *(turn + 1 < groups ? shared + j : to + j) = all;
          }
        }
      }
      __syncthreads();
    }
  }
}

// The span, utterance, head and first beam that `k` names, with p.shared bytes of shared memory.
template <int NB, int width, bool dot>
__device__ __forceinline__ void attend_span(const Attention& p, Block& k, float* shared) {
  k.beams = min(NB, static_cast<int>(p.N) - k.first);
  k.span = p.span;
  k.start = k.s * k.span;
  k.frames = min(k.span, length_of(p, k.b) - k.start);
  if (k.frames <= 0) return;  // `join_spans` does not look at these
  k.AH = p.A / p.H;
  k.DH = p.D / p.H;
  k.energy = shared;
  k.features = k.energy + NB * k.span;
  k.rest = k.features + NB * static_cast<int>(p.C) * k.span;
  // Weights of the beams that are not there meet the values too: keep them finite.
  for (int i = threadIdx.x; i < NB * k.span; i += kThreads) k.energy[i] = 0.0f;
  if (!dot && p.C > 0) locate(p, k, NB);
  score<NB, width, dot>(p, k);
  __syncthreads();
  reweigh<NB>(p, k);
  __syncthreads();
  gather<NB, width>(p, k);
}

// Join the spans of one beam and head, into every `parts`-th kThreads of the columns and frames from
// the `part`-th on. `weights` is shared: [spans], then what the sums are divided by.
__device__ __forceinline__ void join_spans(const Attention& p, int64_t b, int n, int h, int part,
                                           int parts, float* weights) {
  const int lane = threadIdx.x % 32;
  const int length = length_of(p, b), spans = (length + p.span - 1) / p.span, DH = p.D / p.H;
  const int64_t at = (b * p.H + h) * p.spans;
  float largest = -INFINITY;  // every warp finds it for itself
  for (int s = lane; s < spans; s += 32) largest = fmaxf(largest, fresh(p.tops + (at + s) * p.N + n));
  largest = warp_max(largest);
  const float base = largest == -INFINITY ? 0.0f : largest;
  if (threadIdx.x < 32) {
    float total = 0.0f;
    for (int s = lane; s < spans; s += 32) {
      const float weight = exp_of(fresh(p.tops + (at + s) * p.N + n) - base);
      weights[s] = weight;
      total += weight * fresh(p.totals + (at + s) * p.N + n);
    }
    total = warp_sum(total);
    if (lane == 0) weights[p.spans] = 1.0f / total;
  }
  __syncthreads();
  const float scale = weights[p.spans];
  const int first = part * kThreads + threadIdx.x, step = parts * kThreads;
  for (int d = first; d < DH; d += step) {
    float sum = 0.0f;
    for (int s = 0; s < spans; ++s) sum += weights[s] * fresh(p.sums + ((at + s) * p.N + n) * DH + d);
    p.context[b * p.context_b + n * p.context_n + h * DH + d] = Input(sum * scale);
  }
  const float* energy = p.energy + ((b * p.N + n) * p.H + h) * p.T;
  Input* alignment = p.alignment + b * p.alignment_b + n * p.alignment_n + h * p.T;
  for (int t = first; t < p.T; t += step)
    alignment[t] = Input(t < length ? exp_of(fresh(energy + t) - base) * scale : 0.0f);
}

}  // namespace
