/* Fully connected layers on a few rows; layers of many rows are convolutions of size one.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FB_DENSE_H
#define FB_DENSE_H

#include "gemm.h"

/* weights [ceil(O/4)][K][4], table [ceil(O/4)][4][2]: see gemm.h. */
FB_INLINE void fb_dense_quads(const int8_t *input, int8_t *output, const int8_t *weights,
                              const int32_t *table, int32_t rows, int32_t depth, int32_t channels,
                              int32_t shift, int32_t lo, int32_t hi) {
    const fb_gemm gemm = {weights, table, depth, channels, channels, shift, lo, hi};
    for (int32_t row = 0; row < rows; row++)
        fb_quads_one(&gemm, input + row * depth, output + row * channels);
}

#endif
