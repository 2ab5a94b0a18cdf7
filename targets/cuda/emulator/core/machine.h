/* What the parts of the interpreter share: the program's form in memory, warps, blocks, clusters.
 *
 * A warp runs the lanes that stand at the smallest program counter ("min-PC"), so lanes that took
 * different branches meet again at the join. Instructions that need several lanes at once park the
 * early ones. Operations return what happens next (`fb_next`).
 */
#ifndef FEWBITS_EMULATOR_MACHINE_H
#define FEWBITS_EMULATOR_MACHINE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "../tensor/tensor.h"
#include "emulator.h"
#include "opcodes.h"

#define LANES 32
#define ALL_LANES 0xFFFFFFFFu
#define NO_PC 0xFFFFFFFFu
#define SLOT_BYTES 128u /* one 32-bit register of a warp */

/* Windows of generic addresses. A shared address has the block's rank + 1 above bit 24, 0: own. */
#define SHARED_WINDOW (UINT64_C(1) << 60)
#define LOCAL_WINDOW (UINT64_C(2) << 60)
#define PARAM_WINDOW (UINT64_C(3) << 60)
#define WINDOW_MASK (UINT64_C(15) << 60)
#define SHARED_RANK_SHIFT 24
#define SHARED_OFFSET_MASK 0xFFFFFFu

enum { /* numbers shared with program.py */
    T_NONE, T_U8, T_S8, T_U16, T_S16, T_U32, T_S32, T_U64, T_S64, T_F16, T_BF16, T_F16X2, T_BF16X2,
    T_F32, T_F64, T_PRED, T_TF32, T_E4M3, T_E5M2, T_COUNT
};

enum { /* state spaces */
    SPACE_GENERIC, SPACE_GLOBAL, SPACE_SHARED, SPACE_LOCAL, SPACE_CONST, SPACE_PARAM, SPACE_CLUSTER
};

enum { /* flags of every instruction, above those that each operation has for itself */
    FLAG_NARROW_SECOND = 1 << 28, FLAG_NARROW_FIRST = 1 << 29, FLAG_WIDE_DATA = 1 << 30
};
#define FLAG_WIDE_SOURCE (1u << 31)

/* Flags of arithmetic. */
enum {
    ROUND_MASK = 3, ROUND_NEAREST = 0, ROUND_ZERO = 1, ROUND_DOWN = 2, ROUND_UP = 3,
    FLAG_FTZ = 4, FLAG_SAT = 8, FLAG_NAN = 16, FLAG_RELU = 32, FLAG_INTEGER = 64,
    FLAG_CARRY_IN = 128, FLAG_CARRY_OUT = 256, FLAG_HIGH = 512, FLAG_XORSIGN = 1024,
    SPECIAL_SHIFT = 16 /* comparison, kind of function, ... */
};

typedef enum { FB_NEXT, FB_GO, FB_SPLIT, FB_PARK, FB_PAUSE, FB_STOP } fb_next;

typedef struct fb_warp fb_warp;
typedef struct fb_insn fb_insn;
typedef fb_next (*fb_operation)(fb_warp *w, const fb_insn *in, uint32_t mask);

struct fb_insn {
    fb_operation run;
    const uint32_t *o;  /* operands: slots (bit 31: a constant's), predicates, numbers */
    uint32_t guard;     /* predicate * 2 + negated; NO_PC: none */
    uint32_t flags, line;
    uint16_t op, count;
    uint8_t t, s;
};

typedef struct {
    uint64_t start, size;
    uint8_t *host;
    char *label;
} fb_allocation;

typedef struct {
    char *name;
    uint64_t address;
    uint32_t size;
} fb_variable;

struct fb_kernel {
    fb_program *program;
    char *name;
    fb_kernel_attributes attributes;
    uint32_t slots, predicates, constant_slots, entry, code_size;
    uint8_t *constants;
    fb_insn *code;
    uint32_t *operands, *param_sizes, *param_offsets;
};

