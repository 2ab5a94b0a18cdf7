/* Moves, logic, shifts and the other operations on bits. */
#include "numeric.h"

static bool is_wide(uint8_t type) { return type == T_U64 || type == T_S64 || type == T_F64; }
static bool is_short(uint8_t type) {
    return type == T_U16 || type == T_S16 || type == T_F16 || type == T_BF16;
}

#define BITWISE(EXPRESSION32) \
    do { \
        if (is_wide(in->t)) { \
            uint64_t *d = r64(w, in->o[0]), *a = r64(w, in->o[1]), *b = r64(w, in->o[in->count - 1]); \
            FOR_LANES(uint64_t x = a[i]; uint64_t y = b[i]; (void)y; d[i] = EXPRESSION32); \
        } else { \
            uint32_t *d = r32(w, in->o[0]), *a = r32(w, in->o[1]), *b = r32(w, in->o[in->count - 1]); \
            uint32_t keep = is_short(in->t) ? 0xFFFF : ~0u; \
            FOR_LANES(uint32_t x = a[i]; uint32_t y = b[i]; (void)y; d[i] = (EXPRESSION32) & keep); \
        } \
        return FB_NEXT; \
    } while (0)

OPERATION(mov) { BITWISE(x); }
OPERATION(and) { BITWISE(x & y); }
OPERATION(or) { BITWISE(x | y); }
OPERATION(xor) { BITWISE(x ^ y); }
OPERATION(not) { BITWISE(~x); }
OPERATION(cnot) { BITWISE(x == 0); }

OPERATION(mov_pred) {
    set_predicate(w, in->o[0], predicate(w, in->o[1]), mask);
    return FB_NEXT;
}
OPERATION(and_pred) {
    set_predicate(w, in->o[0], predicate(w, in->o[1]) & predicate(w, in->o[2]), mask);
    return FB_NEXT;
}
OPERATION(or_pred) {
    set_predicate(w, in->o[0], predicate(w, in->o[1]) | predicate(w, in->o[2]), mask);
    return FB_NEXT;
}
OPERATION(xor_pred) {
    set_predicate(w, in->o[0], predicate(w, in->o[1]) ^ predicate(w, in->o[2]), mask);
    return FB_NEXT;
}

OPERATION(pack2_32) {
    uint32_t *d = r32(w, in->o[0]), *a = r32(w, in->o[1]), *b = r32(w, in->o[2]);
    FOR_LANES(d[i] = (a[i] & 0xFFFF) | b[i] << 16);
    return FB_NEXT;
}
OPERATION(pack2_64) {
    uint64_t *d = r64(w, in->o[0]);
    uint32_t *a = r32(w, in->o[1]), *b = r32(w, in->o[2]);
    FOR_LANES(d[i] = a[i] | (uint64_t)b[i] << 32);
    return FB_NEXT;
}
OPERATION(pack4_64) {
    uint64_t *d = r64(w, in->o[0]);
    uint32_t *a[4];
    for (int j = 0; j < 4; ++j) a[j] = r32(w, in->o[1 + j]);
    EACH(i, mask) {
        uint64_t value = 0;
        for (int j = 0; j < 4; ++j) value |= (uint64_t)(a[j][i] & 0xFFFF) << 16 * j;
        d[i] = value;
    }
    return FB_NEXT;
}
OPERATION(unpack2_32) {
    uint32_t *d = r32(w, in->o[0]), *e = r32(w, in->o[1]), *a = r32(w, in->o[2]);
    EACH(i, mask) {
        uint32_t x = a[i];
        d[i] = x & 0xFFFF;
        e[i] = x >> 16;
    }
    return FB_NEXT;
}
OPERATION(unpack2_64) {
    uint32_t *d = r32(w, in->o[0]), *e = r32(w, in->o[1]);
    uint64_t *a = r64(w, in->o[2]), x[LANES];
    memcpy(x, a, sizeof x);
    EACH(i, mask) {
        d[i] = (uint32_t)x[i];
        e[i] = (uint32_t)(x[i] >> 32);
    }
    return FB_NEXT;
}
OPERATION(unpack4_64) {
    uint64_t x[LANES];
    memcpy(x, r64(w, in->o[4]), sizeof x);
    for (int j = 0; j < 4; ++j) {
        uint32_t *d = r32(w, in->o[j]);
        EACH(i, mask) d[i] = (uint32_t)(x[i] >> 16 * j) & 0xFFFF;
    }
    return FB_NEXT;
}

