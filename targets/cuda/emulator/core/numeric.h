/* Rounding as PTX defines it, on top of IEEE float and double without contraction. */
#ifndef FEWBITS_EMULATOR_NUMERIC_H
#define FEWBITS_EMULATOR_NUMERIC_H

#include <math.h>

#include "machine.h"

#define VECTORIZE _Pragma("clang loop vectorize(assume_safety)")
/* Runs a statement for each lane of mask, i its number. */
#define FOR_LANES(...) \
    do { \
        if (mask == ALL_LANES) { \
            VECTORIZE for (int i = 0; i < LANES; ++i) { __VA_ARGS__; } \
        } else EACH(i, mask) { __VA_ARGS__; } \
    } while (0)

static inline float as_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
static inline uint32_t float_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}
static inline double as_double(uint64_t bits) {
    double value;
    memcpy(&value, &bits, 8);
    return value;
}
static inline uint64_t double_bits(double value) {
    uint64_t bits;
    memcpy(&bits, &value, 8);
    return bits;
}
static inline float half_to_float(uint32_t bits) {
    uint16_t low = (uint16_t)bits;
    _Float16 value;
    memcpy(&value, &low, 2);
    return (float)value;
}
static inline uint32_t float_to_half(float value) {
    if (value != value) return 0x7FFF;
    _Float16 rounded = (_Float16)value;
    uint16_t bits;
    memcpy(&bits, &rounded, 2);
    return bits;
}
static inline float bfloat_to_float(uint32_t bits) { return as_float(bits << 16); }
static inline uint32_t float_to_bfloat(float value) {
    uint32_t bits = float_bits(value);
    if (value != value) return 0x7FFF;
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
}
static inline float flush(float value) {
    return fabsf(value) < 0x1p-126f ? copysignf(0.0f, value) : value;
}
static inline float saturate(float value) { return value > 0 ? (value < 1 ? value : 1.0f) : 0.0f; }

/* Nearest double with the last bit set when inexact: rounding it again rounds value + error once. */
static inline double to_odd(double value, double error) {
    uint64_t bits = double_bits(value);
    if (error == 0 || value - value != 0 || (bits & 1)) return value;
    bool away = (error > 0) == (value > 0);
    if (value == 0) return error;
    return as_double(away ? bits + 1 : bits - 1);
}
static inline double add_odd(double a, double b) {
    double sum = a + b, other = sum - a, error = (a - (sum - other)) + (b - other);
    return to_odd(sum, error == error ? error : 0);
}

/* A number format narrower than double: fraction bits, least normal exponent, greatest number. */
typedef struct {
    int fraction, least;
    double greatest;
} fb_format;

static inline fb_format format_of(uint8_t type) {
    switch (type) {
        case T_F16: case T_F16X2: return (fb_format){10, -14, 65504.0};
        case T_BF16: case T_BF16X2: return (fb_format){7, -126, 0x1.FEp127};
        case T_TF32: return (fb_format){10, -126, 0x1.FFCp127};
        case T_E4M3: return (fb_format){3, -6, 448.0};
        case T_E5M2: return (fb_format){2, -14, 57344.0};
        default: return (fb_format){23, -126, 0x1.FFFFFEp127};
    }
}

static inline double round_integer(double value, uint32_t mode) {
    switch (mode & ROUND_MASK) {
        case ROUND_ZERO: return trunc(value);
        case ROUND_DOWN: return floor(value);
        case ROUND_UP: return ceil(value);
        default: return nearbyint(value);
    }
}

/* Rounds to a narrower format; overflow gives infinity, or the greatest number where the mode
 * rounds towards zero. away: ties go away from zero (.rna). */
static inline double round_format(double value, fb_format f, uint32_t mode, bool away) {
    if (value == 0 || value - value != 0) return value;
    int exponent = ilogb(value);
    if (exponent < f.least) exponent = f.least;
    double scaled = scalbn(value, f.fraction - exponent);
    double rounded = away ? copysign(floor(fabs(scaled) + 0.5), value) : round_integer(scaled, mode);
    double result = scalbn(rounded, exponent - f.fraction);
    if (rounded == 0) return copysign(0.0, value);
    if (fabs(result) > f.greatest) {
        bool inward = (mode & ROUND_MASK) == ROUND_ZERO ||
                      (mode & ROUND_MASK) == (value > 0 ? ROUND_DOWN : ROUND_UP);
        return copysign(inward ? f.greatest : (double)INFINITY, value);
    }
    return result;
}

static inline float round_float(double odd, uint32_t mode) {
    if ((mode & ROUND_MASK) == ROUND_NEAREST) return (float)odd;
    return (float)round_format(odd, format_of(T_F32), mode, false);
}

static inline float smaller(float a, float b, bool nan) {
    if (a != a || b != b) return nan ? as_float(0x7FFFFFFF) : a != a ? b : a;
    return a < b || (a == b && signbit(a)) ? a : b;
}
static inline float larger(float a, float b, bool nan) {
    if (a != a || b != b) return nan ? as_float(0x7FFFFFFF) : a != a ? b : a;
    return a > b || (a == b && !signbit(a)) ? a : b;
}

#endif
