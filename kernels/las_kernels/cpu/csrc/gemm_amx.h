// The products of gemm.h on matrices rounded to bfloat16, with sums in float32, by the tiles
// of Intel's AMX: of 16 rows of 64 bytes. A tile of the left factor is [16, 32], one of the right one
// [16 pairs of k, 16, 2]. Every sum is taken in the order of k whatever rows stand beside a row.
//
// LAS_EMULATED_TILES puts C++ in the place of the instructions, for tests on any processor.

#pragma once

#include "gemm.h"

#if defined(LAS_EMULATED_TILES)
#include "amx_emulation.h"
#else
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

namespace tiles {

constexpr int64_t kSide = 16;   // rows of a tile, and columns of a tile of sums
constexpr int64_t kPart = 32;   // of k in a tile
constexpr int64_t kTile = 512;  // numbers of a tile of bfloat16
constexpr int64_t kJoined = 4;  // tiles of columns of a packed weight are a multiple of it
constexpr int64_t kManyRows = 4 * kSide;  // rows of a task

inline int64_t parts(int64_t K) { return (K + kPart - 1) / kPart; }
inline int64_t columns_of_tiles(int64_t N) { return round_up((N + kSide - 1) / kSide, kJoined); }
inline int64_t packed_size(int64_t N, int64_t K) {
  return columns_of_tiles(N) * parts(K) * kTile / 2;
}

// Ask the system for the tiles, once a process: 0 where it grants them.
inline int64_t allow() {
#if defined(LAS_EMULATED_TILES)
  return 0;
#else
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData);
#endif
}

// What was written before is in memory: the instructions read it behind the compiler's back, who
// takes them for functions of an address.
inline void written(const void* at) { asm volatile("" : : "r"(at) : "memory"); }

// A thread's tiles, all whole, while this lives.
class Configured {
 public:
  Configured() {
    struct alignas(64) {
      uint8_t palette = 1, start = 0, reserved[14] = {};
      uint16_t bytes[16] = {};
      uint8_t rows[16] = {};
    } shape;
    for (int i = 0; i < 8; ++i) {
      shape.bytes[i] = 64;
      shape.rows[i] = 16;
    }
    written(&shape);
    _tile_loadconfig(&shape);
  }
  ~Configured() { _tile_release(); }
  Configured(const Configured&) = delete;
  Configured& operator=(const Configured&) = delete;
};

using Halves = std::unique_ptr<uint16_t, Free>;
inline Halves halves(int64_t count) {
  return Halves(reinterpret_cast<uint16_t*>(floats((count + 1) / 2).release()));
}

typedef uint16_t HalfVec __attribute__((vector_size(2 * kLanes)));
typedef BitsVec LooseBits __attribute__((aligned(4), may_alias));

// Rounded to the nearest, ties to even, in the low halves; NaN stays NaN.
inline BitsVec rounded_bits(Vec x) {
  const BitsVec bits = (BitsVec)x;
  const BitsVec near = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const BitsVec nan = (bits >> 16) | 0x40u;
  return x == x ? near : nan;
}

inline HalfVec rounded(Vec x) { return __builtin_convertvector(rounded_bits(x), HalfVec); }

inline void round_row(const float* from, int64_t count, uint16_t* to) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const HalfVec lanes = rounded(load(from + i));
    std::memcpy(to + i, &lanes, sizeof(lanes));
  }
  if (i == count) return;
  const HalfVec lanes = rounded(load_part(from + i, count - i));
  std::memcpy(to + i, &lanes, sizeof(uint16_t) * (count - i));
}

// A tile of a matrix whose row k is `count` floats from `row(k)` on, k from 0 to `depth`.
template <class Row>
inline void pack_rows(int64_t count, int64_t depth, const Row& row, uint16_t* to) {
  for (int64_t k = 0; k < kPart; k += 2)
    for (int64_t n = 0; n < kSide; n += kLanes) {
      BitsVec low{}, high{};
      if (k < depth && n < count) low = rounded_bits(load_upto(row(k) + n, count - n));
      if (k + 1 < depth && n < count) high = rounded_bits(load_upto(row(k + 1) + n, count - n));
      *reinterpret_cast<LooseBits*>(to + k * kSide + 2 * n) = low | (high << 16);
    }
}

// A tile of a matrix whose column n is `depth` floats from `column(n)` on, n from 0 to `count`.
template <class Column>
inline void pack_columns(int64_t count, int64_t depth, const Column& column, uint16_t* to) {
  uint16_t halves[kPart];
  for (int64_t n = 0; n < kSide; ++n) {
    if (n >= count || depth < kPart) std::fill_n(halves, kPart, uint16_t{0});
    if (n < count) round_row(column(n), depth, halves);
    for (int64_t k = 0; k < kPart; k += 2)  // a pair at a time
      std::memcpy(to + k * kSide + 2 * n, halves + k, 2 * sizeof(uint16_t));
  }
}