struct fb_program {
    fb_gpu *gpu;
    fb_kernel *kernels;
    fb_variable *variables;
    uint8_t **storage;
    char **strings;
    uint32_t kernel_count, variable_count, string_count;
    int32_t ptx_version, target;
};

struct fb_gpu {
    fb_limits limits;
    fb_allocation *allocations; /* by address */
    size_t count, capacity;
    int64_t options[5];
};

typedef struct fb_run fb_run;
typedef struct fb_block fb_block;

enum { WAIT_NONE, WAIT_LANES, WAIT_BARRIER, WAIT_MBARRIER, WAIT_WGMMA, WAIT_CLUSTER };

/* A copy of one lane (cp.async), or the arrival that follows its copies. */
typedef struct {
    uint64_t source;
    uint32_t target, group, due;
    uint8_t lane, size, bytes, arrives; /* bytes: those read, the rest is zero */
} fb_copy;

struct fb_warp {
    uint8_t *base[2]; /* registers, constants */
    uint32_t *predicates;
    uint8_t *local;
    fb_block *block;
    fb_run *run;
    uint32_t index, pc, other, active, live, parked, at_barrier, tired, carry, divergent;
    uint32_t pcs[LANES], cp_groups[LANES];
    uint8_t why[LANES];
    uint64_t waits_for[LANES]; /* what a parked lane waits for, as its instruction says */
    uint32_t cluster_arrived[LANES];
    fb_copy *copies;
    size_t copy_count, copy_capacity;
    uint32_t bulk_groups, bulk_open;
    uint32_t wgmma_issued, wgmma_committed, wgmma_waited;
    uint32_t wgmma_group_end[64];
    uint8_t *in_flight; /* slots that an unfinished wgmma writes */
    uint32_t in_flight_count;
};

typedef struct {
    uint32_t arrived[32];     /* lanes, by warp */
    uint32_t waiting[32];     /* those of them that wait */
    uint32_t expected;        /* threads; 0: all of the block */
    uint32_t true_votes[32];  /* lanes with a true predicate (bar.red) */
    bool used;
} fb_barrier;

/* One wgmma of a warpgroup, run when it must be finished. */
typedef struct fb_product {
    const fb_insn *in[4];
    uint64_t descriptor_a[4], descriptor_b[4];
    uint32_t issued, scale_d;
    uint32_t (*a)[LANES]; /* captured when issued: four warps' fragments, then metadata */
    bool done;
} fb_product;

typedef struct {
    fb_product *products;
    uint32_t count, capacity;
} fb_warpgroup;

struct fb_block {
    fb_run *run;
    fb_shared shared;
    uint8_t *state;     /* by byte of shared memory: 0 never written, 1 written, 2 in flight */
    uint8_t *writer, *reader; /* race check: warp + 1 of the last access; by byte */
    uint32_t *write_epoch, *read_epoch;
    uint32_t epoch;
    uint32_t ctaid[3], rank;
    uint32_t warps, threads, live_warps;
    fb_warp *warp;
    fb_barrier barrier[16];
    fb_warpgroup groups[8];
};

enum { BULK_LOAD, BULK_STORE, BULK_COPY, TMA_LOAD, TMA_STORE };

/* A bulk copy on its way. */
typedef struct {
    uint8_t kind, rank, reduce, done;
    uint32_t due, group, target, size, barrier, blocks; /* blocks: mask of ranks */
    uint64_t source, map;
    int32_t coordinates[5];
    fb_block *block;
    fb_warp *warp;
    const fb_insn *in;
    uint8_t descriptor[FB_TENSOR_MAP_BYTES];
} fb_bulk;

struct fb_run {
    const fb_kernel *kernel;
    fb_gpu *gpu;
    const fb_launch_config *config;
    uint8_t *params;
    uint32_t grid[3], block[3], cluster[3], blocks_per_cluster, shared_bytes, local_bytes;
    fb_block *blocks;
    fb_bulk *bulks;
    size_t bulk_count, bulk_capacity;
    uint32_t round;
    uint64_t grid_index;
    fb_launch_statistics statistics;
    fb_allocation *last;
    fb_status status;
    char *error;
    size_t error_size;
    uint32_t cluster_phase, cluster_waiting;
};

