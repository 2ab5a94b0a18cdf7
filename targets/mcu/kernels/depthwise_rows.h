/* Depthwise filters of any size, stride and dilation, over a plane that lies row by row.
 *
 * A few outputs beside each other are summed at once, so that each weight is loaded once for
 * them; where the filter's size is a literal the compiler also shares the pixels between them.
 *
 * Where the core multiplies pairs of halves (FB_HALVES) pixels and weights are int16, and a row of
 * weights is padded with a zero to an even number of taps; the pixel under that zero may be one
 * beyond the row, hence the slack. Elsewhere a pixel is a byte and a weight is a word. On Armv6-M,
 * which has an offset in the instruction for loads of unsigned bytes only, the pixel is stored as
 * x + 128, and 128 times the sum of the weights is taken off the bias.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FB_DEPTHWISE_ROWS_H
#define FB_DEPTHWISE_ROWS_H

#include "halves.h"
#include "requantize.h"

#if FB_HALVES
typedef int16_t fb_rows_element;
typedef int16_t fb_rows_weight;
#define FB_ROWS_OFFSET 0
#define FB_ROWS_SLACK 1
#define FB_ROWS_TAPS(kw) (((kw) + 1) & ~1)
#else
#if FB_ARMV6M
typedef uint8_t fb_rows_element;
#define FB_ROWS_OFFSET 128
#else
typedef int8_t fb_rows_element;
#define FB_ROWS_OFFSET 0
#endif
typedef int32_t fb_rows_weight;
#define FB_ROWS_SLACK 0
#define FB_ROWS_TAPS(kw) (kw)
#endif
/* Outputs that are summed at once: as many as there are registers for. */
#define FB_ROWS_TILE (FB_ARMV6M ? 2 : 4)
/* Weights of one widened filter. */
#define FB_ROWS_WEIGHTS(kh, kw) ((kh) * FB_ROWS_TAPS(kw))

/* The layer, and the bias and multiplier of the present channel. `out_*` and `weight_*` are the
 * steps in bytes from an output or weight to its neighbour in the same row or column. */
typedef struct {
    int32_t kh, kw, stride_h, stride_w, dilation_h, dilation_w;
    int32_t oh, ow, out_column, out_row;
    int32_t weight_column, weight_row;
    int32_t rows, pitch;
    int32_t bias, multiplier, shift, lo, hi;
} fb_rows_task;

FB_NOINLINE void fb_rows_clear(fb_rows_element *plane, int32_t count, int32_t zero) {
    FB_NO_UNROLL
    for (int32_t i = 0; i < count; i++) {
        plane[i] = (fb_rows_element)(zero + FB_ROWS_OFFSET);
        FB_NO_LIBCALL();
    }
}

/* Copies h rows of w pixels of one channel; `column` and `row` are bytes between its pixels. */
FB_NOINLINE void fb_rows_fill(fb_rows_element *plane, int32_t pitch, const int8_t *input,
                              int32_t h, int32_t w, int32_t column, int32_t row) {
    FB_NO_UNROLL
    for (int32_t y = 0; y < h; y++) {
        const int8_t *from = input + y * row;
        fb_rows_element *to = plane + y * pitch;
        int32_t x = w;
        FB_NO_UNROLL
        for (; x >= 4; x -= 4) {
            int32_t v0 = from[0], v1 = from[column];
            from += 2 * column;
            int32_t v2 = from[0], v3 = from[column];
            from += 2 * column;
            to[0] = (fb_rows_element)(v0 + FB_ROWS_OFFSET);
            to[1] = (fb_rows_element)(v1 + FB_ROWS_OFFSET);
            to[2] = (fb_rows_element)(v2 + FB_ROWS_OFFSET);
            to[3] = (fb_rows_element)(v3 + FB_ROWS_OFFSET);
            to += 4;
        }
        FB_NO_UNROLL
        for (; x > 0; x--, from += column) *to++ = (fb_rows_element)(*from + FB_ROWS_OFFSET);
    }
}

