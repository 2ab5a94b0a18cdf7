/* What the core at hand can do, and its instructions as C functions.
 *
 * Kernels ask for the macros FB_DSP, FB_ARMV6M, FB_ARMV7M and FB_RISCV (each 0 or 1) and call the
 * functions below. Every function has a portable twin that gives the same bits, so each inner loop
 * can also be compiled and tested on a host.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FB_ISA_H
#define FB_ISA_H

#include <stdint.h>

/* Thumb cores with SMLAD, SXTB16, SMMUL, SSAT (Armv7E-M, Armv8-M Mainline with DSP). */
#if defined(__arm__) && defined(__thumb2__) && defined(__ARM_FEATURE_DSP) && __ARM_FEATURE_DSP
#define FB_DSP 1
#else
#define FB_DSP 0
#endif

/* Thumb-1 cores: eight low registers, a 32x32 -> 32 multiply and nothing else. */
#if defined(__ARM_ARCH_6M__) || defined(__ARM_ARCH_8M_BASE__)
#define FB_ARMV6M 1
#else
#define FB_ARMV6M 0
#endif

/* Thumb-2 cores with MLA, SMULL and SSAT: Armv7-M, and all that FB_DSP covers. */
#if defined(__arm__) && defined(__thumb2__) && !FB_ARMV6M
#define FB_ARMV7M 1
#else
#define FB_ARMV7M 0
#endif

#if defined(__riscv) && __riscv_xlen == 32 && defined(__riscv_mul)
#define FB_RISCV 1
#else
#define FB_RISCV 0
#endif

#if defined(__GNUC__)
#define FB_INLINE static inline __attribute__((always_inline, unused))
#define FB_NOINLINE static __attribute__((noinline, unused))
#define FB_RESTRICT __restrict
#define FB_LIKELY(condition) __builtin_expect(!!(condition), 1)
#define FB_UNLIKELY(condition) __builtin_expect(!!(condition), 0)
/* Words that may be loaded from and stored to memory of any element type. */
typedef uint32_t __attribute__((may_alias)) fb_word;
typedef uint16_t __attribute__((may_alias)) fb_half;
/* The same where the address need not be a multiple of 4: only Armv7-M and up load it in one go. */
typedef struct {
    uint32_t value;
} __attribute__((packed, may_alias)) fb_unaligned_word;
#else
#error "fewbits kernels need a compiler with GNU C attributes (gcc, clang, zig cc, armclang)"
#endif

/* A function whose body is all assembly. gcc must not draw conclusions from what it cannot read. */
#if defined(__clang__)
#define FB_NAKED static __attribute__((naked, noinline, unused))
#else
#define FB_NAKED static __attribute__((naked, noinline, noipa, unused))
#endif

#define FB_ASM __asm__

/* Keeps the compiler from recognising a byte loop as memcpy or memset and calling the library. */
#define FB_NO_LIBCALL() FB_ASM volatile("")

/* Arithmetic right shift; C leaves it to the implementation for negative numbers, and every
 * compiler that gets past the #error above defines it so. */
FB_INLINE int32_t fb_asr(int32_t value, int32_t count) { return value >> count; }

/* Left shift, addition, subtraction and multiplication modulo 2^32. */
FB_INLINE int32_t fb_shl(int32_t value, int32_t count) {
    return (int32_t)((uint32_t)value << count);
}
FB_INLINE int32_t fb_add(int32_t a, int32_t b) { return (int32_t)((uint32_t)a + (uint32_t)b); }
FB_INLINE int32_t fb_sub(int32_t a, int32_t b) { return (int32_t)((uint32_t)a - (uint32_t)b); }
FB_INLINE int32_t fb_mul(int32_t a, int32_t b) { return (int32_t)((uint32_t)a * (uint32_t)b); }

FB_INLINE int32_t fb_min(int32_t a, int32_t b) { return a < b ? a : b; }
FB_INLINE int32_t fb_max(int32_t a, int32_t b) { return a > b ? a : b; }

/* Four bytes at a multiple of 4. */
FB_INLINE uint32_t fb_load32(const void *address) { return *(const fb_word *)address; }
FB_INLINE void fb_store32(void *address, uint32_t value) { *(fb_word *)address = value; }

