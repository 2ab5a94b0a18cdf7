/* Depthwise 3x3 filters, stride 1 or 2, on cores that multiply pairs of halves.
 *
 * The plane holds the columns of a channel two by two as int16, so that a word is the pair
 * (x, x + 1) of one row and the next word is the same pair one row below:
 *
 *     pair 0 (columns 0, 1)    row 0, row 1, row 2, ...
 *     pair 1 (columns 2, 3)    row 0, row 1, row 2, ...
 *
 * With stride 1 the outputs x and x + 1 of a row take, for each filter row (w0, w1, w2),
 *
 *     out[x]   += pair 0 . (w0, w1)     + pair 1 low * w2           SMLAD, SMLABT
 *     out[x+1] += pair 0 high * w0      + pair 1 . (w1, w2)         SMLATB, SMLAD
 *
 * The loop goes down the rows and makes two by two outputs from four words of pair 0, with which
 * only (w0, w1) is needed, and then four words of pair 1, with which only (w1, w2) is.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FB_DEPTHWISE_PAIRS_H
#define FB_DEPTHWISE_PAIRS_H

#include "halves.h"
#include "requantize.h"

/* One filter, already shifted left: (w0, w1) and (w1, w2) of each filter row with the first in the
 * low half; what turns its sums into results; and steps in bytes. Assembly knows this layout. */
typedef struct {
    uint32_t w01[3];
    uint32_t w12[3];
    int32_t bias, multiplier;
    int32_t lo, hi;
    int32_t column, row; /* from an output to its right and lower neighbour */
} fb_pairs_task;

/* Fills the whole plane with the padding value. */
FB_NOINLINE void fb_pairs_clear(int16_t *plane, int32_t rows, int32_t columns, int32_t zero) {
    uint32_t word = fb_halves(zero, zero);
    FB_NO_UNROLL
    for (int32_t i = 0; i < (columns + 1) / 2 * rows; i++) fb_store32(plane + 2 * i, word);
}

/* Copies one channel of the input, whose pixels are `column` and `row` bytes apart. */
FB_NOINLINE void fb_pairs_fill(int16_t *plane, const int8_t *input, int32_t rows, int32_t top,
                               int32_t left, int32_t h, int32_t w, int32_t column, int32_t row) {
    for (int32_t x = left; x < left + w; x++) {
        int16_t *to = plane + (x >> 1) * 2 * rows + 2 * top + (x & 1);
        const int8_t *from = input;
        int32_t y = h;
        FB_NO_UNROLL
        for (; y >= 4; y -= 4) {
            int16_t v0 = from[0], v1 = from[row];
            from += 2 * row;
            int16_t v2 = from[0], v3 = from[row];
            from += 2 * row;
            to[0] = v0, to[2] = v1, to[4] = v2, to[6] = v3;
            to += 8;
        }
        FB_NO_UNROLL
        for (; y > 0; y--) {
            *to = *from;
            to += 2;
            from += row;
        }
        input += column;
    }
}

FB_INLINE void fb_pairs_result(int8_t *out, int32_t acc, int32_t multiplier, int32_t lo,
                               int32_t hi) {
    *out = (int8_t)fb_clamp8(fb_mulh(acc, multiplier), lo, hi);
}

/* `count` outputs below each other, `step` rows of the plane apart. */
FB_INLINE void fb_pairs_column(const int16_t *plane, int32_t rows, int32_t step,
                               const fb_pairs_task *task, int8_t *out, int32_t count) {
    const int16_t *p0 = plane, *p1 = plane + 2 * rows;
    uint32_t u0 = task->w01[0], u1 = task->w01[1], u2 = task->w01[2];
    uint32_t v0 = task->w12[0], v1 = task->w12[1], v2 = task->w12[2];
    while (count-- > 0) {
        int32_t acc = fb_smlad(fb_load32(p0), u0, task->bias);
        acc = fb_smlad(fb_load32(p0 + 2), u1, acc);
        acc = fb_smlad(fb_load32(p0 + 4), u2, acc);
        acc = fb_smlabt(fb_load32(p1), v0, acc);
        acc = fb_smlabt(fb_load32(p1 + 2), v1, acc);
        acc = fb_smlabt(fb_load32(p1 + 4), v2, acc);
        fb_pairs_result(out, acc, task->multiplier, task->lo, task->hi);
        p0 += 2 * step;
        p1 += 2 * step;
        out += task->row;
    }
}

