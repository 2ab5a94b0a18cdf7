/* Products of two run-time matrices: attention scores and their like.
 *
 * a [batch][M][K] times b [batch][K][N].
 *
 *     fb_matmul_rows      any core, and few rows. With a' = a - a_zero the sum splits into
 *
 *         sum (a - a_zero)(b - b_zero)  =  sum a' b  -  b_zero sum a'
 *
 *     so one row of a' is prepared in scratch memory as int16, and b is used as it lies.
 *
 *     fb_matmul_columns   cores with SMLAD. With b' = b - b_zero the sum splits into
 *
 *         sum (a - a_zero)(b - b_zero)  =  sum a b'  -  a_zero sum b'
 *
 *     so four columns of b' are prepared in scratch memory, k by k in the order in which SXTB16
 *     takes bytes from a word of a, and multiplied with all the rows:
 *
 *         quad 0   c0:(k2|k0) c1:(k2|k0) c2:.. c3:..   c0:(k3|k1) c1:(k3|k1) ..   quad 1 ...
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FB_MATMUL_H
#define FB_MATMUL_H

#include "requantize.h"

/* One row of results. `rows` [K] is a - a_zero, `offset` what zero points add to every sum. */
FB_NOINLINE void fb_matmul_row(const int16_t *row, const int8_t *b, int8_t *output, int32_t depth,
                               int32_t columns, int32_t offset, int32_t bias, int32_t multiplier,
                               int32_t shift, int32_t lo, int32_t hi) {
    int32_t column = 0;
    for (; column + 4 <= columns; column += 4) {
        int32_t acc0 = offset, acc1 = offset, acc2 = offset, acc3 = offset;
        const int8_t *w = b + column;
        for (int32_t k = 0; k < depth; k++, w += columns) {
            const int32_t x = row[k];
            acc0 += x * w[0];
            acc1 += x * w[1];
            acc2 += x * w[2];
            acc3 += x * w[3];
        }
        output[column] = (int8_t)fb_requantize(acc0, bias, multiplier, shift, lo, hi);
        output[column + 1] = (int8_t)fb_requantize(acc1, bias, multiplier, shift, lo, hi);
        output[column + 2] = (int8_t)fb_requantize(acc2, bias, multiplier, shift, lo, hi);
        output[column + 3] = (int8_t)fb_requantize(acc3, bias, multiplier, shift, lo, hi);
    }
    for (; column < columns; column++) {
        int32_t acc = offset;
        const int8_t *w = b + column;
        for (int32_t k = 0; k < depth; k++, w += columns) acc += row[k] * *w;
        output[column] = (int8_t)fb_requantize(acc, bias, multiplier, shift, lo, hi);
    }
}

/* `a_step` and `b_step` are the bytes from one matrix of the batch to the next: 0 repeats one.
 * scratch: 2 * K. */
FB_INLINE void fb_matmul_rows(const int8_t *a, const int8_t *b, int8_t *output, void *scratch,
                              int32_t batch, int32_t rows, int32_t depth, int32_t columns,
                              int32_t a_step, int32_t b_step, int32_t a_zero, int32_t b_zero,
                              int32_t bias, int32_t multiplier, int32_t shift, int32_t lo,
                              int32_t hi) {
    int16_t *const row = (int16_t *)scratch;
    for (int32_t n = 0; n < batch; n++, a += a_step, b += b_step) {
        const int8_t *source = a;
        for (int32_t m = 0; m < rows; m++, output += columns) {
            int32_t sum = 0;
            for (int32_t k = 0; k < depth; k++) {
                const int32_t x = *source++ - a_zero;
                row[k] = (int16_t)x;
                sum += x;
            }
            fb_matmul_row(row, b, output, depth, columns, -b_zero * sum, bias, multiplier, shift,
                          lo, hi);
        }
    }
}

