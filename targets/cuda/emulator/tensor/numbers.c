/* Number formats of tensor cores: bits to values and, rounded once, back. */
#include "internal.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

fb_error fbt_fail(const char *format, ...) {
    static _Thread_local char text[320];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return text;
}

fb_error fbt_check_shared(const fb_shared *shared, uint64_t address, uint64_t size,
                         uint32_t alignment, const char *what) {
    if (address % alignment) {
        return fbt_fail("%s: shared address 0x%llx is not a multiple of %u", what,
                       (unsigned long long)address, alignment);
    }
    if (size > shared->size || address > shared->size - size) {
        return fbt_fail("%s: %llu bytes at shared address 0x%llx are outside of the block's %llu",
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

int32_t fbt_bits(int32_t type) {
    return type < FB_F16 || type > FB_S32 ? 0 : types[type].bits;
}

const char *fbt_name(int32_t type) {
    return type < FB_F16 || type > FB_S32 ? "?" : types[type].name;
}

bool fbt_is_fp8(int32_t type) { return type == FB_E4M3 || type == FB_E5M2; }
bool fbt_is_int8(int32_t type) { return type == FB_S8 || type == FB_U8; }
bool fbt_is_int4(int32_t type) { return type == FB_S4 || type == FB_U4; }

bool fbt_is_float(int32_t type) {
    return type == FB_F16 || type == FB_BF16 || type == FB_TF32 || fbt_is_fp8(type);
}

static float from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The exponent and fraction of a small format where a float has them, then the bias put right by a
 * multiplication, which is exact and makes subnormals normal. */
static float widen(uint32_t magnitude, uint32_t sign, int shift, float scale) {
    float value = from_bits(magnitude << shift) * scale;
    return sign ? -value : value;
}

static float decode_half(uint32_t bits) {
    uint32_t magnitude = bits & 0x7fff, sign = bits & 0x8000;
    if (magnitude < 0x7c00) return widen(magnitude, sign, 13, 0x1p112f);
    return from_bits(sign << 16 | 0x7f800000u | magnitude << 13);
}

/* e4m3 has no infinity, and one NaN for each sign. */
static float decode_e4m3(uint32_t bits) {
    uint32_t magnitude = bits & 0x7f, sign = bits & 0x80;
    if (magnitude < 0x7f) return widen(magnitude, sign, 20, 0x1p120f);
    return from_bits(sign << 24 | 0x7fc00000u);
}

float fbt_decode_float(int32_t type, uint32_t bits) {
    switch (type) {
    case FB_F16: return decode_half(bits);
    case FB_BF16: return from_bits(bits << 16);
    /* Section "wgmma.mma_async": the lower 13 bits are truncated. */
    case FB_TF32: return from_bits(bits & ~0x1fffu);
    case FB_E4M3: return decode_e4m3(bits);
    case FB_E5M2: return decode_half(bits << 8);
    default: return from_bits(bits);
    }
}

int32_t fbt_decode_integer(int32_t type, uint32_t bits) {
    switch (type) {
    case FB_S8: return (int32_t)((bits & 0xff) ^ 0x80) - 0x80;
    case FB_U8: return (int32_t)(bits & 0xff);
    case FB_S4: return (int32_t)((bits & 0xf) ^ 0x8) - 0x8;
    default: return (int32_t)(bits & 0xf);
    }
}

uint32_t fbt_encode_float(int32_t type, double value) {
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
