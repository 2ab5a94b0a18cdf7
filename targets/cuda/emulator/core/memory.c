/* Loads and stores. Every access is checked; the fast path is for one allocation and one space. */
#include "machine.h"

static fb_next outside(fb_warp *w, const fb_insn *in, int lane, uint64_t address, uint32_t size,
                       bool write) {
    const fb_gpu *gpu = w->run->gpu;
    const fb_allocation *near = NULL;
    uint64_t distance = UINT64_MAX;
    const char *side = "";
    for (size_t i = 0; i < gpu->count; ++i) {
        const fb_allocation *a = &gpu->allocations[i];
        uint64_t end = a->start + a->size;
        bool after = address >= a->start;
        uint64_t d = after ? (address >= end ? address - end : 0) : a->start - address;
        if (d < distance) {
            distance = d;
            near = a;
            side = after ? (address >= end ? "after the end of" : "across the end of")
                         : "before the start of";
        }
    }
    if (!near)
        return fb_fail(w, in, lane, FB_ILLEGAL_ADDRESS,
                       "%s of %u bytes at 0x%llx, and nothing is allocated",
                       write ? "write" : "read", size, (unsigned long long)address);
    return fb_fail(w, in, lane, FB_ILLEGAL_ADDRESS,
                   "%s of %u bytes at 0x%llx is outside: %llu bytes %s the nearest allocation, "
                   "%llu bytes at 0x%llx%s%s%s",
                   write ? "write" : "read", size, (unsigned long long)address,
                   (unsigned long long)distance, side, (unsigned long long)near->size,
                   (unsigned long long)near->start, near->label ? " (" : "",
                   near->label ? near->label : "", near->label ? ")" : "");
}

static bool aligned(fb_warp *w, const fb_insn *in, int lane, uint64_t address, uint32_t size) {
    if (!(address & (size - 1))) return true;
    fb_fail(w, in, lane, FB_MISALIGNED, "address 0x%llx is no multiple of %u",
            (unsigned long long)address, size);
    return false;
}

fb_block *fb_shared_at(fb_warp *w, const fb_insn *in, int lane, int space, uint64_t address,
                       uint32_t size, uint32_t align, uint32_t *offset) {
    if (space == SPACE_GENERIC) {
        if ((address & WINDOW_MASK) != SHARED_WINDOW) {
            fb_fail(w, in, lane, FB_ILLEGAL_ADDRESS, "0x%llx is no address of shared memory",
                    (unsigned long long)address);
            return NULL;
        }
        address &= ~WINDOW_MASK;
    }
    fb_run *run = w->run;
    fb_block *block = w->block;
    uint64_t rank = address >> SHARED_RANK_SHIFT;
    if (rank) {
        if (rank > run->blocks_per_cluster || space == SPACE_SHARED) {
            if (rank != block->rank + 1) {
                fb_fail(w, in, lane, FB_ILLEGAL_ADDRESS, "0x%llx is no address of shared memory",
                        (unsigned long long)address);
                return NULL;
            }
        } else block = &run->blocks[rank - 1];
    }
    *offset = (uint32_t)address & SHARED_OFFSET_MASK;
    if (size > run->shared_bytes || *offset > run->shared_bytes - size) {
        fb_fail(w, in, lane, FB_ILLEGAL_ADDRESS,
                "%u bytes at 0x%x of shared memory, which has %u bytes", size, *offset,
                run->shared_bytes);
        return NULL;
    }
    return aligned(w, in, lane, *offset, align) ? block : NULL;
}

/* Marks bytes as touched by this warp; two warps with no barrier in between are a race. */
static bool race(fb_warp *w, const fb_insn *in, int lane, fb_block *b, uint32_t offset,
                 uint32_t size, bool write) {
    if (b != w->block) return true;
    uint8_t me = (uint8_t)(w->index + 1);
    for (uint32_t i = offset; i < offset + size; ++i) {
        bool wrote = b->writer[i] && b->writer[i] != me && b->write_epoch[i] == b->epoch;
        bool read = b->reader[i] && b->reader[i] != me && b->read_epoch[i] == b->epoch;
        if (wrote || (write && read)) {
            fb_fail(w, in, lane, FB_RACE,
                    "%s byte 0x%x of shared memory, which warp %u %s since the last barrier",
                    write ? "writes" : "reads", i,
                    (wrote ? b->writer[i] : b->reader[i]) - 1u, wrote ? "wrote" : "read");
            return false;
        }
        if (write) {
            b->writer[i] = me;
            b->write_epoch[i] = b->epoch;
        } else if (b->read_epoch[i] != b->epoch || b->reader[i] == me) {
            b->reader[i] = me;
            b->read_epoch[i] = b->epoch;
        } else b->reader[i] = 255; /* several warps */
    }
    return true;
}

