/* mma, ldmatrix, stmatrix, movmatrix and wgmma: operands in and out of the functions in tensor/. */
#include <stdlib.h>

#include "machine.h"

/* Aligned instructions need every living lane. */
static fb_next aligned_lanes(fb_warp *w, uint32_t mask) {
    if (!(w->live & ~mask)) return FB_NEXT;
    EACH(i, mask) {
        w->why[i] = WAIT_LANES;
        w->waits_for[i] = w->live;
    }
    return FB_PARK;
}
#define ALIGNED() \
    do { \
        if (aligned_lanes(w, mask) != FB_NEXT) return FB_PARK; \
    } while (0)

static void gather(fb_warp *w, const uint32_t *refs, uint32_t n, uint32_t (*to)[LANES]) {
    for (uint32_t j = 0; j < n; ++j) memcpy(to[j], r32(w, refs[j]), sizeof to[j]);
}

/* Special: matrices in 3 bits, transposed in the next */
OPERATION(ldmatrix) {
    uint32_t n = in->flags >> SPECIAL_SHIFT & 7, address[LANES] = {0}, d[4][LANES];
    bool transpose = in->flags >> SPECIAL_SHIFT & 8;
    ALIGNED();
    if (n > 4 || in->count != 2 + n) return fb_fail(w, in, -1, FB_MISUSE, "%u registers", in->count - 2u);
    for (uint32_t i = 0; i < 8 * n; ++i) {
        uint64_t at = lane_address(w, in->o[0], in->o[1], address_flag(in, 0), (int)i);
        fb_block *b = fb_shared_at(w, in, (int)i, (int)(in->flags & 15), at, 16, 16, &address[i]);
        if (!b || !fb_shared_touch(w, in, (int)i, b, address[i], 16, false)) return FB_STOP;
    }
    fb_error error = fb_ldmatrix(&w->block->shared, (int32_t)n, transpose, address, d);
    if (error) return fb_fail(w, in, -1, FB_MISUSE, "%s", error);
    for (uint32_t j = 0; j < n; ++j) memcpy(r32(w, in->o[2 + j]), d[j], sizeof d[j]);
    return FB_NEXT;
}

OPERATION(stmatrix) {
    uint32_t n = in->flags >> SPECIAL_SHIFT & 7, address[LANES] = {0}, s[4][LANES];
    bool transpose = in->flags >> SPECIAL_SHIFT & 8;
    ALIGNED();
    if (n > 4 || in->count != 2 + n) return fb_fail(w, in, -1, FB_MISUSE, "%u registers", in->count - 2u);
    for (uint32_t i = 0; i < 8 * n; ++i) {
        uint64_t at = lane_address(w, in->o[0], in->o[1], address_flag(in, 0), (int)i);
        fb_block *b = fb_shared_at(w, in, (int)i, (int)(in->flags & 15), at, 16, 16, &address[i]);
        if (!b || !fb_shared_touch(w, in, (int)i, b, address[i], 16, true)) return FB_STOP;
    }
    gather(w, in->o + 2, n, s);
    fb_error error = fb_stmatrix(&w->block->shared, (int32_t)n, transpose, address, (const uint32_t(*)[LANES])s);
    if (error) return fb_fail(w, in, -1, FB_MISUSE, "%s", error);
    return FB_NEXT;
}

OPERATION(movmatrix) {
    uint32_t result[LANES];
    ALIGNED();
    fb_movmatrix(result, r32(w, in->o[1]));
    memcpy(r32(w, in->o[0]), result, sizeof result);
    return FB_NEXT;
}

/* o: m, n, k, a, b, c, d, saturate, xor, sparse, selector, then registers of d, a, b, c, metadata */
OPERATION(mma) {
    enum { FIELDS = 11, MOST = 64 };
    const uint32_t *o = in->o;
    fb_mma op = {(int32_t)o[0], (int32_t)o[1], (int32_t)o[2], (int32_t)o[3], (int32_t)o[4], (int32_t)o[5],
                 (int32_t)o[6], (int32_t)o[7], (int32_t)o[8], (int32_t)o[9], (int32_t)o[10]};
    int32_t n[4];
    uint32_t frag[MOST][LANES], d[MOST][LANES];
    ALIGNED();
    fb_error error = fb_mma_registers(&op, n); /* of a, b, c, d */
    if (error) return fb_fail(w, in, -1, FB_UNSUPPORTED, "%s", error);
    uint32_t a = (uint32_t)n[0], b = (uint32_t)n[1], c = (uint32_t)n[2], total = (uint32_t)n[3];
    uint32_t given = in->count - FIELDS, all = total + a + b + c + (op.sparse ? 1 : 0);
    if (given != all || all > MOST)
        return fb_fail(w, in, -1, FB_MISUSE, "%u registers where %u belong", given, all);
    const uint32_t *refs = o + FIELDS;
    gather(w, refs + total, all - total, frag);
    error = fb_mma_sync(&op, d, (const uint32_t(*)[LANES])frag, (const uint32_t(*)[LANES])(frag + a),
                        (const uint32_t(*)[LANES])(frag + a + b), op.sparse ? frag[a + b + c] : NULL);
    if (error) return fb_fail(w, in, -1, FB_UNSUPPORTED, "%s", error);
    for (uint32_t j = 0; j < total; ++j) memcpy(r32(w, refs[j]), d[j], sizeof d[j]);
    ++w->run->statistics.tensor_instructions;
    return FB_NEXT;
}

