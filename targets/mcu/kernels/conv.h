/* Convolution, NHWC, any kernel, stride, dilation, padding and grouping.
 *
 * Pixels are taken in blocks. For each block the inputs under the kernel are gathered into scratch
 * memory in the order its inner product wants ("patches"), then multiplied with all the weights.
 * A block reads all its inputs before it writes its first output, so output and input may overlap.
 *
 * A patch is made of runs, one per kernel row: kw * channels bytes that lie together in the image.
 * Where a run sticks out of the image, or its taps are apart (dilation, groups), it is put together
 * in spare memory first.
 *
 *     image row y      . . [ c c c | c c c | c c c ] . .        run of a 3-wide kernel
 *     image row y+1    . . [ c c c | c c c | c c c ] . .        next run
 *
 * Inner products:
 *     fb_conv2d_quads    gemm.h       any core
 *     fb_conv2d_pairs    gemm_dsp.h   cores with SMLAD
 *     fb_conv2d_bytes    gemm_armv6m.h   Thumb-1 cores
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FB_CONV_H
#define FB_CONV_H

#include "gemm.h"
#include "gemm_armv6m.h"
#include "gemm_dsp.h"

typedef struct {
    int32_t in_h, in_w, in_c;
    int32_t out_h, out_w;
    int32_t kh, kw;
    int32_t stride_y, stride_x, top, left, dilation_y, dilation_x;
    int32_t channels; /* input channels that one output sees */
    int32_t zero;     /* what padding holds */
} fb_conv_shape;

FB_INLINE int8_t *fb_conv_fill(int8_t *to, int32_t value, int32_t length) {
#if FB_ARMV7M
    const uint32_t word = ((uint32_t)value & 0xffu) * 0x01010101u;
    for (; length >= 4; length -= 4, to += 4) fb_store32_unaligned(to, word);
#endif
    for (; length > 0; length--) {
        FB_NO_LIBCALL();
        *to++ = (int8_t)value;
    }
    return to;
}

/* Word by word where the core loads words at any address. */
FB_INLINE int8_t *fb_conv_copy(int8_t *to, const int8_t *from, int32_t length) {
#if FB_ARMV7M
    for (; length >= 4; length -= 4, to += 4, from += 4) {
        FB_NO_LIBCALL();
        fb_store32_unaligned(to, fb_load32_unaligned(from));
    }
#endif
    for (; length > 0; length--) {
        FB_NO_LIBCALL();
        *to++ = *from++;
    }
    return to;
}

/* Whether a run lies in the image as it is, given that it is inside. */
FB_INLINE int fb_conv_runs_together(const fb_conv_shape *shape) {
    return shape->kw == 1 || (shape->dilation_x == 1 && shape->channels == shape->in_c);
}

/* The run at row y, column x, in `spare`, with zeros where the image is not. */
FB_NOINLINE void fb_conv_build_run(const fb_conv_shape *shape, const int8_t *image, int8_t *spare,
                                   int32_t y, int32_t x) {
    const int32_t channels = shape->channels, zero = shape->zero;
    if (y < 0 || y >= shape->in_h) {
        fb_conv_fill(spare, zero, shape->kw * channels);
    } else if (fb_conv_runs_together(shape)) {
        /* Taps before the image, in it, and behind it. */
        const int32_t before = fb_min(fb_max(-x, 0), shape->kw);
        const int32_t until = fb_max(fb_min(shape->in_w - x, shape->kw), before);
        spare = fb_conv_fill(spare, zero, before * channels);
        if (until > before) {
            const int8_t *pixel = image + (y * shape->in_w + x + before) * shape->in_c;
            spare = fb_conv_copy(spare, pixel, (until - before) * channels);
        }
        fb_conv_fill(spare, zero, (shape->kw - until) * channels);
    } else {
        for (int32_t tap = 0; tap < shape->kw; tap++, x += shape->dilation_x) {
            if (x < 0 || x >= shape->in_w)
                spare = fb_conv_fill(spare, zero, channels);
            else
                spare = fb_conv_copy(spare, image + (y * shape->in_w + x) * shape->in_c, channels);
        }
    }
}

/* Where the first run of an output pixel starts. */
typedef struct {
    int32_t x, y; /* column and row in the image, perhaps outside */
} fb_conv_place;