#if FB_DSP
/* Two rows of two outputs: sums in r4 r5 (upper row) and r6 r8 (lower row), weights in r9-r11, two
 * words of the plane in r12 and lr. %[task] points at w12, with w01 just below it. */
#define FB_PAIRS_SUMS \
    "ldmdb %[task], {r9, r10, r11}\n\t" \
    "ldr   r8, [%[task], #12]\n\t" \
    "ldrd  r12, lr, [%[p0]], #8\n\t" \
    "smlad  r4, r12, r9, r8\n\t" \
    "smlatb r5, r12, r9, r8\n\t" \
    "smlad  r6, lr, r9, r8\n\t" \
    "smlatb r8, lr, r9, r8\n\t" \
    "smlad  r4, lr, r10, r4\n\t" \
    "smlatb r5, lr, r10, r5\n\t" \
    "ldrd  r12, lr, [%[p0]]\n\t" \
    "smlad  r4, r12, r11, r4\n\t" \
    "smlatb r5, r12, r11, r5\n\t" \
    "smlad  r6, r12, r10, r6\n\t" \
    "smlatb r8, r12, r10, r8\n\t" \
    "smlad  r6, lr, r11, r6\n\t" \
    "smlatb r8, lr, r11, r8\n\t" \
    "ldmia %[task], {r9, r10, r11}\n\t" \
    "ldrd  r12, lr, [%[p1]], #8\n\t" \
    "smlabt r4, r12, r9, r4\n\t" \
    "smlad  r5, r12, r9, r5\n\t" \
    "smlabt r6, lr, r9, r6\n\t" \
    "smlad  r8, lr, r9, r8\n\t" \
    "smlabt r4, lr, r10, r4\n\t" \
    "smlad  r5, lr, r10, r5\n\t" \
    "ldrd  r12, lr, [%[p1]]\n\t" \
    "smlabt r4, r12, r11, r4\n\t" \
    "smlad  r5, r12, r11, r5\n\t" \
    "smlabt r6, r12, r10, r6\n\t" \
    "smlad  r8, r12, r10, r8\n\t" \
    "smlabt r6, lr, r11, r6\n\t" \
    "smlad  r8, lr, r11, r8\n\t" \
    "ldr   r9, [%[task], #16]\n\t" \
    "ldrd  r12, lr, [%[task], #28]\n\t" \
    "smmul r4, r4, r9\n\t" \
    "smmul r5, r5, r9\n\t" \
    "smmul r6, r6, r9\n\t" \
    "smmul r8, r8, r9\n\t" \
    "ssat  r4, #8, r4\n\t" \
    "ssat  r5, #8, r5\n\t" \
    "ssat  r6, #8, r6\n\t" \
    "ssat  r8, #8, r8\n\t"
#define FB_PAIRS_CLAMP(sum) \
    "cmp   " sum ", r9\n\tit lt\n\tmovlt " sum ", r9\n\t" \
    "cmp   " sum ", r10\n\tit gt\n\tmovgt " sum ", r10\n\t"
#define FB_PAIRS_STORE \
    "strb  r4, [%[out]]\n\t" \
    "strb  r5, [%[out], r12]\n\t" \
    "add   %[out], %[out], lr\n\t" \
    "strb  r6, [%[out]]\n\t" \
    "strb  r8, [%[out], r12]\n\t" \
    "add   %[out], %[out], lr\n\t"
