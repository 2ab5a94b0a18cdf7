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
 * only (w0, w1) is needed, and then four words of pair 1, with which only (w1, w2) is. An odd last
 * column, and every column with stride 2, has only the left one of the two outputs.
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
    /* From where a loop down the rows ends to where the next begins: in the plane, in the output;
     * and the plane's end of the loop. Then how many of these loops are left. */
    int32_t next_plane, next_out, next_end, loops;
} fb_pairs_task;

/* Fills the whole plane with the padding value. */
FB_NOINLINE void fb_pairs_clear(int16_t *plane, int32_t rows, int32_t columns, int32_t zero) {
    uint32_t word = fb_halves(zero, zero);
    FB_NO_UNROLL
    for (int32_t i = 0; i < (columns + 1) / 2 * rows; i++) fb_store32(plane + 2 * i, word);
}

/* Copies one channel of the input, whose pixels are `column` and `row` bytes apart, two columns at
 * a time; a last one alone goes along with itself. */
FB_NOINLINE void fb_pairs_fill(int16_t *plane, const int8_t *input, int32_t rows, int32_t top,
                               int32_t left, int32_t h, int32_t w, int32_t column, int32_t row) {
    int16_t *first = plane + 2 * top;
    FB_NO_UNROLL
    for (int32_t x = left; x < left + w; x += 2) {
        int32_t next = x + 1 < left + w ? x + 1 : x;
        int32_t side = (next - x) * column;
        int16_t *to0 = first + (x & ~1) * rows + (x & 1);
        int16_t *to1 = first + (next & ~1) * rows + (next & 1);
        const int8_t *from = input;
        int32_t y = h;
        FB_NO_UNROLL
        for (; y >= 2; y -= 2) {
            int16_t v0 = from[0], v1 = from[side];
            from += row;
            int16_t v2 = from[0], v3 = from[side];
            from += row;
            to0[0] = v0, to1[0] = v1, to0[2] = v2, to1[2] = v3;
            to0 += 4, to1 += 4;
        }
        if (y > 0) *to0 = from[0], *to1 = from[side];
        input += 2 * column;
    }
}

/* Groups of two columns of outputs (or one) side by side, each in two by two (or two by one) blocks
 * from top to bottom.
 *
 * The assembly has the sums of the upper row in r4 (and r5), of the lower row in r6 (and r8),
 * weights in r9-r11 and two words of the plane in r12 and lr. %[task] points at w12: w01 lies just
 * below it, `bias` 12 bytes above. `rows` is the height of the plane. */
#if FB_DSP
#define FB_PAIRS_LOAD01 "ldmdb %[task], {r9, r10, r11}\n\tldr r8, [%[task], #12]\n\t"
#define FB_PAIRS_LOAD12 "ldmia %[task], {r9, r10, r11}\n\t"
#define FB_PAIRS_TWO_ROWS(p) "ldrd r12, lr, [%[" p "]], #8\n\t"
#define FB_PAIRS_TWO_ROWS_STAY(p) "ldrd r12, lr, [%[" p "]]\n\t"
#define FB_PAIRS_ONE_ROW(p) "ldr r12, [%[" p "]]\n\t"
/* Left output, right output: with a word of pair 0, with a word of pair 1. */
#define FB_PAIRS_LEFT0(sum, word, w, from) "smlad " sum ", " word ", " w ", " from "\n\t"
#define FB_PAIRS_RIGHT0(sum, word, w, from) "smlatb " sum ", " word ", " w ", " from "\n\t"
#define FB_PAIRS_LEFT1(sum, word, w) "smlabt " sum ", " word ", " w ", " sum "\n\t"
#define FB_PAIRS_RIGHT1(sum, word, w) "smlad " sum ", " word ", " w ", " sum "\n\t"
#define FB_PAIRS_BOTH0(left, right, word, w) \
    FB_PAIRS_LEFT0(left, word, w, left) FB_PAIRS_RIGHT0(right, word, w, right)
