/* add, sub, mul, mad, fma, div, rem, min, max and their kin, for every type. */
#include <fenv.h>

#include "numeric.h"

#define U32(n) ((uint32_t *)r32(w, in->o[n]))
#define S32(n) ((int32_t *)r32(w, in->o[n]))
#define U64(n) ((uint64_t *)r64(w, in->o[n]))
#define S64(n) ((int64_t *)r64(w, in->o[n]))
#define F32(n) ((float *)r32(w, in->o[n]))
#define F64(n) ((double *)r64(w, in->o[n]))

/* x, y, z are the operands of a lane in CTYPE; the register holds them in STORE. */
#define ONE(STORE, CTYPE, EXPRESSION) \
    do { \
        STORE *d = (STORE *)r64(w, in->o[0]); \
        const STORE *a = (const STORE *)r64(w, in->o[1]); \
        FOR_LANES(CTYPE x = (CTYPE)a[i]; d[i] = (STORE)(EXPRESSION)); \
        return FB_NEXT; \
    } while (0)
#define TWO(STORE, CTYPE, EXPRESSION) \
    do { \
        STORE *d = (STORE *)r64(w, in->o[0]); \
        const STORE *a = (const STORE *)r64(w, in->o[1]), *b = (const STORE *)r64(w, in->o[2]); \
        FOR_LANES(CTYPE x = (CTYPE)a[i]; CTYPE y = (CTYPE)b[i]; d[i] = (STORE)(EXPRESSION)); \
        return FB_NEXT; \
    } while (0)
#define THREE(STORE, CTYPE, EXPRESSION) \
    do { \
        STORE *d = (STORE *)r64(w, in->o[0]); \
        const STORE *a = (const STORE *)r64(w, in->o[1]), *b = (const STORE *)r64(w, in->o[2]), \
                    *c = (const STORE *)r64(w, in->o[3]); \
        FOR_LANES(CTYPE x = (CTYPE)a[i]; CTYPE y = (CTYPE)b[i]; CTYPE z = (CTYPE)c[i]; \
                  d[i] = (STORE)(EXPRESSION)); \
        return FB_NEXT; \
    } while (0)

enum { DO_ADD, DO_SUB, DO_MUL, DO_FMA, DO_MIN, DO_MAX, DO_DIV };

static float step_float(int what, float x, float y, float z, uint32_t flags) {
    float result;
    if (flags & FLAG_FTZ) x = flush(x), y = flush(y), z = flush(z);
    switch (what) {
        case DO_ADD: result = round_float(add_odd(x, y), flags); break;
        case DO_SUB: result = round_float(add_odd(x, -(double)y), flags); break;
        case DO_MUL: result = round_float((double)x * y, flags); break;
        case DO_FMA: result = round_float(add_odd((double)x * y, z), flags); break;
        case DO_MIN: result = smaller(x, y, flags & FLAG_NAN); break;
        case DO_MAX: result = larger(x, y, flags & FLAG_NAN); break;
        default: {
            double q = (double)x / y;
            result = x / y;
            if (flags & ROUND_MASK && q - q == 0) result = round_float(to_odd(q, fma(-q, y, x) / y), flags);
        }
    }
    if ((what == DO_MIN || what == DO_MAX) && flags & FLAG_XORSIGN)
        result = copysignf(result, signbit(x) != signbit(y) ? -1.0f : 1.0f);
    if (flags & FLAG_SAT) result = saturate(result);
    if (flags & FLAG_RELU && !(result > 0)) result = result != result ? result : 0.0f;
    return flags & FLAG_FTZ ? flush(result) : result;
}

static uint32_t step_small(int what, uint32_t x, uint32_t y, uint32_t z, uint8_t type, uint32_t flags) {
    bool half = type == T_F16 || type == T_F16X2;
    float a = half ? half_to_float(x) : bfloat_to_float(x);
    float b = half ? half_to_float(y) : bfloat_to_float(y), result;
    if (what == DO_FMA) {
        float c = half ? half_to_float(z) : bfloat_to_float(z);
        double sum = add_odd((double)a * b, c);
        result = (float)round_format(sum, format_of(type), ROUND_NEAREST, false);
        if (flags & FLAG_SAT) result = saturate(result);
        if (flags & FLAG_RELU && !(result > 0)) result = result != result ? result : 0.0f;
    } else if (what == DO_MIN || what == DO_MAX || what == DO_DIV) {
        result = step_float(what, a, b, 0, flags & ~(uint32_t)FLAG_FTZ);
    } else result = step_float(what, a, b, 0, flags & ~(uint32_t)FLAG_FTZ);
    uint32_t bits = half ? float_to_half(result) : float_to_bfloat(result);
    if (flags & FLAG_FTZ && half && !(bits & 0x7C00)) bits &= 0x8000;
    return bits;
}