#define FB_PAIRS_OPERANDS \
    : [p0] "+r"(p0), [p1] "+r"(p1), [out] "+r"(out) \
    : [task] "r"(task->w12), [end] "r"(end) \
    : "r4", "r5", "r6", "r8", "r9", "r10", "r11", "r12", "lr", "cc", "memory"
#endif

/* Two columns of 2 * blocks outputs, stride 1. */
FB_INLINE void fb_pairs_two_columns(const int16_t *plane, int32_t rows, const fb_pairs_task *task,
                                    int8_t *out, int32_t blocks) {
    const int16_t *p0 = plane, *p1 = plane + 2 * rows;
    const int16_t *end = p0 + 4 * blocks;
#if FB_DSP
    if (task->lo == -128 && task->hi == 127) {
        FB_ASM volatile("1:\n\t" FB_PAIRS_SUMS FB_PAIRS_STORE
                        "cmp %[p0], %[end]\n\t"
                        "bne 1b" FB_PAIRS_OPERANDS);
    } else {
        FB_ASM volatile("1:\n\t" FB_PAIRS_SUMS
                        "ldrd r9, r10, [%[task], #20]\n\t"
                        FB_PAIRS_CLAMP("r4") FB_PAIRS_CLAMP("r5") FB_PAIRS_CLAMP("r6")
                        FB_PAIRS_CLAMP("r8") FB_PAIRS_STORE
                        "cmp %[p0], %[end]\n\t"
                        "bne 1b" FB_PAIRS_OPERANDS);
    }
#else
    for (; p0 != end; p0 += 2, p1 += 2, out += task->row) {
        int32_t left = task->bias, right = task->bias;
        for (int32_t k = 0; k < 3; k++) {
            uint32_t pair0 = fb_load32(p0 + 2 * k), pair1 = fb_load32(p1 + 2 * k);
            left = fb_smlad(pair0, task->w01[k], left);
            right = fb_smlatb(pair0, task->w01[k], right);
            left = fb_smlabt(pair1, task->w12[k], left);
            right = fb_smlad(pair1, task->w12[k], right);
        }
        fb_pairs_result(out, left, task->multiplier, task->lo, task->hi);
        fb_pairs_result(out + task->column, right, task->multiplier, task->lo, task->hi);
    }
#endif
}

/* One filter over the plane: weights [3][3], outputs `channels` bytes apart; stride 2, or stride 1
 * and at least two rows of outputs. An odd last row of
 * outputs is made together with the row above it, which comes out the same twice. */
FB_NOINLINE void fb_pairs_filter(const int16_t *plane, int32_t rows, int32_t stride,
                                 const int8_t *weights, int32_t bias, int32_t multiplier,
                                 int32_t shift, int8_t *out, int32_t oh, int32_t ow,
                                 int32_t channels, int32_t lo, int32_t hi) {
    fb_pairs_task task;
    for (int32_t k = 0; k < 3; k++) {
        int32_t w0 = fb_shl(weights[3 * k], shift), w1 = fb_shl(weights[3 * k + 1], shift);
        task.w01[k] = fb_pack_low((uint32_t)w0, (uint32_t)w1);
        task.w12[k] = fb_pack_low((uint32_t)w1, (uint32_t)fb_shl(weights[3 * k + 2], shift));
    }
    task.bias = bias, task.multiplier = multiplier, task.lo = lo, task.hi = hi;
    task.column = channels, task.row = ow * channels;
    int32_t x = 0;
    if (stride == 1) {
        FB_NO_UNROLL
        for (; x < (ow & ~1); x += 2) {
            FB_NO_UNROLL
            for (int32_t part = 0; part < 1 + (oh & 1); part++) {
                int32_t y = part ? oh - 2 : 0;
                fb_pairs_two_columns(plane + x * rows + 2 * y, rows, &task, out + y * task.row,
                                     part ? 1 : oh / 2);
            }
            out += 2 * channels;
        }
    }
    FB_NO_UNROLL
    for (; x < ow; x++) {
        fb_pairs_column(plane + x * rows * stride, rows, stride, &task, out, oh);
        out += channels;
    }
}

#endif
