// Enough of CUDA to run the sources of csrc/ on a CPU, compiled by a C++ compiler: one block at a
// time, or the blocks of a cooperative launch all at once.
//
// Every thread of a block is a fiber that runs until it waits for the others, at __syncthreads or
// at an exchange within its warp. Fibers run in ascending or in descending order: a kernel whose
// result depends on the order lacks a barrier. Shared memory starts as NaN, so that what is read
// before it is written shows. A block that waits for ever, that writes beyond its shared memory, or
// that takes several numbers at once where they are not aligned, ends with an error.

#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define LAS_LAUNCH(kernel, grid, bytes, stream, p) \
  emulator::launch([&] { kernel(p); }, grid, kThreads, bytes, false)
#define LAS_LAUNCH_COOPERATIVE(kernel, grid, bytes, stream, p) \
  emulator::launch([&] { kernel(p); }, grid, kThreads, bytes, true)
#define LAS_SHARED(name) float* const name = emulator::state.block->shared
#define LAS_CHECK_ALIGNED(at, bytes) \
  if (reinterpret_cast<uintptr_t>(at) % (bytes) != 0) emulator::state.failed = true
#define LAS_PAUSE() emulator::yield()
#define LAS_MMA(type, d, a, b) emulator::mma_m16n8k16<type>(d, a, b)

struct dim3 {
  unsigned x, y, z;
  dim3(int64_t x = 1, int64_t y = 1, int64_t z = 1) : x(x), y(y), z(z) {}
};
inline dim3 threadIdx, blockIdx, gridDim, blockDim;

typedef int cudaError_t;
typedef void* cudaStream_t;
constexpr int cudaSuccess = 0, cudaErrorLaunchFailure = 719;
constexpr int cudaFuncAttributeMaxDynamicSharedMemorySize = 8;

namespace emulator {

struct Fiber {
  ucontext_t start;
  jmp_buf at;
  bool started = false, done = false;
  std::unique_ptr<char[]> stack;
};

struct Warp {
  int arrived = 0, generation = 0;
  float slots[2][32];
  unsigned tiles[2][32][6];
};

struct Block {
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  std::vector<float> memory;
  float* shared = nullptr;
  int live = 0, waiting = 0, barrier = 0;
  dim3 index;
};

struct State {
  ucontext_t main_start;
  jmp_buf main;
  std::vector<Block> blocks;  // that run at once
  Block* block = nullptr;     // whose thread runs
  std::function<void()> kernel;
  int current = 0;
  int64_t progress = 0;
  bool descending = false, failed = false;
};
inline State state;

constexpr size_t kStack = 1 << 16;

__attribute__((noinline)) inline void yield() {
  if (_setjmp(state.block->fibers[state.current].at) == 0) _longjmp(state.main, 1);
}

inline void run() {
  state.kernel();
  Block& block = *state.block;
  block.fibers[state.current].done = true;
  ++state.progress;
  // A barrier waits only for threads that still run.
  if (--block.live > 0 && block.waiting == block.live) {
    block.waiting = 0;
    ++block.barrier;
  }
  _longjmp(state.main, 1);
}

__attribute__((noinline)) inline void resume(Block& block, int index) {
  Fiber& fiber = block.fibers[index];
  state.block = &block;
  state.current = index;
  threadIdx = dim3(index);
  blockIdx = block.index;
  if (_setjmp(state.main) != 0) return;
  if (fiber.started) _longjmp(fiber.at, 1);
  fiber.started = true;
  setcontext(&fiber.start);
}

inline void prepare(Block& block, dim3 index, int threads, size_t bytes) {
  block.memory.assign(bytes / sizeof(float) + 64, std::numeric_limits<float>::quiet_NaN());
  const auto address = reinterpret_cast<uintptr_t>(block.memory.data());
  block.shared = reinterpret_cast<float*>((address + 127) / 128 * 128);
  block.warps.assign(threads / 32, Warp());
  block.live = threads;
  block.waiting = block.barrier = 0;
  block.index = index;
  block.fibers.resize(threads);
  for (Fiber& fiber : block.fibers) {
    if (!fiber.stack) fiber.stack = std::make_unique<char[]>(kStack);
    fiber.started = fiber.done = false;
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = fiber.stack.get();
    fiber.start.uc_stack.ss_size = kStack;
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, run, 0);
  }
}

