/* cvt, among all types. s is the source's type, t the result's. */
#include "numeric.h"

enum { FLAG_AWAY = FLAG_CARRY_IN, FLAG_SATFINITE = FLAG_CARRY_OUT };

static bool is_float(uint8_t t) { return t >= T_F16 && t != T_PRED; }

static double small_value(uint32_t bits, uint8_t type) {
    switch (type) {
        case T_F16: case T_F16X2: return half_to_float(bits);
        case T_BF16: case T_BF16X2: return bfloat_to_float(bits);
        case T_E5M2: return half_to_float((bits & 255) << 8);
        case T_E4M3: {
            uint32_t e = bits >> 3 & 15, f = bits & 7;
            double v = e ? ldexp(8 + f, (int)e - 10) : ldexp(f, -9);
            if ((bits & 127) == 127) v = NAN;
            return bits & 128 ? -v : v;
        }
        default: return as_float(bits);
    }
}

/* The bits of a number in a float format; saturating formats have no infinity. */
static uint64_t float_result(double v, uint8_t type, uint32_t flags) {
    if (flags & FLAG_RELU && !(v > 0)) v = v != v ? v : 0.0;
    if (flags & FLAG_SAT) v = v > 0 ? (v < 1 ? v : 1) : 0;
    if (type == T_F64) return double_bits(v);
    bool away = flags & FLAG_AWAY;
    if (type == T_F32 && !(flags & ROUND_MASK)) return float_bits((float)v);
    fb_format f = format_of(type);
    double r = round_format(v, f, flags, away);
    if (flags & FLAG_SATFINITE && fabs(r) > f.greatest) r = copysign(f.greatest, r);
    switch (type) {
        case T_F16: return float_to_half((float)r);
        case T_BF16: return float_to_bfloat((float)r);
        case T_E5M2: return r != r ? 0x7F : float_to_half((float)r) >> 8;
        case T_E4M3: {
            if (r != r) return 0x7F;
            uint32_t sign = signbit(r) ? 128 : 0;
            double m = fabs(r);
            if (m > 448) return sign | 0x7F;
            if (m < 0x1p-6) return sign | (uint32_t)(m * 512);
            int e = ilogb(m);
            return sign | (uint32_t)(e + 7) << 3 | (uint32_t)(scalbn(m, 3 - e) - 8);
        }
        case T_TF32: return r != r ? 0x7FFFFFFF : float_bits((float)r);
        default: return float_bits((float)r);
    }
}

static uint32_t bits_in(uint8_t t) {
    switch (t) {
        case T_U8: case T_S8: return 8;
        case T_U16: case T_S16: return 16;
        case T_U64: case T_S64: return 64;
        default: return 32;
    }
}
static bool is_signed(uint8_t t) { return t == T_S8 || t == T_S16 || t == T_S32 || t == T_S64; }

static uint64_t float_to_integer(double v, uint8_t type, uint32_t flags) {
    if (v != v) return 0;
    v = round_integer(v, flags);
    uint32_t bits = bits_in(type);
    if (is_signed(type)) {
        double limit = scalbn(1, (int)bits - 1);
        if (v >= limit) return (UINT64_C(1) << (bits - 1)) - 1;
        if (v < -limit) return (uint64_t)-(INT64_C(1) << (bits - 2)) * 2;
        return (uint64_t)(int64_t)v;
    }
    if (v <= 0) return 0;
    if (v >= scalbn(1, (int)bits)) return bits == 64 ? ~UINT64_C(0) : (UINT64_C(1) << bits) - 1;
    return (uint64_t)v;
}

static uint64_t integer_value(uint64_t raw, uint8_t type) {
    switch (type) {
        case T_U8: return (uint8_t)raw;
        case T_S8: return (uint64_t)(int8_t)raw;
        case T_U16: return (uint16_t)raw;
        case T_S16: return (uint64_t)(int16_t)raw;
        case T_U32: return (uint32_t)raw;
        case T_S32: return (uint64_t)(int32_t)raw;
        default: return raw;
    }
}