/* Widens one filter and returns the bias that goes with the widened pixels. */
FB_INLINE int32_t fb_rows_widen(const fb_rows_task *task, fb_rows_weight *widened,
                                const int8_t *weights, int32_t bias) {
    int32_t sum = 0;
    for (int32_t ky = 0; ky < task->kh; ky++) {
        for (int32_t kx = 0; kx < FB_ROWS_TAPS(task->kw); kx++) {
            int32_t weight = kx < task->kw
                                 ? weights[ky * task->weight_row + kx * task->weight_column]
                                 : 0;
            *widened++ = (fb_rows_weight)weight;
            sum += weight;
        }
    }
    return fb_sub(bias, fb_shl(FB_ROWS_OFFSET * sum, task->shift));
}

/* `count` (a literal, at most four) outputs beside each other. */
FB_INLINE void fb_rows_outputs(const fb_rows_task *task, const fb_rows_element *pixels,
                               const fb_rows_weight *weights, int8_t *out, int32_t count) {
    int32_t start = task->shift == 0 ? task->bias : 0;
    int32_t acc[4] = {start, start, start, start};
    for (int32_t ky = 0; ky < task->kh; ky++) {
        int32_t kx = 0;
#if FB_HALVES
        if (task->dilation_w == 1) {
            for (; kx < task->kw; kx += 2) {
                uint32_t pair = fb_load32(weights + kx);
                for (int32_t i = 0; i < count; i++) {
                    acc[i] = fb_smlad(fb_load32_unaligned(pixels + i * task->stride_w + kx), pair,
                                      acc[i]);
                }
            }
        }
#endif
        for (; kx < task->kw; kx++) {
            int32_t weight = weights[kx];
            for (int32_t i = 0; i < count; i++) {
                acc[i] += pixels[i * task->stride_w + kx * task->dilation_w] * weight;
            }
        }
        /* One filter row after the other: mixed, they would need too many registers. */
        for (int32_t i = 0; i < count; i++) FB_ASM volatile("" : "+r"(acc[i]) : : "memory");
        pixels += task->dilation_h * task->pitch;
        weights += FB_ROWS_TAPS(task->kw);
    }
    for (int32_t i = 0; i < count; i++) {
        int32_t sum = task->shift == 0 ? acc[i] : fb_add(fb_shl(acc[i], task->shift), task->bias);
        out[i * task->out_column] =
            (int8_t)fb_clamp_seldom(fb_mulh(sum, task->multiplier), task->lo, task->hi);
    }
}

/* One filter over the plane. */
FB_INLINE void fb_rows_filter(const fb_rows_task *task, const fb_rows_element *plane,
                              const fb_rows_weight *widened, int8_t *output) {
    /* In registers, as far as there are any: stores of results then can't change them. */
    fb_rows_weight few[9];
    const fb_rows_weight *weights = widened;
    if (task->kh == 3 && FB_ROWS_TAPS(task->kw) == 3) {
        for (int32_t i = 0; i < 9; i++) few[i] = widened[i];
        weights = few;
    }
    FB_NO_UNROLL
    for (int32_t y = 0; y < task->oh; y++) {
        const fb_rows_element *pixels = plane + y * task->stride_h * task->pitch;
        int8_t *out = output + y * task->out_row;
        int32_t x = task->ow;
        FB_NO_UNROLL
        for (; x >= FB_ROWS_TILE; x -= FB_ROWS_TILE) {
            fb_rows_outputs(task, pixels, weights, out, FB_ROWS_TILE);
            pixels += FB_ROWS_TILE * task->stride_w;
            out += FB_ROWS_TILE * task->out_column;
        }
        FB_NO_UNROLL
        for (; x > 0; x--) {
            fb_rows_outputs(task, pixels, weights, out, 1);
            pixels += task->stride_w;
            out += task->out_column;
        }
    }
}

#endif