/* Both halves of `a` minus those of `b`, modulo 2^16. */
FB_INLINE uint32_t fb_ssub16(uint32_t a, uint32_t b) {
#if FB_DSP
    uint32_t result;
    FB_ASM("ssub16 %0, %1, %2" : "=r"(result) : "r"(a), "r"(b));
    return result;
#else
    return fb_halves((int32_t)((a >> 16) - (b >> 16)), (int32_t)(a - b));
#endif
}

/* Four rows of four columns of b - zero from words of b: one quad. Returns where the next goes. */
FB_INLINE uint32_t *fb_matmul_take_quad(uint32_t *to, int32_t *sums, const int8_t *b,
                                        int32_t columns, uint32_t zeros) {
    uint32_t words[4];
    for (int32_t k = 0; k < 4; k++) words[k] = fb_load32_unaligned(b + k * columns);
    _Pragma("GCC unroll 2") for (int32_t k = 0; k < 2; k++, to += 4) {
        const uint32_t even = fb_sxtb16(words[k]), odd = fb_sxtb16_ror8(words[k]);
        const uint32_t even2 = fb_sxtb16(words[k + 2]), odd2 = fb_sxtb16_ror8(words[k + 2]);
        to[0] = fb_ssub16((even & 0xffffu) | even2 << 16, zeros);
        to[1] = fb_ssub16((odd & 0xffffu) | odd2 << 16, zeros);
        to[2] = fb_ssub16((even2 & 0xffff0000u) | even >> 16, zeros);
        to[3] = fb_ssub16((odd2 & 0xffff0000u) | odd >> 16, zeros);
        _Pragma("GCC unroll 4") for (int32_t c = 0; c < 4; c++)
            sums[c] = fb_smlad(to[c], 0x00010001u, sums[c]);
    }
    return to;
}

/* `count` columns of b - zero, missing ones zero, and their sums. */
FB_NOINLINE void fb_matmul_take(uint32_t *to, int32_t *sums, const int8_t *b, int32_t depth,
                                int32_t columns, int32_t count, int32_t zero) {
    const uint32_t zeros = fb_halves(zero, zero);
    int32_t left = depth, sum[4] = {0, 0, 0, 0};
    if (count == 4) {
        for (; left >= 4; left -= 4, b += 4 * columns)
            to = fb_matmul_take_quad(to, sum, b, columns, zeros);
    }
    for (; left > 0; left -= 4, to += 8) {
        for (int32_t c = 0; c < 4; c++) {
            int32_t taken[4];
            for (int32_t k = 0; k < 4; k++) {
                taken[k] = c < count && k < left ? b[k * columns + c] - zero : 0;
                sum[c] += taken[k];
            }
            to[c] = fb_halves(taken[2], taken[0]);
            to[c + 4] = fb_halves(taken[3], taken[1]);
        }
        if (left > 4) b += 4 * columns;
    }
    for (int32_t c = 0; c < 4; c++) sums[c] = sum[c];
}

/* One quad of a row, as `word`, and four columns at `taken`. Returns where their next quad is. */
FB_INLINE const uint32_t *fb_matmul_quad(int32_t *acc, uint32_t word, const uint32_t *taken) {
    const uint32_t even = fb_sxtb16(word), odd = fb_sxtb16_ror8(word);
#if FB_DSP
    uint32_t b0, b1;
    FB_ASM("ldrd %4, %5, [%6], #8\n\t"
           "smlad %0, %4, %7, %0\n\t"
           "smlad %1, %5, %7, %1\n\t"
           "ldrd %4, %5, [%6], #8\n\t"
           "smlad %2, %4, %7, %2\n\t"
           "smlad %3, %5, %7, %3\n\t"
           "ldrd %4, %5, [%6], #8\n\t"
           "smlad %0, %4, %8, %0\n\t"
           "smlad %1, %5, %8, %1\n\t"
           "ldrd %4, %5, [%6], #8\n\t"
           "smlad %2, %4, %8, %2\n\t"
           "smlad %3, %5, %8, %3"
           : "+&r"(acc[0]), "+&r"(acc[1]), "+&r"(acc[2]), "+&r"(acc[3]), "=&r"(b0), "=&r"(b1),
             "+&r"(taken)
           : "r"(even), "r"(odd)
           : "memory");
#else
    for (int32_t c = 0; c < 4; c++)
        acc[c] = fb_smlad(taken[c + 4], odd, fb_smlad(taken[c], even, acc[c]));
    taken += 8;
#endif
    return taken;
}

