/* Floats as bits: classification, rounding to whole numbers, exact square roots, and conversions
 * to integers that are defined for every value.
 *
 * Everything here is exact, in integer arithmetic, so every target gives the same bits.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FB_FLOAT_BITS_H
#define FB_FLOAT_BITS_H

#include "isa.h"

/* A product and a sum fused into one operation round once instead of twice, where a core has that
 * operation and the compiler feels like it. gcc needs -ffp-contract=off instead. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

FB_INLINE uint32_t fb_float_bits(float value) {
    union {
        float value;
        uint32_t bits;
    } both;
    both.value = value;
    return both.bits;
}

FB_INLINE float fb_bits_float(uint32_t bits) {
    union {
        uint32_t bits;
        float value;
    } both;
    both.bits = bits;
    return both.value;
}

FB_INLINE uint64_t fb_double_bits(double value) {
    union {
        double value;
        uint64_t bits;
    } both;
    both.value = value;
    return both.bits;
}

FB_INLINE double fb_bits_double(uint64_t bits) {
    union {
        uint64_t bits;
        double value;
    } both;
    both.bits = bits;
    return both.value;
}

#define FB_INFINITY fb_bits_float(0x7f800000u)
#define FB_NAN fb_bits_float(0x7fc00000u)

/* Tests, for float and double alike (a float becomes a double without loss). */
FB_INLINE int32_t fb_isnan(double x) { return x != x; }
FB_INLINE int32_t fb_isinf(double x) {
    return (fb_double_bits(x) & INT64_MAX) == UINT64_C(0x7ff0000000000000);
}
FB_INLINE int32_t fb_isfinite(double x) {
    return (fb_double_bits(x) & INT64_MAX) < UINT64_C(0x7ff0000000000000);
}

FB_INLINE float fb_fabsf(float x) { return fb_bits_float(fb_float_bits(x) & 0x7fffffffu); }
FB_INLINE double fb_fabs(double x) { return fb_bits_double(fb_double_bits(x) & INT64_MAX); }
FB_INLINE float fb_copysignf(float x, float sign) {
    return fb_bits_float((fb_float_bits(x) & 0x7fffffffu) | (fb_float_bits(sign) & 0x80000000u));
}

/* Largest and smallest of two, NaN if either is. */
FB_INLINE float fb_maxf(float a, float b) { return (a > b || a != a) ? a : b; }
FB_INLINE float fb_minf(float a, float b) { return (a < b || a != a) ? a : b; }
FB_INLINE double fb_max_double(double a, double b) { return (a > b || a != a) ? a : b; }
FB_INLINE double fb_min_double(double a, double b) { return (a < b || a != a) ? a : b; }
/* The same, one comparison cheaper, for a `b` that is not NaN. */
FB_INLINE float fb_maxf_number(float a, float b) { return !(a <= b) ? a : b; }
FB_INLINE float fb_minf_number(float a, float b) { return !(a >= b) ? a : b; }
FB_INLINE double fb_max_double_number(double a, double b) { return !(a <= b) ? a : b; }
FB_INLINE double fb_min_double_number(double a, double b) { return !(a >= b) ? a : b; }

