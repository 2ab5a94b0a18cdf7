/* Product of two int8 tensors, and any function of one int8 as a table.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FB_ELEMENTWISE_H
#define FB_ELEMENTWISE_H

#include "halves.h"
#include "requantize.h"

typedef struct {
    int32_t a_zero, b_zero, bias, multiplier, shift, lo, hi;
} fb_multiply_scale;

FB_INLINE int8_t fb_multiply_one(int32_t a, int32_t b, const fb_multiply_scale *scale) {
    int32_t product = (a - scale->a_zero) * (b - scale->b_zero);
    int32_t value = fb_add(fb_shl(product, scale->shift), scale->bias);
    return (int8_t)fb_clamp_seldom(fb_mulh(value, scale->multiplier), scale->lo, scale->hi);
}

/* requantize((a - a_zero) * (b - b_zero)). Shapes and steps as in fb_add_s8. */
FB_INLINE void fb_multiply_s8(const int8_t *a, const int8_t *b, int8_t *out, int32_t n0, int32_t n1,
                              int32_t n2, int32_t n3, int32_t a0, int32_t a1, int32_t a2,
                              int32_t a3, int32_t b0, int32_t b1, int32_t b2, int32_t b3,
                              int32_t a_zero, int32_t b_zero, int32_t bias, int32_t multiplier,
                              int32_t shift, int32_t lo, int32_t hi) {
    const fb_multiply_scale scale = {a_zero, b_zero, bias, multiplier, shift, lo, hi};
    FB_NO_UNROLL
    for (int32_t i0 = 0; i0 < n0; i0++) {
        FB_NO_UNROLL
        for (int32_t i1 = 0; i1 < n1; i1++) {
            FB_NO_UNROLL
            for (int32_t i2 = 0; i2 < n2; i2++) {
                const int8_t *a_row = a + i0 * a0 + i1 * a1 + i2 * a2;
                const int8_t *b_row = b + i0 * b0 + i1 * b1 + i2 * b2;
                int32_t i = 0;
                FB_NO_UNROLL
                for (; i < (n3 & ~3); i += 4) {
                    int8_t v0 = fb_multiply_one(a_row[i * a3], b_row[i * b3], &scale);
                    int8_t v1 = fb_multiply_one(a_row[(i + 1) * a3], b_row[(i + 1) * b3], &scale);
                    out[0] = v0, out[1] = v1;
                    v0 = fb_multiply_one(a_row[(i + 2) * a3], b_row[(i + 2) * b3], &scale);
                    v1 = fb_multiply_one(a_row[(i + 3) * a3], b_row[(i + 3) * b3], &scale);
                    out[2] = v0, out[3] = v1;
                    out += 4;
                }
                FB_NO_UNROLL
                for (; i < n3; i++) *out++ = fb_multiply_one(a_row[i * a3], b_row[i * b3], &scale);
            }
        }
    }
}

/* out[i] = table[(uint8_t)x[i]]: the table begins with the value of 0, that of -128 is in its
 * middle. The output may lie on or before the input. */
FB_INLINE void fb_lookup_s8(const int8_t *x, int8_t *out, const int8_t *table, int32_t n) {
    const uint8_t *from = (const uint8_t *)x;
    int32_t i = 0;
    FB_NO_UNROLL
    for (; i < (n & ~7); i += 8) {
        int8_t v0 = table[from[0]], v1 = table[from[1]], v2 = table[from[2]], v3 = table[from[3]];
        out[0] = v0, out[1] = v1, out[2] = v2, out[3] = v3;
        int8_t v4 = table[from[4]], v5 = table[from[5]], v6 = table[from[6]], v7 = table[from[7]];
        out[4] = v4, out[5] = v5, out[6] = v6, out[7] = v7;
        from += 8, out += 8;
    }
    FB_NO_UNROLL
    for (; i < n; i++) *out++ = table[*from++];
}

#endif