/* ---- wgmma: queued by its four warps, run when one of them waits for it ---- */

enum { W_FIELDS = 13, W_SCALE = 13, W_A, W_B, W_REGISTERS, W_MOST = 160 };

static fb_wgmma operation_of(const fb_insn *in) {
    const uint32_t *o = in->o;
    return (fb_wgmma){.n = (int32_t)o[0], .k = (int32_t)o[1], .a = (int32_t)o[2], .b = (int32_t)o[3],
                      .d = (int32_t)o[4], .saturate = (int32_t)o[5], .scale_a = (int32_t)o[6],
                      .scale_b = (int32_t)o[7], .trans_a = (int32_t)o[8], .trans_b = (int32_t)o[9],
                      .sparse = (int32_t)o[10], .selector = (int32_t)o[11]};
}

static void hold(fb_warp *w, const fb_insn *in, uint32_t count) {
    for (uint32_t j = 0; j < count; ++j) {
        uint32_t slot = in->o[W_REGISTERS + j];
        if (!w->in_flight[slot]) ++w->in_flight_count;
        w->in_flight[slot] = 1;
    }
}

OPERATION(wgmma) {
    ALIGNED();
    fb_block *block = w->block;
    fb_wgmma op = operation_of(in);
    int32_t n[2];
    fb_error error = fb_wgmma_registers(&op, n); /* of a, d */
    if (error) return fb_fail(w, in, -1, FB_UNSUPPORTED, "%s", error);
    bool registers = in->o[12];
    uint32_t a = registers ? (uint32_t)n[0] : 0, extra = a + (op.sparse ? 1 : 0), d = (uint32_t)n[1];
    if (in->count - W_REGISTERS != d + extra || d + extra > W_MOST)
        return fb_fail(w, in, -1, FB_MISUSE, "%u registers where %u belong", in->count - W_REGISTERS, d + extra);
    uint32_t rank = w->index % 4, index = w->wgmma_issued;
    fb_warpgroup *group = &block->groups[w->index / 4];
    if (w->index / 4 * 4 + 4 > block->warps)
        return fb_fail(w, in, -1, FB_MISUSE, "the warpgroup has fewer than four warps");
    if (index >= group->count) {
        if (group->count == group->capacity) {
            uint32_t capacity = group->capacity ? 2 * group->capacity : 64;
            fb_product *grown = realloc(group->products, capacity * sizeof *grown);
            if (!grown) return fb_fail(w, in, -1, FB_NO_MEMORY, "out of memory");
            group->products = grown;
            group->capacity = capacity;
        }
        group->products[group->count++] = (fb_product){0};
    }
    fb_product *p = &group->products[index];
    uint32_t scale = predicate(w, in->o[W_SCALE]) & 1u << first_lane(mask) ? 1 : 0;
    for (int j = 0; j < 4; ++j)
        if (p->in[j] && (p->in[j] != in || p->scale_d != scale))
            return fb_fail(w, in, -1, FB_MISUSE, "the warps of a warpgroup execute different wgmma: lines %u and %u", p->in[j]->line, in->line);
    p->in[rank] = in;
    p->scale_d = scale;
    p->descriptor_a[rank] = registers ? 0 : r64(w, in->o[W_A])[first_lane(mask)];
    p->descriptor_b[rank] = r64(w, in->o[W_B])[first_lane(mask)];
    if (extra) {
        if (!p->a && !(p->a = calloc(4ull * extra, sizeof *p->a))) return fb_fail(w, in, -1, FB_NO_MEMORY, "out of memory");
        gather(w, in->o + W_REGISTERS + d, extra, p->a + (size_t)rank * extra);
    }
    ++p->issued;
    ++w->wgmma_issued;
    hold(w, in, d);
    return FB_NEXT;
}

