#pragma once

#include <cstdint>
#include <cstring>

struct __nv_bfloat16 {
  uint16_t bits;
  __nv_bfloat16() = default;
  explicit __nv_bfloat16(float x) {
    uint32_t all;
    std::memcpy(&all, &x, 4);
    bits = x == x ? (all + 0x7fffu + (all >> 16 & 1)) >> 16 : 0x7fc0;  // to the nearest even
  }
  operator float() const {
    const uint32_t all = static_cast<uint32_t>(bits) << 16;
    float x;
    std::memcpy(&x, &all, 4);
    return x;
  }
};
