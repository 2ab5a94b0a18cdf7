/* Copies that land later: cp.async when its thread waits, bulk copies some rounds after they start,
 * stores from shared memory when their group is waited for. */
#include <stdlib.h>

#include "machine.h"

/* ---- cp.async ---- */

static bool push_copy(fb_warp *w, const fb_insn *in, fb_copy copy) {
    if (w->copy_count == w->copy_capacity) {
        size_t capacity = w->copy_capacity ? 2 * w->copy_capacity : 256;
        fb_copy *grown = realloc(w->copies, capacity * sizeof *grown);
        if (!grown) {
            fb_fail(w, in, -1, FB_NO_MEMORY, "out of memory");
            return false;
        }
        w->copies = grown;
        w->copy_capacity = capacity;
    }
    w->copies[w->copy_count++] = copy;
    return true;
}

/* Special: bytes of the copy. o: to (shared), from (global), source bytes, ignore-src */
OPERATION(cp_async) {
    uint32_t size = in->flags >> SPECIAL_SHIFT & 31, *sizes = r32(w, in->o[4]);
    uint32_t ignore = predicate(w, in->o[5]);
    w->run->statistics.global_load_bytes += (uint64_t)size * (uint32_t)__builtin_popcount(mask);
    EACH(i, mask) {
        uint64_t to = lane_address(w, in->o[0], in->o[1], address_flag(in, 0), (int)i);
        uint64_t from = lane_address(w, in->o[2], in->o[3], address_flag(in, 1), (int)i);
        uint32_t offset, bytes = ignore >> i & 1 ? 0 : sizes[i];
        if (bytes > size) return fb_fail(w, in, (int)i, FB_MISUSE, "source of %u bytes for a copy of %u", bytes, size);
        fb_block *b = fb_shared_at(w, in, (int)i, (int)(in->flags & 15), to, size, size, &offset);
        if (!b) return FB_STOP;
        if (from & (size - 1))
            return fb_fail(w, in, (int)i, FB_MISALIGNED, "source 0x%llx is no multiple of %u", (unsigned long long)from, size);
        if (bytes && !fb_access(w, in, (int)i, SPACE_GLOBAL, from, bytes, false)) return FB_STOP;
        memset(b->state + offset, 2, size);
        fb_copy copy = {.source = from, .target = offset, .group = w->cp_groups[i], .lane = (uint8_t)i,
                        .size = (uint8_t)size, .bytes = (uint8_t)bytes};
        if (!push_copy(w, in, copy)) return FB_STOP;
    }
    return FB_NEXT;
}

/* Lands a lane's copies of groups before `keep`, or all of them. False on an error. */
bool fb_land_copies(fb_warp *w, uint32_t lane, uint32_t keep, bool all) {
    fb_block *b = w->block;
    size_t kept = 0;
    bool good = true;
    for (size_t j = 0; j < w->copy_count; ++j) {
        fb_copy *c = &w->copies[j];
        if (c->lane != lane || !(all || c->group < keep)) {
            w->copies[kept++] = *c;
            continue;
        }
        if (c->arrives) {
            fb_error error = fb_mbarrier_arrive(&b->shared, c->target, 1, false, NULL);
            if (error) fb_fail(w, NULL, (int)lane, FB_MISUSE, "cp.async.mbarrier.arrive: %s", error);
            good = good && !error;
            continue;
        }
        const void *from = c->bytes ? fb_gpu_host_pointer(w->run->gpu, c->source, c->bytes) : NULL;
        memset(b->shared.bytes + c->target, 0, c->size);
        if (from) memcpy(b->shared.bytes + c->target, from, c->bytes);
        memset(b->state + c->target, 1, c->size);
    }
    w->copy_count = kept;
    return good;
}

OPERATION(cp_commit) {
    (void)in;
    EACH(i, mask) ++w->cp_groups[i];
    return FB_NEXT;
}