FB_INLINE int fb_conv_is_inside(const fb_conv_shape *shape, fb_conv_place place) {
    const int32_t width = (shape->kw - 1) * shape->dilation_x + 1;
    const int32_t height = (shape->kh - 1) * shape->dilation_y + 1;
    if (shape->top == 0 && shape->left == 0 &&
        (shape->out_w - 1) * shape->stride_x + width <= shape->in_w &&
        (shape->out_h - 1) * shape->stride_y + height <= shape->in_h)
        return 1; /* known when compiling */
    return place.x >= 0 && place.x + width <= shape->in_w && place.y >= 0 &&
           place.y + height <= shape->in_h;
}

FB_INLINE const int8_t *fb_conv_run(const fb_conv_shape *shape, const int8_t *image, int8_t *spare,
                                    fb_conv_place place, int32_t tap_y) {
    const int32_t y = place.y + tap_y * shape->dilation_y;
    const int32_t width = (shape->kw - 1) * shape->dilation_x + 1;
    if (fb_conv_runs_together(shape) && y >= 0 && y < shape->in_h && place.x >= 0 &&
        place.x + width <= shape->in_w)
        return image + (y * shape->in_w + place.x) * shape->in_c;
    fb_conv_build_run(shape, image, spare, y, place.x);
    return spare;
}

/* The next output pixel in row-major order. */
FB_INLINE fb_conv_place fb_conv_next(const fb_conv_shape *shape, fb_conv_place place) {
    place.x += shape->stride_x;
    if (place.x == shape->out_w * shape->stride_x - shape->left) {
        place.x = -shape->left;
        place.y += shape->stride_y;
    }
    return place;
}

/* Interleaves one run of each pixel; `length` and `pixels` are literals. */
FB_INLINE int8_t *fb_quads_interleave(int8_t *acts, const int8_t *const *runs, int32_t length,
                                      int32_t pixels) {
    const int32_t step = length % 4 == 0 && pixels > 1 ? 4 : 1;
    if (pixels == 1) return fb_conv_copy(acts, runs[0], length);
    for (int32_t i = 0; i < length; i += step) {
        _Pragma("GCC unroll 4") for (int32_t j = 0; j < step; j++) {
            _Pragma("GCC unroll 4") for (int32_t p = 0; p < pixels; p++)
                acts[j * pixels + p] = runs[p][i + j];
        }
        acts += step * pixels;
    }
    return acts;
}

/* One block of `pixels` output pixels (a literal), the first at `place`. Returns the next place. */
FB_INLINE fb_conv_place fb_conv_quads_block(const fb_conv_shape *shape, const fb_gemm *gemm,
                                            const int8_t *image, int8_t *output, int8_t *acts,
                                            int8_t *spare, fb_conv_place place, int32_t pixels) {
    const int32_t length = shape->kw * shape->channels;
    fb_conv_place places[FB_QUADS_PIXELS];
    const int8_t *runs[FB_QUADS_PIXELS];
    int8_t *next = acts;
    int32_t offsets[FB_QUADS_PIXELS];
    int inside = fb_conv_runs_together(shape);
    _Pragma("GCC unroll 4") for (int32_t p = 0; p < pixels; p++) {
        places[p] = place;
        offsets[p] = (place.y * shape->in_w + place.x) * shape->in_c;
        inside = inside && fb_conv_is_inside(shape, place);
        place = fb_conv_next(shape, place);
    }
    for (int32_t tap_y = 0; tap_y < shape->kh; tap_y++) {
        _Pragma("GCC unroll 4") for (int32_t p = 0; p < pixels; p++) {
            runs[p] = inside ? image + offsets[p]
                             : fb_conv_run(shape, image, spare + p * length, places[p], tap_y);
            offsets[p] += shape->dilation_y * shape->in_w * shape->in_c;
        }
        next = fb_quads_interleave(next, runs, length, pixels);
    }
    if (pixels == 1)
        fb_quads_one(gemm, acts, output);
    else
        fb_quads_many(gemm, acts, output);
    return place;
}

/* weights [groups][ceil(O/4)][K][4], table [groups][ceil(O/4)][4][2] with O = out_c / groups.
 * scratch: FB_QUADS_PIXELS * (K + kw * I), the second term only where runs are built. */