#define FB_PAIRS_BOTH1(left, right, word, w) \
    FB_PAIRS_LEFT1(left, word, w) FB_PAIRS_RIGHT1(right, word, w)

/* Stride 1: the upper row of outputs sees rows 0 to 2, the lower one rows 1 to 3. */
#define FB_PAIRS_TWO_COLUMNS \
    FB_PAIRS_LOAD01 FB_PAIRS_TWO_ROWS("p0") \
    FB_PAIRS_LEFT0("r4", "r12", "r9", "r8") FB_PAIRS_RIGHT0("r5", "r12", "r9", "r8") \
    FB_PAIRS_LEFT0("r6", "lr", "r9", "r8") FB_PAIRS_RIGHT0("r8", "lr", "r9", "r8") \
    FB_PAIRS_BOTH0("r4", "r5", "lr", "r10") FB_PAIRS_TWO_ROWS_STAY("p0") \
    FB_PAIRS_BOTH0("r4", "r5", "r12", "r11") FB_PAIRS_BOTH0("r6", "r8", "r12", "r10") \
    FB_PAIRS_BOTH0("r6", "r8", "lr", "r11") \
    FB_PAIRS_LOAD12 FB_PAIRS_TWO_ROWS("p1") \
    FB_PAIRS_BOTH1("r4", "r5", "r12", "r9") FB_PAIRS_BOTH1("r6", "r8", "lr", "r9") \
    FB_PAIRS_BOTH1("r4", "r5", "lr", "r10") FB_PAIRS_TWO_ROWS_STAY("p1") \
    FB_PAIRS_BOTH1("r4", "r5", "r12", "r11") FB_PAIRS_BOTH1("r6", "r8", "r12", "r10") \
    FB_PAIRS_BOTH1("r6", "r8", "lr", "r11")
#define FB_PAIRS_COLUMN_STRIDE1 \
    FB_PAIRS_LOAD01 FB_PAIRS_TWO_ROWS("p0") \
    FB_PAIRS_LEFT0("r4", "r12", "r9", "r8") FB_PAIRS_LEFT0("r6", "lr", "r9", "r8") \
    FB_PAIRS_LEFT0("r4", "lr", "r10", "r4") FB_PAIRS_TWO_ROWS_STAY("p0") \
    FB_PAIRS_LEFT0("r4", "r12", "r11", "r4") FB_PAIRS_LEFT0("r6", "r12", "r10", "r6") \
    FB_PAIRS_LEFT0("r6", "lr", "r11", "r6") \
    FB_PAIRS_LOAD12 FB_PAIRS_TWO_ROWS("p1") \
    FB_PAIRS_LEFT1("r4", "r12", "r9") FB_PAIRS_LEFT1("r6", "lr", "r9") \
    FB_PAIRS_LEFT1("r4", "lr", "r10") FB_PAIRS_TWO_ROWS_STAY("p1") \
    FB_PAIRS_LEFT1("r4", "r12", "r11") FB_PAIRS_LEFT1("r6", "r12", "r10") \
    FB_PAIRS_LEFT1("r6", "lr", "r11")
/* Stride 2: the upper output sees rows 0 to 2, the lower one rows 2 to 4. */
#define FB_PAIRS_COLUMN_STRIDE2 \
    FB_PAIRS_LOAD01 FB_PAIRS_TWO_ROWS("p0") \
    FB_PAIRS_LEFT0("r4", "r12", "r9", "r8") FB_PAIRS_LEFT0("r4", "lr", "r10", "r4") \
    FB_PAIRS_TWO_ROWS("p0") \
    FB_PAIRS_LEFT0("r4", "r12", "r11", "r4") FB_PAIRS_LEFT0("r6", "r12", "r9", "r8") \
    FB_PAIRS_LEFT0("r6", "lr", "r10", "r6") FB_PAIRS_ONE_ROW("p0") \
    FB_PAIRS_LEFT0("r6", "r12", "r11", "r6") \
    FB_PAIRS_LOAD12 FB_PAIRS_TWO_ROWS("p1") \
    FB_PAIRS_LEFT1("r4", "r12", "r9") FB_PAIRS_LEFT1("r4", "lr", "r10") \
    FB_PAIRS_TWO_ROWS("p1") \
    FB_PAIRS_LEFT1("r4", "r12", "r11") FB_PAIRS_LEFT1("r6", "r12", "r9") \
    FB_PAIRS_LEFT1("r6", "lr", "r10") FB_PAIRS_ONE_ROW("p1") \
    FB_PAIRS_LEFT1("r6", "r12", "r11")

