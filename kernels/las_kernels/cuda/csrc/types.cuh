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

#ifndef LAS_SHARED  // the tests define it to run the kernels on a CPU
#define LAS_SHARED(name) extern __shared__ __align__(128) float name[]
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

template <int width, typename T>
__device__ __forceinline__ void load(const T* from, float (&to)[width]) {
  const Pack<T, width> pack = *reinterpret_cast<const Pack<T, width>*>(from);
#pragma unroll
  for (int j = 0; j < width; ++j) to[j] = static_cast<float>(pack.x[j]);
}

}  // namespace