OPERATION(shl) {
    uint32_t *b = r32(w, in->o[2]);
    if (is_wide(in->t)) {
        uint64_t *d = r64(w, in->o[0]), *a = r64(w, in->o[1]);
        FOR_LANES(d[i] = b[i] > 63 ? 0 : a[i] << (b[i] & 63));
    } else {
        uint32_t *d = r32(w, in->o[0]), *a = r32(w, in->o[1]), keep = is_short(in->t) ? 0xFFFF : ~0u;
        FOR_LANES(d[i] = (b[i] > 31 ? 0 : a[i] << (b[i] & 31)) & keep);
    }
    return FB_NEXT;
}

OPERATION(shr) {
    uint32_t *b = r32(w, in->o[2]), *d = r32(w, in->o[0]), *a = r32(w, in->o[1]);
    uint64_t *wide = r64(w, in->o[0]), *from = r64(w, in->o[1]);
    switch (in->t) {
        case T_U64: FOR_LANES(wide[i] = b[i] > 63 ? 0 : from[i] >> (b[i] & 63)); break;
        case T_S64: FOR_LANES(wide[i] = (uint64_t)((int64_t)from[i] >> (b[i] > 63 ? 63 : b[i]))); break;
        case T_S32: FOR_LANES(d[i] = (uint32_t)((int32_t)a[i] >> (b[i] > 31 ? 31 : b[i]))); break;
        case T_S16: FOR_LANES(d[i] = (uint16_t)((int16_t)a[i] >> (b[i] > 15 ? 15 : b[i]))); break;
        default: FOR_LANES(d[i] = b[i] > 31 ? 0 : a[i] >> (b[i] & 31)); break;
    }
    return FB_NEXT;
}

/* Special: bit 0 right, bit 1 clamp (else wrap). */
OPERATION(shf) {
    uint32_t *d = r32(w, in->o[0]), *a = r32(w, in->o[1]), *b = r32(w, in->o[2]), *c = r32(w, in->o[3]);
    uint32_t kind = in->flags >> SPECIAL_SHIFT & 3;
    EACH(i, mask) {
        uint32_t n = kind & 2 ? (c[i] > 32 ? 32 : c[i]) : c[i] & 31;
        uint64_t both = a[i] | (uint64_t)b[i] << 32;
        d[i] = (uint32_t)(kind & 1 ? both >> n : (both << n) >> 32);
        if (!(kind & 1) && n == 32) d[i] = a[i];
    }
    return FB_NEXT;
}

/* o[1]: the predicate of lop3.or/.and, o[6] its other input; Special 1: or, 2: and. */
OPERATION(lop3) {
    uint32_t *d = r32(w, in->o[0]), *a = r32(w, in->o[2]), *b = r32(w, in->o[3]), *c = r32(w, in->o[4]);
    uint32_t table = in->o[5], terms[8], kind = in->flags >> SPECIAL_SHIFT & 3;
    for (int j = 0; j < 8; ++j) terms[j] = table >> j & 1 ? ~0u : 0;
    FOR_LANES(uint32_t x = a[i]; uint32_t y = b[i]; uint32_t z = c[i];
              d[i] = (terms[0] & ~x & ~y & ~z) | (terms[1] & ~x & ~y & z) | (terms[2] & ~x & y & ~z) |
                     (terms[3] & ~x & y & z) | (terms[4] & x & ~y & ~z) | (terms[5] & x & ~y & z) |
                     (terms[6] & x & y & ~z) | (terms[7] & x & y & z));
    if (kind) {
        uint32_t some = 0, q = predicate(w, in->o[6]);
        EACH(i, mask) some |= (uint32_t)(d[i] != 0) << i;
        set_predicate(w, in->o[1], kind == 1 ? some | q : some & q, mask);
    }
    return FB_NEXT;
}

