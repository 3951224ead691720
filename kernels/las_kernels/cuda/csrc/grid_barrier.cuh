// A barrier among all blocks of a cooperative launch.

#pragma once

#include "types.cuh"

#ifndef LAS_PAUSE  // the tests define it to run the kernel on a CPU
#define LAS_PAUSE()
#endif

namespace {

// One more block has come; releases what it wrote, and what it saw others write, to who acquires.
__device__ __forceinline__ void red_release(unsigned* counter) {
#ifdef __CUDA_ARCH__
  asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(__cvta_generic_to_global(counter))
               : "memory");
#else
  atomicAdd(counter, 1u);
#endif
}

__device__ __forceinline__ unsigned ld_acquire(const unsigned* counter) {
#ifdef __CUDA_ARCH__
  unsigned count;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
               : "=r"(count)
               : "l"(__cvta_generic_to_global(counter))
               : "memory");
  return count;
#else
  return *reinterpret_cast<const volatile unsigned*>(counter);
#endif
}

// All blocks wait until all have come here; what each wrote before, all see after. The barriers put
// the other threads of a block before the one that releases and after the one that acquires, which
// the PTX memory model carries on (causality order): no fence by every warp.
__device__ __forceinline__ void grid_barrier(unsigned* arrivals, unsigned& generation) {
  __syncthreads();
  ++generation;
  if (threadIdx.x == 0) {
    red_release(arrivals);
    while (ld_acquire(arrivals) < generation * gridDim.x) LAS_PAUSE();
  }
  __syncthreads();
}

}  // namespace
