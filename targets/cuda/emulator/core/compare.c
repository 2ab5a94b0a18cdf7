/* setp, set, selp, slct, testp, copysign. */
#include "numeric.h"

enum { EQ, NE, LT, LE, GT, GE, LO, LS, HI, HS, EQU, NEU, LTU, LEU, GTU, GEU, NUM, NAN_ };

#define MASK_OF(EXPRESSION) \
    do { \
        uint32_t value = 0; \
        VECTORIZE for (uint32_t i = 0; i < LANES; ++i) value |= (uint32_t)(EXPRESSION) << i; \
        return value; \
    } while (0)
#define COMPARE(STORE, CTYPE) \
    do { \
        const STORE *a = (const STORE *)r64(w, in->o[first]), *b = (const STORE *)r64(w, in->o[first + 1]); \
        switch (how) { \
            case EQ: MASK_OF((CTYPE)a[i] == (CTYPE)b[i]); \
            case NE: MASK_OF((CTYPE)a[i] != (CTYPE)b[i]); \
            case LT: case LO: MASK_OF((CTYPE)a[i] < (CTYPE)b[i]); \
            case LE: case LS: MASK_OF((CTYPE)a[i] <= (CTYPE)b[i]); \
            case GT: case HI: MASK_OF((CTYPE)a[i] > (CTYPE)b[i]); \
            default: MASK_OF((CTYPE)a[i] >= (CTYPE)b[i]); \
        } \
    } while (0)

static bool real(double a, double b, uint32_t how) {
    bool unordered = a != a || b != b;
    switch (how) {
        case EQ: return a == b;
        case NE: return !unordered && a != b;
        case LT: return a < b;
        case LE: return a <= b;
        case GT: return a > b;
        case GE: return a >= b;
        case EQU: return unordered || a == b;
        case NEU: return a != b;
        case LTU: return unordered || a < b;
        case LEU: return unordered || a <= b;
        case GTU: return unordered || a > b;
        case GEU: return unordered || a >= b;
        case NUM: return !unordered;
        default: return unordered;
    }
}

static double value_of(fb_warp *w, uint32_t ref, uint32_t i, uint8_t type, bool ftz) {
    switch (type) {
        case T_F64: return as_double(r64(w, ref)[i]);
        case T_F16: return half_to_float(r32(w, ref)[i]);
        case T_BF16: return bfloat_to_float(r32(w, ref)[i]);
        default: return ftz ? flush(as_float(r32(w, ref)[i])) : as_float(r32(w, ref)[i]);
    }
}

static uint32_t compare(fb_warp *w, const fb_insn *in, uint8_t type, uint32_t first, uint32_t how) {
    switch (type) {
        case T_U16: COMPARE(uint32_t, uint16_t);
        case T_S16: COMPARE(uint32_t, int16_t);
        case T_U32: COMPARE(uint32_t, uint32_t);
        case T_S32:
            if (how >= LO && how <= HS) COMPARE(uint32_t, uint32_t);
            COMPARE(uint32_t, int32_t);
        case T_U64: COMPARE(uint64_t, uint64_t);
        case T_S64:
            if (how >= LO && how <= HS) COMPARE(uint64_t, uint64_t);
            COMPARE(uint64_t, int64_t);
        case T_F32:
            if (how <= GE && how != NE && !(in->flags & FLAG_FTZ)) COMPARE(float, float);
            __attribute__((fallthrough));
        default: {
            uint32_t value = 0;
            bool ftz = in->flags & FLAG_FTZ;
            for (uint32_t i = 0; i < LANES; ++i)
                value |= (uint32_t)real(value_of(w, in->o[first], i, type, ftz),
                                        value_of(w, in->o[first + 1], i, type, ftz), how) << i;
            return value;
        }
    }
}

/* Special: comparison in 5 bits, then the combination: 0 none, 1 and, 2 or, 3 xor. */
static uint32_t combine(const fb_insn *in, uint32_t value, uint32_t other) {
    switch (in->flags >> (SPECIAL_SHIFT + 5) & 3) {
        case 1: return value & other;
        case 2: return value | other;
        case 3: return value ^ other;
        default: return value;
    }
}

OPERATION(setp) {
    uint32_t value = compare(w, in, in->t, 2, in->flags >> SPECIAL_SHIFT & 31);
    uint32_t other = predicate(w, in->o[4]);
    set_predicate(w, in->o[1], combine(in, ~value, other), mask);
    set_predicate(w, in->o[0], combine(in, value, other), mask);
    return FB_NEXT;
}

static uint32_t half_of(uint32_t v, int high) { return high ? v >> 16 : v & 0xFFFF; }

/* f16x2 and bf16x2: one predicate for each half. */
OPERATION(setp_x2) {
    uint32_t *a = r32(w, in->o[2]), *b = r32(w, in->o[3]), value[2] = {0, 0};
    uint32_t other = predicate(w, in->o[4]), how = in->flags >> SPECIAL_SHIFT & 31;
    EACH(i, mask)
        for (int j = 0; j < 2; ++j) {
            uint32_t x = half_of(a[i], j), y = half_of(b[i], j);
            bool is = in->t == T_F16X2 ? real(half_to_float(x), half_to_float(y), how)
                                       : real(bfloat_to_float(x), bfloat_to_float(y), how);
            value[j] |= (uint32_t)is << i;
        }
    set_predicate(w, in->o[0], combine(in, value[0], other), mask);
    set_predicate(w, in->o[1], combine(in, value[1], other), mask);
    return FB_NEXT;
}