/* Special: 0 plain, 1 f4e, 2 b4e, 3 rc8, 4 ecl, 5 ecr, 6 rc16 */
OPERATION(prmt) {
    uint32_t *d = r32(w, in->o[0]), *a = r32(w, in->o[1]), *b = r32(w, in->o[2]), *c = r32(w, in->o[3]);
    uint32_t kind = in->flags >> SPECIAL_SHIFT & 7;
    static const uint16_t modes[7][4] = {
        {0}, {0x3210, 0x4321, 0x5432, 0x6543}, {0x5670, 0x6701, 0x7012, 0x0123},
        {0x0000, 0x1111, 0x2222, 0x3333}, {0x3210, 0x3211, 0x3222, 0x3333},
        {0x0000, 0x1110, 0x2210, 0x3210}, {0x1010, 0x3232, 0x1010, 0x3232}};
    EACH(i, mask) {
        uint64_t both = a[i] | (uint64_t)b[i] << 32;
        uint32_t selector = kind ? modes[kind][c[i] & 3] : c[i], value = 0;
        for (int j = 0; j < 4; ++j) {
            uint32_t s = selector >> 4 * j & 15, byte = (uint32_t)(both >> 8 * (s & 7)) & 255;
            if (s & 8) byte = byte & 128 ? 255 : 0;
            value |= byte << 8 * j;
        }
        d[i] = value;
    }
    return FB_NEXT;
}

OPERATION(bfe) {
    uint32_t *start = r32(w, in->o[2]), *length = r32(w, in->o[3]);
    bool wide = is_wide(in->t), is_signed = in->t == T_S32 || in->t == T_S64;
    uint32_t top = wide ? 63 : 31;
    EACH(i, mask) {
        uint64_t a = wide ? r64(w, in->o[1])[i] : r32(w, in->o[1])[i];
        uint32_t pos = start[i] & 255, len = length[i] & 255;
        uint64_t value = pos > top ? 0 : a >> pos;
        uint32_t last = pos + len - 1 < top && len ? pos + len - 1 : top;
        uint64_t sign = is_signed && len ? a >> last & 1 : 0;
        uint64_t kept = len > 63 ? ~UINT64_C(0) : (UINT64_C(1) << len) - 1;
        if (!len) kept = 0;
        uint32_t have = pos > top ? 0 : top + 1 - pos;
        if (len > have) kept = have > 63 ? ~UINT64_C(0) : (UINT64_C(1) << have) - 1;
        value &= kept;
        if (sign) value |= ~kept;
        if (wide) r64(w, in->o[0])[i] = value;
        else r32(w, in->o[0])[i] = (uint32_t)value;
    }
    return FB_NEXT;
}

OPERATION(bfi) {
    uint32_t *start = r32(w, in->o[3]), *length = r32(w, in->o[4]);
    bool wide = is_wide(in->t);
    uint32_t bits = wide ? 64 : 32;
    EACH(i, mask) {
        uint64_t a = wide ? r64(w, in->o[1])[i] : r32(w, in->o[1])[i];
        uint64_t b = wide ? r64(w, in->o[2])[i] : r32(w, in->o[2])[i];
        uint32_t pos = start[i] & 255, len = length[i] & 255;
        if (pos < bits && len) {
            uint64_t kept = (len > 63 ? ~UINT64_C(0) : (UINT64_C(1) << len) - 1) << pos;
            b = (b & ~kept) | (a << pos & kept);
        }
        if (wide) r64(w, in->o[0])[i] = b;
        else r32(w, in->o[0])[i] = (uint32_t)b;
    }
    return FB_NEXT;
}

/* Special bit 1: clamp (else wrap) */
OPERATION(szext) {
    uint32_t *d = r32(w, in->o[0]), *a = r32(w, in->o[1]), *b = r32(w, in->o[2]);
    EACH(i, mask) {
        uint32_t n = in->flags >> SPECIAL_SHIFT & 2 ? (b[i] > 32 ? 32 : b[i]) : b[i] & 31;
        if (n == 0) d[i] = 0;
        else if (n == 32) d[i] = a[i];
        else d[i] = in->t == T_S32 ? (uint32_t)((int32_t)(a[i] << (32 - n)) >> (32 - n)) : a[i] << (32 - n) >> (32 - n);
    }
    return FB_NEXT;
}

