// Parts of a step of attention on an NVIDIA GPU, for the kernels that include this:
// attention_step.cu, one step a launch, and persistent_decoder.cu, a whole sequence a launch.
//
// `attend_split` takes one split of the frames of one utterance, one head and up to eight beams that
// share one reading of the memory. It leaves the energies of its frames, their maximum, the sum of
// the exponentials relative to it and the weighted sum of the values. `combine_splits` joins the
// splits, always in the same order: no atomics, the same bits each time. Inputs float32, bfloat16 or
// float16, sums float32.
//
// Only frames below `lengths[b]` are read, except of `previous`, which the location filter sees as
// a whole, as the reference does. No torch header: this compiles in seconds.

#pragma once

#include "types.cuh"
#include "warp.cuh"

namespace {

constexpr int kWarpFrames = 4;  // frames that a warp scores at once

// Memory as attention_step.py packs it: eight bytes a member. Its size is compared when a library is
// loaded.
struct AttentionParams {
  int64_t B, N, T, A, D, H, C, W;
  // The plan: frames of a split, a multiple of kWarpFrames, and how many splits; beams of a block;
  // columns of the keys and taps of the filters in shared memory at once; whether rows may be read
  // four columns at a time; bytes of shared memory; blocks of the second kernel to a beam and head.
  int64_t split_len, num_splits, beams, chunk, taps, vector, shared, parts;
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
  float* split_max;         // [B, H, num_splits, N]
  float* split_sum;         // [B, H, num_splits, N]
  float* split_context;     // [B, H, num_splits, N, D / H]
};

// Of this utterance; a wrong length must not make the kernel read what is not there.
__device__ __forceinline__ int length_of(const AttentionParams& p, int64_t b) {
  const int64_t length = p.lengths[b];
  return static_cast<int>(length < 1 ? 1 : length > p.T ? p.T : length);
}

// What a block works on, and its parts of the shared memory.
struct SplitTile {
  int b, h, first, beams, s, start, frames;  // beams first .. first + beams - 1
  int split_len, AH, DH;
  float* energy;    // [split_len, NB]
  float* features;  // [NB, C, split_len]
  float* scratch;   // used by one stage after another
};

// Convolve `previous` with the filters around the split: features [NB, C, split_len]. A thread takes
// four neighbouring frames of one beam and channel, and four taps at once.
__device__ __forceinline__ void location_conv(const AttentionParams& p, const SplitTile& k,
                                              int NB) {
  const int C = p.C, W = p.W, T = p.T, taps = p.taps;
  const int reach = k.split_len + taps, blocks = k.split_len / 4;
  float* window = k.scratch;             // [NB, reach]
  float* filters = window + NB * reach;  // [C, taps]
  for (int first = 0; first < W; first += taps) {
    __syncthreads();
    for (int i = threadIdx.x; i < k.beams * reach; i += kThreads) {
      const int n = i / reach, t = k.start + first - W / 2 + i % reach;
      const Input* from = p.previous + k.b * p.previous_b + (k.first + n) * p.previous_n;
      window[i] = t >= 0 && t < T ? float(load_cg(from + static_cast<int64_t>(k.h) * T + t)) : 0.0f;
    }
    for (int i = threadIdx.x; i < C * taps; i += kThreads) {
      const int c = i / taps, w = first + i % taps;
      filters[i] = w < W ? float(p.filters[c * W + w]) : 0.0f;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < k.beams * C * blocks; i += kThreads) {
      const int f = i % blocks * 4, c = i / blocks % C, n = i / blocks / C;
      const float* seen = window + n * reach + f;
      float* to = k.features + (n * C + c) * k.split_len + f;
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

// Energies of the split into k.energy. A warp takes kWarpFrames frames, its lanes the columns.
template <int NB, int width, bool dot>
__device__ __forceinline__ void score_split(const AttentionParams& p, const SplitTile& k) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, C = p.C, chunk = p.chunk;
  float* query = k.scratch;             // [NB, chunk]
  float* v = query + NB * chunk;        // [chunk]
  float* projection = v + chunk;        // [C, chunk]
  for (int from = 0; from < k.AH; from += chunk) {
    const int columns = min(chunk, k.AH - from), column = k.h * k.AH + from;
    const Input* keys = p.keys + (k.b * p.T + k.start) * p.A + column;
    __syncthreads();
    for (int i = threadIdx.x; i < k.beams * columns; i += kThreads) {
      const int n = i / columns, a = i % columns;
      const Input* q = p.query + k.b * p.query_b + (k.first + n) * p.query_n;
      query[n * chunk + a] =
          float(load_cg(q + column + a)) * (dot ? static_cast<float>(p.scale) : 1.0f);
    }
    if (!dot) {
      for (int a = threadIdx.x; a < columns; a += kThreads) v[a] = float(p.v[column + a]);
      for (int i = threadIdx.x; i < C * columns; i += kThreads)
        projection[i % C * chunk + i / C] =
            float(p.projection[static_cast<int64_t>(column) * C + i]);
    }
    __syncthreads();
    for (int f = warp * kWarpFrames; f < k.frames; f += kWarps * kWarpFrames) {
      int rows[kWarpFrames];
#pragma unroll
      for (int i = 0; i < kWarpFrames; ++i)  // those past the end repeat the last
        rows[i] = min(f + i, k.frames - 1) * static_cast<int>(p.A);
      float sums[NB * kWarpFrames] = {};
      for (int a = lane * width; a < columns; a += 32 * width) {
        float key[kWarpFrames][width], weight[width];
#pragma unroll
        for (int i = 0; i < kWarpFrames; ++i) load<width>(keys + rows[i] + a, key[i]);
        if constexpr (!dot) load<width>(v + a, weight);
#pragma unroll
        for (int n = 0; n < NB; ++n) {
          if (n >= k.beams) break;
          float q[width];
          load<width>(query + n * chunk + a, q);
          if constexpr (dot) {
#pragma unroll
            for (int i = 0; i < kWarpFrames; ++i)
#pragma unroll
              for (int j = 0; j < width; ++j) sums[n * kWarpFrames + i] += q[j] * key[i][j];
          } else {
            float x[kWarpFrames][width];
#pragma unroll
            for (int i = 0; i < kWarpFrames; ++i)
#pragma unroll
              for (int j = 0; j < width; ++j) x[i][j] = q[j] + key[i][j];
            for (int c = 0; c < C; ++c) {
              float u[width], feature[kWarpFrames];
              load<width>(projection + c * chunk + a, u);
              load<kWarpFrames>(k.features + (n * C + c) * k.split_len + f, feature);
#pragma unroll
              for (int i = 0; i < kWarpFrames; ++i)
#pragma unroll
                for (int j = 0; j < width; ++j) x[i][j] += feature[i] * u[j];
            }
#pragma unroll
            for (int i = 0; i < kWarpFrames; ++i)
#pragma unroll
              for (int j = 0; j < width; ++j)
                sums[n * kWarpFrames + i] += weight[j] * fast_tanh(x[i][j]);
          }
        }
      }
      const float sum = WarpSums<NB * kWarpFrames>::of(sums, lane);
      constexpr int each = 32 / (NB * kWarpFrames);  // lanes that hold the same sum
      const int n = lane / each / kWarpFrames, i = lane / each % kWarpFrames;
      if (lane % each == 0) {
        float* to = k.energy + (f + i) * NB + n;
        *to = from == 0 ? sum : *to + sum;
      }
    }
  }
}

// Energies -> weights relative to the split's largest, in place; a warp takes a beam.
template <int NB>
__device__ __forceinline__ void softmax_split(const AttentionParams& p, const SplitTile& k) {
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
    const float weight = fast_exp(k.energy[f * NB + n] - base);
    k.energy[f * NB + n] = weight;
    total += weight;
  }
  total = warp_sum(total);
  if (lane == 0) {
    const int64_t at = ((k.b * p.H + k.h) * p.num_splits + k.s) * p.N + k.first + n;
    p.split_max[at] = largest;
    p.split_sum[at] = total;
  }
}

// Sum of the weighted values of the split. Where a row is narrow, groups of threads share its frames
// and add up what they have, one after another.
template <int NB, int width>
__device__ __forceinline__ void weighted_sum(const AttentionParams& p, const SplitTile& k) {
  const Input* values = p.values + (k.b * p.T + k.start) * p.D + k.h * k.DH;
  const int64_t row = ((k.b * p.H + k.h) * p.num_splits + k.s) * p.N + k.first;
  float* out = p.split_context + row * static_cast<int64_t>(k.DH);
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
#pragma unroll 1
    for (int turn = 0; turn < groups; ++turn) {
      if (group == turn) {
#pragma unroll
        for (int n = 0; n < NB; ++n) {
          if (n >= k.beams) break;
          float* shared = k.scratch + n * threads * width + column;
          if (turn > 0) {
            float before[width];
            load<width>(shared, before);
#pragma unroll
            for (int j = 0; j < width; ++j) sum[n][j] += before[j];
          }
          if (turn + 1 < groups)
            store<width>(shared, sum[n]);
          else
            store_cg<width>(out + static_cast<int64_t>(n) * k.DH + from + column, sum[n]);
        }
      }
      __syncthreads();
    }
  }
}

// The split, utterance, head and first beam that `k` names, with p.shared bytes of shared memory.
template <int NB, int width, bool dot>
__device__ __forceinline__ void attend_split(const AttentionParams& p, SplitTile& k,
                                             float* shared) {
  k.beams = min(NB, static_cast<int>(p.N) - k.first);
  k.split_len = p.split_len;
  k.start = k.s * k.split_len;
  k.frames = min(k.split_len, length_of(p, k.b) - k.start);
  if (k.frames <= 0) return;  // `combine_splits` does not look at these
  k.AH = p.A / p.H;
  k.DH = p.D / p.H;
  k.energy = shared;
  k.features = k.energy + NB * k.split_len;
  k.scratch = k.features + NB * static_cast<int>(p.C) * k.split_len;
  // Weights of the beams that are not there meet the values too: keep them finite.
  for (int i = threadIdx.x; i < NB * k.split_len; i += kThreads) k.energy[i] = 0.0f;
  if (!dot && p.C > 0) location_conv(p, k, NB);
  score_split<NB, width, dot>(p, k);
  __syncthreads();
  softmax_split<NB>(p, k);
  __syncthreads();
  weighted_sum<NB, width>(p, k);
}

// Join the splits of one beam and head, the `part`-th of `parts` shares of the columns and frames.
// Where a share has few columns, groups of threads take every so many-th split: loads of one thread
// wait for each other. `weights` is shared: [num_splits], what the sums are divided by, [kThreads].
__device__ __forceinline__ void combine_splits(const AttentionParams& p, int64_t b, int n, int h,
                                               int part, int parts, float* weights) {
  const int lane = threadIdx.x % 32;
  const int length = length_of(p, b);
  const int num_splits = (length + p.split_len - 1) / p.split_len, DH = p.D / p.H;
  const int64_t at = (b * p.H + h) * p.num_splits;
  float largest = -INFINITY;  // every warp finds it for itself
  for (int s = lane; s < num_splits; s += 32)
    largest = fmaxf(largest, load_cg(p.split_max + (at + s) * p.N + n));
  largest = warp_max(largest);
  const float base = largest == -INFINITY ? 0.0f : largest;
  if (threadIdx.x < 32) {
    float total = 0.0f;
    for (int s = lane; s < num_splits; s += 32) {
      const float weight = fast_exp(load_cg(p.split_max + (at + s) * p.N + n) - base);
      weights[s] = weight;
      total += weight * load_cg(p.split_sum + (at + s) * p.N + n);
    }
    total = warp_sum(total);
    if (lane == 0) weights[p.num_splits] = 1.0f / total;
  }
  __syncthreads();
  const float scale = weights[p.num_splits];
  int threads = 32;  // of a group
  while (threads < kThreads && threads * parts < DH) threads *= 2;
  const int groups = kThreads / threads, group = threadIdx.x / threads;
  for (int from = part * threads; from < DH; from += parts * threads) {  // once, if groups > 1
    const int d = from + threadIdx.x % threads;
    float sum = 0.0f;
    for (int first = group; first < num_splits; first += 8 * groups) {
      float x[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) {  // loads that do not wait for each other
        const int s = first + i * groups;
        const float* part_sum = p.split_context + ((at + s) * p.N + n) * DH + d;
        x[i] = s < num_splits && d < DH ? load_cg(part_sum) : 0.0f;
      }
#pragma unroll
      for (int i = 0; i < 8; ++i)
        if (first + i * groups < num_splits) sum += weights[first + i * groups] * x[i];
    }
    if (groups > 1) {
      float* sums = weights + p.num_splits + 1;
      sums[threadIdx.x] = sum;
      __syncthreads();
      if (group > 0) continue;
      for (int g = 1; g < groups; ++g) sum += sums[g * threads + threadIdx.x];
    }
    if (d < DH) p.context[b * p.context_b + n * p.context_n + h * DH + d] = Input(sum * scale);
  }
  const float* energy = p.energy + ((b * p.N + n) * p.H + h) * p.T;
  Input* alignment = p.alignment + b * p.alignment_b + n * p.alignment_n + h * p.T;
  for (int t = part * kThreads + threadIdx.x; t < p.T; t += parts * kThreads)
    alignment[t] = Input(t < length ? fast_exp(load_cg(energy + t) - base) * scale : 0.0f);
}

}  // namespace
