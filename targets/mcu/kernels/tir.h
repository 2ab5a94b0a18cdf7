/* What C functions generated from TIR call: integer arithmetic that C leaves undefined, and the
 * float functions.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FB_TIR_H
#define FB_TIR_H

#include "float_math.h"

/* Per type: extremes; quotients and remainders towards zero and towards minus infinity, where
 * division by zero gives 0 and overflow wraps; shifts by any count. */
#define FB_TIR_COMMON(name, type, bits)                                                       \
    FB_INLINE type fb_tir_min_##name(type a, type b) { return a < b ? a : b; }                \
    FB_INLINE type fb_tir_max_##name(type a, type b) { return a > b ? a : b; }                \
    FB_INLINE type fb_tir_shl_##name(type a, type b) {                                        \
        return (uint64_t)b < bits ? (type)((uint64_t)a << (uint64_t)b) : 0;                   \
    }
#define FB_TIR_SIGNED(name, type, wide, bits)                                                 \
    FB_TIR_COMMON(name, type, bits)                                                           \
    FB_INLINE type fb_tir_div_##name(type a, type b) {                                        \
        return b == 0 ? 0 : b == -1 ? (type)(0u - (wide)a) : a / b;                           \
    }                                                                                         \
    FB_INLINE type fb_tir_mod_##name(type a, type b) { return b == 0 || b == -1 ? 0 : a % b; } \
    FB_INLINE type fb_tir_floormod_##name(type a, type b) {                                   \
        type rest = fb_tir_mod_##name(a, b);                                                  \
        return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;                          \
    }                                                                                         \
    FB_INLINE type fb_tir_floordiv_##name(type a, type b) {                                   \
        type rest = fb_tir_mod_##name(a, b);                                                  \
        return fb_tir_div_##name(a, b) - (rest != 0 && (rest < 0) != (b < 0));                \
    }                                                                                         \
    FB_INLINE type fb_tir_shr_##name(type a, type b) {                                        \
        return (uint64_t)b < bits ? a >> b : a >> (bits - 1);                                 \
    }
#define FB_TIR_UNSIGNED(name, type, bits)                                                     \
    FB_TIR_COMMON(name, type, bits)                                                           \
    FB_INLINE type fb_tir_div_##name(type a, type b) { return b == 0 ? 0 : a / b; }           \
    FB_INLINE type fb_tir_mod_##name(type a, type b) { return b == 0 ? 0 : a % b; }           \
    FB_INLINE type fb_tir_floordiv_##name(type a, type b) { return fb_tir_div_##name(a, b); } \
    FB_INLINE type fb_tir_floormod_##name(type a, type b) { return fb_tir_mod_##name(a, b); } \
    FB_INLINE type fb_tir_shr_##name(type a, type b) {                                        \
        return (uint64_t)b < bits ? a >> b : 0;                                               \
    }
FB_TIR_SIGNED(i32, int32_t, uint32_t, 32)
FB_TIR_SIGNED(i64, int64_t, uint64_t, 64)
FB_TIR_UNSIGNED(u32, uint32_t, 32)
FB_TIR_UNSIGNED(u64, uint64_t, 64)
#undef FB_TIR_COMMON
#undef FB_TIR_SIGNED
#undef FB_TIR_UNSIGNED

/* Modulo 2^64. */
FB_INLINE int64_t fb_tir_add64(int64_t a, int64_t b) {
    return (int64_t)((uint64_t)a + (uint64_t)b);
}
FB_INLINE int64_t fb_tir_sub64(int64_t a, int64_t b) {
    return (int64_t)((uint64_t)a - (uint64_t)b);
}
FB_INLINE int64_t fb_tir_mul64(int64_t a, int64_t b) {
    return (int64_t)((uint64_t)a * (uint64_t)b);
}

FB_INLINE int32_t fb_tir_popcount(uint64_t value) {
    int32_t count = 0;
    for (; value; value &= value - 1u) count++;
    return count;
}
FB_INLINE int32_t fb_tir_clz(uint64_t value, int32_t bits) {
    int32_t count = bits;
    for (; value; value >>= 1) count--;
    return count;
}

#endif