__attribute__((noinline)) static double step_double(int what, volatile double x, volatile double y,
                                                    volatile double z, uint32_t flags) {
    static const int modes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};
    volatile double result;
    int before = fegetround();
    fesetround(modes[flags & ROUND_MASK]);
    switch (what) {
        case DO_ADD: result = x + y; break;
        case DO_SUB: result = x - y; break;
        case DO_MUL: result = x * y; break;
        case DO_FMA: result = fma(x, y, z); break;
        default: result = x / y; break;
    }
    fesetround(before);
    return result;
}

/* Floating-point types, with whatever flags. */
static fb_next floating(fb_warp *w, const fb_insn *in, uint32_t mask, int what) {
    uint32_t third = what == DO_FMA ? in->o[3] : in->o[2];
    switch (in->t) {
        case T_F32: {
            float *d = F32(0);
            const float *a = F32(1), *b = F32(2), *c = (float *)r32(w, third);
            EACH(i, mask) d[i] = step_float(what, a[i], b[i], c[i], in->flags);
            return FB_NEXT;
        }
        case T_F64: {
            double *d = F64(0);
            const double *a = F64(1), *b = F64(2), *c = (double *)r64(w, third);
            EACH(i, mask)
                d[i] = what == DO_MIN ? fmin(a[i], b[i]) : what == DO_MAX ? fmax(a[i], b[i])
                       : step_double(what, a[i], b[i], c[i], in->flags);
            return FB_NEXT;
        }
        case T_F16: case T_BF16: {
            uint32_t *d = U32(0), *a = U32(1), *b = U32(2), *c = r32(w, third);
            EACH(i, mask) d[i] = step_small(what, a[i], b[i], c[i], in->t, in->flags);
            return FB_NEXT;
        }
        case T_F16X2: case T_BF16X2: {
            uint32_t *d = U32(0), *a = U32(1), *b = U32(2), *c = r32(w, third);
            EACH(i, mask) {
                uint32_t low = step_small(what, a[i] & 0xFFFF, b[i] & 0xFFFF, c[i] & 0xFFFF, in->t, in->flags);
                uint32_t high = step_small(what, a[i] >> 16, b[i] >> 16, c[i] >> 16, in->t, in->flags);
                d[i] = low | high << 16;
            }
            return FB_NEXT;
        }
        default:
            return fb_fail(w, in, -1, FB_UNSUPPORTED, "this type has no such operation");
    }
}

static int32_t clamp_s32(int64_t v) { return (int32_t)(v > INT32_MAX ? INT32_MAX : v < INT32_MIN ? INT32_MIN : v); }

/* Two 16-bit integers in a register (.u16x2, .s16x2) are not distinguished from f16x2 by type. */
OPERATION(add) {
    switch (in->t) {
        case T_S32: if (in->flags & FLAG_SAT) TWO(uint32_t, int32_t, clamp_s32((int64_t)x + y)); TWO(uint32_t, uint32_t, x + y);
        case T_U32: TWO(uint32_t, uint32_t, x + y);
        case T_U64: case T_S64: TWO(uint64_t, uint64_t, x + y);
        case T_U16: case T_S16: TWO(uint32_t, uint32_t, (x + y) & 0xFFFF);
        case T_F32: if (!in->flags) TWO(float, float, x + y); break;
        case T_F64: if (!in->flags) TWO(double, double, x + y); break;
        default: break;
    }
    return floating(w, in, mask, DO_ADD);
}

