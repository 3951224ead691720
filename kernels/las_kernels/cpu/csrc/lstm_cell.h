// The LSTM cell of one row, in torch's order of gates: input, forget, cell, output.

#pragma once

#include "gemm.h"

namespace {

// Gates before their functions in, activated out; before: null for zero.
inline void cell_forward(int64_t S, float* gates, const float* before, float* cell, float* out) {
  for (int64_t s = 0; s < S; s += kLanes) {
    const int64_t count = S - s;
    const Vec i = sigmoid(load_upto(gates + s, count));
    const Vec f = sigmoid(load_upto(gates + S + s, count));
    const Vec g = tanh(load_upto(gates + 2 * S + s, count));
    const Vec o = sigmoid(load_upto(gates + 3 * S + s, count));
    Vec c = i * g;
    if (before) c += f * load_upto(before + s, count);
    store_upto(gates + s, i, count);
    store_upto(gates + S + s, f, count);
    store_upto(gates + 2 * S + s, g, count);
    store_upto(gates + 3 * S + s, o, count);
    store_upto(cell + s, c, count);
    store_upto(out + s, o * tanh(c), count);
  }
}

// dhidden: what the step after gives, null at the last; dcell: likewise, replaced by what this step
// gives to the one before.
inline void cell_backward(int64_t S, const float* dout, const float* dhidden, const float* gates,
                   const float* before, const float* cell, float* dcell, float* dgates) {
  for (int64_t s = 0; s < S; s += kLanes) {
    const int64_t count = S - s;
    const Vec i = load_upto(gates + s, count), f = load_upto(gates + S + s, count);
    const Vec g = load_upto(gates + 2 * S + s, count), o = load_upto(gates + 3 * S + s, count);
    const Vec y = tanh(load_upto(cell + s, count));
    Vec dh = load_upto(dout + s, count);
    if (dhidden) dh += load_upto(dhidden + s, count);
    Vec dc = dh * o * (1.0f - y * y);
    if (dhidden) dc += load_upto(dcell + s, count);
    const Vec old = before ? load_upto(before + s, count) : Vec{};
    store_upto(dgates + s, dc * g * i * (1.0f - i), count);
    store_upto(dgates + S + s, dc * old * f * (1.0f - f), count);
    store_upto(dgates + 2 * S + s, dc * i * (1.0f - g * g), count);
    store_upto(dgates + 3 * S + s, dh * y * o * (1.0f - o), count);
    store_upto(dcell + s, dc * f, count);
  }
}

}  // namespace
