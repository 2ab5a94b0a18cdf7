/* Runs a grid: cluster after cluster, the warps of one in turn, a number of instructions each. */
#include <stdio.h>
#include <stdlib.h>

#include "machine.h"

/* Instructions of one turn; lanes that wait at a later place get a turn after STARVED of those. */
enum { QUANTUM = 512, STARVED = 64, MAX_ROUNDS_POLLING = 1 << 20 };

/* Picks the lanes that stand at the smallest program counter. */
static bool regroup(fb_warp *w) {
    uint32_t ready = w->live & ~w->parked & ~w->at_barrier;
    w->active = 0;
    w->other = NO_PC;
    if (!ready) return false;
    if (!(ready & ~w->tired)) w->tired = 0;
    uint32_t candidates = ready & ~w->tired, least = NO_PC;
    EACH(i, candidates) if (w->pcs[i] < least) least = w->pcs[i];
    EACH(i, ready) {
        if (w->pcs[i] == least) w->active |= 1u << i;
        else if (w->pcs[i] > least && w->pcs[i] < w->other) w->other = w->pcs[i];
    }
    w->pc = least;
    return true;
}

static void keep_pcs(fb_warp *w) {
    EACH(i, w->active) w->pcs[i] = w->pc;
}

/* One turn of a warp; false on an error. *worked: some instruction was finished. */
static bool turn(fb_warp *w, bool *worked) {
    fb_run *run = w->run;
    const fb_insn *code = run->kernel->code;
    uint64_t limit = (uint64_t)run->gpu->options[FB_MAX_INSTRUCTIONS];
    w->parked = 0;
    if (!regroup(w)) return true;
    uint32_t budget = QUANTUM;
    while (budget--) {
        const fb_insn *in = &code[w->pc];
        uint32_t mask = w->active;
        if (in->guard != NO_PC) mask &= predicate(w, in->guard);
        ++run->statistics.warp_instructions;
        run->statistics.lane_instructions += (uint32_t)__builtin_popcount(mask);
        fb_next next = FB_NEXT;
        if (mask) {
            if (w->in_flight_count && fb_check_in_flight(w, in) == FB_STOP) return false;
            next = in->run(w, in, mask);
        }
        switch (next) {
            case FB_NEXT: ++w->pc; *worked = true; break;
            case FB_GO: *worked = true; break;
            case FB_SPLIT: /* the operation left every active lane's place in pcs */
                *worked = true;
                if (!regroup(w)) return true;
                continue;
            case FB_PARK: /* the lanes of mask try again later */
                keep_pcs(w);
                EACH(i, w->active & ~mask) w->pcs[i] = w->pc + 1;
                w->parked |= mask;
                if (!regroup(w)) return true;
                continue;
            case FB_PAUSE:
                *worked = true;
                ++w->pc;
                keep_pcs(w);
                w->tired |= mask;
                return true;
            case FB_STOP: return false;
        }
        if (w->pc >= w->other) {
            keep_pcs(w);
            if (!regroup(w)) return true;
        }
    }
    keep_pcs(w);
    if (w->other != NO_PC && ++w->divergent > STARVED) {
        w->tired |= w->active;
        w->divergent = 0;
    }
    if (limit && run->statistics.warp_instructions > limit)
        return fb_fail(w, &code[w->pc], -1, FB_LIMIT, "more than %llu instructions",
                       (unsigned long long)limit) != FB_STOP;
    return true;
}

static const char *const reasons[] = {
    "running", "other lanes of its warp", "a barrier of the block", "an mbarrier's phase",
    "the other warps of its warpgroup", "the cluster's barrier",
};