/* The multiplier comes into r9 and the steps to the right and lower neighbour into r12 and lr. */
#define FB_PAIRS_LOAD_SCALE "ldr r9, [%[task], #16]\n\tldrd r12, lr, [%[task], #28]\n\t"
#define FB_PAIRS_SCALE(sum) "smmul " sum ", " sum ", r9\n\tssat " sum ", #8, " sum "\n\t"
#define FB_PAIRS_LOAD_LIMITS "ldrd r9, r10, [%[task], #20]\n\t"
#define FB_PAIRS_LIMIT(sum) \
    "cmp " sum ", r9\n\tit lt\n\tmovlt " sum ", r9\n\t" \
    "cmp " sum ", r10\n\tit gt\n\tmovgt " sum ", r10\n\t"
#define FB_PAIRS_STORE(sum) "strb " sum ", [%[out]]\n\t"
#define FB_PAIRS_STORE_RIGHT(sum) "strb " sum ", [%[out], r12]\n\t"
#define FB_PAIRS_DOWN "add %[out], %[out], lr\n\t"

#define FB_PAIRS_FINISH2(limits) \
    FB_PAIRS_LOAD_SCALE FB_PAIRS_SCALE("r4") FB_PAIRS_SCALE("r5") FB_PAIRS_SCALE("r6") \
    FB_PAIRS_SCALE("r8") limits FB_PAIRS_STORE("r4") FB_PAIRS_STORE_RIGHT("r5") FB_PAIRS_DOWN \
    FB_PAIRS_STORE("r6") FB_PAIRS_STORE_RIGHT("r8") FB_PAIRS_DOWN
#define FB_PAIRS_FINISH1(limits) \
    FB_PAIRS_LOAD_SCALE FB_PAIRS_SCALE("r4") FB_PAIRS_SCALE("r6") limits \
    FB_PAIRS_STORE("r4") FB_PAIRS_DOWN FB_PAIRS_STORE("r6") FB_PAIRS_DOWN
#define FB_PAIRS_LIMITS2 \
    FB_PAIRS_LOAD_LIMITS FB_PAIRS_LIMIT("r4") FB_PAIRS_LIMIT("r5") FB_PAIRS_LIMIT("r6") \
    FB_PAIRS_LIMIT("r8")
#define FB_PAIRS_LIMITS1 FB_PAIRS_LOAD_LIMITS FB_PAIRS_LIMIT("r4") FB_PAIRS_LIMIT("r6")

#define FB_PAIRS_LOOP(body) \
    FB_ASM volatile("1:\n\t" body \
                    "cmp %[p0], %[end]\n\tbne 1b\n\t" \
                    "ldrd r12, lr, [%[task], #36]\n\t" \
                    "ldrd r9, r10, [%[task], #44]\n\t" \
                    "add %[p0], %[p0], r12\n\tadd %[p1], %[p1], r12\n\t" \
                    "add %[out], %[out], lr\n\tadd %[end], %[end], r9\n\t" \
                    "subs r10, r10, #1\n\tstr r10, [%[task], #48]\n\tbne 1b" \
                    : [p0] "+r"(p0), [p1] "+r"(p1), [out] "+r"(out), [end] "+r"(end) \
                    : [task] "r"(task->w12) \
                    : "r4", "r5", "r6", "r8", "r9", "r10", "r11", "r12", "lr", "cc", "memory")
