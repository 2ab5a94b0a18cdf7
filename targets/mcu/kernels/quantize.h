/* Between float32 and int8, per tensor.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FB_QUANTIZE_H
#define FB_QUANTIZE_H

#include "isa.h"

/* out = saturate(rint(x / scale) + zero): float32 division, ties to even; NaN gives the code of
 * zero. The output may lie on or before the input. */
FB_INLINE void fb_quantize_s8(const float *x, int8_t *out, int32_t n, float scale, int32_t zero) {
    for (int32_t i = 0; i < n; i++) {
        float value = x[i] / scale;
        int32_t code = 0;
        /* Beyond 512 every code is saturated, whatever the zero point. */
        if (value >= 512.0f) {
            code = 512;
        } else if (value <= -512.0f) {
            code = -512;
        } else if (value == value) {
            /* Adding 1.5 * 2^23 leaves no bits for a fraction: it is rounded away. */
            code = (int32_t)(value + 12582912.0f - 12582912.0f);
        }
        out[i] = (int8_t)fb_clamp8(code + zero, -128, 127);
    }
}

/* out = (x - zero) * scale. The output may start 3 (n - 1) bytes or more before the input. */
FB_INLINE void fb_dequantize_s8(const int8_t *x, float *out, int32_t n, float scale,
                                int32_t zero) {
    for (int32_t i = 0; i < n; i++) out[i] = (float)(x[i] - zero) * scale;
}

#endif