static void deadlock(fb_run *run) {
    fb_warp *first = NULL;
    char list[1500];
    size_t used = 0;
    for (uint32_t b = 0; b < run->blocks_per_cluster; ++b) {
        fb_block *block = &run->blocks[b];
        for (uint32_t i = 0; i < block->warps; ++i) {
            fb_warp *w = &block->warp[i];
            uint32_t seen = 0;
            EACH(lane, w->live) {
                if (seen >> lane & 1) continue;
                uint32_t same = 0;
                EACH(j, w->live) if (w->pcs[j] == w->pcs[lane]) same |= 1u << j;
                seen |= same;
                if (!first) first = w;
                const fb_insn *in = &run->kernel->code[w->pcs[lane]];
                if (used < sizeof list - 200)
                    used += (size_t)snprintf(
                        list + used, sizeof list - used,
                        "\n  block %u of its cluster, warp %u, lanes %08x: line %u (%s) waits for "
                        "%s (0x%llx)",
                        b, i, same, in->line, fb_operation_name(in->op),
                        reasons[w->at_barrier >> lane & 1 ? WAIT_BARRIER : w->why[lane]],
                        (unsigned long long)w->waits_for[lane]);
            }
        }
    }
    if (first) {
        const fb_insn *in = &run->kernel->code[first->pcs[first_lane(first->live)]];
        fb_fail(first, in, -1, FB_DEADLOCK, "deadlock, no warp can go on:%s", list);
    }
}

static bool alive(const fb_run *run) {
    for (uint32_t b = 0; b < run->blocks_per_cluster; ++b)
        for (uint32_t i = 0; i < run->blocks[b].warps; ++i)
            if (run->blocks[b].warp[i].live) return true;
    return false;
}

static void start_block(fb_block *b, const uint32_t cluster_origin[3], uint32_t rank) {
    fb_run *run = b->run;
    const fb_kernel *k = run->kernel;
    const uint32_t *c = run->cluster;
    b->rank = rank;
    b->ctaid[0] = cluster_origin[0] + rank % c[0];
    b->ctaid[1] = cluster_origin[1] + rank / c[0] % c[1];
    b->ctaid[2] = cluster_origin[2] + rank / c[0] / c[1];
    memset(b->state, 0, run->shared_bytes);
    if (b->writer) {
        memset(b->writer, 0, run->shared_bytes);
        memset(b->reader, 0, run->shared_bytes);
    }
    b->epoch = 1;
    memset(b->barrier, 0, sizeof b->barrier);
    for (uint32_t i = 0; i < b->warps; ++i) {
        fb_warp *w = &b->warp[i];
        uint32_t left = b->threads - i * LANES;
        w->live = left >= LANES ? ALL_LANES : (1u << left) - 1;
        w->active = w->parked = w->at_barrier = w->tired = w->carry = w->divergent = 0;
        w->copy_count = 0;
        w->bulk_groups = w->bulk_open = 0;
        w->wgmma_issued = w->wgmma_committed = w->wgmma_waited = 0;
        w->in_flight_count = 0;
        memset(w->in_flight, 0, k->slots);
        memset(w->predicates, 0, 4 * (size_t)k->predicates);
        memset(w->cp_groups, 0, sizeof w->cp_groups);
        memset(w->cluster_arrived, 0, sizeof w->cluster_arrived);
        memset(w->why, 0, sizeof w->why);
        memset(w->waits_for, 0, sizeof w->waits_for);
        for (int j = 0; j < LANES; ++j) w->pcs[j] = k->entry;
    }
}

static bool run_cluster(fb_run *run) {
    uint32_t idle = 0;
    run->cluster_phase = 0;
    run->round = 0;
    while (alive(run)) {
        bool worked = false;
        uint64_t before = run->statistics.warp_instructions;
        for (uint32_t b = 0; b < run->blocks_per_cluster; ++b)
            for (uint32_t i = 0; i < run->blocks[b].warps; ++i) {
                fb_warp *w = &run->blocks[b].warp[i];
                if (w->live && !turn(w, &worked)) return false;
            }
        ++run->round;
        bool pending = fb_async_pending(run); /* what lands now can wake somebody up */
        if (!fb_run_async(run)) return false;
        if (run->status) return false;
        bool polling = worked && run->statistics.warp_instructions - before < 64;
        idle = polling ? idle + 1 : 0;
        if ((!worked && !pending && alive(run)) || idle > MAX_ROUNDS_POLLING) {
            /* Barriers may have been released by the last warp of the round. */
            bool ready = false;
            for (uint32_t b = 0; b < run->blocks_per_cluster && !ready; ++b)
                for (uint32_t i = 0; i < run->blocks[b].warps; ++i) {
                    fb_warp *w = &run->blocks[b].warp[i];
                    if (w->live & ~w->parked & ~w->at_barrier) ready = true;
                }
            if (ready && idle <= MAX_ROUNDS_POLLING) continue;
            deadlock(run);
            return false;
        }
    }
    /* What was never waited for ends as late as it can. */
    for (size_t i = 0; i < run->bulk_count; ++i)
        if (!fb_finish_bulk(run, &run->bulks[i])) return false;
    run->bulk_count = 0;
    return true;
}

