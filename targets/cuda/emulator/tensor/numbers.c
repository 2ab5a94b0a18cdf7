/* Number formats of tensor cores: bits to values and, rounded once, back. */
#include "internal.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

fb_error fb_fail(const char *format, ...) {
    static _Thread_local char text[320];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return text;
}

fb_error fb_check_shared(const fb_shared *shared, uint64_t address, uint64_t size,
                         uint32_t alignment, const char *what) {
    if (address % alignment) {
        return fb_fail("%s: shared address 0x%llx is not a multiple of %u", what,
                       (unsigned long long)address, alignment);
    }
    if (size > shared->size || address > shared->size - size) {
        return fb_fail("%s: %llu bytes at shared address 0x%llx are outside of the block's %llu",
                       what, (unsigned long long)size, (unsigned long long)address,
                       (unsigned long long)shared->size);
    }
    return NULL;
}

static const struct {
    const char *name;
    int32_t bits;
} types[] = {
    [FB_F16] = {"f16", 16}, [FB_BF16] = {"bf16", 16}, [FB_TF32] = {"tf32", 32},
    [FB_F32] = {"f32", 32}, [FB_F64] = {"f64", 64},   [FB_E4M3] = {"e4m3", 8},
    [FB_E5M2] = {"e5m2", 8}, [FB_S8] = {"s8", 8},     [FB_U8] = {"u8", 8},
    [FB_S4] = {"s4", 4},    [FB_U4] = {"u4", 4},      [FB_B1] = {"b1", 1},
    [FB_S32] = {"s32", 32},
};

int32_t fb_bits(int32_t type) {
    return type < FB_F16 || type > FB_S32 ? 0 : types[type].bits;
}

const char *fb_name(int32_t type) {
    return type < FB_F16 || type > FB_S32 ? "?" : types[type].name;
}

bool fb_is_fp8(int32_t type) { return type == FB_E4M3 || type == FB_E5M2; }
bool fb_is_int8(int32_t type) { return type == FB_S8 || type == FB_U8; }
bool fb_is_int4(int32_t type) { return type == FB_S4 || type == FB_U4; }

bool fb_is_float(int32_t type) {
    return type == FB_F16 || type == FB_BF16 || type == FB_TF32 || fb_is_fp8(type);
}

static float from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* sign, exponent, fraction of an IEEE-like format; e4m3 has no infinity and one NaN. */
static float small_float(uint32_t bits, int exponent_bits, int fraction_bits, bool finite) {
    uint32_t fraction = bits & ((1u << fraction_bits) - 1);
    uint32_t exponent = bits >> fraction_bits & ((1u << exponent_bits) - 1);
    uint32_t sign = bits >> (fraction_bits + exponent_bits) & 1;
    uint32_t top = (1u << exponent_bits) - 1;
    int bias = (1 << (exponent_bits - 1)) - 1;
    if (exponent == top && (!finite || fraction == (1u << fraction_bits) - 1)) {
        return from_bits(sign << 31 | 0x7f800000u | (fraction ? 0x400000u : 0));
    }
    if (exponent) {
        return from_bits(sign << 31 | (exponent + 127 - (uint32_t)bias) << 23 |
                         fraction << (23 - fraction_bits));
    }
    float value = ldexpf((float)fraction, 1 - bias - fraction_bits);
    return sign ? -value : value;
}

float fb_decode_float(int32_t type, uint32_t bits) {
    switch (type) {
    case FB_F16: return small_float(bits & 0xffff, 5, 10, false);
    case FB_BF16: return from_bits(bits << 16);
    /* Section "wgmma.mma_async": the lower 13 bits are truncated. */
    case FB_TF32: return from_bits(bits & ~0x1fffu);
    case FB_E4M3: return small_float(bits & 0xff, 4, 3, true);
    case FB_E5M2: return small_float(bits & 0xff, 5, 2, false);
    default: return from_bits(bits);
    }
}

int32_t fb_decode_integer(int32_t type, uint32_t bits) {
    switch (type) {
    case FB_S8: return (int32_t)((bits & 0xff) ^ 0x80) - 0x80;
    case FB_U8: return (int32_t)(bits & 0xff);
    case FB_S4: return (int32_t)((bits & 0xf) ^ 0x8) - 0x8;
    default: return (int32_t)(bits & 0xf);
    }
}

uint32_t fb_encode_float(int32_t type, double value) {
    if (type == FB_F32) {
        float rounded = (float)value;
        uint32_t bits;
        memcpy(&bits, &rounded, sizeof bits);
        return bits;
    }
    int fraction_bits = type == FB_F16 ? 10 : 7;
    int bias = type == FB_F16 ? 15 : 127;
    uint32_t infinity = type == FB_F16 ? 0x7c00u : 0x7f80u;
    uint32_t sign = signbit(value) ? 0x8000u : 0;
    double magnitude = fabs(value);
    if (isnan(value)) return 0x7fffu;
    if (isinf(value)) return sign | infinity;
    if (magnitude == 0) return sign;
    int exponent;
    frexp(magnitude, &exponent);
    exponent -= 1;
    if (exponent < 1 - bias) exponent = 1 - bias;
    /* In units of the last place: rint rounds to nearest even. */
    uint32_t scaled = (uint32_t)fmin(rint(ldexp(magnitude, fraction_bits - exponent)), 1e9);
    /* A carry out of the fraction adds one to the exponent; a subnormal has exponent field 0. */
    uint64_t bits = ((uint64_t)(exponent + bias - 1) << fraction_bits) + scaled;
    return sign | (bits >= infinity ? infinity : (uint32_t)bits);
}