/* Operand access. */
static inline uint32_t *r32(fb_warp *w, uint32_t ref) {
    return (uint32_t *)(w->base[ref >> 31] + (uint64_t)(ref & 0x7FFFFFFFu) * SLOT_BYTES);
}
static inline uint64_t *r64(fb_warp *w, uint32_t ref) {
    return (uint64_t *)(w->base[ref >> 31] + (uint64_t)(ref & 0x7FFFFFFFu) * SLOT_BYTES);
}
static inline uint32_t predicate(fb_warp *w, uint32_t ref) {
    return w->predicates[ref >> 1] ^ (0u - (ref & 1u));
}
static inline void set_predicate(fb_warp *w, uint32_t ref, uint32_t value, uint32_t mask) {
    w->predicates[ref >> 1] = (w->predicates[ref >> 1] & ~mask) | (value & mask);
}
static inline int first_lane(uint32_t mask) { return __builtin_ctz(mask); }
static inline uint32_t address_flag(const fb_insn *in, int which) {
    return in->flags & (which ? FLAG_NARROW_SECOND : FLAG_NARROW_FIRST);
}
static inline uint64_t lane_address(fb_warp *w, uint32_t ref, uint32_t offset, bool narrow, int i) {
    int64_t add = (int32_t)offset;
    return narrow ? (uint32_t)(r32(w, ref)[i] + (uint32_t)add) : r64(w, ref)[i] + (uint64_t)add;
}
#define EACH(i, mask) \
    for (uint32_t rest_##i = (mask), i; rest_##i && (i = (uint32_t)__builtin_ctz(rest_##i), 1); \
         rest_##i &= rest_##i - 1)

/* errors.c: writes the text once, returns FB_STOP. lane < 0: the warp. */
fb_next fb_fail(fb_warp *w, const fb_insn *in, int lane, fb_status status, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
const char *fb_operation_name(uint16_t op);

/* memory.c */
fb_allocation *fb_find(const fb_gpu *gpu, uint64_t address);
/* Host pointer of an access, or NULL with the error told. */
uint8_t *fb_access(fb_warp *w, const fb_insn *in, int lane, int space, uint64_t address,
                   uint32_t size, bool write);
/* The block and offset of a shared address; NULL with the error told. */
fb_block *fb_shared_at(fb_warp *w, const fb_insn *in, int lane, int space, uint64_t address,
                       uint32_t size, uint32_t align, uint32_t *offset);
bool fb_shared_touch(fb_warp *w, const fb_insn *in, int lane, fb_block *block, uint32_t offset,
                     uint32_t size, bool write);

/* barriers.c, async.c, wgmma.c */
void fb_release_barriers(fb_block *block);
bool fb_land_copies(fb_warp *w, uint32_t lane, uint32_t keep, bool all);
bool fb_run_async(fb_run *run);
bool fb_async_pending(const fb_run *run);
bool fb_finish_bulk(fb_run *run, fb_bulk *bulk);
void fb_wgmma_free(fb_block *block);
fb_next fb_check_in_flight(fb_warp *w, const fb_insn *in);

/* image.c */
extern const char *const fb_signatures[];
extern const fb_operation fb_operations[];
enum {
#define FB_NUMBER(name, operands) OP_##name,
    FB_OPCODES(FB_NUMBER)
#undef FB_NUMBER
    OP_COUNT
};
#define FB_PROTOTYPE(name, operands) \
    fb_next fb_op_##name(fb_warp *w, const fb_insn *in, uint32_t mask);
FB_OPCODES(FB_PROTOTYPE)
#undef FB_PROTOTYPE
#define OPERATION(name) fb_next fb_op_##name(fb_warp *w, const fb_insn *in, uint32_t mask)

#endif
