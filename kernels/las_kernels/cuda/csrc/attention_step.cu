// One step of attention for decoding on an NVIDIA GPU: scores, softmax and context of up to eight
// beams that share one reading of the memory, as split-KV. The definition of right is reference.py;
// attention_step.py plans the launch and calls LAS_NAME. Nothing makes the host wait, so that a step
// can be captured in a graph.

#include "attention_step.cuh"

#ifndef LAS_LAUNCH  // the tests define it to run the kernels on a CPU
#define LAS_LAUNCH(kernel, grid, bytes, stream, p) kernel<<<grid, kThreads, bytes, stream>>>(p)
#endif

namespace {

template <int NB, int width, bool dot>
__global__ void __launch_bounds__(kThreads, 2) attention_split_kernel(AttentionParams p) {
  LAS_SHARED(shared);
  const int blocks = (p.N + NB - 1) / NB;
  SplitTile k;
  k.b = blockIdx.x / blocks;
  k.first = blockIdx.x % blocks * NB;
  k.s = blockIdx.y;
  k.h = blockIdx.z;  // computed, it would take the register that eight beams lack
  attend_split<NB, width, dot>(p, k, shared);
}

__global__ void __launch_bounds__(kThreads, 4) attention_combine_kernel(AttentionParams p) {
  LAS_SHARED(weights);
  combine_splits(p, blockIdx.x / p.H / p.N, blockIdx.x / p.H % p.N, blockIdx.x % p.H, blockIdx.y,
             gridDim.y, weights);
}

template <int NB, int width, bool dot>
cudaError_t launch(const AttentionParams& p, cudaStream_t stream) {
  const int64_t blocks = (p.N + NB - 1) / NB;
  if (p.shared > 48 * 1024) {  // more than a kernel gets without asking
    const cudaError_t error =
        cudaFuncSetAttribute(reinterpret_cast<const void*>(attention_split_kernel<NB, width, dot>),
                             cudaFuncAttributeMaxDynamicSharedMemorySize, int(p.shared));
    if (error != cudaSuccess) return error;
  }
  const auto kernel = attention_split_kernel<NB, width, dot>;
  LAS_LAUNCH(kernel, dim3(p.B * blocks, p.num_splits, p.H), p.shared, stream, p);
  LAS_LAUNCH(attention_combine_kernel, dim3(p.B * p.N * p.H, p.parts),
             sizeof(float) * (p.num_splits + 1 + kThreads), stream, p);
  return cudaGetLastError();
}

template <int NB>
cudaError_t choose(const AttentionParams& p, cudaStream_t stream) {
  if (p.vector) {
    if (p.v == nullptr) return launch<NB, 4, true>(p, stream);
    return launch<NB, 4, false>(p, stream);
  }
  if (p.v == nullptr) return launch<NB, 1, true>(p, stream);
  return launch<NB, 1, false>(p, stream);
}

}  // namespace

// A cudaError_t, 0 for none; returns before the kernels have run, on the current device.
// With a type of this file as argument nvcc would take the function for one of this file alone.
extern "C" int LAS_NAME(const void* problem, void* stream) {
  const AttentionParams& p = *static_cast<const AttentionParams*>(problem);
  const auto on = static_cast<cudaStream_t>(stream);
  return p.beams == 1 ? choose<1>(p, on) : p.beams == 4 ? choose<4>(p, on) : choose<8>(p, on);
}

extern "C" int64_t LAS_SIZE(void) { return sizeof(AttentionParams); }

extern "C" const char* LAS_MESSAGE(int error) {
  return cudaGetErrorString(static_cast<cudaError_t>(error));
}
