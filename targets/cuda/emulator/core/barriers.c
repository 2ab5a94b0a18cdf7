/* bar, barrier, barrier.cluster, mbarrier. */
#include "machine.h"

enum { BAR_SYNC, BAR_ARRIVE, BAR_AND, BAR_OR, BAR_POPC };

static uint32_t lanes_of(const fb_block *b, uint32_t warp) {
    uint32_t left = b->threads - warp * LANES;
    return left >= LANES ? ALL_LANES : (1u << left) - 1;
}

/* Threads that count as arrived: a warp counts when none of its living lanes is missing. */
static bool complete(const fb_block *b, const fb_barrier *bar) {
    uint32_t threads = 0;
    bool all = true;
    for (uint32_t i = 0; i < b->warps; ++i) {
        uint32_t missing = b->warp[i].live & ~bar->arrived[i];
        if (missing) all = false;
        if (bar->arrived[i] && !missing) threads += LANES;
    }
    return bar->expected ? threads >= bar->expected : all;
}

static void release(fb_block *b, fb_barrier *bar) {
    const fb_insn *code = b->run->kernel->code;
    uint32_t votes = 0, arrived = 0;
    for (uint32_t i = 0; i < b->warps; ++i) {
        votes += (uint32_t)__builtin_popcount(bar->true_votes[i]);
        arrived += (uint32_t)__builtin_popcount(bar->arrived[i] & lanes_of(b, i));
    }
    for (uint32_t i = 0; i < b->warps; ++i) {
        fb_warp *w = &b->warp[i];
        uint32_t waiting = bar->waiting[i];
        if (!waiting) continue;
        uint32_t place = w->pcs[first_lane(waiting)];
        EACH(lane, waiting) {
            const fb_insn *in = &code[w->pcs[lane]];
            if (w->pcs[lane] != place && in->flags & FLAG_NAN)
                fb_fail(w, in, (int)lane, FB_MISUSE,
                        "lanes of one warp wait at different aligned barriers, lines %u and %u",
                        in->line, code[place].line);
            uint32_t kind = in->flags >> SPECIAL_SHIFT & 7, bit = 1u << lane;
            if (kind == BAR_AND) set_predicate(w, in->o[0], votes == arrived ? bit : 0, bit);
            if (kind == BAR_OR) set_predicate(w, in->o[0], votes ? bit : 0, bit);
            if (kind == BAR_POPC) r32(w, in->o[1])[lane] = votes;
            ++w->pcs[lane];
        }
        w->at_barrier &= ~waiting;
    }
    memset(bar, 0, sizeof *bar);
    ++b->epoch;
}

void fb_release_barriers(fb_block *b) {
    for (int i = 0; i < 16; ++i)
        if (b->barrier[i].used && complete(b, &b->barrier[i])) release(b, &b->barrier[i]);
}

/* o: predicate and count (results), barrier, threads, vote. FLAG_HIGH: threads are given. */
OPERATION(bar) {
    fb_block *b = w->block;
    uint32_t first = (uint32_t)first_lane(mask), kind = in->flags >> SPECIAL_SHIFT & 7;
    uint32_t id = r32(w, in->o[2])[first], count = in->flags & FLAG_HIGH ? r32(w, in->o[3])[first] : 0;
    uint32_t votes = predicate(w, in->o[4]);
    if (id > 15) return fb_fail(w, in, (int)first, FB_MISUSE, "there is no barrier %u", id);
    if (in->flags & FLAG_HIGH && (!count || count % LANES))
        return fb_fail(w, in, (int)first, FB_MISUSE, "%u threads are no multiple of a warp", count);
    EACH(i, mask)
        if (r32(w, in->o[2])[i] != id)
            return fb_fail(w, in, (int)i, FB_MISUSE, "the barrier differs from lane to lane");
    fb_barrier *bar = &b->barrier[id];
    if (bar->used && bar->expected != count)
        return fb_fail(w, in, (int)first, FB_MISUSE,
                       "barrier %u is used with %u and %u threads at once", id, bar->expected, count);
    if (bar->arrived[w->index] & mask)
        return fb_fail(w, in, (int)first, FB_MISUSE, "arrives twice in one phase of barrier %u", id);
    bar->used = true;
    bar->expected = count;
    bar->arrived[w->index] |= mask;
    bar->true_votes[w->index] |= votes & mask;
    EACH(i, w->active) w->pcs[i] = w->pc + (mask >> i & 1 && kind != BAR_ARRIVE ? 0 : 1);
    if (kind != BAR_ARRIVE) {
        bar->waiting[w->index] |= mask;
        w->at_barrier |= mask;
        EACH(i, mask) {
            w->waits_for[i] = id;
            w->why[i] = WAIT_BARRIER;
        }
    }
    if (complete(b, bar)) release(b, bar);
    return w->run->status ? FB_STOP : FB_SPLIT;
}

