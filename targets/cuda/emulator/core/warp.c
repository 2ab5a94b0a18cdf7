/* Instructions in which the lanes of a warp work together. */
#include "numeric.h"

/* Whether every lane finds all living lanes of its member mask here; else they wait for them. */
static fb_next together(fb_warp *w, const fb_insn *in, uint32_t mask, const uint32_t *members) {
    bool all = true;
    EACH(i, mask) {
        if (!(members[i] >> i & 1))
            return fb_fail(w, in, (int)i, FB_MISUSE, "lane %u is not in its member mask %08x", i,
                           members[i]);
        uint32_t needed = members[i] & w->live;
        w->why[i] = WAIT_LANES;
        w->waits_for[i] = needed;
        if (needed & ~mask) all = false;
    }
    return all ? FB_NEXT : FB_PARK;
}

#define TOGETHER(members) \
    do { \
        fb_next state = together(w, in, mask, members); \
        if (state != FB_NEXT) return state; \
    } while (0)

/* Special: 0 up, 1 down, 2 bfly, 3 idx. o: d, p, a, b, c, members */
OPERATION(shfl) {
    uint32_t *a = r32(w, in->o[2]), *b = r32(w, in->o[3]), *c = r32(w, in->o[4]), result[LANES], valid = 0;
    uint32_t kind = in->flags >> SPECIAL_SHIFT & 3;
    TOGETHER(r32(w, in->o[5]));
    EACH(i, mask) {
        uint32_t segment = c[i] >> 8 & 31, clamp = c[i] & 31, amount = b[i] & 31;
        uint32_t limit = (i & segment) | (clamp & ~segment), low = i & segment;
        int32_t j;
        bool in_range;
        switch (kind) {
            case 0: j = (int32_t)(i - amount); in_range = j >= (int32_t)limit; break;
            case 1: j = (int32_t)(i + amount); in_range = j <= (int32_t)limit; break;
            case 2: j = (int32_t)(i ^ amount); in_range = j <= (int32_t)limit; break;
            default: j = (int32_t)(low | (amount & ~segment)); in_range = j <= (int32_t)limit; break;
        }
        if (!in_range) j = (int32_t)i;
        else valid |= 1u << i;
        result[i] = a[j & 31];
    }
    uint32_t *d = r32(w, in->o[0]);
    EACH(i, mask) d[i] = result[i];
    set_predicate(w, in->o[1], valid, mask);
    return FB_NEXT;
}

/* Special: 0 all, 1 any, 2 uni, 3 ballot. o: p, d, predicate, members */
OPERATION(vote) {
    uint32_t *members = r32(w, in->o[3]), *d = r32(w, in->o[1]), value = 0;
    TOGETHER(members);
    uint32_t votes = predicate(w, in->o[2]), kind = in->flags >> SPECIAL_SHIFT & 3, ballot[LANES];
    EACH(i, mask) {
        uint32_t group = members[i] & mask, yes = votes & group;
        bool is = kind == 0 ? yes == group : kind == 1 ? yes != 0 : yes == group || !yes;
        value |= (uint32_t)is << i;
        ballot[i] = yes;
    }
    if (kind == 3) EACH(i, mask) d[i] = ballot[i];
    else set_predicate(w, in->o[0], value, mask);
    return FB_NEXT;
}

/* Special: 0 any, 1 all */
OPERATION(match) {
    uint32_t *members = r32(w, in->o[3]), result[LANES], same = 0;
    TOGETHER(members);
    bool wide = in->t == T_U64 || in->t == T_S64;
    EACH(i, mask) {
        uint32_t equal = 0, group = members[i] & mask;
        EACH(j, group) {
            bool is = wide ? r64(w, in->o[2])[i] == r64(w, in->o[2])[j] : r32(w, in->o[2])[i] == r32(w, in->o[2])[j];
            equal |= (uint32_t)is << j;
        }
        bool all = equal == group;
        result[i] = in->flags >> SPECIAL_SHIFT & 1 ? (all ? group : 0) : equal;
        same |= (uint32_t)all << i;
    }
    EACH(i, mask) r32(w, in->o[0])[i] = result[i];
    set_predicate(w, in->o[1], same, mask);
    return FB_NEXT;
}

/* Special: 0 add, 1 min, 2 max, 3 and, 4 or, 5 xor */
OPERATION(redux) {
    uint32_t *a = r32(w, in->o[1]), *members = r32(w, in->o[2]), result[LANES];
    TOGETHER(members);
    uint32_t kind = in->flags >> SPECIAL_SHIFT & 7;
    EACH(i, mask) {
        uint32_t group = members[i] & mask, value = a[i];
        EACH(j, group & ~(1u << i)) {
            bool less = in->t == T_S32 ? (int32_t)a[j] < (int32_t)value : a[j] < value;
            switch (kind) {
                case 0: value += a[j]; break;
                case 1: value = less ? a[j] : value; break;
                case 2: value = less ? value : a[j]; break;
                case 3: value &= a[j]; break;
                case 4: value |= a[j]; break;
                default: value ^= a[j]; break;
            }
        }
        result[i] = value;
    }
    EACH(i, mask) r32(w, in->o[0])[i] = result[i];
    return FB_NEXT;
}

OPERATION(activemask) {
    EACH(i, mask) r32(w, in->o[0])[i] = mask;
    return FB_NEXT;
}

OPERATION(elect) {
    uint32_t *members = r32(w, in->o[2]), leaders = 0;
    TOGETHER(members);
    uint32_t result[LANES];
    EACH(i, mask) {
        result[i] = (uint32_t)first_lane(members[i] & mask);
        leaders |= (uint32_t)(result[i] == i) << i;
    }
    EACH(i, mask) r32(w, in->o[0])[i] = result[i];
    set_predicate(w, in->o[1], leaders, mask);
    return FB_NEXT;
}

OPERATION(warp_sync) {
    TOGETHER(r32(w, in->o[0]));
    return FB_NEXT;
}
