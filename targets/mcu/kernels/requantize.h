/* From an int32 accumulator to an int8 result: the one rounding rule of all integer kernels.
 *
 *     clamp((((acc << shift) + b) * m) >> 32, lo, hi)
 *
 * with a 64-bit product and an arithmetic shift. `m` is in [0, 2^31). Everything constant is in
 * `b`: the bias, the input's zero point times the weights' sum, the output's zero point over the
 * scale, and the rounding half. The compiler has checked that nothing leaves int32.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FB_REQUANTIZE_H
#define FB_REQUANTIZE_H

#include "isa.h"

FB_INLINE int32_t fb_requantize(int32_t acc, int32_t b, int32_t m, int32_t shift, int32_t lo,
                                int32_t hi) {
    int32_t value = fb_add(fb_shl(acc, shift), b);
    return fb_clamp8(fb_mulh(value, m), lo, hi);
}

#endif
