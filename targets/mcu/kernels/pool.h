/* Average and largest element of windows, int8, channels last.
 *
 * Both go through the output pixel by pixel, so that the output may start on the input or a little
 * before it (lowering/pool.py computes how far), and take four channels at a time where they can
 * load a word of them.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FB_POOL_H
#define FB_POOL_H

#include "halves.h"
#include "requantize.h"

/* Whether four channels can be loaded as one word at every pixel. */
#if FB_ARMV7M
#define FB_POOL_WORDS(c) 1
#else
#define FB_POOL_WORDS(c) ((c) % 4 == 0)
#endif

FB_INLINE uint32_t fb_pool_load(const int8_t *address) {
#if FB_ARMV7M
    return fb_load32_unaligned(address);
#else
    return fb_load32(address);
#endif
}

/* Sums of four channels over `rows` rows of `run` pixels, at most 256 in all, in lanes of 16 bits:
 * with signed lanes on cores that have them; elsewhere of the bytes with their sign bits flipped
 * (x + 128), as unsigned numbers. */
FB_INLINE void fb_pool_sums(const int8_t *x, int32_t rows, int32_t run, int32_t row_step,
                            int32_t c, int32_t sums[4]) {
    uint32_t even = 0, odd = 0;
    for (int32_t i = 0; i < rows; i++) {
        const int8_t *pixel = x + i * row_step;
        for (int32_t j = 0; j < run; j++) {
            uint32_t word = fb_pool_load(pixel);
#if FB_HALVES
            even = fb_add_even_bytes(even, word);
            odd = fb_add_odd_bytes(odd, word);
#else
            word ^= 0x80808080u;
            even += word & 0x00ff00ffu;
            odd += (word >> 8) & 0x00ff00ffu;
#endif
            pixel += c;
        }
    }
#if FB_HALVES
    sums[0] = fb_low_half(even), sums[1] = fb_low_half(odd);
    sums[2] = fb_high_half(even), sums[3] = fb_high_half(odd);
#else
    int32_t flipped = 128 * rows * run;
    sums[0] = (int32_t)(even & 0xffffu) - flipped, sums[1] = (int32_t)(odd & 0xffffu) - flipped;
    sums[2] = (int32_t)(even >> 16) - flipped, sums[3] = (int32_t)(odd >> 16) - flipped;
#endif
}

/* x [n][h][w][c], out [n][oh][ow][c]; bias and multiplier [kh * kw], by the number of elements in
 * the window less one. With `include_padding` the padding counts as elements of value
 * `input_zero`. */
FB_INLINE void fb_average_pool_s8(const int8_t *x, int8_t *out, const int32_t *bias,
                                  const int32_t *multiplier, int32_t n, int32_t h, int32_t w,
                                  int32_t c, int32_t kh, int32_t kw, int32_t stride_h,
                                  int32_t stride_w, int32_t top, int32_t left, int32_t oh,
                                  int32_t ow, int32_t include_padding, int32_t input_zero,
                                  int32_t shift, int32_t lo, int32_t hi) {
    for (int32_t pixel = 0; pixel < n * oh * ow; pixel++) {
        int32_t image = pixel / (oh * ow), oy = pixel / ow % oh, ox = pixel % ow;
        int32_t y0 = fb_max(oy * stride_h - top, 0), y1 = fb_min(oy * stride_h - top + kh, h);
        int32_t x0 = fb_max(ox * stride_w - left, 0), x1 = fb_min(ox * stride_w - left + kw, w);
        int32_t rows = fb_max(y1 - y0, 0), run = fb_max(x1 - x0, 0);
        int32_t count = rows * run, extra = 0;
        if (include_padding) {
            extra = (kh * kw - count) * input_zero;
            count = kh * kw;
        }
        int32_t b = bias[fb_max(count - 1, 0)], m = multiplier[fb_max(count - 1, 0)];
        const int8_t *window = x + ((image * h + y0) * w + x0) * c;
        if (run == w) { /* The rows lie behind each other. */
            run *= rows;
            rows = 1;
        }
        int32_t i = 0;
        if (FB_POOL_WORDS(c) && kh * kw <= 256) {
            FB_NO_UNROLL
            for (; i < (c & ~3); i += 4) {
                int32_t sums[4];
                fb_pool_sums(window + i, rows, run, w * c, c, sums);
                for (int32_t k = 0; k < 4; k++) {
                    out[i + k] = (int8_t)fb_requantize(sums[k] + extra, b, m, shift, lo, hi);
                }
            }
        }
        FB_NO_UNROLL
        for (; i < c; i++) {
            int32_t sum = extra;
            for (int32_t j = 0; j < rows; j++) {
                for (int32_t k = 0; k < run; k++) sum += window[(j * w + k) * c + i];
            }
            out[i] = (int8_t)fb_requantize(sum, b, m, shift, lo, hi);
        }
        out += c;
    }
}

/* x [n][h][w][c], out [n][oh][ow][c]; padding never wins. */
FB_INLINE void fb_max_pool_s8(const int8_t *x, int8_t *out, int32_t n, int32_t h, int32_t w,
                              int32_t c, int32_t kh, int32_t kw, int32_t stride_h,
                              int32_t stride_w, int32_t dilation_h, int32_t dilation_w,
                              int32_t top, int32_t left, int32_t oh, int32_t ow) {
    for (int32_t pixel = 0; pixel < n * oh * ow; pixel++) {
        int32_t image = pixel / (oh * ow), oy = pixel / ow % oh, ox = pixel % ow;
        int32_t y0 = oy * stride_h - top, x0 = ox * stride_w - left;
        int32_t y1 = fb_min(y0 + (kh - 1) * dilation_h + 1, h);
        int32_t x1 = fb_min(x0 + (kw - 1) * dilation_w + 1, w);
        while (y0 < 0) y0 += dilation_h;
        while (x0 < 0) x0 += dilation_w;
        const int8_t *images = x + image * h * w * c;
        int32_t i = 0;
#if FB_HALVES
        FB_NO_UNROLL
        for (; FB_POOL_WORDS(c) && i < (c & ~3); i += 4) {
            uint32_t largest = 0x80808080u;
            for (int32_t iy = y0; iy < y1; iy += dilation_h) {
                for (int32_t ix = x0; ix < x1; ix += dilation_w) {
                    largest = fb_max_bytes(fb_pool_load(images + (iy * w + ix) * c + i), largest);
                }
            }
            fb_store32_unaligned(out + i, largest);
        }
#endif
        FB_NO_UNROLL
        for (; i < c; i++) {
            int32_t largest = -128;
            for (int32_t iy = y0; iy < y1; iy += dilation_h) {
                for (int32_t ix = x0; ix < x1; ix += dilation_w) {
                    largest = fb_max(largest, images[(iy * w + ix) * c + i]);
                }
            }
            out[i] = (int8_t)largest;
        }
        out += c;
    }
}

#endif