OPERATION(sub) {
    switch (in->t) {
        case T_S32: if (in->flags & FLAG_SAT) TWO(uint32_t, int32_t, clamp_s32((int64_t)x - y)); TWO(uint32_t, uint32_t, x - y);
        case T_U32: TWO(uint32_t, uint32_t, x - y);
        case T_U64: case T_S64: TWO(uint64_t, uint64_t, x - y);
        case T_U16: case T_S16: TWO(uint32_t, uint32_t, (x - y) & 0xFFFF);
        case T_F32: if (!in->flags) TWO(float, float, x - y); break;
        case T_F64: if (!in->flags) TWO(double, double, x - y); break;
        default: break;
    }
    return floating(w, in, mask, DO_SUB);
}

OPERATION(mul) {
    switch (in->t) {
        case T_U32: case T_S32: TWO(uint32_t, uint32_t, x * y);
        case T_U64: case T_S64: TWO(uint64_t, uint64_t, x * y);
        case T_U16: case T_S16: TWO(uint32_t, uint32_t, (x * y) & 0xFFFF);
        case T_F32: if (!in->flags) TWO(float, float, x * y); break;
        case T_F64: if (!in->flags) TWO(double, double, x * y); break;
        default: break;
    }
    return floating(w, in, mask, DO_MUL);
}

OPERATION(mul_hi) {
    switch (in->t) {
        case T_U32: TWO(uint32_t, uint32_t, ((uint64_t)x * y) >> 32);
        case T_S32: TWO(uint32_t, int32_t, ((int64_t)x * y) >> 32);
        case T_U64: TWO(uint64_t, uint64_t, ((unsigned __int128)x * y) >> 64);
        case T_S64: TWO(uint64_t, int64_t, ((__int128)x * y) >> 64);
        case T_U16: TWO(uint32_t, uint16_t, ((uint32_t)x * y) >> 16);
        default: TWO(uint32_t, int16_t, (uint16_t)(((int32_t)x * y) >> 16));
    }
}

OPERATION(mul_wide) {
    switch (in->t) {
        case T_U32: { uint64_t *d = U64(0); uint32_t *a = U32(1), *b = U32(2); FOR_LANES(d[i] = (uint64_t)a[i] * b[i]); break; }
        case T_S32: { int64_t *d = S64(0); int32_t *a = S32(1), *b = S32(2); FOR_LANES(d[i] = (int64_t)a[i] * b[i]); break; }
        case T_U16: TWO(uint32_t, uint16_t, (uint32_t)x * y);
        default: TWO(uint32_t, int16_t, (int32_t)x * y);
    }
    return FB_NEXT;
}

OPERATION(mad) {
    switch (in->t) {
        case T_U32: case T_S32: THREE(uint32_t, uint32_t, x * y + z);
        case T_U64: case T_S64: THREE(uint64_t, uint64_t, x * y + z);
        default: THREE(uint32_t, uint32_t, (x * y + z) & 0xFFFF);
    }
}

OPERATION(mad_hi) {
    switch (in->t) {
        case T_U32: THREE(uint32_t, uint32_t, (uint32_t)(((uint64_t)x * y) >> 32) + z);
        case T_S32: if (in->flags & FLAG_SAT) THREE(uint32_t, int32_t, clamp_s32((((int64_t)x * y) >> 32) + z)); THREE(uint32_t, int32_t, (uint32_t)(((int64_t)x * y) >> 32) + (uint32_t)z);
        case T_U64: THREE(uint64_t, uint64_t, (uint64_t)(((unsigned __int128)x * y) >> 64) + z);
        case T_S64: THREE(uint64_t, int64_t, (uint64_t)(((__int128)x * y) >> 64) + (uint64_t)z);
        case T_U16: THREE(uint32_t, uint16_t, (uint16_t)((((uint32_t)x * y) >> 16) + z));
        default: THREE(uint32_t, int16_t, (uint16_t)((((int32_t)x * y) >> 16) + z));
    }
}