FB_INLINE void fb_conv2d_quads(const int8_t *input, int8_t *output, const int8_t *weights,
                               const int32_t *table, void *scratch, int32_t batch, int32_t in_h,
                               int32_t in_w, int32_t in_c, int32_t out_h, int32_t out_w,
                               int32_t out_c, int32_t kh, int32_t kw, int32_t stride_y,
                               int32_t stride_x, int32_t top, int32_t left, int32_t dilation_y,
                               int32_t dilation_x, int32_t groups, int32_t zero, int32_t shift,
                               int32_t lo, int32_t hi) {
    const int32_t channels = in_c / groups, outputs = out_c / groups;
    const int32_t depth = kh * kw * channels, pixels = out_h * out_w;
    const fb_conv_shape shape = {in_h, in_w, in_c,     out_h,      out_w,      kh,      kw,  stride_y,
                                 stride_x, top, left, dilation_y, dilation_x, channels, zero};
    int8_t *const acts = (int8_t *)scratch;
    int8_t *const spare = acts + FB_QUADS_PIXELS * depth;
    for (int32_t n = 0; n < batch; n++) {
        for (int32_t group = 0; group < groups; group++) {
            const fb_gemm gemm = {weights + group * ((outputs + 3) / 4) * 4 * depth,
                                  table + group * ((outputs + 3) / 4) * 8,
                                  depth, outputs, out_c, shift, lo, hi};
            const int8_t *const image = input + group * channels;
            int8_t *out = output + group * outputs;
            fb_conv_place place = {-left, -top};
            int32_t rest = pixels;
            for (; rest >= FB_QUADS_PIXELS; rest -= FB_QUADS_PIXELS, out += FB_QUADS_PIXELS * out_c)
                place = fb_conv_quads_block(&shape, &gemm, image, out, acts, spare, place,
                                            FB_QUADS_PIXELS);
            for (; rest > 0; rest--, out += out_c)
                place = fb_conv_quads_block(&shape, &gemm, image, out, acts, spare, place, 1);
        }
        input += in_h * in_w * in_c;
        output += pixels * out_c;
    }
}

/* weights [groups][ceil(O/4)][K][4] of w + 128, table [groups][ceil(O/4)][4][2].
 * scratch: K + kw * I, the second term only where runs are built. */
FB_INLINE void fb_conv2d_bytes(const int8_t *input, int8_t *output, const uint8_t *weights,
                               const int32_t *table, void *scratch, int32_t batch, int32_t in_h,
                               int32_t in_w, int32_t in_c, int32_t out_h, int32_t out_w,
                               int32_t out_c, int32_t kh, int32_t kw, int32_t stride_y,
                               int32_t stride_x, int32_t top, int32_t left, int32_t dilation_y,
                               int32_t dilation_x, int32_t groups, int32_t zero, int32_t shift,
                               int32_t lo, int32_t hi, int32_t range) {
    const int32_t channels = in_c / groups, outputs = out_c / groups;
    const int32_t depth = kh * kw * channels, fours = (outputs + 3) / 4;
    const fb_conv_shape shape = {in_h, in_w, in_c,     out_h,      out_w,      kh,      kw,  stride_y,
                                 stride_x, top, left, dilation_y, dilation_x, channels, zero};
    uint8_t *const acts = (uint8_t *)scratch;
    int8_t *const spare = (int8_t *)scratch + depth;
    for (int32_t n = 0; n < batch; n++) {
        for (int32_t group = 0; group < groups; group++) {
            const fb_gemm gemm = {weights + group * fours * 4 * depth, table + group * fours * 8,
                                  depth, outputs, out_c, shift, lo, hi};
            const int8_t *const image = input + group * channels;
            int8_t *out = output + group * outputs;
            fb_conv_place place = {-left, -top};
            for (int32_t rest = out_h * out_w; rest > 0; rest--, out += out_c) {
                uint8_t *next = acts;
                int32_t sum = 0;
                for (int32_t tap_y = 0; tap_y < kh; tap_y++) {
                    const int8_t *run = fb_conv_run(&shape, image, spare, place, tap_y);
                    next = fb_bytes_append(next, run, kw * channels, &sum);
                }
                fb_bytes_unsigned(&gemm, acts, out, -128 * sum, range);
                place = fb_conv_next(&shape, place);
            }
        }
        input += in_h * in_w * in_c;
        output += out_h * out_w * out_c;
    }
}

/* Like fb_conv_quads_block. Runs that are not whole quads are first put together to a patch of
 * bytes in `spare`. */