/* Special: 0 arrive, 1 wait. Every thread of the cluster that lives takes part. */
OPERATION(cluster_bar) {
    fb_run *run = w->run;
    if (!(in->flags >> SPECIAL_SHIFT & 1)) {
        EACH(i, mask) ++w->cluster_arrived[i];
        return FB_NEXT;
    }
    uint32_t least = UINT32_MAX;
    for (uint32_t b = 0; b < run->blocks_per_cluster; ++b)
        for (uint32_t j = 0; j < run->blocks[b].warps; ++j) {
            fb_warp *other = &run->blocks[b].warp[j];
            EACH(i, other->live) if (other->cluster_arrived[i] < least) least = other->cluster_arrived[i];
        }
    EACH(i, mask) {
        w->why[i] = WAIT_CLUSTER;
        w->waits_for[i] = w->cluster_arrived[i];
        if (!w->cluster_arrived[i]) return fb_fail(w, in, (int)i, FB_MISUSE, "waits without having arrived");
    }
    EACH(i, mask) if (w->cluster_arrived[i] > least) return FB_PARK;
    for (uint32_t b = 0; b < run->blocks_per_cluster; ++b) ++run->blocks[b].epoch;
    return FB_NEXT;
}

/* ---- mbarrier ---- */

enum { M_INIT, M_INVAL, M_ARRIVE, M_ARRIVE_EXPECT, M_EXPECT, M_COMPLETE, M_DROP, M_ARRIVE_NC, M_DROP_NC, M_DROP_EXPECT };

static fb_block *barrier_at(fb_warp *w, const fb_insn *in, uint32_t lane, uint32_t operand, bool init,
                            uint32_t *offset) {
    uint64_t address = lane_address(w, in->o[operand], in->o[operand + 1], address_flag(in, 0), (int)lane);
    fb_block *b = fb_shared_at(w, in, (int)lane, (int)(in->flags & 15), address, 8, 8, offset);
    if (!b) return NULL;
    if (init) memset(b->state + *offset, 1, 8);
    else if (b->state[*offset] != 1) {
        fb_fail(w, in, (int)lane, FB_UNINITIALISED, "the mbarrier at 0x%x was never initialised", *offset);
        return NULL;
    }
    return b;
}