OPERATION(mad_wide) {
    switch (in->t) {
        case T_U32: { uint64_t *d = U64(0), *c = U64(3); uint32_t *a = U32(1), *b = U32(2); FOR_LANES(d[i] = (uint64_t)a[i] * b[i] + c[i]); break; }
        case T_S32: { uint64_t *d = U64(0), *c = U64(3); int32_t *a = S32(1), *b = S32(2); FOR_LANES(d[i] = (uint64_t)((int64_t)a[i] * b[i]) + c[i]); break; }
        case T_U16: { uint32_t *d = U32(0), *a = U32(1), *b = U32(2), *c = U32(3); FOR_LANES(d[i] = (uint32_t)(uint16_t)a[i] * (uint16_t)b[i] + c[i]); break; }
        default: { uint32_t *d = U32(0), *a = U32(1), *b = U32(2), *c = U32(3); FOR_LANES(d[i] = (uint32_t)((int16_t)a[i] * (int16_t)b[i]) + c[i]); break; }
    }
    return FB_NEXT;
}

OPERATION(fma) {
    if (in->t == T_F32 && !in->flags) THREE(float, float, __builtin_fmaf(x, y, z));
    if (in->t == T_F64 && !in->flags) THREE(double, double, __builtin_fma(x, y, z));
    return floating(w, in, mask, DO_FMA);
}

/* Products of 24-bit integers; flags: FLAG_HIGH, bits 47 to 16; o[3]: signed. */
OPERATION(mul24) {
    uint32_t *d = U32(0), *a = U32(1), *b = U32(2);
    EACH(i, mask) {
        int64_t x = in->o[3] ? (int32_t)(a[i] << 8) >> 8 : (int64_t)(a[i] & 0xFFFFFF);
        int64_t y = in->o[3] ? (int32_t)(b[i] << 8) >> 8 : (int64_t)(b[i] & 0xFFFFFF);
        d[i] = (uint32_t)(in->flags & FLAG_HIGH ? (x * y) >> 16 : x * y);
    }
    return FB_NEXT;
}

OPERATION(div) {
    switch (in->t) {
        case T_U32: TWO(uint32_t, uint32_t, y ? x / y : ~0u);
        case T_S32: TWO(uint32_t, int32_t, y == 0 ? -1 : y == -1 ? (int32_t)(0u - (uint32_t)x) : x / y);
        case T_U64: TWO(uint64_t, uint64_t, y ? x / y : ~UINT64_C(0));
        case T_S64: TWO(uint64_t, int64_t, y == 0 ? -1 : y == -1 ? (int64_t)(0 - (uint64_t)x) : x / y);
        case T_U16: TWO(uint32_t, uint16_t, y ? x / y : 0xFFFF);
        case T_S16: TWO(uint32_t, int16_t, (uint16_t)(y ? x / y : -1));
        case T_F32: if (!in->flags) TWO(float, float, x / y); break;
        case T_F64: if (!in->flags) TWO(double, double, x / y); break;
        default: break;
    }
    return floating(w, in, mask, DO_DIV);
}

OPERATION(rem) {
    switch (in->t) {
        case T_U32: TWO(uint32_t, uint32_t, y ? x % y : x);
        case T_S32: TWO(uint32_t, int32_t, y == 0 ? x : y == -1 ? 0 : x % y);
        case T_U64: TWO(uint64_t, uint64_t, y ? x % y : x);
        case T_S64: TWO(uint64_t, int64_t, y == 0 ? x : y == -1 ? 0 : x % y);
        case T_U16: TWO(uint32_t, uint16_t, y ? x % y : x);
        default: TWO(uint32_t, int16_t, (uint16_t)(y ? x % y : x));
    }
}

OPERATION(min) {
    switch (in->t) {
        case T_U32: TWO(uint32_t, uint32_t, x < y ? x : y);
        case T_S32: if (in->flags & FLAG_RELU) TWO(uint32_t, int32_t, (x < y ? x : y) < 0 ? 0 : (x < y ? x : y)); TWO(uint32_t, int32_t, x < y ? x : y);
        case T_U64: TWO(uint64_t, uint64_t, x < y ? x : y);
        case T_S64: TWO(uint64_t, int64_t, x < y ? x : y);
        case T_U16: TWO(uint32_t, uint16_t, x < y ? x : y);
        case T_S16: TWO(uint32_t, int16_t, (uint16_t)(x < y ? x : y));
        default: return floating(w, in, mask, DO_MIN);
    }
}