/* o[0]: groups that may stay unfinished; NO_PC: wait_all */
OPERATION(cp_wait) {
    uint32_t n = in->o[0];
    bool all = n == NO_PC;
    if (mask == ALL_LANES && all) {
        EACH(i, mask) if (!fb_land_copies(w, i, 0, true)) return FB_STOP;
        return FB_NEXT;
    }
    EACH(i, mask) {
        uint32_t keep = w->cp_groups[i] > n ? w->cp_groups[i] - n : 0;
        if (!fb_land_copies(w, i, keep, all)) return FB_STOP;
    }
    return FB_NEXT;
}

/* FLAG_HIGH: .noinc */
OPERATION(cp_arrive) {
    EACH(i, mask) {
        uint32_t offset;
        uint64_t address = lane_address(w, in->o[0], in->o[1], address_flag(in, 0), (int)i);
        fb_block *b = fb_shared_at(w, in, (int)i, (int)(in->flags & 15), address, 8, 8, &offset);
        if (!b) return FB_STOP;
        if (!(in->flags & FLAG_HIGH)) {
            fb_error error = fb_mbarrier_increment_pending(&b->shared, offset);
            if (error) return fb_fail(w, in, (int)i, FB_MISUSE, "%s", error);
        }
        uint32_t due = w->run->round + (uint32_t)w->run->gpu->options[FB_ASYNC_DELAY];
        fb_copy copy = {.target = offset, .group = w->cp_groups[i], .lane = (uint8_t)i, .arrives = 1, .due = due};
        if (!push_copy(w, in, copy)) return FB_STOP;
    }
    return FB_NEXT;
}

/* ---- bulk copies and tensor maps ---- */

static void *global_at(void *context, uint64_t address, uint64_t size, bool write) {
    (void)write;
    return fb_gpu_host_pointer(context, address, size);
}

static fb_bulk *push_bulk(fb_warp *w, const fb_insn *in, uint8_t kind) {
    fb_run *run = w->run;
    if (run->bulk_count == run->bulk_capacity) {
        size_t capacity = run->bulk_capacity ? 2 * run->bulk_capacity : 64;
        fb_bulk *grown = realloc(run->bulks, capacity * sizeof *grown);
        if (!grown) {
            fb_fail(w, in, -1, FB_NO_MEMORY, "out of memory");
            return NULL;
        }
        run->bulks = grown;
        run->bulk_capacity = capacity;
    }
    fb_bulk *bulk = &run->bulks[run->bulk_count++];
    *bulk = (fb_bulk){.kind = kind, .due = run->round + (uint32_t)run->gpu->options[FB_ASYNC_DELAY],
                      .block = w->block, .warp = w, .in = in, .group = w->bulk_groups,
                      .blocks = 1u << w->block->rank};
    return bulk;
}

static void mark(fb_block *b, uint32_t offset, uint32_t size, uint8_t value) {
    if (offset <= b->shared.size && size <= b->shared.size - offset) memset(b->state + offset, value, size);
}

static bool copy_descriptor(fb_warp *w, const fb_insn *in, int lane, uint64_t map, fb_bulk *bulk) {
    const uint8_t *at = NULL;
    uint64_t place = map & ~WINDOW_MASK;
    if ((map & WINDOW_MASK) == PARAM_WINDOW || !(map & WINDOW_MASK)) {
        if (place % 64) {
            fb_fail(w, in, lane, FB_MISALIGNED, "the tensor map at 0x%llx is not 64-byte aligned", (unsigned long long)map);
            return false;
        }
        for (uint32_t part = 0; part < FB_TENSOR_MAP_BYTES; part += 16) {
            at = fb_access(w, in, lane, SPACE_GENERIC, map + part, 16, false);
            if (!at) return false;
            memcpy(bulk->descriptor + part, at, 16);
        }
        return true;
    }
    fb_fail(w, in, lane, FB_ILLEGAL_ADDRESS, "a tensor map lies in global, constant or parameter memory");
    return false;
}

