/* Matrix products over a block of pixels, four output channels at a time: any core.
 *
 * Activations lie in scratch memory as rows of `P` pixels, weights in flash as rows of four
 * channels, so both are read with one pointer each and constant offsets:
 *
 *     acts     k=0: p0 p1 .. pP-1     weights, channels 0-3   k=0: w0 w1 w2 w3
 *              k=1: p0 p1 .. pP-1                             k=1: w0 w1 w2 w3
 *              ...                                            ...
 *              k=K-1                  then channels 4-7 (missing ones are zero), ...
 *
 * table    one pair per channel: bias, multiplier; zeros for the missing channels
 *
 * The functions are shared by all layers of a model: their inner loops are long enough that
 * specializing them per layer would only cost flash.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FB_GEMM_H
#define FB_GEMM_H

#include "gemm_armv7m.h"
#include "gemm_riscv.h"
#include "requantize.h"

/* Pixels that share a load of weights: as many as the registers allow. */
#if FB_ARMV7M
#define FB_QUADS_PIXELS 2
#elif FB_ARMV6M
#define FB_QUADS_PIXELS 1
#else
#define FB_QUADS_PIXELS 4
#endif

/* What stays the same for all pixels of a layer. Assembly knows the order of the fields. */
typedef struct {
    const void *weights;
    const int32_t *table;
    int32_t depth;    /* K: products per output */
    int32_t channels; /* outputs per pixel */
    int32_t pitch;    /* bytes from one pixel's outputs to the next pixel's */
    int32_t shift, lo, hi;
} fb_gemm;

/* One block of `pixels` pixels, a literal. */
FB_INLINE void fb_quads_block(const fb_gemm *gemm, const int8_t *acts, int8_t *output,
                              int32_t pixels) {
    const int8_t *weights = (const int8_t *)gemm->weights;
    const int32_t *table = gemm->table;
    const int32_t depth = gemm->depth;
    for (int32_t left = gemm->channels; left > 0; left -= 4) {
        int32_t acc[4][FB_QUADS_PIXELS];
        const int8_t *x = acts;
        const int8_t *const end = acts + depth * pixels;
        _Pragma("GCC unroll 4") for (int32_t c = 0; c < 4; c++) {
            _Pragma("GCC unroll 4") for (int32_t p = 0; p < pixels; p++) acc[c][p] = 0;
        }
        while (x != end) {
            _Pragma("GCC unroll 4") for (int32_t c = 0; c < 4; c++) {
                const int32_t w = weights[c];
                _Pragma("GCC unroll 4") for (int32_t p = 0; p < pixels; p++) acc[c][p] += w * x[p];
            }
            weights += 4;
            x += pixels;
        }
        const int32_t count = fb_min(left, 4);
        _Pragma("GCC unroll 4") for (int32_t c = 0; c < 4; c++) {
            if (c < count) {
                const int32_t bias = table[0], multiplier = table[1];
                int8_t *place = output + c;
                table += 2;
                _Pragma("GCC unroll 4") for (int32_t p = 0; p < pixels; p++) {
                    *place = (int8_t)fb_requantize(acc[c][p], bias, multiplier, gemm->shift,
                                                   gemm->lo, gemm->hi);
                    place += gemm->pitch;
                }
            }
        }
        output += 4;
    }
}

FB_NOINLINE void fb_quads_portable_many(const fb_gemm *gemm, const int8_t *acts, int8_t *output) {
    fb_quads_block(gemm, acts, output, FB_QUADS_PIXELS);
}

FB_NOINLINE void fb_quads_portable_one(const fb_gemm *gemm, const int8_t *acts, int8_t *output) {
    fb_quads_block(gemm, acts, output, 1);
}

/* FB_QUADS_PIXELS pixels, all channels. */
FB_INLINE void fb_quads_many(const fb_gemm *gemm, const int8_t *acts, int8_t *output) {
#if FB_RISCV
    if (gemm->shift == 0)
        fb_quads_four_riscv(gemm, acts, output);
    else
        fb_quads_four_riscv_shifted(gemm, acts, output);
#elif FB_ARMV7M
    if (gemm->shift == 0)
        fb_quads_two_armv7m(gemm, acts, output);
    else
        fb_quads_two_armv7m_shifted(gemm, acts, output);
    if (gemm->lo > -128 || gemm->hi < 127) {
        fb_clamp_bytes(output, gemm->channels, gemm->lo, gemm->hi);
        fb_clamp_bytes(output + gemm->pitch, gemm->channels, gemm->lo, gemm->hi);
    }
#else
    fb_quads_portable_many(gemm, acts, output);
#endif
}

/* One pixel, all channels. Its activations may be any bytes in a row. */
FB_INLINE void fb_quads_one(const fb_gemm *gemm, const int8_t *acts, int8_t *output) {
#if FB_RISCV
    if (gemm->shift == 0)
        fb_quads_one_riscv(gemm, acts, output);
    else
        fb_quads_one_riscv_shifted(gemm, acts, output);
#elif FB_ARMV7M
    if (gemm->shift == 0)
        fb_quads_one_armv7m(gemm, acts, output);
    else
        fb_quads_one_armv7m_shifted(gemm, acts, output);
    if (gemm->lo > -128 || gemm->hi < 127)
        fb_clamp_bytes(output, gemm->channels, gemm->lo, gemm->hi);
#else
    fb_quads_portable_one(gemm, acts, output);
#endif
}

#endif