OPERATION(max) {
    switch (in->t) {
        case T_U32: TWO(uint32_t, uint32_t, x > y ? x : y);
        case T_S32: if (in->flags & FLAG_RELU) TWO(uint32_t, int32_t, (x > y ? x : y) < 0 ? 0 : (x > y ? x : y)); TWO(uint32_t, int32_t, x > y ? x : y);
        case T_U64: TWO(uint64_t, uint64_t, x > y ? x : y);
        case T_S64: TWO(uint64_t, int64_t, x > y ? x : y);
        case T_U16: TWO(uint32_t, uint16_t, x > y ? x : y);
        case T_S16: TWO(uint32_t, int16_t, (uint16_t)(x > y ? x : y));
        default: return floating(w, in, mask, DO_MAX);
    }
}

OPERATION(abs) {
    switch (in->t) {
        case T_S32: ONE(uint32_t, int32_t, x < 0 ? 0u - (uint32_t)x : (uint32_t)x);
        case T_S64: ONE(uint64_t, int64_t, x < 0 ? 0 - (uint64_t)x : (uint64_t)x);
        case T_S16: ONE(uint32_t, int16_t, (uint16_t)(x < 0 ? -x : x));
        case T_F32: if (in->flags & FLAG_FTZ) ONE(float, float, fabsf(flush(x))); ONE(float, float, fabsf(x));
        case T_F64: ONE(double, double, fabs(x));
        case T_F16X2: case T_BF16X2: ONE(uint32_t, uint32_t, x & 0x7FFF7FFF);
        default: ONE(uint32_t, uint32_t, x & 0x7FFF);
    }
}

OPERATION(neg) {
    switch (in->t) {
        case T_U32: case T_S32: ONE(uint32_t, uint32_t, 0u - x);
        case T_U64: case T_S64: ONE(uint64_t, uint64_t, 0 - x);
        case T_U16: case T_S16: ONE(uint32_t, uint32_t, (0u - x) & 0xFFFF);
        case T_F32: if (in->flags & FLAG_FTZ) ONE(float, float, -flush(x)); ONE(float, float, -x);
        case T_F64: ONE(double, double, -x);
        case T_F16X2: case T_BF16X2: ONE(uint32_t, uint32_t, x ^ 0x80008000);
        default: ONE(uint32_t, uint32_t, x ^ 0x8000);
    }
}

OPERATION(sad) {
    switch (in->t) {
        case T_U32: THREE(uint32_t, uint32_t, (x > y ? x - y : y - x) + z);
        case T_S32: THREE(uint32_t, int32_t, (x > y ? (uint32_t)x - (uint32_t)y : (uint32_t)y - (uint32_t)x) + (uint32_t)z);
        case T_U64: THREE(uint64_t, uint64_t, (x > y ? x - y : y - x) + z);
        case T_S64: THREE(uint64_t, int64_t, (x > y ? (uint64_t)x - (uint64_t)y : (uint64_t)y - (uint64_t)x) + (uint64_t)z);
        case T_U16: THREE(uint32_t, uint16_t, (uint16_t)((x > y ? x - y : y - x) + z));
        default: THREE(uint32_t, int16_t, (uint16_t)((x > y ? x - y : y - x) + z));
    }
}

static void keep_carry(fb_warp *w, uint32_t mask, uint32_t carry) {
    w->carry = (w->carry & ~mask) | (carry & mask);
}

/* add.cc, addc, addc.cc */
OPERATION(addc) {
    bool wide = in->t == T_U64 || in->t == T_S64, carry_in = in->flags & FLAG_CARRY_IN;
    uint32_t carry = 0;
    EACH(i, mask) {
        uint64_t c = carry_in ? w->carry >> i & 1 : 0;
        if (wide) {
            unsigned __int128 sum = (unsigned __int128)U64(1)[i] + U64(2)[i] + c;
            U64(0)[i] = (uint64_t)sum;
            carry |= (uint32_t)(sum >> 64) << i;
        } else {
            uint64_t sum = (uint64_t)U32(1)[i] + U32(2)[i] + c;
            U32(0)[i] = (uint32_t)sum;
            carry |= (uint32_t)(sum >> 32) << i;
        }
    }
    if (in->flags & FLAG_CARRY_OUT) keep_carry(w, mask, carry);
    return FB_NEXT;
}

