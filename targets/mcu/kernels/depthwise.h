/* Depthwise convolution: one filter (or `multiples` filters) a channel, int8, channels last.
 *
 * A channel's pixels lie C bytes apart, so the kernel copies one channel at a time into a padded
 * plane in scratch memory and slides the filter over that:
 *
 *     input [H][W][C]                 plane
 *     c0 c1 c2 | c0 c1 c2 | ...       z z  z  z  z        z: input_zero, written once
 *     c0 c1 c2 | c0 c1 c2 | ...  -->  z c0 c0 c0 z        c: rewritten for every channel
 *     c0 c1 c2 | c0 c1 c2 | ...       z c0 c0 c0 z
 *
 * The plane of 3x3 filters on DSP cores holds pairs (depthwise_pairs.h); otherwise it is row by
 * row (depthwise_rows.h). Since a channel is read completely before its outputs are written, and
 * they fall on that channel's own bytes, the output may lie exactly on the input when there is one
 * filter a channel.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FB_DEPTHWISE_H
#define FB_DEPTHWISE_H

#include "depthwise_pairs.h"
#include "depthwise_rows.h"

/* input [n][h][w][c], weights [c][multiples][kh][kw], bias and multiplier [c][multiples],
 * output [n][oh][ow][c * multiples]; scratch as lowering/depthwise.py computes it. */
FB_INLINE void fb_depthwise_s8(const int8_t *input, int8_t *output, const int8_t *weights,
                               const int32_t *bias, const int32_t *multiplier, void *scratch,
                               int32_t n, int32_t h, int32_t w, int32_t c, int32_t multiples,
                               int32_t kh, int32_t kw, int32_t stride_h, int32_t stride_w,
                               int32_t dilation_h, int32_t dilation_w, int32_t top, int32_t left,
                               int32_t oh, int32_t ow, int32_t input_zero, int32_t shift,
                               int32_t lo, int32_t hi) {
    /* The part of the input that some window covers, and where it begins in the plane. */
    int32_t rows = (oh - 1) * stride_h + (kh - 1) * dilation_h + 1;
    int32_t columns = (ow - 1) * stride_w + (kw - 1) * dilation_w + 1;
    int32_t used_h = fb_min(h, rows - top), used_w = fb_min(w, columns - left);
    int32_t channels = c * multiples;
#if FB_HALVES
    if (kh == 3 && kw == 3 && dilation_h == 1 && dilation_w == 1 && stride_h == stride_w &&
        stride_h <= 2 && oh > 1 && shift <= 8) {
        fb_pairs_clear(scratch, rows, columns, input_zero);
        for (int32_t image = 0; image < n; image++) {
            for (int32_t i = 0; i < c; i++) {
                fb_pairs_fill(scratch, input + i, rows, top, left, used_h, used_w, c, w * c);
                for (int32_t k = i * multiples; k < (i + 1) * multiples; k++) {
                    fb_pairs_filter(scratch, rows, stride_h, weights + 9 * k, bias[k],
                                    multiplier[k], shift, output + k, oh, ow, channels, lo, hi);
                }
            }
            input += h * w * c;
            output += oh * ow * channels;
        }
        return;
    }
#endif
    /* The longer side of the output is the inner one, if need be with rows and columns swapped. */
    int32_t swap = oh > ow;
    fb_rows_task task;
    task.kh = swap ? kw : kh, task.kw = swap ? kh : kw;
    task.stride_h = swap ? stride_w : stride_h, task.stride_w = swap ? stride_h : stride_w;
    task.dilation_h = swap ? dilation_w : dilation_h;
    task.dilation_w = swap ? dilation_h : dilation_w;
    task.oh = swap ? ow : oh, task.ow = swap ? oh : ow;
    task.out_column = swap ? ow * channels : channels;
    task.out_row = swap ? channels : ow * channels;
    task.rows = swap ? columns : rows;
    task.pitch = (swap ? rows : columns) + FB_ROWS_SLACK;
    task.shift = shift, task.lo = lo, task.hi = hi;
    task.weight_column = swap ? kw : 1, task.weight_row = swap ? 1 : kw;

    fb_rows_weight *widened = scratch;
    void *behind = widened + FB_ROWS_WEIGHTS(task.kh, task.kw);
    fb_rows_element *plane = behind;
    fb_rows_clear(plane, task.rows * task.pitch, input_zero);
    fb_rows_element *inside = plane + (swap ? left * task.pitch + top : top * task.pitch + left);
    for (int32_t image = 0; image < n; image++) {
        for (int32_t i = 0; i < c; i++) {
            fb_rows_fill(inside, task.pitch, input + i, swap ? used_w : used_h,
                         swap ? used_h : used_w, swap ? w * c : c, swap ? c : w * c);
            for (int32_t k = i * multiples; k < (i + 1) * multiples; k++) {
                task.multiplier = multiplier[k];
                task.bias = fb_rows_widen(&task, widened, weights + kh * kw * k, bias[k]);
                fb_rows_filter(&task, plane, widened, output + k);
            }
        }
        input += h * w * c;
        output += oh * ow * channels;
    }
}

#endif
