// Products of float32 matrices whose rows lie anywhere: a list of pointers to rows stands for the
// valid frames of a ragged batch, so that padding costs nothing and is not read.
//
// A weight is read as panels of kPanel columns, [ceil(N / kPanel), K, kPanel], zero beyond N. Every
// sum is taken in the order of k by one chain of additions, whatever rows stand beside a row and
// whichever thread computes it.

#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "simd.h"

namespace {

// Rows at once, and vectors of a panel's row: their sums fill the registers, and those of four rows,
// a usual batch, are enough to keep both multipliers busy.
#if defined(__AVX512F__)
constexpr int kRows = 6, kWide = 4;
#else
constexpr int kRows = 4, kWide = 3;
#endif
constexpr int kPanel = kWide * kLanes;  // columns of a panel
constexpr int64_t kDepth = 192;         // of a block of k: a panel's part stays in the first cache
constexpr int64_t kBlock = 16 * kRows;  // rows of a block, whose part stays in the second

inline int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }
inline int64_t panel_count(int64_t N) { return (N + kPanel - 1) / kPanel; }

inline Vec load_upto(const float* from, int64_t count) {
  return count >= kLanes ? load(from) : load_part(from, count);
}
inline void store_upto(float* to, Vec x, int64_t count) {
  if (count >= kLanes)
    store(to, x);
  else
    store_part(to, x, count);
}

// Memory for floats at the start of a cache line.
struct Free {
  void operator()(void* at) const { std::free(at); }
};
using Floats = std::unique_ptr<float, Free>;
inline Floats floats(int64_t count) {
  void* at = std::aligned_alloc(64, round_up(4 * std::max<int64_t>(count, 1), 64));
  if (at == nullptr) throw std::bad_alloc();
  return Floats(static_cast<float*>(at));
}

using Rows = std::vector<const float*>;
using OutRows = std::vector<float*>;