OPERATION(bmsk) {
    uint32_t *d = r32(w, in->o[0]), *a = r32(w, in->o[1]), *b = r32(w, in->o[2]);
    bool clamp = in->flags >> SPECIAL_SHIFT & 2;
    EACH(i, mask) {
        uint32_t from = clamp ? (a[i] > 32 ? 32 : a[i]) : a[i] & 31;
        uint32_t n = clamp ? (b[i] > 32 ? 32 : b[i]) : b[i] & 31;
        d[i] = from > 31 ? 0 : (uint32_t)(((UINT64_C(1) << n) - 1) << from);
    }
    return FB_NEXT;
}

/* The n-th set bit at or above (n > 0), or below (n < 0), a place. */
OPERATION(fns) {
    uint32_t *d = r32(w, in->o[0]), *a = r32(w, in->o[1]), *from = r32(w, in->o[2]), *nth = r32(w, in->o[3]);
    EACH(i, mask) {
        int32_t n = (int32_t)nth[i], step = n < 0 ? -1 : 1, left = n < 0 ? -n : n;
        d[i] = ~0u;
        int64_t at = from[i];
        if (!n) {
            if (at < 32 && (a[i] >> at & 1)) d[i] = (uint32_t)at;
            continue;
        }
        for (; at >= 0 && at < 32; at += step)
            if ((a[i] >> at & 1) && !--left) {
                d[i] = (uint32_t)at;
                break;
            }
    }
    return FB_NEXT;
}

OPERATION(popc) {
    uint32_t *d = r32(w, in->o[0]);
    if (is_wide(in->t)) FOR_LANES(d[i] = (uint32_t)__builtin_popcountll(r64(w, in->o[1])[i]));
    else FOR_LANES(d[i] = (uint32_t)__builtin_popcount(r32(w, in->o[1])[i]));
    return FB_NEXT;
}

OPERATION(clz) {
    uint32_t *d = r32(w, in->o[0]);
    EACH(i, mask) {
        if (is_wide(in->t)) {
            uint64_t a = r64(w, in->o[1])[i];
            d[i] = a ? (uint32_t)__builtin_clzll(a) : 64;
        } else {
            uint32_t a = r32(w, in->o[1])[i];
            d[i] = a ? (uint32_t)__builtin_clz(a) : 32;
        }
    }
    return FB_NEXT;
}

OPERATION(brev) {
    EACH(i, mask) {
        if (is_wide(in->t)) r64(w, in->o[0])[i] = __builtin_bitreverse64(r64(w, in->o[1])[i]);
        else r32(w, in->o[0])[i] = __builtin_bitreverse32(r32(w, in->o[1])[i]);
    }
    return FB_NEXT;
}

/* Special: 1 gives the shift amount */
OPERATION(bfind) {
    uint32_t *d = r32(w, in->o[0]);
    bool wide = is_wide(in->t);
    uint32_t top = wide ? 63 : 31;
    EACH(i, mask) {
        uint64_t a = wide ? r64(w, in->o[1])[i] : r32(w, in->o[1])[i];
        if (in->t == T_S32 && (int32_t)a < 0) a = (uint32_t)~a;
        if (in->t == T_S64 && (int64_t)a < 0) a = ~a;
        if (!a) d[i] = ~0u;
        else {
            uint32_t at = 63u - (uint32_t)__builtin_clzll(a);
            d[i] = in->flags >> SPECIAL_SHIFT & 1 ? top - at : at;
        }
    }
    return FB_NEXT;
}

