// Sums and maxima over a warp.

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

}  // namespace