namespace vectors {

// Floats that the panels of a weight [N, K] take.
inline int64_t packed_size(int64_t N, int64_t K) { return panel_count(N) * K * kPanel; }

// Panels of a matrix whose element (n, k) is `from[n * n_stride + k * k_stride]`; columns `begin`
// to `end` of panels.
inline void pack(const float* from, int64_t n_stride, int64_t k_stride, int64_t N, int64_t K,
                 int64_t begin, int64_t end, float* to) {
  constexpr int64_t kTile = 16;  // of k: what is read along rows is written along columns
  for (int64_t panel = begin; panel < end; ++panel) {
    const int64_t first = panel * kPanel, columns = std::min<int64_t>(kPanel, N - first);
    float* out = to + panel * K * kPanel;
    for (int64_t k0 = 0; k0 < K; k0 += kTile) {
      const int64_t k1 = std::min(k0 + kTile, K);
      if (n_stride == 1 && columns == kPanel) {
        for (int64_t k = k0; k < k1; ++k)
          std::memcpy(out + k * kPanel, from + first + k * k_stride, sizeof(float) * kPanel);
        continue;
      }
      for (int64_t n = 0; n < columns; ++n)
        for (int64_t k = k0; k < k1; ++k)
          out[k * kPanel + n] = from[(first + n) * n_stride + k * k_stride];
      for (int64_t n = columns; n < kPanel; ++n)
        for (int64_t k = k0; k < k1; ++k) out[k * kPanel + n] = 0.0f;
    }
  }
}

inline void pack_all(const float* from, int64_t n_stride, int64_t k_stride, int64_t N, int64_t K,
                     float* to) {
  at::parallel_for(0, panel_count(N), 8, [&](int64_t begin, int64_t end) {
    pack(from, n_stride, k_stride, N, K, begin, end, to);
  });
}

// Compilers would rather read a weight again for every row, of which the caches do less than of
// products.
inline Vec in_register(Vec x) {
#if defined(__x86_64__)
  asm("" : "+v"(x));
#endif
  return x;
}

// out[r] = start[r] + sum over k of a[r][k] panel[k], for `columns` columns from `column` on, which
// are W vectors. With kTogether the rows of a are one block, [K, R], to which a[0] points. Not inlined:
// within a larger function the compiler keeps the sums in memory.
template <int R, int W, bool kTogether>
__attribute__((noinline)) void micro(const float* const* a, int64_t at, const float* panel, int64_t K,
                  const float* const* start, float* const* out, int64_t column, int64_t columns) {
  Vec sum[R][W];
  float part[W * kLanes] = {};
  for (int r = 0; r < R; ++r) {
    const float* from = start[r] + column;
    if (columns < W * kLanes) from = std::copy_n(from, columns, part) - columns;
    for (int j = 0; j < W; ++j) sum[r][j] = load(from + j * kLanes);
  }
  const float* row[R];
  for (int r = 0; r < R; ++r) row[r] = kTogether ? a[0] : a[r] + at;
  for (int64_t k = 0; k < K; ++k) {
    Vec weight[W];
    for (int j = 0; j < W; ++j) weight[j] = in_register(load(panel + k * kPanel + j * kLanes));
    for (int r = 0; r < R; ++r) {
      const float factor = kTogether ? row[0][k * R + r] : row[r][k];
      for (int j = 0; j < W; ++j) sum[r][j] = fused(factor, weight[j], sum[r][j]);
    }
  }
  for (int r = 0; r < R; ++r) {
    float* to = out[r] + column;
    if (columns >= W * kLanes) {
      for (int j = 0; j < W; ++j) store(to + j * kLanes, sum[r][j]);
    } else {
      for (int j = 0; j < W; ++j) store(part + j * kLanes, sum[r][j]);
      std::copy_n(part, columns, to);
    }
  }
}

template <int R, int W, bool kTogether>
inline void micro_any(int64_t rows, const float* const* a, int64_t at, const float* panel,
                      int64_t K, const float* const* start, float* const* out, int64_t column,
                      int64_t columns) {
  if constexpr (W > 1)
    if (columns <= (W - 1) * kLanes)
      return micro_any<R, W - 1, kTogether>(rows, a, at, panel, K, start, out, column, columns);
  if constexpr (R > 1)
    if (rows < R)
      return micro_any<R - 1, W, kTogether>(rows, a, at, panel, K, start, out, column, columns);
  micro<R, W, kTogether>(a, at, panel, K, start, out, column, columns);
}

template <bool kTogether>
inline void micro_rows(int64_t rows, const float* const* a, int64_t at, const float* panel,
                       int64_t K, const float* const* start, float* const* out, int64_t column,
                       int64_t columns) {
  micro_any<kRows, kWide, kTogether>(rows, a, at, panel, K, start, out, column, columns);
}

// Rows of the next group of `rows` left: groups as alike as can be, which leaves no row alone.
inline int64_t group(int64_t rows) {
  const int64_t groups = (rows + kRows - 1) / kRows;
  return groups == 0 ? 0 : (rows + groups - 1) / groups;
}

// out = start + a weight for few rows and panels `begin` to `end`: the weight is read once.
inline void some_panels(int64_t begin, int64_t end, int64_t rows, const float* const* a,
                        const float* panels, int64_t K, int64_t N, const float* const* start,
                        float* const* out) {
  for (int64_t panel = begin; panel < end; ++panel) {
    const int64_t column = panel * kPanel, columns = std::min<int64_t>(kPanel, N - column);
    for (int64_t r = 0; r < rows;) {
      const int64_t count = group(rows - r);
      micro_rows<false>(count, a + r, 0, panels + panel * K * kPanel, K, start + r, out + r,
                               column, columns);
      r += count;
    }
  }
}

// All panels, by this thread alone.
inline void few_rows(int64_t rows, const float* const* a, const float* panels, int64_t K, int64_t N,
                     const float* const* start, float* const* out) {
  some_panels(0, panel_count(N), rows, a, panels, K, N, start, out);
}

// out = bias + a weight for many rows; bias [N] or null.
inline void many_rows(const Rows& a, const float* panels, int64_t K, int64_t N, const float* bias,
                      const OutRows& out) {
  const int64_t rows = static_cast<int64_t>(a.size()), blocks = (rows + kBlock - 1) / kBlock;
  std::vector<float> zero(bias ? 0 : N);
  const float* first[kRows];
  std::fill_n(first, kRows, bias ? bias : zero.data());
  // Tasks: a block of rows and a quarter of the panels.
  constexpr int64_t kParts = 4;
  const int64_t all = panel_count(N), part = (all + kParts - 1) / kParts;
  at::parallel_for(0, blocks * kParts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t r0 = task / kParts * kBlock, r1 = std::min(r0 + kBlock, rows);
      const int64_t p0 = task % kParts * part, p1 = std::min(p0 + part, all);
      for (int64_t k = 0; k < K; k += kDepth) {
        for (int64_t p = p0; p < p1; ++p) {
          const int64_t column = p * kPanel, columns = std::min<int64_t>(kPanel, N - column);
          for (int64_t r = r0; r < r1; r += kRows) {
            const int64_t count = std::min<int64_t>(kRows, r1 - r);
            float* const* to = out.data() + r;
            micro_rows<false>(count, a.data() + r, k, panels + (p * K + k) * kPanel,
                                     std::min(kDepth, K - k), k ? to : first, to, column, columns);
          }
        }
      }
    }
  });
}