// Run the blocks in state.blocks to their ends.
inline void run_blocks(int threads, size_t bytes) {
  const int count = static_cast<int>(state.blocks.size());
  for (bool live = true; live;) {
    const int64_t before = state.progress;
    live = false;
    for (int j = 0; j < count; ++j) {
      Block& block = state.blocks[state.descending ? count - 1 - j : j];
      for (int i = 0; i < threads; ++i) {
        const int index = state.descending ? threads - 1 - i : i;
        if (!block.fibers[index].done) resume(block, index);
      }
      live = live || block.live > 0;
    }
    if (live && state.progress == before) {
      state.failed = true;
      return;
    }
  }
  for (Block& block : state.blocks)
    for (int i = 0; i < 32 && block.shared + bytes / sizeof(float) + i < &block.memory.back(); ++i)
      if (!std::isnan(block.shared[bytes / sizeof(float) + i])) state.failed = true;
}

inline void launch(std::function<void()> kernel, dim3 grid, int threads, size_t bytes,
                   bool together) {
  state.kernel = kernel;
  gridDim = grid;
  blockDim = dim3(threads);
  const unsigned count = grid.x * grid.y * grid.z;
  state.blocks.resize(together ? count : 1);
  for (unsigned i = 0; i < count && !state.failed; ++i) {
    const dim3 index(i % grid.x, i / grid.x % grid.y, i / grid.x / grid.y);
    prepare(state.blocks[together ? i : 0], index, threads, bytes);
    if (!together) run_blocks(threads, bytes);
  }
  if (together) run_blocks(threads, bytes);
}

}  // namespace emulator

inline void __syncthreads() {
  emulator::Block& block = *emulator::state.block;
  const int barrier = block.barrier;
  if (++block.waiting == block.live) {
    block.waiting = 0;
    ++block.barrier;
    ++emulator::state.progress;
  }
  while (block.barrier == barrier) emulator::yield();
}

namespace emulator {

// Waits until all lanes have come here.
inline void meet(Warp& warp) {
  const int generation = warp.generation;
  if (++warp.arrived == 32) {
    warp.arrived = 0;
    ++warp.generation;
    ++state.progress;
  }
  while (warp.generation == generation) yield();
}

// PTX's mma.m16n8k16: d[16, 8] += a[16, 16] b[16, 8], each register of a and b two 16-bit numbers.
template <typename T>
inline void mma_m16n8k16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  Warp& warp = state.block->warps[state.current / 32];
  const int lane = state.current % 32;
  auto& tiles = warp.tiles[warp.generation % 2];
  std::copy(a, a + 4, tiles[lane]);
  std::copy(b, b + 2, tiles[lane] + 4);
  meet(warp);
  const auto number = [&](int lane, int k, int half) {
    const uint16_t bits = tiles[lane][half] >> k % 2 * 16;
    return static_cast<float>(reinterpret_cast<const T&>(bits));
  };
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    for (int k = 0; k < 16; ++k)
      d[i] += number(row % 8 * 4 + k % 8 / 2, k, row / 8 + k / 8 * 2) *
              number(column * 4 + k % 8 / 2, k, 4 + k / 8);
  }
}

}  // namespace emulator

inline float __shfl_xor_sync(unsigned, float x, int offset) {
  emulator::Warp& warp = emulator::state.block->warps[emulator::state.current / 32];
  const int lane = emulator::state.current % 32;
  const auto& slots = warp.slots[warp.generation % 2];
  warp.slots[warp.generation % 2][lane] = x;
  emulator::meet(warp);
  return slots[lane ^ offset];
}

inline unsigned atomicAdd(unsigned* to, unsigned more) {
  ++emulator::state.progress;
  const unsigned before = *to;
  *to += more;
  return before;
}
inline void __threadfence() {}

inline float __expf(float x) { return expf(x); }
using std::min;
inline int min(int64_t x, int y) { return x < y ? int(x) : y; }

inline cudaError_t cudaFuncSetAttribute(const void*, int, int) { return cudaSuccess; }
inline cudaError_t cudaGetLastError() {
  const bool failed = emulator::state.failed;
  emulator::state.failed = false;
  return failed ? cudaErrorLaunchFailure : cudaSuccess;
}
inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorLaunchFailure
             ? "threads wait for each other, write beyond, or read what is not aligned"
             : "no error";
}

extern "C" __attribute__((weak)) void las_emulator_order(int descending) {
  emulator::state.descending = descending != 0;
}