static bool coordinates(fb_warp *w, const fb_insn *in, uint32_t first, uint32_t lane, fb_bulk *bulk) {
    uint32_t rank = in->count - first;
    if (rank < 1 || rank > 5) {
        fb_fail(w, in, (int)lane, FB_MISUSE, "%u coordinates", rank);
        return false;
    }
    bulk->rank = (uint8_t)rank;
    for (uint32_t j = 0; j < rank; ++j) bulk->coordinates[j] = (int32_t)r32(w, in->o[first + j])[lane];
    return true;
}

/* FLAG_HIGH: multicast. o: to, map, mbarrier (addresses of two operands), mask of blocks, ... */
OPERATION(tma_load) {
    int space = (int)(in->flags & 15);
    EACH(i, mask) {
        fb_bulk *bulk = push_bulk(w, in, TMA_LOAD);
        uint32_t bytes = 0;
        if (!bulk || !coordinates(w, in, 7, i, bulk)) return FB_STOP;
        uint64_t map = lane_address(w, in->o[2], in->o[3], address_flag(in, 1), (int)i);
        if (!copy_descriptor(w, in, (int)i, map, bulk)) return FB_STOP;
        fb_error error = fb_tma_bytes(bulk->descriptor, &bytes);
        if (error) return fb_fail(w, in, (int)i, FB_MISUSE, "%s", error);
        uint64_t to = lane_address(w, in->o[0], in->o[1], address_flag(in, 0), (int)i);
        uint64_t barrier = lane_address(w, in->o[4], in->o[5], address_flag(in, 0), (int)i);
        fb_block *b = fb_shared_at(w, in, (int)i, space, to, bytes, 16, &bulk->target);
        fb_block *other = b ? fb_shared_at(w, in, (int)i, space, barrier, 8, 8, &bulk->barrier) : NULL;
        if (!b || !other) return FB_STOP;
        bulk->block = other;
        bulk->size = bytes;
        bulk->blocks = in->flags & FLAG_HIGH ? r32(w, in->o[6])[i] & 0xFFFF : 1u << b->rank;
        if (bulk->blocks >> w->run->blocks_per_cluster)
            return fb_fail(w, in, (int)i, FB_MISUSE, "multicast to blocks %04x of a cluster of %u", bulk->blocks, w->run->blocks_per_cluster);
        EACH(j, bulk->blocks) mark(&w->run->blocks[j], bulk->target, bytes, 2);
    }
    return FB_NEXT;
}

/* o: map, from, kind of reduction + 1 or 0, coordinates */
OPERATION(tma_store) {
    EACH(i, mask) {
        fb_bulk *bulk = push_bulk(w, in, TMA_STORE);
        if (!bulk || !coordinates(w, in, 5, i, bulk)) return FB_STOP;
        uint64_t map = lane_address(w, in->o[0], in->o[1], address_flag(in, 0), (int)i);
        if (!copy_descriptor(w, in, (int)i, map, bulk)) return FB_STOP;
        uint64_t from = lane_address(w, in->o[2], in->o[3], address_flag(in, 1), (int)i);
        bulk->block = fb_shared_at(w, in, (int)i, (int)(in->flags & 15), from, 16, 16, &bulk->target);
        if (!bulk->block) return FB_STOP;
        bulk->reduce = (uint8_t)in->o[4];
    }
    return FB_NEXT;
}