static fb_next run_product(fb_warp *w, fb_warpgroup *group, fb_product *p) {
    const fb_insn *in = p->in[0];
    fb_block *block = w->block;
    fb_wgmma op = operation_of(in);
    op.scale_d = (int32_t)p->scale_d;
    int32_t n[2];
    fb_wgmma_registers(&op, n);
    uint32_t count = (uint32_t)n[1], extra = (in->o[12] ? (uint32_t)n[0] : 0) + (op.sparse ? 1 : 0);
    static _Thread_local uint32_t d[4][W_MOST][LANES];
    uint32_t (*const to[4])[LANES] = {d[0], d[1], d[2], d[3]};
    const uint32_t(*a[4])[LANES] = {0};
    const uint32_t *metadata[4] = {0};
    fb_warp *first = &block->warp[(size_t)(group - block->groups) * 4];
    for (uint32_t j = 0; j < 4; ++j) {
        if (p->descriptor_a[j] != p->descriptor_a[0] || p->descriptor_b[j] != p->descriptor_b[0])
            return fb_fail(w, in, -1, FB_MISUSE, "the warps of a warpgroup give different descriptors");
        if (extra) a[j] = (const uint32_t(*)[LANES])(p->a + (size_t)j * extra);
        if (op.sparse) metadata[j] = p->a[(size_t)j * extra + extra - 1];
        gather(first + j, in->o + W_REGISTERS, count, d[j]);
    }
    fb_error error = fb_wgmma_mma_async(&op, &block->shared, to, in->o[12] ? a : NULL, p->descriptor_a[0],
                                        p->descriptor_b[0], op.sparse ? metadata : NULL);
    if (error) return fb_fail(w, in, -1, FB_MISUSE, "%s", error);
    for (uint32_t j = 0; j < 4; ++j)
        for (uint32_t k = 0; k < count; ++k) memcpy(r32(first + j, in->o[W_REGISTERS + k]), d[j][k], sizeof d[j][k]);
    free(p->a);
    p->a = NULL;
    p->done = true;
    ++w->run->statistics.tensor_instructions;
    return FB_NEXT;
}

OPERATION(wgmma_fence) {
    (void)in;
    ALIGNED();
    return FB_NEXT;
}

OPERATION(wgmma_commit) {
    (void)in;
    ALIGNED();
    w->wgmma_group_end[w->wgmma_committed++ % 64] = w->wgmma_issued;
    return FB_NEXT;
}

OPERATION(wgmma_wait) {
    ALIGNED();
    uint32_t n = in->o[0];
    if (n > 63) return fb_fail(w, in, -1, FB_MISUSE, "waits for all but %u groups", n);
    if (w->wgmma_committed <= n) return FB_NEXT;
    uint32_t until = w->wgmma_group_end[(w->wgmma_committed - n - 1) % 64];
    fb_warpgroup *group = &w->block->groups[w->index / 4];
    for (uint32_t i = 0; i < until; ++i)
        if (group->products[i].issued != 4) {
            EACH(lane, mask) {
                w->why[lane] = WAIT_WGMMA;
                w->waits_for[lane] = i;
            }
            return FB_PARK;
        }
    for (uint32_t i = w->wgmma_waited; i < until; ++i)
        if (!group->products[i].done && run_product(w, group, &group->products[i]) == FB_STOP) return FB_STOP;
    w->wgmma_waited = until;
    memset(w->in_flight, 0, w->run->kernel->slots);
    w->in_flight_count = 0;
    for (uint32_t i = until; i < w->wgmma_issued; ++i) {
        fb_wgmma op = operation_of(group->products[i].in[w->index % 4]);
        int32_t counts[2];
        fb_wgmma_registers(&op, counts);
        hold(w, group->products[i].in[w->index % 4], (uint32_t)counts[1]);
    }
    return FB_NEXT;
}

void fb_wgmma_free(fb_block *block) {
    for (int g = 0; g < 8; ++g) {
        for (uint32_t i = 0; i < block->groups[g].count; ++i) free(block->groups[g].products[i].a);
        block->groups[g].count = 0;
    }
}

/* Registers that an unfinished wgmma writes must not be touched. */
fb_next fb_check_in_flight(fb_warp *w, const fb_insn *in) {
    if (in->op == OP_wgmma || !w->run->gpu->options[FB_CHECK_ASYNC]) return FB_NEXT;
    uint32_t at = 0;
    for (const char *s = fb_signatures[in->op]; at < in->count; ++at) {
        char kind = *s | 32;
        if (kind == 'm' || kind == 'n') {
            if (!(in->o[at] >> 31) && w->in_flight[in->o[at]]) goto touched;
            ++at;
        } else if (strchr("tswqd", kind) && !(in->o[at] >> 31) && w->in_flight[in->o[at]]) goto touched;
        if (s[1] != '*') ++s;
    }
    return FB_NEXT;
touched:
    return fb_fail(w, in, -1, FB_UNINITIALISED,
                   "touches a register that a wgmma still writes: wgmma.wait_group is missing before it");
}