/* o: state, (unused), address, count, bytes */
OPERATION(mbar) {
    uint32_t kind = in->flags >> SPECIAL_SHIFT & 15, *counts = r32(w, in->o[4]), *bytes = r32(w, in->o[5]);
    EACH(i, mask) {
        uint32_t at;
        uint64_t token = 0;
        fb_block *b = barrier_at(w, in, i, 2, kind == M_INIT, &at);
        if (!b) return FB_STOP;
        fb_shared *s = &b->shared;
        uint64_t *state = b == w->block && in->flags & FLAG_WIDE_DATA ? &token : NULL;
        fb_error error;
        switch (kind) {
            case M_INIT: error = fb_mbarrier_init(s, at, counts[i]); break;
            case M_INVAL: error = fb_mbarrier_inval(s, at); break;
            case M_ARRIVE: error = fb_mbarrier_arrive(s, at, counts[i], false, state); break;
            case M_ARRIVE_NC: error = fb_mbarrier_arrive(s, at, counts[i], true, state); break;
            case M_ARRIVE_EXPECT: error = fb_mbarrier_arrive_expect_tx(s, at, bytes[i], state); break;
            case M_EXPECT: error = fb_mbarrier_expect_tx(s, at, bytes[i]); break;
            case M_COMPLETE: error = fb_mbarrier_complete_tx(s, at, bytes[i]); break;
            default: error = fb_mbarrier_arrive_drop(s, at, counts[i], bytes[i], kind == M_DROP_NC, state); break;
        }
        if (error) return fb_fail(w, in, (int)i, FB_MISUSE, "%s", error);
        if (in->flags & FLAG_WIDE_DATA) r64(w, in->o[0])[i] = token;
    }
    return FB_NEXT;
}

/* Special: bit 0 parity (else a state), bit 1 try_wait, which waits here as long as it takes. */
OPERATION(mbar_wait) {
    uint32_t kind = in->flags >> SPECIAL_SHIFT & 3, done = 0;
    EACH(i, mask) {
        uint32_t at;
        bool is = false;
        fb_block *b = barrier_at(w, in, i, 1, false, &at);
        if (!b) return FB_STOP;
        uint64_t wanted = in->flags & FLAG_WIDE_SOURCE ? r64(w, in->o[3])[i] : r32(w, in->o[3])[i];
        fb_error error = kind & 1 ? fb_mbarrier_test_wait_parity(&b->shared, at, (uint32_t)wanted, &is)
                                  : fb_mbarrier_test_wait(&b->shared, at, wanted, &is);
        if (error) return fb_fail(w, in, (int)i, FB_MISUSE, "%s", error);
        done |= (uint32_t)is << i;
        w->why[i] = WAIT_MBARRIER;
        w->waits_for[i] = at;
    }
    if (done) ++w->block->epoch;
    if (kind & 2 && done != mask) return FB_PARK;
    set_predicate(w, in->o[0], done, mask);
    return done == mask ? FB_NEXT : FB_PAUSE;
}

OPERATION(mbar_pending) {
    EACH(i, mask) r32(w, in->o[0])[i] = fb_mbarrier_pending_count(r64(w, in->o[1])[i]);
    return FB_NEXT;
}

/* The address of the same place in another block of the cluster. */
OPERATION(mapa) {
    uint32_t *rank = r32(w, in->o[2]);
    EACH(i, mask) {
        uint64_t a = in->flags & FLAG_WIDE_SOURCE ? r64(w, in->o[1])[i] : r32(w, in->o[1])[i];
        if (rank[i] >= w->run->blocks_per_cluster)
            return fb_fail(w, in, (int)i, FB_MISUSE, "the cluster has no block %u", rank[i]);
        uint64_t value = (a & (WINDOW_MASK | SHARED_OFFSET_MASK)) | (uint64_t)(rank[i] + 1) << SHARED_RANK_SHIFT;
        if (in->flags & FLAG_WIDE_DATA) r64(w, in->o[0])[i] = value;
        else r32(w, in->o[0])[i] = (uint32_t)value;
    }
    return FB_NEXT;
}

OPERATION(getctarank) {
    EACH(i, mask) {
        uint64_t a = in->flags & FLAG_WIDE_SOURCE ? r64(w, in->o[1])[i] : r32(w, in->o[1])[i];
        uint32_t rank = (uint32_t)((a & ~WINDOW_MASK) >> SHARED_RANK_SHIFT);
        r32(w, in->o[0])[i] = rank ? rank - 1 : w->block->rank;
    }
    return FB_NEXT;
}
