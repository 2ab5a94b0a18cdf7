/* Fully connected layers on a few rows; layers of many rows are convolutions of size one.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FB_DENSE_H
#define FB_DENSE_H

#include "dense_dsp.h"
#include "gemm.h"
#include "gemm_armv6m.h"

/* weights [ceil(O/4)][K][4], table [ceil(O/4)][4][2]: see gemm.h. */
FB_INLINE void fb_dense_quads(const int8_t *input, int8_t *output, const int8_t *weights,
                              const int32_t *table, int32_t rows, int32_t depth, int32_t channels,
                              int32_t shift, int32_t lo, int32_t hi) {
    const fb_gemm gemm = {weights, table, depth, channels, channels, shift, lo, hi};
    for (int32_t row = 0; row < rows; row++)
        fb_quads_one(&gemm, input + row * depth, output + row * channels);
}

/* weights [ceil(O/4)][K][4] of w + 128, table [ceil(O/4)][4][2]: see gemm_armv6m.h. */
FB_INLINE void fb_dense_bytes(const int8_t *input, int8_t *output, const uint8_t *weights,
                              const int32_t *table, int32_t rows, int32_t depth, int32_t channels,
                              int32_t shift, int32_t lo, int32_t hi, int32_t range) {
    const fb_gemm gemm = {weights, table, depth, channels, channels, shift, lo, hi};
    for (int32_t row = 0; row < rows; row++) {
        int32_t sum = 0;
        for (int32_t k = 0; k < depth; k++) sum += input[k];
        fb_bytes_signed(&gemm, input, output, -128 * sum, range);
        input += depth;
        output += channels;
    }
}

#endif
