// Products of the few rows of a search step with a weight that is packed as panels.

#pragma once

#include <algorithm>
#include <cstdint>

#include "simd.h"

namespace {

constexpr int kRows = 8;     // rows of a product that share one reading of a weight
constexpr int kWide = 3;     // vectors of a panel of a weight: kRows * kWide sums fit the registers
constexpr int kPanel = kWide * kLanes;

// Rows of `start + x weight` for one panel: kPanel columns of the weight, [K, kPanel], one after
// another in memory, so that a step of search reads them as fast as they come. The order of the
// sums is the same for any number of rows.
template <int rows>
void multiply(const float* x, int64_t x_stride, const float* panel, int64_t K, const float* start,
              int64_t start_stride, float* out, int64_t N, int64_t columns) {
  Vec sum[rows][kWide];
  float part[kPanel] = {};
  for (int row = 0; row < rows; ++row) {
    const float* from = start + row * start_stride;
    if (columns < kPanel) from = std::copy_n(from, columns, part) - columns;
    for (int j = 0; j < kWide; ++j) sum[row][j] = load(from + j * kLanes);
  }
  for (int64_t k = 0; k < K; ++k) {
    Vec weight[kWide];
    for (int j = 0; j < kWide; ++j) weight[j] = load(panel + k * kPanel + j * kLanes);
    for (int row = 0; row < rows; ++row) {
      const float factor = x[row * x_stride + k];
      for (int j = 0; j < kWide; ++j) sum[row][j] = fused(factor, weight[j], sum[row][j]);
    }
  }
  for (int row = 0; row < rows; ++row) {
    float* to = out + row * N;
    if (columns == kPanel) {
      for (int j = 0; j < kWide; ++j) store(to + j * kLanes, sum[row][j]);
    } else {
      for (int j = 0; j < kWide; ++j) store(part + j * kLanes, sum[row][j]);
      std::copy_n(part, columns, to);
    }
  }
}

template <int rows>
void multiply_rows(int64_t count, const float* x, int64_t x_stride, const float* panel, int64_t K,
                   const float* start, int64_t start_stride, float* out, int64_t N,
                   int64_t columns) {
  if (count == rows)
    multiply<rows>(x, x_stride, panel, K, start, start_stride, out, N, columns);
  else if constexpr (rows > 1)
    multiply_rows<rows - 1>(count, x, x_stride, panel, K, start, start_stride, out, N, columns);
}

}  // namespace
