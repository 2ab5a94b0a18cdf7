/* Products of two run-time matrices: attention scores and their like.
 *
 * a [batch][M][K] times b [batch][K][N]. With a' = a - a_zero the sum splits into
 *
 *     sum (a - a_zero)(b - b_zero)  =  sum a' b  -  b_zero sum a'
 *
 * so one row of a' is prepared in scratch memory as int16, and b is used as it lies.
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
FB_INLINE void fb_matmul(const int8_t *a, const int8_t *b, int8_t *output, void *scratch,
                         int32_t batch, int32_t rows, int32_t depth, int32_t columns,
                         int32_t a_step, int32_t b_step, int32_t a_zero, int32_t b_zero,
                         int32_t bias, int32_t multiplier, int32_t shift, int32_t lo, int32_t hi) {
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

#endif
