#pragma once

struct __half {
  _Float16 x;
  __half() = default;
  explicit __half(float y) : x(static_cast<_Float16>(y)) {}
  operator float() const { return static_cast<float>(x); }
};
