/* Data movement: permutations, slices, concatenation, padding, selection along axes.
 *
 * Everything is in bytes; an element's size only matters where elements are moved one by one.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FB_MOVE_H
#define FB_MOVE_H

#include "halves.h"

/* Copies forwards: `to` may lie before `from` in the same memory. */
FB_INLINE void fb_copy(void *to, const void *from, int32_t bytes) {
    int8_t *out = to;
    const int8_t *in = from;
    int32_t i = 0;
#if FB_ARMV7M
    const int32_t words = 1;
#else
    const int32_t words = bytes >= 8 && (((uintptr_t)to | (uintptr_t)from) & 3) == 0;
#endif
    if (words) {
        FB_NO_UNROLL
        for (; i + 16 <= bytes; i += 16) {
            uint32_t w0, w1, w2, w3;
#if FB_ARMV7M
            w0 = fb_load32_unaligned(in + i), w1 = fb_load32_unaligned(in + i + 4);
            w2 = fb_load32_unaligned(in + i + 8), w3 = fb_load32_unaligned(in + i + 12);
            fb_store32_unaligned(out + i, w0), fb_store32_unaligned(out + i + 4, w1);
            fb_store32_unaligned(out + i + 8, w2), fb_store32_unaligned(out + i + 12, w3);
#else
            w0 = fb_load32(in + i), w1 = fb_load32(in + i + 4);
            w2 = fb_load32(in + i + 8), w3 = fb_load32(in + i + 12);
            fb_store32(out + i, w0), fb_store32(out + i + 4, w1);
            fb_store32(out + i + 8, w2), fb_store32(out + i + 12, w3);
#endif
            FB_NO_LIBCALL();
        }
        FB_NO_UNROLL
        for (; i + 4 <= bytes; i += 4) {
#if FB_ARMV7M
            fb_store32_unaligned(out + i, fb_load32_unaligned(in + i));
#else
            fb_store32(out + i, fb_load32(in + i));
#endif
            FB_NO_LIBCALL();
        }
    }
    FB_NO_UNROLL
    for (; i < bytes; i++) {
        out[i] = in[i];
        FB_NO_LIBCALL();
    }
}

FB_INLINE void fb_fill(void *to, int32_t value, int32_t bytes) {
    int8_t *out = to;
    FB_NO_UNROLL
    for (int32_t i = 0; i < bytes; i++) {
        out[i] = (int8_t)value;
        FB_NO_LIBCALL();
    }
}

/* One element of 1, 2, 4 or 8 bytes. */
FB_INLINE void fb_copy_element(int8_t *to, const int8_t *from, int32_t bytes) {
    if (bytes == 1) {
        *to = *from;
    } else if (bytes == 2) {
        *(fb_half *)(void *)to = *(const fb_half *)(const void *)from;
    } else {
        for (int32_t i = 0; i < bytes; i += 4) fb_store32(to + i, fb_load32(from + i));
    }
}

/* out [n0]...[n4]; s0..s4 are the bytes in the input from one index to the next, which begins at
 * `offset`. With positive steps in falling order (a slice) the output may lie on or before the
 * input. */
FB_INLINE void fb_gather(const void *input, void *output, int32_t element, int32_t offset,
                         int32_t n0, int32_t n1, int32_t n2, int32_t n3, int32_t n4, int32_t s0,
                         int32_t s1, int32_t s2, int32_t s3, int32_t s4) {
    const int8_t *in = (const int8_t *)input + offset;
    int8_t *out = output;
    FB_NO_UNROLL
    for (int32_t i0 = 0; i0 < n0; i0++) {
        FB_NO_UNROLL
        for (int32_t i1 = 0; i1 < n1; i1++) {
            FB_NO_UNROLL
            for (int32_t i2 = 0; i2 < n2; i2++) {
                FB_NO_UNROLL
                for (int32_t i3 = 0; i3 < n3; i3++) {
                    const int8_t *row = in + i0 * s0 + i1 * s1 + i2 * s2 + i3 * s3;
                    if (s4 == element) {
                        fb_copy(out, row, n4 * element);
                        out += n4 * element;
                        continue;
                    }
                    int32_t i4 = 0;
                    FB_NO_UNROLL
                    for (; i4 < (n4 & ~3); i4 += 4) {
                        fb_copy_element(out, row, element);
                        fb_copy_element(out + element, row + s4, element);
                        fb_copy_element(out + 2 * element, row + 2 * s4, element);
                        fb_copy_element(out + 3 * element, row + 3 * s4, element);
                        row += 4 * s4;
                        out += 4 * element;
                    }
                    FB_NO_UNROLL
                    for (; i4 < n4; i4++) {
                        fb_copy_element(out, row, element);
                        row += s4;
                        out += element;
                    }
                }
            }
        }
    }
}

/* One input of a concatenation: `outer` pieces, `step` bytes apart in the output. */
FB_INLINE void fb_scatter_pieces(const void *input, int8_t *out, int32_t outer, int32_t bytes,
                                 int32_t step) {
    const int8_t *in = input;
    FB_NO_UNROLL
    for (int32_t i = 0; i < outer; i++) fb_copy(out + i * step, in + i * bytes, bytes);
}

/* Up to eight inputs [outer][b_i] side by side, output [outer][b0 + b1 + ...]. An input that is not
 * there has 0 bytes. */