/* s: the result's type, t: that of the comparison. True is 1.0 or all ones. */
OPERATION(set) {
    uint32_t value = compare(w, in, in->t, 1, in->flags >> SPECIAL_SHIFT & 31);
    value = combine(in, value, predicate(w, in->o[3]));
    EACH(i, mask) {
        bool is = value >> i & 1;
        switch (in->s) {
            case T_F64: r64(w, in->o[0])[i] = is ? double_bits(1.0) : 0; break;
            case T_U64: case T_S64: r64(w, in->o[0])[i] = is ? ~UINT64_C(0) : 0; break;
            case T_F32: r32(w, in->o[0])[i] = is ? float_bits(1.0f) : 0; break;
            case T_F16: r32(w, in->o[0])[i] = is ? 0x3C00 : 0; break;
            case T_BF16: r32(w, in->o[0])[i] = is ? 0x3F80 : 0; break;
            case T_U16: case T_S16: r32(w, in->o[0])[i] = is ? 0xFFFF : 0; break;
            default: r32(w, in->o[0])[i] = is ? ~0u : 0; break;
        }
    }
    return FB_NEXT;
}

/* set.f16x2, set.bf16x2; o[3]: 1 for masks (.u32), 0 for ones of the type. */
OPERATION(set_x2) {
    uint32_t *d = r32(w, in->o[0]), *a = r32(w, in->o[1]), *b = r32(w, in->o[2]);
    uint32_t how = in->flags >> SPECIAL_SHIFT & 31;
    uint32_t one = in->o[3] ? 0xFFFF : in->t == T_F16X2 ? 0x3C00 : 0x3F80;
    EACH(i, mask) {
        uint32_t result = 0;
        for (int j = 0; j < 2; ++j) {
            uint32_t x = half_of(a[i], j), y = half_of(b[i], j);
            bool is = in->t == T_F16X2 ? real(half_to_float(x), half_to_float(y), how)
                                       : real(bfloat_to_float(x), bfloat_to_float(y), how);
            result |= is ? one << 16 * j : 0;
        }
        d[i] = result;
    }
    return FB_NEXT;
}

OPERATION(selp) {
    uint32_t choice = predicate(w, in->o[3]);
    if (in->t == T_U64 || in->t == T_S64 || in->t == T_F64) {
        uint64_t *d = r64(w, in->o[0]), *a = r64(w, in->o[1]), *b = r64(w, in->o[2]);
        FOR_LANES(d[i] = choice >> i & 1 ? a[i] : b[i]);
    } else {
        uint32_t *d = r32(w, in->o[0]), *a = r32(w, in->o[1]), *b = r32(w, in->o[2]);
        FOR_LANES(d[i] = choice >> i & 1 ? a[i] : b[i]);
    }
    return FB_NEXT;
}

/* s: the selector's type, s32 or f32. */
OPERATION(slct) {
    uint32_t *c = r32(w, in->o[3]);
    bool wide = in->t == T_U64 || in->t == T_S64 || in->t == T_F64;
    EACH(i, mask) {
        bool first = in->s == T_F32 ? (in->flags & FLAG_FTZ ? flush(as_float(c[i])) : as_float(c[i])) >= 0 : (int32_t)c[i] >= 0;
        if (wide) r64(w, in->o[0])[i] = r64(w, in->o[first ? 1 : 2])[i];
        else r32(w, in->o[0])[i] = r32(w, in->o[first ? 1 : 2])[i];
    }
    return FB_NEXT;
}

/* Special: 0 finite, 1 infinite, 2 number, 3 notanumber, 4 normal, 5 subnormal */
OPERATION(testp) {
    uint32_t value = 0, kind = in->flags >> SPECIAL_SHIFT & 7;
    EACH(i, mask) {
        int class = in->t == T_F64 ? fpclassify(as_double(r64(w, in->o[1])[i]))
                                   : fpclassify(as_float(r32(w, in->o[1])[i]));
        bool is;
        switch (kind) {
            case 0: is = class != FP_NAN && class != FP_INFINITE; break;
            case 1: is = class == FP_INFINITE; break;
            case 2: is = class != FP_NAN; break;
            case 3: is = class == FP_NAN; break;
            case 4: is = class == FP_NORMAL; break;
            default: is = class == FP_SUBNORMAL; break;
        }
        value |= (uint32_t)is << i;
    }
    set_predicate(w, in->o[0], value, mask);
    return FB_NEXT;
}

/* The sign of the first, the magnitude of the second. */
OPERATION(copysign) {
    if (in->t == T_F64) {
        double *d = (double *)r64(w, in->o[0]), *a = (double *)r64(w, in->o[1]), *b = (double *)r64(w, in->o[2]);
        EACH(i, mask) d[i] = copysign(b[i], a[i]);
    } else {
        float *d = (float *)r32(w, in->o[0]), *a = (float *)r32(w, in->o[1]), *b = (float *)r32(w, in->o[2]);
        EACH(i, mask) d[i] = copysignf(b[i], a[i]);
    }
    return FB_NEXT;
}
