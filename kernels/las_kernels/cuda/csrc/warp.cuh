// Sums and maxima over a warp and over a block.

#pragma once

#include "types.cuh"

namespace {

constexpr unsigned kFullMask = 0xffffffffu;

__device__ __forceinline__ float shfl_xor(float x, int offset) {
  return __shfl_xor_sync(kFullMask, x, offset);
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
      half[i] = mine + shfl_xor(upper ? x[i] : x[i + count / 2], offset);
    }
    return WarpSums<count / 2, offset / 2>::of(half, lane);
  }
};
template <int offset>
struct WarpSums<1, offset> {
  static __device__ __forceinline__ float of(float (&x)[1], int) {
    float sum = x[0];
#pragma unroll
    for (int o = offset; o > 0; o /= 2) sum += shfl_xor(sum, o);
    return sum;
  }
};

__device__ __forceinline__ float warp_max(float x) {
  for (int o = 16; o > 0; o /= 2) x = fmaxf(x, shfl_xor(x, o));
  return x;
}

__device__ __forceinline__ float warp_sum(float x) {
  for (int o = 16; o > 0; o /= 2) x += shfl_xor(x, o);
  return x;
}

// Over all threads of the block, for each of them; `parts` is shared: [kWarps].
__device__ __forceinline__ void share_part(float part, float* parts) {
  __syncthreads();  // the ones before have been read
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = part;
  __syncthreads();
}

__device__ __forceinline__ float block_max(float x, float* parts) {
  share_part(warp_max(x), parts);
  float all = parts[0];
#pragma unroll
  for (int w = 1; w < kWarps; ++w) all = fmaxf(all, parts[w]);
  return all;
}

__device__ __forceinline__ float block_sum(float x, float* parts) {
  share_part(warp_sum(x), parts);
  float all = parts[0];
#pragma unroll
  for (int w = 1; w < kWarps; ++w) all += parts[w];
  return all;
}

}  // namespace