static void free_run(fb_run *run) {
    for (uint32_t b = 0; run->blocks && b < run->blocks_per_cluster; ++b) {
        fb_block *block = &run->blocks[b];
        for (uint32_t i = 0; block->warp && i < block->warps; ++i) {
            free(block->warp[i].base[0]);
            free(block->warp[i].predicates);
            free(block->warp[i].local);
            free(block->warp[i].copies);
            free(block->warp[i].in_flight);
        }
        fb_wgmma_free(block);
        for (int i = 0; i < 8; ++i) free(block->groups[i].products);
        free(block->warp);
        free(block->shared.bytes);
        free(block->state);
        free(block->writer);
        free(block->reader);
        free(block->write_epoch);
        free(block->read_epoch);
    }
    free(run->blocks);
    free(run->bulks);
    free(run->params);
}

static bool make_block(fb_run *run, fb_block *b) {
    const fb_kernel *k = run->kernel;
    size_t shared = run->shared_bytes;
    b->run = run;
    b->threads = run->block[0] * run->block[1] * run->block[2];
    b->warps = (b->threads + LANES - 1) / LANES;
    b->shared.size = shared;
    b->shared.bytes = aligned_alloc(1024, (shared + 2047) / 1024 * 1024);
    b->state = calloc(shared + 1, 1);
    b->warp = calloc(b->warps, sizeof *b->warp);
    if (!b->shared.bytes || !b->state || !b->warp) return false;
    memset(b->shared.bytes, 0xA5, shared); /* what was there before is not zero */
    if (run->gpu->options[FB_CHECK_RACES]) {
        b->writer = calloc(shared + 1, 1);
        b->reader = calloc(shared + 1, 1);
        b->write_epoch = calloc(shared + 1, 4);
        b->read_epoch = calloc(shared + 1, 4);
        if (!b->writer || !b->reader || !b->write_epoch || !b->read_epoch) return false;
    }
    for (uint32_t i = 0; i < b->warps; ++i) {
        fb_warp *w = &b->warp[i];
        w->block = b;
        w->run = run;
        w->index = i;
        size_t slots = ((size_t)k->slots + 8) * SLOT_BYTES;
        w->base[0] = aligned_alloc(SLOT_BYTES, slots);
        w->base[1] = k->constants;
        w->predicates = calloc(k->predicates + 1u, 4);
        w->in_flight = calloc(k->slots + 1u, 1);
        w->local = calloc((size_t)LANES * run->local_bytes + 1, 1);
        if (!w->base[0] || !w->predicates || !w->local || !w->in_flight) return false;
        memset(w->base[0], 0, slots);
    }
    return true;
}

static fb_status refuse(char *error, size_t size, const fb_kernel *k, const char *text,
                        unsigned long long got, unsigned long long limit) {
    if (size) snprintf(error, size, "kernel %s: %s: %llu, allowed: %llu", k->name, text, got, limit);
    return FB_INVALID_LAUNCH;
}