/* Special: bit 0 a signed, bit 1 b signed, bit 2 the high half (dp2a) */
static int32_t byte_of(uint32_t v, int j, bool is_signed) {
    uint8_t b = (uint8_t)(v >> 8 * j);
    return is_signed ? (int8_t)b : b;
}
OPERATION(dp4a) {
    uint32_t *d = r32(w, in->o[0]), *a = r32(w, in->o[1]), *b = r32(w, in->o[2]), *c = r32(w, in->o[3]);
    uint32_t kind = in->flags >> SPECIAL_SHIFT;
    EACH(i, mask) {
        uint32_t sum = c[i];
        for (int j = 0; j < 4; ++j) sum += (uint32_t)(byte_of(a[i], j, kind & 1) * byte_of(b[i], j, kind & 2));
        d[i] = sum;
    }
    return FB_NEXT;
}
OPERATION(dp2a) {
    uint32_t *d = r32(w, in->o[0]), *a = r32(w, in->o[1]), *b = r32(w, in->o[2]), *c = r32(w, in->o[3]);
    uint32_t kind = in->flags >> SPECIAL_SHIFT;
    EACH(i, mask) {
        uint32_t sum = c[i];
        for (int j = 0; j < 2; ++j) {
            uint16_t half = (uint16_t)(a[i] >> 16 * j);
            int32_t x = kind & 1 ? (int16_t)half : half;
            sum += (uint32_t)(x * byte_of(b[i], j + (kind & 4 ? 2 : 0), kind & 2));
        }
        d[i] = sum;
    }
    return FB_NEXT;
}

/* Special registers, by the numbers that program.py gives them. */
enum { SR_TID, SR_NTID = 3, SR_CTAID = 6, SR_NCTAID = 9, SR_CLUSTERID = 12, SR_NCLUSTERID = 15,
       SR_CLUSTER_CTAID = 18, SR_CLUSTER_NCTAID = 21, SR_CLUSTER_CTARANK = 24, SR_CLUSTER_NCTARANK,
       SR_LANEID, SR_WARPID, SR_NWARPID, SR_SMID, SR_NSMID, SR_GRIDID, SR_EQ, SR_LE, SR_LT, SR_GE,
       SR_GT, SR_CLOCK, SR_DYNAMIC_SMEM, SR_TOTAL_SMEM, SR_EXPLICIT_CLUSTER, SR_ZERO };

static uint64_t special(fb_warp *w, uint32_t which, uint32_t lane) {
    const fb_run *run = w->run;
    const fb_block *b = w->block;
    uint32_t t = w->index * LANES + lane;
    if (which < SR_NTID) {
        if (which == 0) return t % run->block[0];
        if (which == 1) return t / run->block[0] % run->block[1];
        return t / run->block[0] / run->block[1];
    }
    if (which < SR_CLUSTER_CTARANK) {
        uint32_t dim = which % 3, rank[3] = {b->rank % run->cluster[0], b->rank / run->cluster[0] % run->cluster[1],
                                             b->rank / run->cluster[0] / run->cluster[1]};
        switch (which - dim) {
            case SR_NTID: return run->block[dim];
            case SR_CTAID: return b->ctaid[dim];
            case SR_NCTAID: return run->grid[dim];
            case SR_CLUSTERID: return b->ctaid[dim] / run->cluster[dim];
            case SR_NCLUSTERID: return run->grid[dim] / run->cluster[dim];
            case SR_CLUSTER_CTAID: return rank[dim];
            default: return run->cluster[dim];
        }
    }
    switch (which) {
        case SR_CLUSTER_CTARANK: return b->rank;
        case SR_CLUSTER_NCTARANK: return run->blocks_per_cluster;
        case SR_LANEID: return lane;
        case SR_WARPID: return w->index;
        case SR_NWARPID: return b->warps;
        case SR_NSMID: return (uint64_t)run->gpu->limits.multiprocessors;
        case SR_EQ: return 1u << lane;
        case SR_LE: return (2ull << lane) - 1;
        case SR_LT: return (1u << lane) - 1;
        case SR_GE: return ~((1u << lane) - 1);
        case SR_GT: return (uint32_t)~((2ull << lane) - 1);
        case SR_CLOCK: return run->statistics.warp_instructions;
        case SR_DYNAMIC_SMEM: return run->config->dynamic_shared_bytes;
        case SR_TOTAL_SMEM: return run->shared_bytes;
        case SR_EXPLICIT_CLUSTER: return run->blocks_per_cluster > 1;
        default: return 0;
    }
}

OPERATION(sreg) {
    EACH(i, mask) {
        uint64_t value = special(w, in->o[1], i);
        if (is_wide(in->t)) r64(w, in->o[0])[i] = value;
        else r32(w, in->o[0])[i] = is_short(in->t) ? (uint16_t)value : (uint32_t)value;
    }
    return FB_NEXT;
}
