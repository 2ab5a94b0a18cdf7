/* Sum of two int8 tensors with different scales: clamp((a * am + b * bm + bias) >> shift).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FB_ADD_H
#define FB_ADD_H

#include "halves.h"

typedef struct {
    int32_t am, bm, bias, shift, lo, hi;
} fb_add_scale;

FB_INLINE int32_t fb_add_result(int32_t sum, const fb_add_scale *scale) {
    return fb_clamp_seldom(sum >> scale->shift, scale->lo, scale->hi);
}

FB_INLINE int32_t fb_add_one(int32_t a, int32_t b, const fb_add_scale *scale) {
    return fb_add_result(a * scale->am + (b * scale->bm + scale->bias), scale);
}

#if FB_HALVES
/* Four sums at once. A byte of `a` and the byte of `b` at the same place are brought into one word
 * and multiplied with (am, bm) together:
 *
 *     a: a3 a2 a1 a0    PKHBT: b1 b0 a1 a0    SXTB16: b0 a0    ROR 8: b1 a1
 *     b: b3 b2 b1 b0    PKHTB: b3 b2 a3 a2    SXTB16: b2 a2    ROR 8: b3 a3
 */
FB_INLINE uint32_t fb_add_four(uint32_t a, uint32_t b, uint32_t factors,
                               const fb_add_scale *scale) {
    uint32_t low = fb_pack_low(a, b), high = fb_pack_high(a, b);
    int32_t s0 = fb_smlad(fb_sxtb16(low), factors, scale->bias);
    int32_t s1 = fb_smlad(fb_sxtb16_ror8(low), factors, scale->bias);
    int32_t s2 = fb_smlad(fb_sxtb16(high), factors, scale->bias);
    int32_t s3 = fb_smlad(fb_sxtb16_ror8(high), factors, scale->bias);
    return fb_pack_bytes(fb_add_result(s0, scale), fb_add_result(s1, scale),
                         fb_add_result(s2, scale), fb_add_result(s3, scale));
}
#endif

/* `n` elements; a step of 0 repeats the first element of an operand. `words` (a literal): all three
 * begin at multiples of 4. The output may lie on or before an operand with step 1. */
FB_INLINE void fb_add_row(const int8_t *a, const int8_t *b, int8_t *out, int32_t n, int32_t a_step,
                          int32_t b_step, int32_t words, const fb_add_scale *scale) {
    int32_t left = n;
    if (a_step && b_step) {
#if FB_HALVES
        uint32_t factors = fb_halves(scale->bm, scale->am);
        if (words && n >= 8) {
            int32_t blocks = n / 8;
            FB_NO_UNROLL
            do {
                uint32_t a0, a1, b0, b1;
                a = fb_load_two(a, &a0, &a1);
                b = fb_load_two(b, &b0, &b1);
                a0 = fb_add_four(a0, b0, factors, scale);
                a1 = fb_add_four(a1, b1, factors, scale);
                out = fb_store_two(out, a0, a1);
            } while (--blocks != 0);
            left = n % 8;
        }
#elif FB_ARMV6M
        /* Signed bytes are loaded with an offset in a register only: one offset for all three. */
        (void)words;
        int32_t i = 0;
        for (; i < (n & ~3); i += 4) {
            out[i] = (int8_t)fb_add_one(a[i], b[i], scale);
            out[i + 1] = (int8_t)fb_add_one(a[i + 1], b[i + 1], scale);
            out[i + 2] = (int8_t)fb_add_one(a[i + 2], b[i + 2], scale);
            out[i + 3] = (int8_t)fb_add_one(a[i + 3], b[i + 3], scale);
        }
        a += i, b += i, out += i;
        left = n & 3;
#else
        (void)words;
        FB_NO_UNROLL
        for (; left >= 4; left -= 4) {
            out[0] = (int8_t)fb_add_one(a[0], b[0], scale);
            out[1] = (int8_t)fb_add_one(a[1], b[1], scale);
            out[2] = (int8_t)fb_add_one(a[2], b[2], scale);
            out[3] = (int8_t)fb_add_one(a[3], b[3], scale);
            a += 4, b += 4, out += 4;
        }
#endif
    }
    FB_NO_UNROLL
    for (; left > 0; left--) {
        *out++ = (int8_t)fb_add_one(*a, *b, scale);
        a += a_step, b += b_step;
    }
}

/* out [n0][n1][n2][n3]; a0..a3 and b0..b3 are the steps in elements from one index of an operand to
 * the next, 0 where it is broadcast; a3 and b3 are 0 or 1. */
FB_INLINE void fb_add_s8(const int8_t *a, const int8_t *b, int8_t *out, int32_t n0, int32_t n1,
                         int32_t n2, int32_t n3, int32_t a0, int32_t a1, int32_t a2, int32_t a3,
                         int32_t b0, int32_t b1, int32_t b2, int32_t b3, int32_t am, int32_t bm,
                         int32_t bias, int32_t shift, int32_t lo, int32_t hi) {
    const fb_add_scale scale = {am, bm, bias, shift, lo, hi};
    int32_t words = n3 % 4 == 0 || n0 * n1 * n2 == 1;
    FB_NO_UNROLL
    for (int32_t i0 = 0; i0 < n0; i0++) {
        FB_NO_UNROLL
        for (int32_t i1 = 0; i1 < n1; i1++) {
            FB_NO_UNROLL
            for (int32_t i2 = 0; i2 < n2; i2++) {
                fb_add_row(a + i0 * a0 + i1 * a1 + i2 * a2, b + i0 * b0 + i1 * b1 + i2 * b2, out,
                           n3, a3, b3, words, &scale);
                out += n3;
            }
        }
    }
}

#endif
