// Vectors of floats as wide as the processor's, and the two functions that attention needs of them.
// Written with the vector types of GCC and Clang, so that any processor they know will do.

#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) || defined(__FMA__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_FMA)
#include <arm_neon.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Vec __attribute__((vector_size(4 * kLanes)));
typedef uint32_t BitsVec __attribute__((vector_size(4 * kLanes)));
typedef float LooseVec __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));

inline Vec load(const float* from) { return *reinterpret_cast<const LooseVec*>(from); }
inline void store(float* to, Vec x) { *reinterpret_cast<LooseVec*>(to) = x; }
inline Vec splat(float x) { return x - Vec{}; }

// a b + c, rounded once wherever the processor can: left to choose, compilers round some copies of a
// loop once and others twice, and bits would depend on the number of rows.
inline Vec fused(float a, Vec b, Vec c) {
#if defined(__AVX512F__)
  return (Vec)_mm512_fmadd_ps(_mm512_set1_ps(a), (__m512)b, (__m512)c);
#elif defined(__FMA__)
  return (Vec)_mm256_fmadd_ps(_mm256_set1_ps(a), (__m256)b, (__m256)c);
#elif defined(__ARM_FEATURE_FMA)
  return (Vec)vfmaq_n_f32((float32x4_t)c, (float32x4_t)b, a);
#else
  return a * b + c;
#endif
}

// The first `count` lanes; the others are zero.
inline Vec load_part(const float* from, int64_t count) {
  float lanes[kLanes] = {};
  std::memcpy(lanes, from, sizeof(float) * count);
  return load(lanes);
}

inline void store_part(float* to, Vec x, int64_t count) {
  float lanes[kLanes];
  store(lanes, x);
  std::memcpy(to, lanes, sizeof(float) * count);
}

inline float sum_lanes(Vec x) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)x);
#else
  float lanes[kLanes];
  store(lanes, x);
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  return lanes[0];
#endif
}

// n / d for finite d > 0.
inline Vec divide(Vec n, Vec d) {
#if defined(__AVX512F__)
  // 14 bits and a Newton step: within 2 ulp, at a third of the time of the divider.
  const Vec r = (Vec)_mm512_rcp14_ps((__m512)d);
  return n * (r * (2.0f - d * r));
#else
  return n / d;
#endif
}

// x within -limit .. limit; NaN stays NaN.
inline Vec clamp(Vec x, float limit) {
#if defined(__AVX512F__)
  // One instruction each, where compilers make two of a comparison; x comes second for NaN's sake.
  const __m512 low = _mm512_min_ps(_mm512_set1_ps(limit), (__m512)x);
  return (Vec)_mm512_max_ps(_mm512_set1_ps(-limit), low);
#else
  x = x > limit ? splat(limit) : x;
  return x < -limit ? splat(-limit) : x;
#endif
}

// x P(x^2) / Q(x^2), the least relative error in exact arithmetic (2.1e-8) on [0, 9.02], beyond
// which tanh is 1 in float32; found by Lawson's reweighted least squares. In float32, rounding
// included: within 4e-7 and 7 ulp of tanh for every float, tested. NaN stays NaN.
inline Vec tanh(Vec x) {
  x = clamp(x, 9.02f);
  const Vec y = x * x;
  Vec p = 1.33191398e-08f * y + 2.05835351e-05f;
  Vec q = 7.76204864e-07f * y + 3.28309839e-04f;
  p = p * y + 3.49403805e-03f;
  q = q * y + 2.58710867e-02f;
  p = p * y + 1.33797210e-01f;
  q = q * y + 4.67130362e-01f;
  p = p * y + 9.99999979e-01f;
  q = q * y + 1.0f;
  return divide(x * p, q);
}

// Within 3e-7 of the logistic function; NaN stays NaN.
inline Vec sigmoid(Vec x) { return 0.5f + 0.5f * tanh(0.5f * x); }

// For x <= 0, all that a softmax asks: 2^n times a polynomial on [-ln(2)/2, ln(2)/2]. Results
// below the normal numbers are 0, the others within 4e-7 of themselves, tested. NaN stays NaN.
inline Vec exp(Vec x) {
  const Vec shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the low bits are round(x/ln 2)
  const Vec n = shifted - 12582912.0f;
  const Vec r = (x - n * 6.93359375e-1f) - n * -2.12194440e-4f;
  Vec p = 1.0f / 720 * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const BitsVec scale = ((BitsVec)shifted << 23) + 0x3f800000u;
  return x < -87.3f ? Vec{} : p * (Vec)scale;
}

inline float exp1(float x) { return exp(splat(x))[0]; }

}  // namespace