bool fb_shared_touch(fb_warp *w, const fb_insn *in, int lane, fb_block *b, uint32_t offset,
                     uint32_t size, bool write) {
    uint8_t *state = b->state + offset;
    if (write) memset(state, 1, size);
    else
        for (uint32_t i = 0; i < size; ++i) {
            if (state[i] == 1) continue;
            if (state[i] == 2) {
                fb_fail(w, in, lane, FB_UNINITIALISED,
                        "reads byte 0x%x of shared memory while an asynchronous copy to it is not "
                        "waited for", offset + i);
                return false;
            }
            if (!w->run->gpu->options[FB_CHECK_SHARED_INIT]) continue;
            fb_fail(w, in, lane, FB_UNINITIALISED,
                    "reads byte 0x%x of shared memory, which nothing has written", offset + i);
            return false;
        }
    return !b->writer || race(w, in, lane, b, offset, size, write);
}

static uint8_t *global_at(fb_warp *w, const fb_insn *in, int lane, uint64_t address, uint32_t size,
                          bool write) {
    fb_allocation *a = w->run->last;
    if (!a || address - a->start >= a->size) {
        a = fb_find(w->run->gpu, address);
        if (a) w->run->last = a;
    }
    if (!a || size > a->size - (address - a->start)) {
        outside(w, in, lane, address, size, write);
        return NULL;
    }
    return a->host + (address - a->start);
}

uint8_t *fb_access(fb_warp *w, const fb_insn *in, int lane, int space, uint64_t address,
                   uint32_t size, bool write) {
    fb_run *run = w->run;
    if (space == SPACE_GENERIC) {
        switch (address & WINDOW_MASK) {
            case 0: space = SPACE_GLOBAL; break;
            case SHARED_WINDOW: space = SPACE_CLUSTER; break;
            case LOCAL_WINDOW: space = SPACE_LOCAL; break;
            case PARAM_WINDOW: space = SPACE_PARAM; break;
            default: outside(w, in, lane, address, size, write); return NULL;
        }
        address &= ~WINDOW_MASK;
    }
    uint32_t whole = size & (size - 1) ? 1 : size;
    switch (space) {
        case SPACE_SHARED:
        case SPACE_CLUSTER: {
            uint32_t offset;
            fb_block *b = fb_shared_at(w, in, lane, space, address, size, whole, &offset);
            if (!b || !fb_shared_touch(w, in, lane, b, offset, size, write)) return NULL;
            return b->shared.bytes + offset;
        }
        case SPACE_LOCAL:
            if (size > run->local_bytes || address > run->local_bytes - size) {
                fb_fail(w, in, lane, FB_ILLEGAL_ADDRESS,
                        "%u bytes at 0x%llx of local memory, which has %u bytes", size,
                        (unsigned long long)address, run->local_bytes);
                return NULL;
            }
            return w->local + (size_t)lane * run->local_bytes + address;
        case SPACE_PARAM: {
            uint32_t bytes = run->kernel->attributes.param_bytes;
            if (write || size > bytes || address > bytes - size) {
                fb_fail(w, in, lane, FB_ILLEGAL_ADDRESS,
                        "%s of %u bytes at 0x%llx of the kernel's parameters, which have %u bytes",
                        write ? "write" : "read", size, (unsigned long long)address, bytes);
                return NULL;
            }
            return run->params + address;
        }
        default:
            if (!aligned(w, in, lane, address, whole)) return NULL;
            return global_at(w, in, lane, address, size, write);
    }
}

/* Flags of ld and st: the space in 4 bits, then the number of elements in 4. */
#define SPACE(in) ((int)((in)->flags & 15))
#define ELEMENTS(in) ((in)->flags >> 4 & 15)

static uint32_t bytes_of(uint8_t type) {
    switch (type) {
        case T_U8: case T_S8: case T_E4M3: case T_E5M2: return 1;
        case T_U16: case T_S16: case T_F16: case T_BF16: return 2;
        case T_U64: case T_S64: case T_F64: return 8;
        default: return 4;
    }
}