FB_INLINE fb_conv_place fb_conv_pairs_block(const fb_conv_shape *shape, const fb_pairs_job *job,
                                            const int8_t *image, int32_t channels, uint32_t *acts,
                                            int8_t *spare, fb_conv_place place,
                                            int32_t shift, int32_t lo, int32_t hi,
                                            int32_t pixels) {
    const int32_t length = shape->kw * shape->channels;
    const int whole = length % 4 == 0; /* runs are quads as they are */
    const int32_t room = whole ? length : 4 * job->quads;
    const int32_t row = shape->dilation_y * shape->in_w * shape->in_c;
    fb_conv_place places[FB_PAIRS_PIXELS];
    const int8_t *runs[FB_PAIRS_PIXELS];
    uint32_t *next = acts;
    int32_t offsets[FB_PAIRS_PIXELS];
    int inside = fb_conv_runs_together(shape);
    _Pragma("GCC unroll 3") for (int32_t p = 0; p < pixels; p++) {
        places[p] = place;
        offsets[p] = (place.y * shape->in_w + place.x) * shape->in_c;
        inside = inside && fb_conv_is_inside(shape, place);
        place = fb_conv_next(shape, place);
    }
    for (int32_t tap_y = 0; tap_y < shape->kh; tap_y++) {
        _Pragma("GCC unroll 3") for (int32_t p = 0; p < pixels; p++) {
            int8_t *to = spare + p * room + (whole ? 0 : tap_y * length);
            runs[p] = inside ? image + offsets[p]
                             : fb_conv_run(shape, image, to, places[p], tap_y);
            if (!whole && runs[p] != to) fb_conv_copy(to, runs[p], length);
            offsets[p] += row;
        }
        if (whole) next = fb_pairs_widen(next, runs, length / 4, pixels);
    }
    if (!whole) {
        _Pragma("GCC unroll 3") for (int32_t p = 0; p < pixels; p++) runs[p] = spare + p * room;
        fb_pairs_widen(acts, runs, job->quads, pixels);
    }
    fb_pairs_block(job, channels, pixels, shift, lo, hi);
    return place;
}

/* weights [groups][ceil(O/2)][Q][2] words, table [groups][ceil(O/2)][4], with Q = ceil(K/4).
 * scratch: 3 * (8 * Q + S), with S = 0 where no run is built or copied, kw * I where runs are whole
 * quads, and 4 * Q otherwise. */
FB_INLINE void fb_conv2d_pairs(const int8_t *input, int8_t *output, const int16_t *weights,
                               const int32_t *table, void *scratch, int32_t batch, int32_t in_h,
                               int32_t in_w, int32_t in_c, int32_t out_h, int32_t out_w,
                               int32_t out_c, int32_t kh, int32_t kw, int32_t stride_y,
                               int32_t stride_x, int32_t top, int32_t left, int32_t dilation_y,
                               int32_t dilation_x, int32_t groups, int32_t zero, int32_t shift,
                               int32_t lo, int32_t hi) {
    const int32_t channels = in_c / groups, outputs = out_c / groups;
    const int32_t quads = (kh * kw * channels + 3) / 4, pairs = (outputs + 1) / 2;
    const fb_conv_shape shape = {in_h, in_w, in_c,     out_h,      out_w,      kh,      kw,  stride_y,
                                 stride_x, top, left, dilation_y, dilation_x, channels, zero};
    uint32_t *const acts = (uint32_t *)scratch;
    int8_t *const spare = (int8_t *)(acts + FB_PAIRS_PIXELS * 2 * quads);
    for (int32_t n = 0; n < batch; n++) {
        for (int32_t group = 0; group < groups; group++) {
            const int8_t *const image = input + group * channels;
            fb_pairs_job job = {table + group * pairs * 4, output + group * outputs, out_c, 0, acts,
                                quads, weights + group * pairs * quads * 4};
            fb_conv_place place = {-left, -top};
            int32_t rest = out_h * out_w;
            for (; rest >= FB_PAIRS_PIXELS; rest -= FB_PAIRS_PIXELS) {
                place = fb_conv_pairs_block(&shape, &job, image, outputs, acts, spare, place, shift,
                                            lo, hi, FB_PAIRS_PIXELS);
                job.output += FB_PAIRS_PIXELS * out_c;
            }
            for (; rest > 0; rest--) {
                place = fb_conv_pairs_block(&shape, &job, image, outputs, acts, spare, place, shift,
                                            lo, hi, 1);
                job.output += out_c;
            }
        }
        input += in_h * in_w * in_c;
        output += out_h * out_w * out_c;
    }
}

#endif
