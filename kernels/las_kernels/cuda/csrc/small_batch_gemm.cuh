// Products of the decoder's matrices with the inputs of all utterances, for persistent_decoder.cu:
// every block multiplies the rows that it holds, in shared memory as far as they fit.
//
// For 16-bit inputs whose sizes allow it on tensor cores, for one utterance too, so that the others
// of a batch do not change the bits of one; else by sums in float32.

#pragma once

#include <type_traits>

#include "types.cuh"
#include "warp.cuh"

namespace {

// Of attention_step.py, which plans with them.
constexpr int kBatchTile = LAS_BATCH_TILE;    // utterances that one reading of the weights serves
constexpr int kWarpRows = LAS_WARP_ROWS;      // rows of a matrix that a warp multiplies at once
constexpr int kRowTiles = LAS_ROW_TILES;      // of 16 rows each, summed at once
constexpr int kBatchTiles = LAS_BATCH_TILES;  // of kBatchTile utterances each

// Rows of a matrix that every block holds: so many groups of kWarpRows each.
struct WeightSlice {
  const Input* weights;  // [rows, columns]
  int64_t rows, columns, groups;
  int64_t at;      // where they are in shared memory, in elements; negative: not there
  int64_t stride;  // from one to the next there
};

// The block's rows into shared memory, `width` numbers at once; those past the last repeat it.
template <int width>
__device__ __forceinline__ void load_resident(const WeightSlice& rows, Input* shared) {
  if (rows.at < 0) return;
  const int64_t first = blockIdx.x * rows.groups * kWarpRows, columns = rows.columns / width;
#pragma unroll 4
  for (int64_t i = threadIdx.x; i < rows.groups * kWarpRows * columns; i += kThreads) {
    const int64_t row = i / columns, column = i % columns * width;
    const int64_t from = first + row < rows.rows ? first + row : rows.rows - 1;
    as_pack<width>(shared + rows.at + row * rows.stride + column) =
        as_pack<width>(rows.weights + from * rows.columns + column);
  }
}

// A row, of those of this block.
__device__ __forceinline__ const Input* slice_row(const WeightSlice& rows, const Input* shared,
                                                  int row) {
  if (rows.at >= 0) return shared + rows.at + row * rows.stride;
  const int64_t from = blockIdx.x * rows.groups * kWarpRows + row;
  return rows.weights + (from < rows.rows ? from : rows.rows - 1) * rows.columns;
}

// Neighbouring numbers that other blocks may have written.
template <int count>
__device__ __forceinline__ Pack<Input, count> load_cg_vec(const Input* from) {
  if constexpr (count == 1) return {load_cg(from)};
#ifdef __CUDA_ARCH__
  static_assert(count == 1 || sizeof(Pack<Input, count>) == sizeof(uint4));
  const uint4 bits = load_cg(reinterpret_cast<const uint4*>(from));
  return reinterpret_cast<const Pack<Input, count>&>(bits);
#else
  return as_pack<count>(from);
#endif
}

template <int count>
using Count = std::integral_constant<int, count>;

// Two ways to multiply the block's rows, of which K columns count (0: sums of nothing).
// `load_input(b, column, count)` gives neighbouring inputs of an utterance, count 1 or 8 as a type.
// `epilogue(row, b, sum, valid)` is called by all lanes of a warp: lane l has row l / kBatchTile of a
// group and utterance l % kBatchTile of those multiplied together.
template <int each>
struct SimtGemm {
  static constexpr int width = each;  // weights are read so many at once

  template <typename Load, typename Epilogue>
  static __device__ __forceinline__ void multiply(int B, int chunk, const WeightSlice& rows, int K,
                                                  const Input* shared, float* x, Load load_input,
                                                  Epilogue epilogue) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, groups = rows.groups;
    const int first_row = blockIdx.x * groups * kWarpRows, last = rows.rows - 1;
    if (first_row > last) return;
    for (int first = 0; first < B; first += kBatchTile) {
      for (int round = 0; round < groups; round += kWarps) {
        const int group = round + warp, row = first_row + group * kWarpRows;
        const bool busy = group < groups && row <= last;
        float sums[kWarpRows * kBatchTile] = {};
        for (int begin = 0; begin < K; begin += chunk) {
          const int columns = min(chunk, K - begin);
          __syncthreads();
          for (int i = threadIdx.x; i < kBatchTile * columns; i += kThreads) {
            const int n = i / columns, k = i % columns;
            const bool there = first + n < B;
            x[n * chunk + k] =
                there ? float(load_input(first + n, begin + k, Count<1>()).x[0]) : 0.0f;
          }
          __syncthreads();
          if (!busy) continue;
          const Input* weights[kWarpRows];
#pragma unroll
          for (int r = 0; r < kWarpRows; ++r)
            weights[r] = slice_row(rows, shared, group * kWarpRows + r) + begin;
          for (int k = lane * width; k < columns; k += 32 * width) {
            float weight[kWarpRows][width];
#pragma unroll
            for (int r = 0; r < kWarpRows; ++r) load<width>(weights[r] + k, weight[r]);
#pragma unroll
            for (int n = 0; n < kBatchTile; ++n) {
              float input[width];
              load<width>(x + n * chunk + k, input);
#pragma unroll
              for (int r = 0; r < kWarpRows; ++r)
#pragma unroll
                for (int j = 0; j < width; ++j)
                  sums[r * kBatchTile + n] += weight[r][j] * input[j];
            }
          }
        }
        if (!busy) continue;
        const float sum = WarpSums<kWarpRows * kBatchTile>::of(sums, lane);
        const int r = lane / kBatchTile, b = first + lane % kBatchTile;
        epilogue(row + r, b, sum, row + r <= last && b < B);
      }
    }
  }
};