// Tiles [columns of tiles, parts of K, 16, 16, 2] of a matrix whose rows or columns are contiguous:
// element (n, k) is `from[n * n_stride + k * k_stride]`, and one of the strides is 1.
inline void pack_all(const float* from, int64_t n_stride, int64_t k_stride, int64_t N, int64_t K,
                     float* packed) {
  const int64_t depth = parts(K);
  at::parallel_for(0, columns_of_tiles(N), 4, [&](int64_t begin, int64_t end) {
    uint16_t* to = reinterpret_cast<uint16_t*>(packed) + begin * depth * kTile;
    for (int64_t column = begin; column < end; ++column)
      for (int64_t part = 0; part < depth; ++part, to += kTile) {
        const int64_t count = std::max<int64_t>(0, std::min(kSide, N - column * kSide));
        const int64_t left = std::min(kPart, K - part * kPart);
        const float* first = from + column * kSide * n_stride + part * kPart * k_stride;
        if (n_stride == 1)
          pack_rows(count, left, [&](int64_t k) { return first + k * k_stride; }, to);
        else
          pack_columns(count, left, [&](int64_t n) { return first + n * n_stride; }, to);
      }
  });
}

// The same of a matrix whose rows k are those of a list.
inline void pack_list(const float* const* rows, int64_t N, int64_t K, float* packed) {
  const int64_t depth = parts(K);
  at::parallel_for(0, columns_of_tiles(N), 4, [&](int64_t begin, int64_t end) {
    uint16_t* to = reinterpret_cast<uint16_t*>(packed) + begin * depth * kTile;
    for (int64_t column = begin; column < end; ++column)
      for (int64_t part = 0; part < depth; ++part, to += kTile) {
        const int64_t count = std::max<int64_t>(0, std::min(kSide, N - column * kSide));
        const float* const* own = rows + part * kPart;
        pack_rows(count, std::min(kPart, K - part * kPart),
                  [&](int64_t k) { return own[k] + column * kSide; }, to);
      }
  });
}

// sums [16, 64] = 16 rows of a times four columns of tiles; `width` numbers of a row of a.
inline void one_by_four(const uint16_t* a, int64_t width, const uint16_t* b, float* sums) {
  const int64_t depth = width / kPart, bytes = 2 * width;
  written(a);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t k = 0; k < depth; ++k) {
    _tile_loadd(4, a + k * kPart, bytes);
    _tile_loadd(5, b + k * kTile, 64);
    _tile_dpbf16ps(0, 4, 5);
    _tile_loadd(6, b + (depth + k) * kTile, 64);
    _tile_dpbf16ps(1, 4, 6);
    _tile_loadd(5, b + (2 * depth + k) * kTile, 64);
    _tile_dpbf16ps(2, 4, 5);
    _tile_loadd(6, b + (3 * depth + k) * kTile, 64);
    _tile_dpbf16ps(3, 4, 6);
  }
  _tile_stored(0, sums, 256);
  _tile_stored(1, sums + 16, 256);
  _tile_stored(2, sums + 32, 256);
  _tile_stored(3, sums + 48, 256);
}

// sums [32, 32] = 32 rows of a times two columns of tiles.
inline void two_by_two(const uint16_t* a, int64_t width, const uint16_t* b, float* sums) {
  const int64_t depth = width / kPart, bytes = 2 * width;
  written(a);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t k = 0; k < depth; ++k) {
    _tile_loadd(4, a + k * kPart, bytes);
    _tile_loadd(6, b + k * kTile, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b + (depth + k) * kTile, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, a + kSide * width + k * kPart, bytes);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, sums, 128);
  _tile_stored(1, sums + 16, 128);
  _tile_stored(2, sums + 16 * 32, 128);
  _tile_stored(3, sums + 16 * 32 + 16, 128);
}

// out = start + sums for `columns` of them, in whole vectors where there are.
inline void add_row(const float* sums, int64_t columns, const float* start, float* out) {
  int64_t n = 0;
  for (; n + kLanes <= columns; n += kLanes) store(out + n, load(start + n) + load(sums + n));
  for (; n < columns; ++n) out[n] = start[n] + sums[n];
}

// Rows of floats as rows of `width` halves, zero beyond K.
inline void round_rows(int64_t rows, const float* const* a, int64_t K, int64_t width,
                       uint16_t* to) {
  for (int64_t r = 0; r < rows; ++r) {
    round_row(a[r], K, to + r * width);
    std::fill(to + r * width + K, to + (r + 1) * width, uint16_t{0});
  }
}