/* o: to, from, bytes, mbarrier, mask of blocks */
OPERATION(bulk_load) {
    int space = (int)(in->flags & 15);
    EACH(i, mask) {
        fb_bulk *bulk = push_bulk(w, in, BULK_LOAD);
        if (!bulk) return FB_STOP;
        bulk->size = r32(w, in->o[4])[i];
        bulk->source = lane_address(w, in->o[2], in->o[3], address_flag(in, 1), (int)i);
        if (bulk->size % 16 || bulk->source % 16)
            return fb_fail(w, in, (int)i, FB_MISALIGNED, "a bulk copy of %u bytes from 0x%llx: both must be multiples of 16", bulk->size, (unsigned long long)bulk->source);
        uint64_t to = lane_address(w, in->o[0], in->o[1], address_flag(in, 0), (int)i);
        uint64_t barrier = lane_address(w, in->o[5], in->o[6], address_flag(in, 0), (int)i);
        fb_block *b = fb_shared_at(w, in, (int)i, space, to, bulk->size, 16, &bulk->target);
        bulk->block = b ? fb_shared_at(w, in, (int)i, space, barrier, 8, 8, &bulk->barrier) : NULL;
        if (!bulk->block) return FB_STOP;
        bulk->blocks = in->flags & FLAG_HIGH ? r32(w, in->o[7])[i] & 0xFFFF : 1u << b->rank;
        if (bulk->blocks >> w->run->blocks_per_cluster)
            return fb_fail(w, in, (int)i, FB_MISUSE, "multicast to blocks %04x of a cluster of %u", bulk->blocks, w->run->blocks_per_cluster);
        EACH(j, bulk->blocks) mark(&w->run->blocks[j], bulk->target, bulk->size, 2);
    }
    return FB_NEXT;
}

/* o: to (global), from (shared), bytes, (unused) */
OPERATION(bulk_store) {
    EACH(i, mask) {
        fb_bulk *bulk = push_bulk(w, in, BULK_STORE);
        if (!bulk) return FB_STOP;
        bulk->source = lane_address(w, in->o[0], in->o[1], address_flag(in, 0), (int)i);
        bulk->size = r32(w, in->o[4])[i];
        uint64_t from = lane_address(w, in->o[2], in->o[3], address_flag(in, 1), (int)i);
        bulk->block = fb_shared_at(w, in, (int)i, (int)(in->flags & 15), from, bulk->size, 16, &bulk->target);
        if (!bulk->block) return FB_STOP;
    }
    return FB_NEXT;
}

/* From this block to another of its cluster. o: to, from, bytes, mbarrier */
OPERATION(bulk_copy) {
    EACH(i, mask) {
        fb_bulk *bulk = push_bulk(w, in, BULK_COPY);
        if (!bulk) return FB_STOP;
        bulk->size = r32(w, in->o[4])[i];
        uint32_t from_offset;
        uint64_t to = lane_address(w, in->o[0], in->o[1], address_flag(in, 0), (int)i);
        uint64_t from = lane_address(w, in->o[2], in->o[3], address_flag(in, 1), (int)i);
        uint64_t barrier = lane_address(w, in->o[5], in->o[6], address_flag(in, 0), (int)i);
        fb_block *b = fb_shared_at(w, in, (int)i, SPACE_CLUSTER, to, bulk->size, 16, &bulk->target);
        fb_block *own = b ? fb_shared_at(w, in, (int)i, SPACE_SHARED, from, bulk->size, 16, &from_offset) : NULL;
        bulk->block = own ? fb_shared_at(w, in, (int)i, SPACE_CLUSTER, barrier, 8, 8, &bulk->barrier) : NULL;
        if (!bulk->block) return FB_STOP;
        bulk->source = from_offset;
        bulk->blocks = 1u << b->rank;
        mark(b, bulk->target, bulk->size, 2);
    }
    return FB_NEXT;
}

static bool loads(const fb_bulk *bulk) { return bulk->kind != BULK_STORE && bulk->kind != TMA_STORE; }