// out = sum over rows of left^T right: left rows of M floats, right and the M out rows of N floats.
inline void outer_sum(const Rows& left, const Rows& right, int64_t N, const OutRows& out) {
  const int64_t rows = static_cast<int64_t>(left.size()), M = static_cast<int64_t>(out.size());
  const int64_t all = panel_count(N), blocks = (M + kBlock - 1) / kBlock;
  if (rows == 0)
    for (float* row : out) std::fill_n(row, N, 0.0f);
  const Floats panels = floats(all * kDepth * kPanel);
  const std::vector<float> zero(N);
  for (int64_t k0 = 0; k0 < rows; k0 += kDepth) {
    const int64_t depth = std::min(kDepth, rows - k0);
    at::parallel_for(0, all, 8, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        const int64_t columns = std::min<int64_t>(kPanel, N - p * kPanel);
        float* to = panels.get() + p * depth * kPanel;
        for (int64_t k = 0; k < depth; ++k, to += kPanel) {
          std::copy_n(right[k0 + k] + p * kPanel, columns, to);
          std::fill(to + columns, to + kPanel, 0.0f);
        }
      }
    });
    at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
      const Floats own = floats(kBlock * kDepth);
      for (int64_t block = begin; block < end; ++block) {
        const int64_t m0 = block * kBlock, m1 = std::min(m0 + kBlock, M);
        for (int64_t k = 0; k < depth; ++k) {
          const float* from = left[k0 + k];
          int64_t m = m0;
          for (; m + kRows <= m1; m += kRows)
            std::memcpy(own.get() + (m - m0) * kDepth + k * kRows, from + m, sizeof(float) * kRows);
          std::copy_n(from + m, m1 - m, own.get() + (m - m0) * kDepth + k * (m1 - m));
        }
        for (int64_t p = 0; p < all; ++p) {
          const int64_t column = p * kPanel, columns = std::min<int64_t>(kPanel, N - column);
          for (int64_t m = m0; m < m1; m += kRows) {
            const int64_t count = std::min<int64_t>(kRows, m1 - m);
            const float* a = own.get() + (m - m0) * kDepth;
            const float* start[kRows];
            float* to[kRows];
            for (int64_t r = 0; r < count; ++r) {
              to[r] = out[m + r];
              start[r] = k0 ? to[r] : zero.data();
            }
            micro_rows<true>(count, &a, 0, panels.get() + p * depth * kPanel, depth, start,
                                    to, column, columns);
          }
        }
      }
    });
  }
}

}  // namespace vectors

// out [N] = sum of rows of N floats, by blocks of kDepth rows.
inline void row_sum(const Rows& rows, int64_t N, float* out) {
  std::fill_n(out, N, 0.0f);
  std::vector<float> sum(N);
  for (size_t k0 = 0; k0 < rows.size(); k0 += kDepth) {
    std::fill(sum.begin(), sum.end(), 0.0f);
    for (size_t k = k0; k < std::min(k0 + kDepth, rows.size()); ++k)
      for (int64_t n = 0; n < N; ++n) sum[n] += rows[k][n];
    for (int64_t n = 0; n < N; ++n) out[n] += sum[n];
  }
}

}  // namespace