FB_INLINE void fb_concat(void *output, int32_t outer, const void *in0, int32_t b0, const void *in1,
                         int32_t b1, const void *in2, int32_t b2, const void *in3, int32_t b3,
                         const void *in4, int32_t b4, const void *in5, int32_t b5, const void *in6,
                         int32_t b6, const void *in7, int32_t b7) {
    int8_t *out = output;
    int32_t step = b0 + b1 + b2 + b3 + b4 + b5 + b6 + b7;
    fb_scatter_pieces(in0, out, outer, b0, step), out += b0;
    fb_scatter_pieces(in1, out, outer, b1, step), out += b1;
    if (b2) fb_scatter_pieces(in2, out, outer, b2, step), out += b2;
    if (b3) fb_scatter_pieces(in3, out, outer, b3, step), out += b3;
    if (b4) fb_scatter_pieces(in4, out, outer, b4, step), out += b4;
    if (b5) fb_scatter_pieces(in5, out, outer, b5, step), out += b5;
    if (b6) fb_scatter_pieces(in6, out, outer, b6, step), out += b6;
    if (b7) fb_scatter_pieces(in7, out, outer, b7, step);
}

/* The reverse of a part of a concatenation. */
FB_INLINE void fb_gather_pieces(const int8_t *in, void *output, int32_t outer, int32_t bytes,
                                int32_t step) {
    int8_t *out = output;
    FB_NO_UNROLL
    for (int32_t i = 0; i < outer; i++) fb_copy(out + i * bytes, in + i * step, bytes);
}

/* Input [outer][b0 + b1 + ...] to up to eight outputs [outer][b_i]. */
FB_INLINE void fb_split(const void *input, int32_t outer, void *out0, int32_t b0, void *out1,
                        int32_t b1, void *out2, int32_t b2, void *out3, int32_t b3, void *out4,
                        int32_t b4, void *out5, int32_t b5, void *out6, int32_t b6, void *out7,
                        int32_t b7) {
    const int8_t *in = input;
    int32_t step = b0 + b1 + b2 + b3 + b4 + b5 + b6 + b7;
    fb_gather_pieces(in, out0, outer, b0, step), in += b0;
    if (b1) fb_gather_pieces(in, out1, outer, b1, step), in += b1;
    if (b2) fb_gather_pieces(in, out2, outer, b2, step), in += b2;
    if (b3) fb_gather_pieces(in, out3, outer, b3, step), in += b3;
    if (b4) fb_gather_pieces(in, out4, outer, b4, step), in += b4;
    if (b5) fb_gather_pieces(in, out5, outer, b5, step), in += b5;
    if (b6) fb_gather_pieces(in, out6, outer, b6, step), in += b6;
    if (b7) fb_gather_pieces(in, out7, outer, b7, step);
}

/* Input [n0][n1][n2][n3] bytes into the middle of out, whose axes are longer by `before` (pad) and
 * `after` (end) on each side; the border is filled with the byte `value`. */
FB_INLINE void fb_pad(const void *input, void *output, int32_t value, int32_t n0, int32_t n1,
                      int32_t n2, int32_t n3, int32_t pad0, int32_t pad1, int32_t pad2,
                      int32_t pad3, int32_t end0, int32_t end1, int32_t end2, int32_t end3) {
    const int8_t *in = input;
    int8_t *out = output;
    int32_t row = pad3 + n3 + end3, sheet = (pad2 + n2 + end2) * row;
    int32_t block = (pad1 + n1 + end1) * sheet;
    fb_fill(out, value, pad0 * block);
    out += pad0 * block;
    FB_NO_UNROLL
    for (int32_t i0 = 0; i0 < n0; i0++) {
        fb_fill(out, value, pad1 * sheet);
        out += pad1 * sheet;
        FB_NO_UNROLL
        for (int32_t i1 = 0; i1 < n1; i1++) {
            fb_fill(out, value, pad2 * row);
            out += pad2 * row;
            FB_NO_UNROLL
            for (int32_t i2 = 0; i2 < n2; i2++) {
                fb_fill(out, value, pad3);
                fb_copy(out + pad3, in, n3);
                fb_fill(out + pad3 + n3, value, end3);
                in += n3;
                out += row;
            }
            fb_fill(out, value, end2 * row);
            out += end2 * row;
        }
        fb_fill(out, value, end1 * sheet);
        out += end1 * sheet;
    }
    fb_fill(out, value, end0 * block);
}

/* Input [outer][length][bytes] to out [outer][count][bytes]: the slices numbered in `index`. */
FB_INLINE void fb_take(const void *input, void *output, const uint16_t *index, int32_t outer,
                       int32_t length, int32_t count, int32_t bytes) {
    const int8_t *in = input;
    int8_t *out = output;
    FB_NO_UNROLL
    for (int32_t i = 0; i < outer; i++) {
        FB_NO_UNROLL
        for (int32_t j = 0; j < count; j++) {
            fb_copy(out, in + index[j] * bytes, bytes);
            out += bytes;
        }
        in += length * bytes;
    }
}

/* Input [outer][h][w][bytes] to out [outer][oh][ow][bytes]: pixel (rows[y], columns[x]) at (y, x).
 */
FB_INLINE void fb_take_pixels(const void *input, void *output, const uint16_t *rows,
                              const uint16_t *columns, int32_t outer, int32_t h, int32_t w,
                              int32_t oh, int32_t ow, int32_t bytes) {
    const int8_t *in = input;
    int8_t *out = output;
    FB_NO_UNROLL
    for (int32_t i = 0; i < outer; i++) {
        FB_NO_UNROLL
        for (int32_t y = 0; y < oh; y++) {
            const int8_t *row = in + rows[y] * w * bytes;
            FB_NO_UNROLL
            for (int32_t x = 0; x < ow; x++) {
                fb_copy(out, row + columns[x] * bytes, bytes);
                out += bytes;
            }
        }
        in += h * w * bytes;
    }
}

#endif