static uint64_t integer_to_integer(uint64_t v, uint8_t from, uint8_t to, bool sat) {
    if (!sat) return integer_value(v, to);
    uint32_t bits = bits_in(to);
    bool negative = is_signed(from) && (int64_t)v < 0;
    if (is_signed(to)) {
        int64_t high = (int64_t)((UINT64_C(1) << (bits - 1)) - 1), low = -high - 1;
        if (negative) return (uint64_t)((int64_t)v < low ? low : (int64_t)v);
        return v > (uint64_t)high ? (uint64_t)high : v;
    }
    if (negative) return 0;
    uint64_t high = bits == 64 ? ~UINT64_C(0) : (UINT64_C(1) << bits) - 1;
    return v > high ? high : v;
}

static uint64_t integer_to_float(uint64_t v, uint8_t from, uint8_t to, uint32_t flags) {
    bool sign = is_signed(from);
    if (to == T_F32 && !(flags & (ROUND_MASK | FLAG_SAT)))
        return float_bits(sign ? (float)(int64_t)v : (float)v);
    double value = sign ? (double)(int64_t)v : (double)v;
    /* 64-bit integers do not all fit a double: keep what was lost for the second rounding. */
    if (to != T_F64 && fabs(value) < 0x1p63) {
        double lost = sign ? (double)((int64_t)v - (int64_t)value) : (double)(int64_t)(v - (uint64_t)value);
        value = to_odd(value, lost);
    }
    return float_result(value, to, flags);
}

static uint64_t convert(uint64_t raw, uint8_t from, uint8_t to, uint32_t flags) {
    if (!is_float(from)) {
        uint64_t v = integer_value(raw, from);
        return is_float(to) ? integer_to_float(v, from, to, flags)
                            : integer_to_integer(v, from, to, flags & FLAG_SAT);
    }
    double v = from == T_F64 ? as_double(raw) : small_value((uint32_t)raw, from);
    if (flags & FLAG_FTZ && from == T_F32) v = flush((float)v);
    if (!is_float(to)) return float_to_integer(v, to, flags);
    if (flags & FLAG_INTEGER) {
        v = round_integer(v, flags);
        flags &= ~(uint32_t)ROUND_MASK;
    }
    uint64_t bits = float_result(v, to, flags);
    if (flags & FLAG_FTZ && to == T_F32) bits = float_bits(flush(as_float((uint32_t)bits)));
    return bits;
}

/* Conversions that whole programs consist of. */
static bool common(fb_warp *w, const fb_insn *in, uint32_t mask) {
    uint32_t plain = in->flags & ~(FLAG_WIDE_SOURCE | (uint32_t)FLAG_WIDE_DATA);
    bool wide_d = in->flags & FLAG_WIDE_DATA, wide_a = in->flags & FLAG_WIDE_SOURCE;
    if (plain & ~(uint32_t)ROUND_MASK) return false;
    uint32_t *d = r32(w, in->o[0]), *a = r32(w, in->o[1]);
    uint64_t *wide = r64(w, in->o[0]);
    if (wide_a) {
        if (in->s < T_U64 && in->s != T_U32 && in->s != T_S32) return false;
        if (wide_d || (in->t != T_U32 && in->t != T_S32) || is_float(in->s)) return false;
        uint64_t *from = r64(w, in->o[1]);
        uint32_t value[LANES];
        for (int i = 0; i < LANES; ++i) value[i] = (uint32_t)from[i];
        FOR_LANES(d[i] = value[i]);
        return true;
    }
    if (wide_d) {
        if (in->t != T_U64 && in->t != T_S64) return false;
        uint32_t value[LANES];
        memcpy(value, a, sizeof value);
        if (in->s == T_U32) FOR_LANES(wide[i] = value[i]);
        else if (in->s == T_S32) FOR_LANES(wide[i] = (uint64_t)(int32_t)value[i]);
        else return false;
        return true;
    }
    if (plain) return false;
    if (in->t == T_F32) {
        float *f = (float *)d;
        if (in->s == T_S32) FOR_LANES(f[i] = (float)(int32_t)a[i]);
        else if (in->s == T_U32) FOR_LANES(f[i] = (float)a[i]);
        else if (in->s == T_F16) FOR_LANES(f[i] = half_to_float(a[i]));
        else if (in->s == T_BF16) FOR_LANES(f[i] = bfloat_to_float(a[i]));
        else return false;
        return true;
    }
    if (in->s == T_F32 && in->t == T_F16) FOR_LANES(d[i] = float_to_half(as_float(a[i])));
    else if (in->s == T_F32 && in->t == T_BF16) FOR_LANES(d[i] = float_to_bfloat(as_float(a[i])));
    else return false;
    return true;
}

