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

/* Clamps `count` results that are saturated to [-128, 127] so far. */
FB_NOINLINE void fb_clamp_bytes(int8_t *values, int32_t count, int32_t lo, int32_t hi) {
#if FB_DSP
    const uint32_t low = ((uint32_t)lo & 0xffu) * 0x01010101u;
    const uint32_t high = ((uint32_t)hi & 0xffu) * 0x01010101u;
    for (; count >= 4; count -= 4, values += 4) {
        uint32_t word = fb_load32_unaligned(values), difference;
        /* SSUB8 sets a flag per byte where the difference is not negative; SEL picks by it. */
        FB_ASM("ssub8 %1, %0, %2\n\tsel %0, %0, %2\n\tssub8 %1, %3, %0\n\tsel %0, %0, %3"
               : "+&r"(word), "=&r"(difference)
               : "r"(low), "r"(high)
               : "cc");
        fb_store32_unaligned(values, word);
    }
#endif
    for (; count > 0; count--, values++) *values = (int8_t)fb_clamp8(*values, lo, hi);
}

#endif
