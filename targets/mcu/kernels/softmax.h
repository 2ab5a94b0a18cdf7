/* Softmax over the last axis with a table of exponentials and one division a row.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FB_SOFTMAX_H
#define FB_SOFTMAX_H

#include "halves.h"

/* 2^31 / divisor, rounded down; the divisor is at least 1. */
FB_INLINE uint32_t fb_reciprocal31(uint32_t divisor) {
#if FB_ARMV6M
    /* No divide instruction: one bit of the quotient at a time. */
    uint32_t quotient = 0, rest = 0x80000000u;
    int32_t bit = 0;
    while ((divisor << bit) <= 0x40000000u) bit++;
    for (; bit >= 0; bit--) {
        quotient <<= 1;
        if (rest >= divisor << bit) {
            rest -= divisor << bit;
            quotient |= 1;
        }
    }
    return quotient;
#else
    return 0x80000000u / divisor;
#endif
}

/* x and out [rows][n]; table[d] is 2^15 exp(-d), d the distance from the row's largest element.
 * The output may lie on or before the input. */
FB_INLINE void fb_softmax_s8(const int8_t *x, int8_t *out, const uint16_t *table, int32_t rows,
                             int32_t n, int32_t multiplier, int32_t bias, int32_t shift,
                             int32_t lo, int32_t hi) {
    for (int32_t row = 0; row < rows; row++) {
        int32_t largest = -128;
        for (int32_t i = 0; i < n; i++) largest = fb_max(largest, x[i]);
        uint32_t sum = 0;
        for (int32_t i = 0; i < n; i++) sum += (uint32_t)table[largest - x[i]];
        uint32_t reciprocal = fb_reciprocal31(sum);
        for (int32_t i = 0; i < n; i++) {
            int32_t share = (int32_t)(((uint32_t)table[largest - x[i]] * reciprocal) >> 15);
            out[i] = (int8_t)fb_clamp_seldom((share * multiplier + bias) >> shift, lo, hi);
        }
        x += n;
        out += n;
    }
}

#endif