/* sub.cc, subc, subc.cc: the flag is a borrow */
OPERATION(subc) {
    bool wide = in->t == T_U64 || in->t == T_S64, carry_in = in->flags & FLAG_CARRY_IN;
    uint32_t carry = 0;
    EACH(i, mask) {
        uint64_t c = carry_in ? w->carry >> i & 1 : 0;
        if (wide) {
            unsigned __int128 difference = (unsigned __int128)U64(1)[i] - U64(2)[i] - c;
            U64(0)[i] = (uint64_t)difference;
            carry |= (uint32_t)(difference >> 64 & 1) << i;
        } else {
            uint64_t difference = (uint64_t)U32(1)[i] - U32(2)[i] - c;
            U32(0)[i] = (uint32_t)difference;
            carry |= (uint32_t)(difference >> 32 & 1) << i;
        }
    }
    if (in->flags & FLAG_CARRY_OUT) keep_carry(w, mask, carry);
    return FB_NEXT;
}

/* mad.cc, madc, madc.cc, .lo and .hi */
OPERATION(madc) {
    bool wide = in->t == T_U64 || in->t == T_S64, is_signed = in->t == T_S64 || in->t == T_S32;
    bool high = in->flags & FLAG_HIGH, carry_in = in->flags & FLAG_CARRY_IN;
    uint32_t carry = 0;
    EACH(i, mask) {
        uint64_t c = carry_in ? w->carry >> i & 1 : 0;
        if (wide) {
            unsigned __int128 p = is_signed ? (unsigned __int128)((__int128)S64(1)[i] * S64(2)[i])
                                            : (unsigned __int128)U64(1)[i] * U64(2)[i];
            unsigned __int128 sum = (unsigned __int128)(uint64_t)(high ? p >> 64 : p) + U64(3)[i] + c;
            U64(0)[i] = (uint64_t)sum;
            carry |= (uint32_t)(sum >> 64) << i;
        } else {
            uint64_t p = is_signed ? (uint64_t)((int64_t)S32(1)[i] * S32(2)[i]) : (uint64_t)U32(1)[i] * U32(2)[i];
            uint64_t sum = (uint64_t)(uint32_t)(high ? p >> 32 : p) + U32(3)[i] + c;
            U32(0)[i] = (uint32_t)sum;
            carry |= (uint32_t)(sum >> 32) << i;
        }
    }
    if (in->flags & FLAG_CARRY_OUT) keep_carry(w, mask, carry);
    return FB_NEXT;
}

enum { MATH_RCP, MATH_SQRT, MATH_RSQRT, MATH_EX2, MATH_LG2, MATH_SIN, MATH_COS, MATH_TANH };

static double math(uint32_t kind, double x) {
    switch (kind) {
        case MATH_RCP: return 1.0 / x;
        case MATH_SQRT: return sqrt(x);
        case MATH_RSQRT: return 1.0 / sqrt(x);
        case MATH_EX2: return exp2(x);
        case MATH_LG2: return log2(x);
        case MATH_SIN: return sin(x);
        case MATH_COS: return cos(x);
        default: return tanh(x);
    }
}

static float math_float(uint32_t kind, float x, uint32_t flags) {
    if (flags & FLAG_FTZ) x = flush(x);
    float result;
    if (kind == MATH_EX2 && !(flags & ROUND_MASK)) result = exp2f(x);
    else result = round_float(math(kind, x), flags);
    return flags & FLAG_FTZ ? flush(result) : result;
}

static uint32_t math_small(uint32_t kind, uint32_t x, bool half) {
    float result = (float)math(kind, half ? half_to_float(x) : bfloat_to_float(x));
    return half ? float_to_half(result) : float_to_bfloat(result);
}

/* Approximations are the exact result, rounded. */
OPERATION(math) {
    uint32_t kind = in->flags >> SPECIAL_SHIFT & 15;
    bool half = in->t == T_F16 || in->t == T_F16X2;
    switch (in->t) {
        case T_F32: {
            float *d = F32(0);
            const float *a = F32(1);
            EACH(i, mask) d[i] = math_float(kind, a[i], in->flags);
            return FB_NEXT;
        }
        case T_F64: ONE(double, double, math(kind, x));
        case T_F16: case T_BF16: ONE(uint32_t, uint32_t, math_small(kind, x, half));
        default: ONE(uint32_t, uint32_t, math_small(kind, x & 0xFFFF, half) | math_small(kind, x >> 16, half) << 16);
    }
}