// d += a b of 16 rows, 16 columns of them and 8 utterances: PTX's mma.m16n8k16, which says what
// each lane holds.
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const unsigned (&a)[4],
                                              const unsigned (&b)[2]) {
#ifdef __CUDA_ARCH__
#define LAS_MMA_AS(type)                                                                            \
  asm("mma.sync.aligned.m16n8k16.row.col.f32." type "." type                                        \
      ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                        \
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                              \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
  if constexpr (std::is_same<Input, __half>::value)
    LAS_MMA_AS("f16");
  else
    LAS_MMA_AS("bf16");
#undef LAS_MMA_AS
#elif defined(LAS_MMA)  // the tests define it to run the kernel on a CPU
  LAS_MMA(Input, d, a, b);
#endif
}

// On tensor cores. Warps take turns at 32 columns. Of these a lane has eight neighbours, of its rows
// and of its utterance, read at once: which columns an instruction is given does not matter so long
// as weights and inputs agree.
struct TensorCoreGemm {
  static constexpr int width = 8;

  template <typename Load, typename Epilogue>
  static __device__ __forceinline__ void multiply(int B, int, const WeightSlice& rows, int K,
                                                  const Input* shared, float* parts, Load load_input,
                                                  Epilogue epilogue) {
    if (blockIdx.x * rows.groups * kWarpRows >= rows.rows) return;
    for (int first = 0; first < B;) {
      const int tiles = B - first > kBatchTile ? kBatchTiles : 1;
      for (int row = 0; row < rows.groups * kWarpRows; row += 16 * kRowTiles) {
        if (tiles == 1)
          sum<1>(B, rows, K, shared, parts, first, row, load_input);
        else
          sum<kBatchTiles>(B, rows, K, shared, parts, first, row, load_input);
        __syncthreads();
        join(B, rows, parts, tiles, first, row, epilogue);
        __syncthreads();
      }
      first += tiles * kBatchTile;
    }
  }

 private:
  // Sums of each warp's columns into parts [kWarps, kRowTiles, tiles, 16, kBatchTile].
  template <int tiles, typename Load>
  static __device__ __forceinline__ void sum(int B, const WeightSlice& rows, int K,
                                             const Input* shared, float* parts, int first,
                                             int row, Load load_input) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int held = rows.groups * kWarpRows;
    const Input* weights[kRowTiles][2];
#pragma unroll
    for (int i = 0; i < 2 * kRowTiles; ++i)  // those past the end repeat the last
      weights[i / 2][i % 2] = slice_row(rows, shared, min(row + i * 8 + lane / 4, held - 1));
    float sums[kRowTiles][tiles][4] = {};
#pragma unroll 2
    for (int k = warp * 32; k < K; k += kWarps * 32) {
      const int wanted = k + lane % 4 * 8;
      const int column = min(wanted, K - 8);
      unsigned input[tiles][4], weight[kRowTiles][2][4];
#pragma unroll
      for (int n = 0; n < tiles; ++n) {
        const int b = min(first + n * kBatchTile + lane / 4, B - 1);
        const auto pack = load_input(b, column, Count<8>());
#pragma unroll
        for (int j = 0; j < 4; ++j)
          input[n][j] = wanted < K ? reinterpret_cast<const unsigned*>(pack.x)[j] : 0u;
      }
#pragma unroll
      for (int i = 0; i < 2 * kRowTiles; ++i) {
        const auto pack = as_pack<8>(weights[i / 2][i % 2] + column);
#pragma unroll
        for (int j = 0; j < 4; ++j)
          weight[i / 2][i % 2][j] = reinterpret_cast<const unsigned*>(pack.x)[j];
      }
#pragma unroll
      for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int i = 0; i < kRowTiles; ++i) {
          const unsigned a[4] = {weight[i][0][2 * half], weight[i][1][2 * half],
                                 weight[i][0][2 * half + 1], weight[i][1][2 * half + 1]};
#pragma unroll
          for (int n = 0; n < tiles; ++n) {
            const unsigned b[2] = {input[n][2 * half], input[n][2 * half + 1]};
            mma_m16n8k16(sums[i][n], a, b);
          }
        }
    }
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i)
#pragma unroll
      for (int n = 0; n < tiles; ++n)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float* to = parts + ((warp * kRowTiles + i) * tiles + n) * 16 * kBatchTile +
                      half * 8 * kBatchTile + lane * 2;
          as_pack<2>(to) = {sums[i][n][2 * half], sums[i][n][2 * half + 1]};
        }
  }

  // The warps' sums together, always in the same order.
  template <typename Epilogue>
  static __device__ __forceinline__ void join(int B, const WeightSlice& rows, const float* parts,
                                              int tiles, int first, int row, Epilogue epilogue) {
    const int lane = threadIdx.x % 32, last = rows.rows - 1, held = rows.groups * kWarpRows;
    const int groups = min(held - row, 16 * kRowTiles) / kWarpRows;
    for (int item = threadIdx.x / 32; item < groups * tiles; item += kWarps) {
      const int group = item / tiles, n = item % tiles;
      const float* at = parts + (group / 4 * tiles + n) * 16 * kBatchTile + group % 4 * 32 + lane;
      float sum = 0.0f;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) sum += at[w * kRowTiles * tiles * 16 * kBatchTile];
      const int mine = blockIdx.x * held + row + group * kWarpRows + lane / kBatchTile;
      const int b = first + n * kBatchTile + lane % kBatchTile;
      epilogue(mine, b, sum, mine <= last && b < B);
    }
  }
};

}  // namespace
