// The instructions of AMX that gemm_amx.h uses, in plain C++, for tests.

#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace {
namespace emulated {

struct Tile {
  uint8_t rows[16][64];
};
thread_local Tile tile[8];
thread_local bool configured = false;

inline void load(int to, const void* from, int64_t stride) {
  if (!configured) std::abort();
  for (int row = 0; row < 16; ++row)
    std::memcpy(tile[to].rows[row], static_cast<const char*>(from) + row * stride, 64);
}
inline void store(int from, void* to, int64_t stride) {
  for (int row = 0; row < 16; ++row)
    std::memcpy(static_cast<char*>(to) + row * stride, tile[from].rows[row], 64);
}
inline void zero(int which) { std::memset(&tile[which], 0, sizeof(Tile)); }

inline float half(const Tile& from, int row, int column) {
  uint32_t bits = 0;
  std::memcpy(reinterpret_cast<char*>(&bits) + 2, from.rows[row] + 2 * column, 2);
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

inline void multiply(int to, int left, int right) {
  for (int m = 0; m < 16; ++m) {
    float sums[16];
    std::memcpy(sums, tile[to].rows[m], 64);
    for (int k = 0; k < 16; ++k)
      for (int n = 0; n < 16; ++n)
        for (int i = 0; i < 2; ++i)
          sums[n] += half(tile[left], m, 2 * k + i) * half(tile[right], k, 2 * n + i);
    std::memcpy(tile[to].rows[m], sums, 64);
  }
}

}  // namespace emulated
}  // namespace

#undef _tile_loadd  // headers of the intrinsics may have defined them
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps
#define _tile_loadconfig(shape) (void)(shape), emulated::configured = true
#define _tile_release() emulated::configured = false
#define _tile_loadd(to, from, stride) emulated::load(to, from, stride)
#define _tile_stored(from, to, stride) emulated::store(from, to, stride)
#define _tile_zero(which) emulated::zero(which)
#define _tile_dpbf16ps(to, left, right) emulated::multiply(to, left, right)