/* Rounding towards zero, and half to even. Both keep the sign of zero. */
FB_INLINE float fb_truncf(float x) {
    uint32_t bits = fb_float_bits(x);
    int32_t exponent = (int32_t)((bits >> 23) & 0xffu) - 127;
    if (exponent >= 23) return x;
    if (exponent < 0) return fb_bits_float(bits & 0x80000000u);
    return fb_bits_float(bits & ~(0x007fffffu >> exponent));
}
FB_INLINE double fb_trunc(double x) {
    uint64_t bits = fb_double_bits(x);
    int32_t exponent = (int32_t)((bits >> 52) & 0x7ffu) - 1023;
    if (exponent >= 52) return x;
    if (exponent < 0) return fb_bits_double(bits & UINT64_C(0x8000000000000000));
    return fb_bits_double(bits & ~(UINT64_C(0x000fffffffffffff) >> exponent));
}
FB_INLINE float fb_nearbyintf(float x) {
    uint32_t bits = fb_float_bits(x);
    int32_t exponent = (int32_t)((bits >> 23) & 0xffu) - 127;
    uint32_t half, lowest;
    if (exponent >= 23) return x;
    if (exponent < -1) return fb_bits_float(bits & 0x80000000u);
    if (exponent == -1) { /* [0.5, 1): 0.5 goes to 0, the rest to 1 */
        return fb_bits_float((bits & 0x80000000u) |
                             ((bits & 0x007fffffu) ? 0x3f800000u : 0u));
    }
    lowest = 0x00800000u >> exponent; /* the bit that counts one; exponent 0 has it implicit */
    half = lowest >> 1;
    bits += half - 1u + ((exponent == 0 || (bits & lowest)) ? 1u : 0u);
    return fb_bits_float(bits & ~(lowest - 1u));
}
FB_INLINE double fb_nearbyint(double x) {
    uint64_t bits = fb_double_bits(x);
    int32_t exponent = (int32_t)((bits >> 52) & 0x7ffu) - 1023;
    uint64_t half, lowest;
    if (exponent >= 52) return x;
    if (exponent < -1) return fb_bits_double(bits & UINT64_C(0x8000000000000000));
    if (exponent == -1) {
        return fb_bits_double((bits & UINT64_C(0x8000000000000000)) |
                              ((bits & UINT64_C(0x000fffffffffffff)) ? UINT64_C(0x3ff0000000000000)
                                                                     : 0u));
    }
    lowest = UINT64_C(0x0010000000000000) >> exponent;
    half = lowest >> 1;
    bits += half - 1u + ((exponent == 0 || (bits & lowest)) ? 1u : 0u);
    return fb_bits_double(bits & ~(lowest - 1u));
}
FB_INLINE float fb_floorf(float x) {
    float whole = fb_truncf(x);
    return whole > x ? whole - 1.0f : whole;
}
FB_INLINE double fb_floor(double x) {
    double whole = fb_trunc(x);
    return whole > x ? whole - 1.0 : whole;
}
FB_INLINE float fb_ceilf(float x) {
    float whole = fb_truncf(x);
    return whole < x ? fb_copysignf(whole + 1.0f, x) : whole;
}
FB_INLINE double fb_ceil(double x) {
    double whole = fb_trunc(x);
    return whole < x ? (x < 0.0 ? -fb_fabs(whole + 1.0) : whole + 1.0) : whole;
}
/* Half away from zero. */
FB_INLINE float fb_roundf(float x) {
    float whole = fb_truncf(x);
    return fb_fabsf(x - whole) >= 0.5f ? whole + fb_copysignf(1.0f, x) : whole;
}
FB_INLINE double fb_round(double x) {
    double whole = fb_trunc(x);
    return fb_fabs(x - whole) >= 0.5 ? whole + (x < 0.0 ? -1.0 : 1.0) : whole;
}

/* Square root, correctly rounded: by the instruction where there is one, else one bit at a time
 * (no multiplications, few more instructions than a software division). */
#if defined(__arm__) && defined(__ARM_FP) && (__ARM_FP & 4)
FB_INLINE float fb_sqrtf(float x) {
    float root;
    FB_ASM("vsqrt.f32 %0, %1" : "=t"(root) : "t"(x));
    return root;
}
#else
FB_NOINLINE float fb_sqrtf(float x) {
    uint32_t bits = fb_float_bits(x), mantissa = bits & 0x007fffffu, root = 0, rest = 0, i;
    int32_t exponent = (int32_t)(bits >> 23);
    if (bits == 0x80000000u || bits == 0u || bits == 0x7f800000u) return x;
    if (bits > 0x7f800000u) return x != x ? x : FB_NAN;
    if (exponent == 0) {
        exponent = 1;
        while (mantissa < 0x00800000u) {
            mantissa <<= 1;
            exponent--;
        }
    } else {
        mantissa |= 0x00800000u;
    }
    exponent -= 127;
    if (exponent & 1) mantissa <<= 1;
    exponent >>= 1;
    mantissa <<= 7; /* a fixed-point number in [1, 4) with 30 bits after the point */
    for (i = 0; i < 25; i++) { /* 24 bits of root and one to round with */
        uint32_t trial;
        rest = (rest << 2) | (mantissa >> 30);
        mantissa <<= 2;
        trial = (root << 2) | 1u;
        root <<= 1;
        if (rest >= trial) {
            rest -= trial;
            root |= 1u;
        }
    }
    /* A root is never exactly halfway between two floats. */
    root = (root >> 1) + (root & 1u);
    return fb_bits_float(((uint32_t)(exponent + 126) << 23) + root);
}
#endif
FB_NOINLINE double fb_sqrt(double x) {
    uint64_t bits = fb_double_bits(x), mantissa = bits & UINT64_C(0x000fffffffffffff);
    uint64_t root = 0, rest = 0;
    int32_t exponent = (int32_t)(bits >> 52), i;
    if ((bits << 1) == 0 || bits == UINT64_C(0x7ff0000000000000)) return x;
    if (bits > UINT64_C(0x7ff0000000000000)) return x != x ? x : (double)FB_NAN;
    if (exponent == 0) {
        exponent = 1;
        while (mantissa < UINT64_C(0x0010000000000000)) {
            mantissa <<= 1;
            exponent--;
        }
    } else {
        mantissa |= UINT64_C(0x0010000000000000);
    }
    exponent -= 1023;
    if (exponent & 1) mantissa <<= 1;
    exponent >>= 1;
    mantissa <<= 10;
    for (i = 0; i < 54; i++) {
        uint64_t trial;
        rest = (rest << 2) | (mantissa >> 62);
        mantissa <<= 2;
        trial = (root << 2) | 1u;
        root <<= 1;
        if (rest >= trial) {
            rest -= trial;
            root |= 1u;
        }
    }
    root = (root >> 1) + (root & 1u);
    return fb_bits_double(((uint64_t)(exponent + 1022) << 52) + root);
}
FB_INLINE float fb_rsqrtf(float x) { return 1.0f / fb_sqrtf(x); }