#endif

/* `columns` of a group and `stride` are 2 and 1, 1 and 1, or 1 and 2. */
FB_INLINE void fb_pairs_groups(const int16_t *p0, int32_t rows, fb_pairs_task *task, int8_t *out,
                               int32_t groups, int32_t blocks, int32_t columns, int32_t stride,
                               int32_t lo, int32_t hi) {
    const int16_t *p1 = p0 + 2 * rows, *end = p0 + 4 * stride * blocks;
    task->next_plane = 4 * rows - 8 * stride * blocks;
    task->next_out = columns * task->column - 2 * blocks * task->row;
    task->next_end = 4 * rows;
    task->loops = groups;
#if FB_DSP
    int32_t limited = lo > -128 || hi < 127;
    if (columns == 2) {
        if (limited) {
            FB_PAIRS_LOOP(FB_PAIRS_TWO_COLUMNS FB_PAIRS_FINISH2(FB_PAIRS_LIMITS2));
        } else {
            FB_PAIRS_LOOP(FB_PAIRS_TWO_COLUMNS FB_PAIRS_FINISH2(""));
        }
    } else if (stride == 1) {
        if (limited) {
            FB_PAIRS_LOOP(FB_PAIRS_COLUMN_STRIDE1 FB_PAIRS_FINISH1(FB_PAIRS_LIMITS1));
        } else {
            FB_PAIRS_LOOP(FB_PAIRS_COLUMN_STRIDE1 FB_PAIRS_FINISH1(""));
        }
    } else {
        if (limited) {
            FB_PAIRS_LOOP(FB_PAIRS_COLUMN_STRIDE2 FB_PAIRS_FINISH1(FB_PAIRS_LIMITS1));
        } else {
            FB_PAIRS_LOOP(FB_PAIRS_COLUMN_STRIDE2 FB_PAIRS_FINISH1(""));
        }
    }
#else
    for (; task->loops > 0; task->loops--) {
        for (; p0 != end; p0 += 2 * stride, p1 += 2 * stride, out += task->row) {
            int32_t left = task->bias, right = task->bias;
            for (int32_t k = 0; k < 3; k++) {
                uint32_t pair0 = fb_load32(p0 + 2 * k), pair1 = fb_load32(p1 + 2 * k);
                left = fb_smlabt(pair1, task->w12[k], fb_smlad(pair0, task->w01[k], left));
                right = fb_smlad(pair1, task->w12[k], fb_smlatb(pair0, task->w01[k], right));
            }
            out[0] = (int8_t)fb_clamp8(fb_mulh(left, task->multiplier), lo, hi);
            if (columns == 2) {
                out[task->column] = (int8_t)fb_clamp8(fb_mulh(right, task->multiplier), lo, hi);
            }
        }
        p0 += task->next_plane / 2, p1 += task->next_plane / 2, end += task->next_end / 2;
        out += task->next_out;
    }
#endif
}

/* One filter over the plane: weights [3][3], outputs `channels` bytes apart, at least two rows of
 * them. An odd last row is made together with the row above it, which comes out the same twice. */
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
    int32_t pairs = stride == 1 ? ow / 2 : 0, blocks = oh / 2;
    FB_NO_UNROLL
    for (;;) {
        if (stride == 2) {
            fb_pairs_groups(plane, rows, &task, out, ow, blocks, 1, 2, lo, hi);
        } else {
            if (pairs) fb_pairs_groups(plane, rows, &task, out, pairs, blocks, 2, 1, lo, hi);
            if (ow & 1) {
                fb_pairs_groups(plane + 2 * pairs * rows, rows, &task, out + 2 * pairs * channels,
                                1, blocks, 1, 1, lo, hi);
            }
        }
        if (oh % 2 == 0) break;
        plane += 2 * stride * (oh - 2);
        out += (oh - 2) * task.row;
        oh = 2, blocks = 1;
    }
}

#endif
