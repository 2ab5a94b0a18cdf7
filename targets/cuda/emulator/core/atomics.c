/* atom and red: lane after lane, so every result is that of one order. */
#include "numeric.h"

enum { A_ADD, A_MIN, A_MAX, A_INC, A_DEC, A_AND, A_OR, A_XOR, A_EXCH, A_CAS };

static uint32_t add_small(uint32_t x, uint32_t y, bool half, uint32_t kind) {
    float a = half ? half_to_float(x) : bfloat_to_float(x), b = half ? half_to_float(y) : bfloat_to_float(y);
    float r = kind == A_MIN ? smaller(a, b, false) : kind == A_MAX ? larger(a, b, false) : a + b;
    return half ? float_to_half(r) : float_to_bfloat(r);
}

static uint64_t result(uint64_t old, uint64_t b, uint64_t c, uint8_t type, uint32_t kind) {
    switch (kind) {
        case A_EXCH: return b;
        case A_CAS: return old == b ? c : old;
        case A_AND: return old & b;
        case A_OR: return old | b;
        case A_XOR: return old ^ b;
        case A_INC: return (uint32_t)old >= (uint32_t)b ? 0 : old + 1;
        case A_DEC: return !(uint32_t)old || (uint32_t)old > (uint32_t)b ? b : old - 1;
        default: break;
    }
    bool least = kind == A_MIN;
    switch (type) {
        case T_F32: return float_bits(as_float((uint32_t)old) + as_float((uint32_t)b));
        case T_F64: return double_bits(as_double(old) + as_double(b));
        case T_F16: case T_BF16: return add_small((uint32_t)old, (uint32_t)b, type == T_F16, kind);
        case T_F16X2: case T_BF16X2:
            return add_small(old & 0xFFFF, b & 0xFFFF, type == T_F16X2, kind) |
                   (uint64_t)add_small(old >> 16 & 0xFFFF, b >> 16 & 0xFFFF, type == T_F16X2, kind) << 16;
        case T_S32:
            if (kind == A_ADD) return old + b;
            return ((int32_t)old < (int32_t)b) == least ? old : b;
        case T_S64:
            if (kind == A_ADD) return old + b;
            return ((int64_t)old < (int64_t)b) == least ? old : b;
        default:
            if (kind == A_ADD) return old + b;
            return (old < b) == least ? old : b;
    }
}

static uint32_t bytes_of(uint8_t type) {
    switch (type) {
        case T_U64: case T_S64: case T_F64: return 8;
        case T_U16: case T_S16: case T_F16: case T_BF16: return 2;
        default: return 4;
    }
}

static bool update(fb_warp *w, const fb_insn *in, uint32_t lane, uint64_t address, uint64_t b, uint64_t c,
                   uint64_t *old) {
    uint32_t size = bytes_of(in->t);
    uint8_t *writer = w->block->writer; /* atomics do not race */
    w->block->writer = NULL;
    uint8_t *at = fb_access(w, in, (int)lane, (int)(in->flags & 15), address, size, false);
    w->block->writer = writer;
    if (!at) return false;
    *old = 0;
    memcpy(old, at, size);
    uint64_t value = result(*old, b, c, in->t, in->flags >> SPECIAL_SHIFT & 15);
    memcpy(at, &value, size);
    return true;
}

static uint64_t operand(fb_warp *w, const fb_insn *in, uint32_t ref, uint32_t lane) {
    return in->flags & FLAG_WIDE_SOURCE ? r64(w, ref)[lane] : r32(w, ref)[lane];
}

OPERATION(atom) {
    uint64_t old[LANES];
    EACH(i, mask) {
        uint64_t address = lane_address(w, in->o[1], in->o[2], address_flag(in, 0), (int)i);
        if (!update(w, in, i, address, operand(w, in, in->o[3], i), operand(w, in, in->o[4], i), &old[i]))
            return FB_STOP;
    }
    EACH(i, mask) {
        if (in->flags & FLAG_WIDE_DATA) r64(w, in->o[0])[i] = old[i];
        else r32(w, in->o[0])[i] = (uint32_t)old[i];
    }
    /* Programs that spin on a lock let others run. */
    return in->flags >> SPECIAL_SHIFT == A_CAS ? FB_PAUSE : FB_NEXT;
}

OPERATION(red) {
    uint64_t old;
    EACH(i, mask) {
        uint64_t address = lane_address(w, in->o[0], in->o[1], address_flag(in, 0), (int)i);
        for (uint32_t j = 2; j < in->count; ++j)
            if (!update(w, in, i, address + (j - 2) * bytes_of(in->t), operand(w, in, in->o[j], i), 0, &old))
                return FB_STOP;
    }
    return FB_NEXT;
}