static fb_status check(const fb_kernel *k, const fb_launch_config *c, fb_run *run, char *error,
                       size_t size) {
    const fb_kernel_attributes *a = &k->attributes;
    const fb_limits *limits = &run->gpu->limits;
    static const uint32_t grid_limit[3] = {0x7FFFFFFF, 65535, 65535};
    static const uint32_t block_limit[3] = {1024, 1024, 64};
    bool given = c->cluster[0] != 0;
    bool own = a->required_cluster[0] != 0;
    run->blocks_per_cluster = 1;
    uint64_t threads = 1;
    for (int i = 0; i < 3; ++i) {
        run->grid[i] = c->grid[i];
        run->block[i] = c->block[i];
        run->cluster[i] = given ? c->cluster[i] : own ? a->required_cluster[i] : 1;
        if (!c->grid[i] || c->grid[i] > grid_limit[i])
            return refuse(error, size, k, "blocks of the grid", c->grid[i], grid_limit[i]);
        if (!c->block[i] || c->block[i] > block_limit[i])
            return refuse(error, size, k, "threads of a block", c->block[i], block_limit[i]);
        if (a->required_block[0] && a->required_block[i] != c->block[i])
            return refuse(error, size, k, "threads of a block (.reqntid)", c->block[i],
                          a->required_block[i]);
        if (given && own && c->cluster[i] != a->required_cluster[i])
            return refuse(error, size, k, "blocks of a cluster (.reqnctapercluster)",
                          c->cluster[i], a->required_cluster[i]);
        if (!run->cluster[i] || run->cluster[i] > 16 || c->grid[i] % run->cluster[i])
            return refuse(error, size, k, "grid is no multiple of the cluster", c->grid[i],
                          run->cluster[i]);
        run->blocks_per_cluster *= run->cluster[i];
        threads *= c->block[i];
    }
    if (run->blocks_per_cluster > (uint32_t)limits->max_cluster)
        return refuse(error, size, k, "blocks of a cluster", run->blocks_per_cluster,
                      (unsigned long long)limits->max_cluster);
    if (threads > a->max_threads)
        return refuse(error, size, k, "threads of a block", threads, a->max_threads);
    uint64_t shared = (uint64_t)a->static_shared_bytes + c->dynamic_shared_bytes;
    if (shared > (uint64_t)limits->max_shared_per_block)
        return refuse(error, size, k, "bytes of shared memory", shared,
                      (unsigned long long)limits->max_shared_per_block);
    run->shared_bytes = (uint32_t)shared;
    run->local_bytes = (a->local_bytes + 15) & ~15u;
    return FB_OK;
}

fb_status fb_launch(const fb_kernel *kernel, const fb_launch_config *config,
                    fb_launch_statistics *statistics, char *error, size_t error_size) {
    const fb_kernel_attributes *a = &kernel->attributes;
    fb_run run = {.kernel = kernel, .gpu = kernel->program->gpu, .config = config,
                  .error = error, .error_size = error_size};
    if (error_size) *error = 0;
    fb_status status = check(kernel, config, &run, error, error_size);
    if (status) return status;
    run.params = calloc(a->param_bytes + 256u, 1);
    run.blocks = calloc(run.blocks_per_cluster, sizeof *run.blocks);
    bool good = run.params && run.blocks;
    for (uint32_t i = 0; good && i < run.blocks_per_cluster; ++i)
        good = make_block(&run, &run.blocks[i]);
    if (!good) {
        free_run(&run);
        if (error_size) snprintf(error, error_size, "kernel %s: out of memory", kernel->name);
        return FB_NO_MEMORY;
    }
    /* Tensor maps are read in place: the buffer is aligned as they must be. */
    uint8_t *aligned = run.params + (64 - (uintptr_t)run.params % 64) % 64, *whole = run.params;
    run.params = aligned;
    if (config->params)
        for (int i = 0; i < a->param_count; ++i)
            memcpy(aligned + a->param_offsets[i], config->params[i], a->param_sizes[i]);
    else if (config->param_buffer && config->param_buffer_size >= a->param_bytes)
        memcpy(aligned, config->param_buffer, a->param_bytes);
    else if (a->param_bytes)
        good = refuse(error, error_size, kernel, "bytes of parameters", config->param_buffer_size,
                      a->param_bytes) == FB_OK;
    uint32_t origin[3];
    for (origin[2] = 0; good && origin[2] < run.grid[2]; origin[2] += run.cluster[2])
        for (origin[1] = 0; good && origin[1] < run.grid[1]; origin[1] += run.cluster[1])
            for (origin[0] = 0; good && origin[0] < run.grid[0]; origin[0] += run.cluster[0]) {
                for (uint32_t i = 0; i < run.blocks_per_cluster; ++i)
                    start_block(&run.blocks[i], origin, i);
                good = run_cluster(&run) && !run.status;
                for (uint32_t i = 0; i < run.blocks_per_cluster; ++i)
                    fb_wgmma_free(&run.blocks[i]);
            }
    if (statistics) *statistics = run.statistics;
    run.params = whole;
    free_run(&run);
    if (!good && !run.status) return FB_INVALID_LAUNCH;
    return run.status;
}