/* x times 2^n, for n in [-252, 254], rounded once. */
FB_INLINE float fb_scale2f(float x, int32_t n) {
    int32_t first = n >> 1;
    /* One factor is a power of two that leaves x normal, the other may round it to a denormal. */
    if (n >= 0) {
        x *= fb_bits_float((uint32_t)(first + 127) << 23);
        return x * fb_bits_float((uint32_t)(n - first + 127) << 23);
    }
    if (n < -126) {
        x *= fb_bits_float((uint32_t)(n + 126 + 127) << 23);
        return x * fb_bits_float(0x00800000u);
    }
    return x * fb_bits_float((uint32_t)(n + 127) << 23);
}

/* Conversions to integers: towards zero, saturating, NaN becomes 0. */
FB_INLINE int32_t fb_float_to_int32(float x) {
    uint32_t bits = fb_float_bits(x), size = bits & 0x7fffffffu;
    if (size >= 0x4f000000u) { /* at least 2^31, or NaN */
        if (size > 0x7f800000u) return 0;
        return (bits >> 31) ? INT32_MIN : INT32_MAX;
    }
    return (int32_t)x;
}
FB_INLINE int32_t fb_double_to_int32(double x) {
    if (x >= 2147483648.0) return INT32_MAX;
    if (x <= -2147483649.0) return INT32_MIN;
    return x != x ? 0 : (int32_t)x;
}
FB_INLINE int64_t fb_double_to_int64(double x) {
    if (x >= 9223372036854775808.0) return INT64_MAX;
    if (x < -9223372036854775808.0) return INT64_MIN;
    return x != x ? 0 : (int64_t)x;
}
FB_INLINE uint32_t fb_double_to_uint32(double x) {
    if (x >= 4294967296.0) return UINT32_MAX;
    return x > 0.0 ? (uint32_t)x : 0u;
}
FB_INLINE uint64_t fb_double_to_uint64(double x) {
    if (x >= 18446744073709551616.0) return UINT64_MAX;
    return x > 0.0 ? (uint64_t)x : 0u;
}
FB_INLINE int64_t fb_float_to_int64(float x) { return fb_double_to_int64((double)x); }
FB_INLINE uint32_t fb_float_to_uint32(float x) { return fb_double_to_uint32((double)x); }
FB_INLINE uint64_t fb_float_to_uint64(float x) { return fb_double_to_uint64((double)x); }

#define FB_NARROW(name, type, low, high)                                                \
    FB_INLINE type fb_float_to_##name(float x) {                                        \
        return (type)fb_min(fb_max(fb_float_to_int32(x), low), high);                   \
    }                                                                                   \
    FB_INLINE type fb_double_to_##name(double x) {                                      \
        return (type)fb_min(fb_max(fb_double_to_int32(x), low), high);                  \
    }
FB_NARROW(int8, int8_t, -128, 127)
FB_NARROW(uint8, uint8_t, 0, 255)
FB_NARROW(int16, int16_t, -32768, 32767)
FB_NARROW(uint16, uint16_t, 0, 65535)
#undef FB_NARROW

#endif
