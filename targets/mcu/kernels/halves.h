/* Two 16-bit lanes and four bytes in a word: the rest of the Armv7E-M instructions that depthwise,
 * element-wise and pooling kernels use. Each function has a portable twin with the same bits.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FB_HALVES_H
#define FB_HALVES_H

#include "isa.h"

/* 1 where kernels work on pairs of 16-bit lanes. A host may define it to test those paths. */
#ifndef FB_HALVES
#define FB_HALVES FB_DSP
#endif

/* Two words at a multiple of 4, and then the address moves on by 8. */
FB_INLINE const int8_t *fb_load_two(const int8_t *address, uint32_t *first, uint32_t *second) {
#if FB_DSP
    FB_ASM volatile("ldrd %0, %1, [%2], #8"
                    : "=&r"(*first), "=&r"(*second), "+r"(address)
                    :
                    : "memory");
    return address;
#else
    *first = fb_load32(address), *second = fb_load32(address + 4);
    return address + 8;
#endif
}
FB_INLINE int8_t *fb_store_two(int8_t *address, uint32_t first, uint32_t second) {
#if FB_DSP
    FB_ASM volatile("strd %1, %2, [%0], #8" : "+r"(address) : "r"(first), "r"(second) : "memory");
    return address;
#else
    fb_store32(address, first), fb_store32(address + 4, second);
    return address + 8;
#endif
}

/* Before a loop: keeps clang from unrolling it where that would only cost flash. */
#if defined(__clang__)
#define FB_NO_UNROLL _Pragma("clang loop unroll(disable)")
#else
#define FB_NO_UNROLL
#endif

/* accumulator + a.low * b.low, a.low * b.high, a.high * b.low; modulo 2^32. */
FB_INLINE int32_t fb_smlabb(uint32_t a, uint32_t b, int32_t accumulator) {
#if FB_DSP
    int32_t result;
    FB_ASM("smlabb %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(accumulator));
    return result;
#else
    return fb_add(accumulator, fb_low_half(a) * fb_low_half(b));
#endif
}
FB_INLINE int32_t fb_smlabt(uint32_t a, uint32_t b, int32_t accumulator) {
#if FB_DSP
    int32_t result;
    FB_ASM("smlabt %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(accumulator));
    return result;
#else
    return fb_add(accumulator, fb_low_half(a) * fb_high_half(b));
#endif
}
FB_INLINE int32_t fb_smlatb(uint32_t a, uint32_t b, int32_t accumulator) {
#if FB_DSP
    int32_t result;
    FB_ASM("smlatb %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(accumulator));
    return result;
#else
    return fb_add(accumulator, fb_high_half(a) * fb_low_half(b));
#endif
}

/* The low half of `low` under the low half of `high` (PKHBT), and the high halves of both
 * (PKHTB). */
FB_INLINE uint32_t fb_pack_low(uint32_t low, uint32_t high) {
#if FB_DSP
    uint32_t result;
    FB_ASM("pkhbt %0, %1, %2, lsl #16" : "=r"(result) : "r"(low), "r"(high));
    return result;
#else
    return (low & 0xffffu) | (high << 16);
#endif
}
FB_INLINE uint32_t fb_pack_high(uint32_t low, uint32_t high) {
#if FB_DSP
    uint32_t result;
    FB_ASM("pkhtb %0, %1, %2, asr #16" : "=r"(result) : "r"(high), "r"(low));
    return result;
#else
    return (low >> 16) | (high & 0xffff0000u);
#endif
}

/* Lane by lane: accumulator + sign-extended bytes 0 and 2 (or 1 and 3) of a word; no lane may
 * overflow. */
FB_INLINE uint32_t fb_add_even_bytes(uint32_t accumulator, uint32_t word) {
#if FB_DSP
    uint32_t result;
    FB_ASM("sxtab16 %0, %1, %2" : "=r"(result) : "r"(accumulator), "r"(word));
    return result;
#else
    uint32_t lanes = fb_sxtb16(word);
    return ((accumulator + lanes) & 0xffffu) |
           (((accumulator >> 16) + (lanes >> 16)) << 16);
#endif
}
FB_INLINE uint32_t fb_add_odd_bytes(uint32_t accumulator, uint32_t word) {
#if FB_DSP
    uint32_t result;
    FB_ASM("sxtab16 %0, %1, %2, ror #8" : "=r"(result) : "r"(accumulator), "r"(word));
    return result;
#else
    return fb_add_even_bytes(accumulator, word >> 8);
#endif
}

/* The larger of each pair of signed bytes. */
FB_INLINE uint32_t fb_max_bytes(uint32_t a, uint32_t b) {
#if FB_DSP
    uint32_t result;
    FB_ASM("ssub8 %0, %1, %2\n\tsel %0, %1, %2" : "=&r"(result) : "r"(a), "r"(b) : "cc");
    return result;
#else
    uint32_t result = 0;
    for (int32_t i = 0; i < 32; i += 8) {
        int32_t larger = fb_max((int8_t)(uint8_t)(a >> i), (int8_t)(uint8_t)(b >> i));
        result |= ((uint32_t)larger & 0xffu) << i;
    }
    return result;
#endif
}

/* As fb_clamp8, where most values lie inside: cores that cannot saturate then compare once. */
FB_INLINE int32_t fb_clamp_seldom(int32_t value, int32_t lo, int32_t hi) {
#if FB_ARMV7M
    /* The builtin, unlike assembly, takes a shift into the instruction. */
    value = __builtin_arm_ssat(value, 8);
    if (lo > -128) value = fb_max(value, lo);
    if (hi < 127) value = fb_min(value, hi);
#else
    if (FB_UNLIKELY((uint32_t)fb_sub(value, lo) > (uint32_t)(hi - lo))) {
        value = value < lo ? lo : hi;
    }
#endif
    return value;
}

/* Four bytes of a word from the low bytes of four numbers, lowest first. */
FB_INLINE uint32_t fb_pack_bytes(int32_t b0, int32_t b1, int32_t b2, int32_t b3) {
#if FB_ARMV7M
    uint32_t word = (uint32_t)b0;
    FB_ASM("bfi %0, %1, #8, #8" : "+r"(word) : "r"(b1));
    FB_ASM("bfi %0, %1, #16, #8" : "+r"(word) : "r"(b2));
    FB_ASM("bfi %0, %1, #24, #8" : "+r"(word) : "r"(b3));
    return word;
#else
    return ((uint32_t)b0 & 0xffu) | (((uint32_t)b1 & 0xffu) << 8) |
           (((uint32_t)b2 & 0xffu) << 16) | ((uint32_t)b3 << 24);
#endif
}

#endif