inline void few_rows(int64_t rows, const float* const* a, const float* packed, int64_t K, int64_t N,
                     const float* const* start, float* const* out) {
  const uint16_t* weight = reinterpret_cast<const uint16_t*>(packed);
  const int64_t width = parts(K) * kPart;
  static thread_local std::vector<uint16_t> rounded_rows;
  rounded_rows.resize(kSide * width);
  alignas(64) float sums[kSide * 64];
  const Configured configured;
  for (int64_t r0 = 0; r0 < rows; r0 += kSide) {
    const int64_t count = std::min(kSide, rows - r0);
    round_rows(count, a + r0, K, width, rounded_rows.data());
    for (int64_t n = 0; n < N; n += 64) {
      one_by_four(rounded_rows.data(), width, weight + n / kSide * width * kSide, sums);
      for (int64_t r = 0; r < count; ++r)
        add_row(sums + r * 64, std::min<int64_t>(64, N - n), start[r0 + r] + n, out[r0 + r] + n);
    }
  }
}

// What `many_rows` and `outer_sum` share: out = start + a weight, `count` rows of halves.
inline void block(const uint16_t* a, int64_t count, int64_t width, const uint16_t* weight,
                  int64_t N, const float* const* start, float* const* out) {
  alignas(64) float sums[32 * 32];
  for (int64_t n = 0; n < N; n += 32)
    for (int64_t r0 = 0; r0 < count; r0 += 32) {
      two_by_two(a + r0 * width, width, weight + n / kSide * width * kSide, sums);
      for (int64_t r = r0; r < std::min(r0 + 32, count); ++r)
        add_row(sums + (r - r0) * 32, std::min<int64_t>(32, N - n), start[r] + n, out[r] + n);
    }
}

inline void many_rows(const Rows& a, const float* packed, int64_t K, int64_t N, const float* bias,
                      const OutRows& out) {
  const uint16_t* weight = reinterpret_cast<const uint16_t*>(packed);
  const int64_t rows = static_cast<int64_t>(a.size()), width = parts(K) * kPart;
  const std::vector<float> zero(bias ? 0 : N);
  const Rows start(kManyRows, bias ? bias : zero.data());
  at::parallel_for(0, (rows + kManyRows - 1) / kManyRows, 1, [&](int64_t begin, int64_t end) {
    const Halves own = halves(kManyRows * width);
    const Configured configured;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t r0 = task * kManyRows, count = std::min(kManyRows, rows - r0);
      round_rows(count, a.data() + r0, K, width, own.get());
      block(own.get(), count, width, weight, N, start.data(), out.data() + r0);
    }
  });
}

inline void outer_sum(const Rows& left, const Rows& right, int64_t N, const OutRows& out) {
  constexpr int64_t kDeep = 512;  // rows whose products are summed before they are added
  const int64_t rows = static_cast<int64_t>(left.size()), M = static_cast<int64_t>(out.size());
  const std::vector<float> zero(N);
  const Rows nothing(kManyRows, zero.data());
  if (rows == 0)
    for (float* row : out) std::fill_n(row, N, 0.0f);
  const int64_t size = packed_size(N, kDeep);
  const Floats packed = floats(size);
  for (int64_t k0 = 0; k0 < rows; k0 += kDeep) {
    const int64_t depth = std::min(kDeep, rows - k0), width = parts(depth) * kPart;
    pack_list(right.data() + k0, N, depth, packed.get());
    at::parallel_for(0, (M + kManyRows - 1) / kManyRows, 1, [&](int64_t begin, int64_t end) {
      const Halves own = halves(kManyRows * width);
      const Configured configured;
      for (int64_t task = begin; task < end; ++task) {
        const int64_t m0 = task * kManyRows, count = std::min(kManyRows, M - m0);
        std::fill_n(own.get(), kManyRows * width, uint16_t{0});
        for (int64_t k = 0; k < depth; k += 2)  // two numbers at a time
          for (int64_t m = 0; m < count; m += kLanes) {
            const float* from = left[k0 + k] + m0 + m;
            BitsVec pairs = rounded_bits(load_upto(from, count - m));
            if (k + 1 < depth)
              pairs |= rounded_bits(load_upto(left[k0 + k + 1] + m0 + m, count - m)) << 16;
            for (int64_t i = 0; i < std::min<int64_t>(kLanes, count - m); ++i) {
              const uint32_t pair = pairs[i];
              std::memcpy(own.get() + (m + i) * width + k, &pair, sizeof(pair));
            }
          }
        float* const* to = out.data() + m0;
        block(own.get(), count, width, reinterpret_cast<const uint16_t*>(packed.get()), N,
              k0 ? to : nothing.data(), to);
      }
    });
  }
}

}  // namespace tiles

}  // namespace