static inline uint64_t read_element(const uint8_t *at, uint8_t type) {
    switch (type) {
        case T_U8: return *at;
        case T_S8: return (uint64_t)(int8_t)*at;
        case T_S16: { int16_t v; memcpy(&v, at, 2); return (uint64_t)v; }
        case T_U16: case T_F16: case T_BF16: { uint16_t v; memcpy(&v, at, 2); return v; }
        case T_S32: { int32_t v; memcpy(&v, at, 4); return (uint64_t)v; }
        case T_U64: case T_S64: case T_F64: { uint64_t v; memcpy(&v, at, 8); return v; }
        default: { uint32_t v; memcpy(&v, at, 4); return v; }
    }
}

/* s is the type of the registers: 16, 32 or 64 bits. */
static inline void to_register(fb_warp *w, const fb_insn *in, uint32_t ref, uint32_t lane,
                               uint64_t value) {
    if (in->flags & FLAG_WIDE_DATA) r64(w, ref)[lane] = value;
    else r32(w, ref)[lane] = in->s == T_U16 ? (uint16_t)value : (uint32_t)value;
}

/* All lanes read 4-byte elements of one allocation. */
static bool fast_load(fb_warp *w, const fb_insn *in, uint32_t mask, uint32_t n) {
    const fb_allocation *a = w->run->last;
    if (!a || SPACE(in) != SPACE_GLOBAL || mask != ALL_LANES || bytes_of(in->t) != 4 ||
        (in->flags & (FLAG_WIDE_DATA | FLAG_NARROW_FIRST)))
        return false;
    const uint64_t *base = r64(w, in->o[0]);
    uint64_t add = (uint64_t)(int64_t)(int32_t)in->o[1] - a->start, bad = 0, size = 4ull * n;
    if (a->size < size) return false;
    uint64_t limit = a->size - size, origin = a->start;
    uint64_t offset[LANES];
    for (int i = 0; i < LANES; ++i) {
        offset[i] = base[i] + add;
        bad |= (offset[i] > limit) | ((offset[i] + origin) & (size - 1));
    }
    if (bad) return false;
    for (uint32_t j = 0; j < n; ++j) {
        uint32_t *d = r32(w, in->o[2 + j]);
        for (int i = 0; i < LANES; ++i) memcpy(&d[i], a->host + offset[i] + 4 * j, 4);
    }
    return true;
}

/* The places of shared words that all lanes may touch, or false: the slow path finds out why. */
static bool fast_shared(fb_warp *w, const fb_insn *in, uint32_t mask, uint32_t n, uint32_t *offset) {
    uint32_t size = 4 * n, shared = w->run->shared_bytes, bad = 0;
    if (SPACE(in) != SPACE_SHARED || bytes_of(in->t) != 4 || w->block->writer || size > shared ||
        n & (n - 1) || (in->flags & (FLAG_WIDE_DATA | FLAG_WIDE_SOURCE)))
        return false;
    if (address_flag(in, 0)) {
        const uint32_t *base = r32(w, in->o[0]);
        for (int i = 0; i < LANES; ++i) offset[i] = base[i] + in->o[1];
    } else {
        const uint64_t *base = r64(w, in->o[0]);
        for (int i = 0; i < LANES; ++i) {
            uint64_t at = base[i] + (uint64_t)(int64_t)(int32_t)in->o[1];
            offset[i] = at >> 32 ? ~0u : (uint32_t)at;
        }
    }
    for (int i = 0; i < LANES; ++i)
        bad |= (uint32_t)(offset[i] > shared - size || offset[i] & (size - 1)) << i;
    return !(bad & mask);
}

static bool fast_shared_load(fb_warp *w, const fb_insn *in, uint32_t mask, uint32_t n) {
    uint32_t offset[LANES], word;
    const fb_block *b = w->block;
    if (!fast_shared(w, in, mask, n, offset)) return false;
    for (uint32_t j = 0; j < n; ++j)
        EACH(i, mask) {
            memcpy(&word, b->state + offset[i] + 4 * j, 4);
            if (word != 0x01010101u) return false;
        }
    for (uint32_t j = 0; j < n; ++j) {
        uint32_t *d = r32(w, in->o[2 + j]);
        EACH(i, mask) memcpy(&d[i], b->shared.bytes + offset[i] + 4 * j, 4);
    }
    return true;
}

static bool fast_shared_store(fb_warp *w, const fb_insn *in, uint32_t mask, uint32_t n) {
    uint32_t offset[LANES];
    fb_block *b = w->block;
    if (!fast_shared(w, in, mask, n, offset)) return false;
    for (uint32_t j = 0; j < n; ++j) {
        const uint32_t *a = r32(w, in->o[2 + j]);
        EACH(i, mask) {
            memcpy(b->shared.bytes + offset[i] + 4 * j, &a[i], 4);
            memset(b->state + offset[i] + 4 * j, 1, 4);
        }
    }
    return true;
}

