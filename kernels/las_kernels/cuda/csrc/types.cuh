// What all kernels share: the type of the inputs, threads of a block, numbers read several at once,
// and functions that are as exact as the inputs.

#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#ifndef LAS_TYPE
#error "attention_step.py compiles each source once for each type of the inputs, and says LAS_THREADS"
#endif

#ifndef LAS_SHARED  // the tests define these to run the kernels on a CPU
#define LAS_SHARED(name) extern __shared__ __align__(128) float name[]
#define LAS_CHECK_ALIGNED(at, bytes)
#endif

namespace {

using Input = LAS_TYPE;

constexpr int kThreads = LAS_THREADS;
constexpr int kWarps = kThreads / 32;

// For 16-bit inputs the GPU's own tanh moves a score less than the rounding of query and keys did.
__device__ __forceinline__ float fast_tanh(float x) {
#ifdef __CUDA_ARCH__
  if (sizeof(Input) == 2) {
    float y;
    asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  }
#endif
  return tanhf(x);
}

__device__ __forceinline__ float fast_exp(float x) {
  return sizeof(Input) == 2 ? __expf(x) : expf(x);
}

// What other blocks of the same launch may have written: past the first-level cache, which does not
// see it. A source with such a kernel defines LAS_LOAD_CG; elsewhere it would cost registers.
template <typename T>
__device__ __forceinline__ T load_cg(const T* from) {
#if defined(__CUDA_ARCH__) && defined(LAS_LOAD_CG)
  return __ldcg(from);
#else
  return *from;
#endif
}

template <typename T, int width>
struct alignas(sizeof(T) * width) Pack {
  T x[width];
};

// Neighbouring numbers as one: the GPU refuses them where they are not aligned.
template <int count, typename T>
__device__ __forceinline__ const Pack<T, count>& as_pack(const T* at) {
  LAS_CHECK_ALIGNED(at, sizeof(Pack<T, count>));
  return *reinterpret_cast<const Pack<T, count>*>(at);
}

template <int count, typename T>
__device__ __forceinline__ Pack<T, count>& as_pack(T* at) {
  LAS_CHECK_ALIGNED(at, sizeof(Pack<T, count>));
  return *reinterpret_cast<Pack<T, count>*>(at);
}

// How many of `width` numbers are read or written at once: 16 bytes are the most.
template <typename T, int width>
constexpr int kAtOnce = width * sizeof(T) <= 16 ? width : 16 / sizeof(T);

template <int width, typename T>
__device__ __forceinline__ void load(const T* from, float (&to)[width]) {
  constexpr int each = kAtOnce<T, width>;
#pragma unroll
  for (int i = 0; i < width; i += each) {
    const Pack<T, each> pack = as_pack<each>(from + i);
#pragma unroll
    for (int j = 0; j < each; ++j) to[i + j] = static_cast<float>(pack.x[j]);
  }
}

template <int width>
__device__ __forceinline__ void store(float* to, const float (&from)[width]) {
  constexpr int each = kAtOnce<float, width>;
#pragma unroll
  for (int i = 0; i < width; i += each) {
    Pack<float, each> pack;
#pragma unroll
    for (int j = 0; j < each; ++j) pack.x[j] = from[i + j];
    as_pack<each>(to + i) = pack;
  }
}

// The same for what other blocks read; of a Pack in global memory the compiler makes four stores.
template <int width>
__device__ __forceinline__ void store_cg(float* to, const float (&from)[width]) {
#ifdef __CUDA_ARCH__
  if constexpr (width == 1) {
    __stcg(to, from[0]);
  } else {
    static_assert(width % 4 == 0);
#pragma unroll
    for (int i = 0; i < width; i += 4)
      __stcg(reinterpret_cast<float4*>(to + i),
             make_float4(from[i], from[i + 1], from[i + 2], from[i + 3]));
  }
#else
  store<width>(to, from);
#endif
}

}  // namespace