OPERATION(cvt) {
    if (common(w, in, mask)) return FB_NEXT;
    bool wide_d = in->flags & FLAG_WIDE_DATA, wide_a = in->flags & FLAG_WIDE_SOURCE;
    uint64_t raw[LANES];
    EACH(i, mask) raw[i] = wide_a ? r64(w, in->o[1])[i] : r32(w, in->o[1])[i];
    uint32_t keep = in->flags & FLAG_HIGH ? 0xFFFF : ~0u; /* the result's register has 16 bits */
    EACH(i, mask) {
        uint64_t value = convert(raw[i], in->s, in->t, in->flags);
        if (wide_d) r64(w, in->o[0])[i] = value;
        else r32(w, in->o[0])[i] = (uint32_t)value & keep;
    }
    return FB_NEXT;
}

static uint32_t element_bits(uint8_t t) { return t == T_E4M3 || t == T_E5M2 ? 8 : 16; }

/* Two f32 to a pair (t, of one element); the first operand goes to the high half. */
OPERATION(cvt_pair) {
    uint32_t *d = r32(w, in->o[0]), *a = r32(w, in->o[1]), *b = r32(w, in->o[2]), n = element_bits(in->t);
    EACH(i, mask) {
        uint64_t high = convert(a[i], T_F32, in->t, in->flags), low = convert(b[i], T_F32, in->t, in->flags);
        d[i] = (uint32_t)(high << n | low);
    }
    return FB_NEXT;
}

/* Pairs to pairs: f16x2 to and from e4m3x2, e5m2x2. */
OPERATION(cvt_halves) {
    uint32_t *d = r32(w, in->o[0]), *a = r32(w, in->o[1]), from = element_bits(in->s), to = element_bits(in->t);
    EACH(i, mask) {
        uint32_t x = a[i], kept = (1u << from) - 1;
        uint64_t low = convert(x & kept, in->s, in->t, in->flags);
        uint64_t high = convert(x >> from & kept, in->s, in->t, in->flags);
        d[i] = (uint32_t)(high << to | low);
    }
    return FB_NEXT;
}

/* cvt.pack.sat: a, b to t above what c has. s is s32. */
OPERATION(cvt_pack) {
    uint32_t *d = r32(w, in->o[0]), *a = r32(w, in->o[1]), *b = r32(w, in->o[2]), *c = r32(w, in->o[3]);
    uint32_t n = in->flags >> SPECIAL_SHIFT & 31, kept = (1u << n) - 1;
    int32_t high = in->t == T_S8 || in->t == T_S16 || n < 8 ? 0 : 0;
    bool sign = is_signed(in->t);
    high = sign ? (int32_t)(kept >> 1) : (int32_t)kept;
    int32_t low = sign ? -high - 1 : 0;
    EACH(i, mask) {
        int32_t x = (int32_t)a[i], y = (int32_t)b[i];
        x = x > high ? high : x < low ? low : x;
        y = y > high ? high : y < low ? low : y;
        uint32_t rest = n == 16 ? 0 : c[i] << 2 * n;
        d[i] = rest | ((uint32_t)x & kept) << n | ((uint32_t)y & kept);
    }
    return FB_NEXT;
}