OPERATION(ld) {
    uint32_t n = in->count - 2, each = bytes_of(in->t), size = n * each;
    int space = SPACE(in);
    bool narrow = address_flag(in, 0);
    uint64_t address[LANES];
    if (space == SPACE_GLOBAL || space == SPACE_GENERIC)
        w->run->statistics.global_load_bytes += (uint64_t)size * (uint32_t)__builtin_popcount(mask);
    if (fast_load(w, in, mask, n) || fast_shared_load(w, in, mask, n)) return FB_NEXT;
    EACH(i, mask) address[i] = lane_address(w, in->o[0], in->o[1], narrow, (int)i);
    EACH(i, mask) {
        const uint8_t *at = fb_access(w, in, (int)i, space, address[i], size, false);
        if (!at) return FB_STOP;
        for (uint32_t j = 0; j < n; ++j)
            to_register(w, in, in->o[2 + j], i, read_element(at + j * each, in->t));
    }
    return FB_NEXT;
}

OPERATION(st) {
    uint32_t n = in->count - 2, each = bytes_of(in->t), size = n * each;
    int space = SPACE(in);
    bool narrow = address_flag(in, 0);
    if (space == SPACE_GLOBAL || space == SPACE_GENERIC)
        w->run->statistics.global_store_bytes += (uint64_t)size * (uint32_t)__builtin_popcount(mask);
    if (fast_shared_store(w, in, mask, n)) return FB_NEXT;
    EACH(i, mask) {
        uint64_t address = lane_address(w, in->o[0], in->o[1], narrow, (int)i);
        uint8_t *at = fb_access(w, in, (int)i, space, address, size, true);
        if (!at) return FB_STOP;
        for (uint32_t j = 0; j < n; ++j) {
            uint64_t value = in->flags & FLAG_WIDE_SOURCE ? r64(w, in->o[2 + j])[i]
                                                          : r32(w, in->o[2 + j])[i];
            memcpy(at + j * each, &value, each);
        }
    }
    return FB_NEXT;
}

/* A parameter of the kernel at a constant place: the same for all lanes. */
OPERATION(ld_param) {
    uint32_t n = in->count - 1, each = bytes_of(in->t);
    const uint8_t *at = fb_access(w, in, first_lane(mask), SPACE_PARAM, in->o[0], n * each, false);
    if (!at) return FB_STOP;
    for (uint32_t j = 0; j < n; ++j) {
        uint64_t value = read_element(at + j * each, in->t);
        EACH(i, mask) to_register(w, in, in->o[1 + j], i, value);
    }
    return FB_NEXT;
}

/* Arguments and results of functions lie in local memory: to, from, bytes. */
OPERATION(copy_param) {
    uint32_t size = in->o[2];
    EACH(i, mask) {
        uint8_t *to = fb_access(w, in, (int)i, SPACE_LOCAL, in->o[0], size, true);
        const uint8_t *from = fb_access(w, in, (int)i, SPACE_LOCAL, in->o[1], size, false);
        if (!to || !from) return FB_STOP;
        memmove(to, from, size);
    }
    return FB_NEXT;
}

static uint64_t window(int space) {
    switch (space) {
        case SPACE_SHARED: case SPACE_CLUSTER: return SHARED_WINDOW;
        case SPACE_LOCAL: return LOCAL_WINDOW;
        case SPACE_PARAM: return PARAM_WINDOW;
        default: return 0;
    }
}

/* FLAG_HIGH: from generic to the space. */
OPERATION(cvta) {
    uint64_t *d = r64(w, in->o[0]);
    const uint64_t *a = r64(w, in->o[1]);
    uint64_t bits = window(SPACE(in));
    EACH(i, mask) d[i] = in->flags & FLAG_HIGH ? a[i] & ~WINDOW_MASK : a[i] | bits;
    return FB_NEXT;
}

OPERATION(isspacep) {
    const uint64_t *a = r64(w, in->o[1]);
    uint64_t bits = window(SPACE(in));
    uint32_t value = 0;
    EACH(i, mask) {
        bool inside = (a[i] & WINDOW_MASK) == bits;
        uint64_t rank = (a[i] & ~WINDOW_MASK) >> SHARED_RANK_SHIFT;
        if (SPACE(in) == SPACE_SHARED) inside = inside && (!rank || rank == w->block->rank + 1);
        value |= (uint32_t)inside << i;
    }
    set_predicate(w, in->o[0], value, mask);
    return FB_NEXT;
}