/* Four bytes at any address. */
FB_INLINE uint32_t fb_load32_unaligned(const void *address) {
    return ((const fb_unaligned_word *)address)->value;
}
FB_INLINE void fb_store32_unaligned(void *address, uint32_t value) {
    ((fb_unaligned_word *)address)->value = value;
}

/* Two signed halves of a word, and back. */
FB_INLINE int32_t fb_low_half(uint32_t word) { return (int16_t)(uint16_t)word; }
FB_INLINE int32_t fb_high_half(uint32_t word) { return (int16_t)(uint16_t)(word >> 16); }
FB_INLINE uint32_t fb_halves(int32_t high, int32_t low) {
    return ((uint32_t)high << 16) | ((uint32_t)low & 0xffffu);
}

/* Bytes 0 and 2 of a word, sign-extended to halves. */
FB_INLINE uint32_t fb_sxtb16(uint32_t word) {
#if FB_DSP
    uint32_t result;
    FB_ASM("sxtb16 %0, %1" : "=r"(result) : "r"(word));
    return result;
#else
    return fb_halves((int8_t)(uint8_t)(word >> 16), (int8_t)(uint8_t)word);
#endif
}

/* Bytes 1 and 3 of a word, sign-extended to halves. */
FB_INLINE uint32_t fb_sxtb16_ror8(uint32_t word) {
#if FB_DSP
    uint32_t result;
    FB_ASM("sxtb16 %0, %1, ror #8" : "=r"(result) : "r"(word));
    return result;
#else
    return fb_halves((int8_t)(uint8_t)(word >> 24), (int8_t)(uint8_t)(word >> 8));
#endif
}

/* accumulator + a.low * b.low + a.high * b.high, modulo 2^32. */
FB_INLINE int32_t fb_smlad(uint32_t a, uint32_t b, int32_t accumulator) {
#if FB_DSP
    int32_t result;
    FB_ASM("smlad %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(accumulator));
    return result;
#else
    int32_t low = fb_low_half(a) * fb_low_half(b);
    int32_t high = fb_high_half(a) * fb_high_half(b);
    return fb_add(accumulator, fb_add(low, high));
#endif
}

/* The upper half of the 64-bit product of a signed number and one in [0, 2^31). */
FB_INLINE int32_t fb_mulh(int32_t value, int32_t multiplier) {
#if FB_DSP
    int32_t result;
    FB_ASM("smmul %0, %1, %2" : "=r"(result) : "r"(value), "r"(multiplier));
    return result;
#elif FB_ARMV6M
    /* By 16-bit parts: value = vh:vl, multiplier = mh:ml, where vh is signed and the others are
     * not. No intermediate leaves 32 bits, and no 64-bit helper of the run-time library is called. */
    int32_t vh = value >> 16, mh = multiplier >> 16;
    uint32_t vl = (uint32_t)value & 0xffffu, ml = (uint32_t)multiplier & 0xffffu;
    int32_t middle = vh * (int32_t)ml + (int32_t)((vl * ml) >> 16);
    uint32_t carry = vl * (uint32_t)mh + ((uint32_t)middle & 0xffffu);
    return vh * mh + (middle >> 16) + (int32_t)(carry >> 16);
#else
    /* SMULL on Armv7-M, MULH on RISC-V. */
    return (int32_t)(((int64_t)value * multiplier) >> 32);
#endif
}

/* The nearest number in [-128, 127]. */
FB_INLINE int32_t fb_saturate8(int32_t value) {
#if FB_ARMV7M
    int32_t result;
    FB_ASM("ssat %0, #8, %1" : "=r"(result) : "r"(value));
    return result;
#else
    return fb_min(fb_max(value, -128), 127);
#endif
}

/* The nearest number in [lo, hi], both in [-128, 127] and most often literals. */
FB_INLINE int32_t fb_clamp8(int32_t value, int32_t lo, int32_t hi) {
#if FB_ARMV7M
    if (lo == 0 && hi == 127) {
        int32_t result;
        FB_ASM("usat %0, #7, %1" : "=r"(result) : "r"(value));
        return result;
    }
    value = fb_saturate8(value);
    if (lo > -128) value = fb_max(value, lo);
    if (hi < 127) value = fb_min(value, hi);
    return value;
#else
    return fb_min(fb_max(value, lo), hi);
#endif
}

#endif