bool fb_finish_bulk(fb_run *run, fb_bulk *bulk) {
    if (bulk->done) return true;
    fb_global global = {run->gpu, global_at};
    fb_error error = NULL;
    fb_shared *own = &bulk->block->shared;
    bulk->done = 1;
    if (bulk->kind == TMA_STORE && bulk->reduce)
        error = fb_tma_reduce(bulk->descriptor, bulk->rank, bulk->coordinates, bulk->reduce - 1, &global, own, bulk->target);
    else if (bulk->kind == TMA_STORE)
        error = fb_tma_store(bulk->descriptor, bulk->rank, bulk->coordinates, &global, own, bulk->target);
    else if (bulk->kind == BULK_STORE)
        error = fb_bulk_store(&global, bulk->source, own, bulk->target, bulk->size);
    else
        EACH(j, bulk->blocks) {
            fb_block *b = &run->blocks[j];
            uint32_t bytes = bulk->size;
            if (bulk->kind == TMA_LOAD)
                error = fb_tma_load(bulk->descriptor, bulk->rank, bulk->coordinates, &global, &b->shared, bulk->target, &bytes);
            else if (bulk->kind == BULK_LOAD)
                error = fb_bulk_load(&global, bulk->source, &b->shared, bulk->target, bulk->size);
            else
                error = fb_bulk_copy(&bulk->warp->block->shared, (uint32_t)bulk->source, &b->shared, bulk->target, bulk->size);
            if (error) break;
            mark(b, bulk->target, bytes, 1);
            /* Multicast completes the barrier at the same place of every block. */
            fb_block *signalled = __builtin_popcount(bulk->blocks) > 1 ? b : bulk->block;
            error = fb_mbarrier_complete_tx(&signalled->shared, bulk->barrier, bytes);
            if (error) break;
        }
    if (error) fb_fail(bulk->warp, bulk->in, -1, FB_MISUSE, "%s", error);
    return !error;
}

OPERATION(bulk_commit) {
    (void)in, (void)mask;
    ++w->bulk_groups;
    return FB_NEXT;
}

OPERATION(bulk_wait) {
    (void)mask;
    fb_run *run = w->run;
    uint32_t keep = w->bulk_groups > in->o[0] ? w->bulk_groups - in->o[0] : 0;
    for (size_t i = 0; i < run->bulk_count; ++i) {
        fb_bulk *bulk = &run->bulks[i];
        if (bulk->warp == w && !loads(bulk) && bulk->group < keep && !fb_finish_bulk(run, bulk)) return FB_STOP;
    }
    return FB_NEXT;
}

/* What is due after a round. */
bool fb_run_async(fb_run *run) {
    size_t kept = 0;
    for (size_t i = 0; i < run->bulk_count; ++i) {
        fb_bulk *bulk = &run->bulks[i];
        if (loads(bulk) && bulk->due <= run->round && !fb_finish_bulk(run, bulk)) return false;
    }
    for (size_t i = 0; i < run->bulk_count; ++i)
        if (!run->bulks[i].done) run->bulks[kept++] = run->bulks[i];
    run->bulk_count = kept;
    for (uint32_t b = 0; b < run->blocks_per_cluster; ++b)
        for (uint32_t j = 0; j < run->blocks[b].warps; ++j) {
            fb_warp *w = &run->blocks[b].warp[j];
            for (size_t i = 0; i < w->copy_count; ++i) {
                fb_copy *c = &w->copies[i];
                if (!c->arrives || c->due > run->round) continue;
                /* The arrival stands for this lane's earlier copies, and those land with it. */
                if (!fb_land_copies(w, c->lane, 0, true)) return false;
                i = (size_t)-1;
            }
        }
    return true;
}

bool fb_async_pending(const fb_run *run) {
    for (size_t i = 0; i < run->bulk_count; ++i)
        if (loads(&run->bulks[i])) return true;
    for (uint32_t b = 0; b < run->blocks_per_cluster; ++b)
        for (uint32_t j = 0; j < run->blocks[b].warps; ++j) {
            const fb_warp *w = &run->blocks[b].warp[j];
            for (size_t i = 0; i < w->copy_count; ++i)
                if (w->copies[i].arrives) return true;
        }
    return false;
}