/* The product of a row and the first of the four columns, added to `sum`; `depth` is a literal. */
FB_INLINE int32_t fb_matmul_single(int32_t sum, const int8_t *x, const uint32_t *taken,
                                   int32_t depth) {
    for (int32_t left = depth / 4; left > 0; left--, taken += 8, x += 4) {
        const uint32_t word = fb_load32_unaligned(x);
        sum = fb_smlad(taken[0], fb_sxtb16(word), sum);
        sum = fb_smlad(taken[4], fb_sxtb16_ror8(word), sum);
    }
    for (int32_t k = 0; k < depth % 4; k++)
        sum += x[k] * (k < 2 ? fb_low_half(taken[4 * k]) : fb_high_half(taken[0]));
    return sum;
}

/* Arguments as of fb_matmul_rows. scratch: 32 * ceil(K / 4). */
FB_INLINE void fb_matmul_columns(const int8_t *a, const int8_t *b, int8_t *output, void *scratch,
                                 int32_t batch, int32_t rows, int32_t depth, int32_t columns,
                                 int32_t a_step, int32_t b_step, int32_t a_zero, int32_t b_zero,
                                 int32_t bias, int32_t multiplier, int32_t shift, int32_t lo,
                                 int32_t hi) {
    const int32_t first = shift == 0 ? bias : 0, later = shift == 0 ? 0 : bias;
    const int32_t tail = depth % 4;
    for (int32_t n = 0; n < batch; n++, a += a_step, b += b_step) {
        for (int32_t column = 0; column < columns; column += 4) {
            const int32_t count = fb_min(columns - column, 4);
            const int8_t *x = a;
            int8_t *place = output + column;
            int32_t start[4];
            fb_matmul_take((uint32_t *)scratch, start, b + column, depth, columns, count, b_zero);
            for (int32_t c = 0; c < 4; c++) start[c] = first - a_zero * start[c];
            for (int32_t m = 0; m < rows; m++, place += columns) {
                const uint32_t *taken = (const uint32_t *)scratch;
                int32_t acc[4] = {start[0], start[1], start[2], start[3]};
                if (columns == 1) {
                    acc[0] = fb_matmul_single(acc[0], x, taken, depth);
                    x += depth;
                    place[0] = (int8_t)fb_requantize(acc[0], later, multiplier, shift, lo, hi);
                    continue;
                }
                for (int32_t left = depth / 16; left > 0; left--, x += 16) {
                    _Pragma("GCC unroll 4") for (int32_t k = 0; k < 16; k += 4)
                        taken = fb_matmul_quad(acc, fb_load32_unaligned(x + k), taken);
                }
                for (int32_t left = depth % 16 / 4; left > 0; left--, x += 4)
                    taken = fb_matmul_quad(acc, fb_load32_unaligned(x), taken);
                if (tail) {
                    uint32_t word = 0;
                    for (int32_t k = tail; k > 0; k--) word = word << 8 | (uint8_t)x[k - 1];
                    fb_matmul_quad(acc, word, taken);
                    x += tail;
                }
                _Pragma("GCC unroll 4") for (int32_t c = 0; c < 4; c++) {
                    if (c < count)
                        place[c] = (int8_t)fb_requantize(acc[c], later, multiplier, shift, lo, hi);
                }
            }
        }
        output += rows * columns;
    }
}

#endif
