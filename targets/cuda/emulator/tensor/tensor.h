/* The tensor-core, matrix-movement, copy-engine and barrier instructions of the emulated GPU.
 *
 * Every function does what one PTX instruction does, on plain arrays, as NVIDIA's "Parallel Thread
 * Execution ISA" (9.x) states it; the interpreter decodes operands and decides when asynchronous
 * effects happen. Nothing here allocates, keeps state between calls or knows about threads.
 *
 * Conventions
 *   register   `uint32_t r[32]`, one 32-bit value per lane of a warp.
 *   fragment   an array of registers, in the order of the instruction's vector operand. A 64-bit
 *              element (f64) takes two registers, low word first. A predicate of a lane that does
 *              not take part is the interpreter's business.
 *   warpgroup  four fragments, `frag[warp][register][lane]`, warp by its rank in the warpgroup.
 *   shared     an `fb_shared`: address 0 of the shared window is `bytes[0]`. Swizzles look at the
 *              bits of that address, so `bytes[0]` stands at a multiple of 1024.
 *   errors     NULL when all is well, else a text that lives until the same thread's next call.
 *              Nothing has been written when an error is returned, unless said otherwise.
 *
 * Numerics: products are exact. Sums of floating-point products of one instruction, with the
 * accumulator, are made in double and rounded once (to nearest even) to the accumulator's type;
 * hardware truncates and orders differently. Integer sums wrap at 32 bits, or saturate on request.
 */
#ifndef FEWBITS_EMULATOR_TENSOR_H
#define FEWBITS_EMULATOR_TENSOR_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef const char *fb_error;

typedef enum {
    FB_F16 = 0,
    FB_BF16 = 1,
    FB_TF32 = 2,
    FB_F32 = 3,
    FB_F64 = 4,
    FB_E4M3 = 5,
    FB_E5M2 = 6,
    FB_S8 = 7,
    FB_U8 = 8,
    FB_S4 = 9,
    FB_U4 = 10,
    FB_B1 = 11,
    FB_S32 = 12
} fb_type;

typedef struct {
    uint8_t *bytes;
    uint64_t size;
} fb_shared;

/* Global memory: `at` gives the host's pointer to `size` bytes at a device address, or NULL where
 * they are not wholly inside one allocation. */
typedef struct {
    void *context;
    void *(*at)(void *context, uint64_t address, uint64_t size, bool write);
} fb_global;

/* ---- mma.sync, mma.sp.sync (row.col; sections "Warp-level Matrix Instructions") ---- */

typedef struct {
    int32_t m, n, k;
    int32_t a, b;          /* fb_type of the multiplicands */
    int32_t c, d;          /* fb_type of the accumulator and the result */
    int32_t saturate;      /* .satfinite */
    int32_t xor_popc;      /* b1 only: 0 is .and.popc, 1 is .xor.popc */
    int32_t sparse;        /* 0 dense; 1 mma.sp; 2 mma.sp::ordered_metadata */
    int32_t selector;      /* the sparsity selector, sparse only */
} fb_mma;

/* Registers of each operand, a C program's check on an instruction's vectors: counts[] gets those
 * of a, b, c, d. */
fb_error fb_mma_registers(const fb_mma *op, int32_t counts[4]);

/* d = a * b + c. `metadata` is one register, NULL when dense. d may be c. */
fb_error fb_mma_sync(const fb_mma *op, uint32_t (*d)[32], const uint32_t (*a)[32],
                     const uint32_t (*b)[32], const uint32_t (*c)[32],
                     const uint32_t metadata[32]);

/* ---- ldmatrix, stmatrix, movmatrix (.m8n8.b16) ---- */

/* count: 1, 2, 4. address[lane]: rows' addresses, of lanes 0 to 8 * count - 1. */
fb_error fb_ldmatrix(const fb_shared *shared, int32_t count, bool transpose,
                     const uint32_t address[32], uint32_t (*d)[32]);
fb_error fb_stmatrix(fb_shared *shared, int32_t count, bool transpose, const uint32_t address[32],
                     const uint32_t (*s)[32]);
/* movmatrix.sync.aligned.m8n8.trans.b16 */
void fb_movmatrix(uint32_t d[32], const uint32_t a[32]);

/* ---- wgmma.mma_async (section "Asynchronous Warpgroup Level Matrix Instructions") ---- */

typedef struct {
    int32_t n, k;              /* m is 64 */
    int32_t a, b, d;           /* fb_type */
    int32_t saturate;          /* .satfinite */
    int32_t scale_d;           /* 0: d = a * b; otherwise d = a * b + d */
    int32_t scale_a, scale_b;  /* imm-scale-a, -b: 1 or -1; 1 for types that have none */
    int32_t trans_a, trans_b;  /* imm-trans-a, -b: 1 for MN-major; f16 and bf16 only */
    int32_t sparse;            /* 1: wgmma.mma_async.sp */
    int32_t selector;          /* the sparsity selector, sparse only */
} fb_wgmma;

/* Registers of each warp: counts[] gets those of a (when it is in registers) and of d. */
fb_error fb_wgmma_registers(const fb_wgmma *op, int32_t counts[2]);

/* d: four warps' accumulators. a: four warps' fragments, or NULL to read A through a_descriptor.
 * metadata: four warps' registers, NULL when dense. */
fb_error fb_wgmma_mma_async(const fb_wgmma *op, const fb_shared *shared, uint32_t (*const d[4])[32],
                            const uint32_t (*const a[4])[32], uint64_t a_descriptor,
                            uint64_t b_descriptor, const uint32_t *const metadata[4]);

/* ---- tensor maps and cp.async.bulk.tensor (tile mode) ---- */

enum { FB_TENSOR_MAP_BYTES = 128, FB_TENSOR_MAP_MAX_RANK = 5 };

/* The arguments of cuTensorMapEncodeTiled in their order, enumerations by their numbers in cuda.h;
 * strides has rank - 1 entries. An error is the driver's CUDA_ERROR_INVALID_VALUE, and says why. */
fb_error fb_tensor_map_encode(void *map, int32_t data_type, uint32_t rank, uint64_t address,
                              const uint64_t *dimensions, const uint64_t *strides,
                              const uint32_t *box, const uint32_t *element_strides,
                              int32_t interleave, int32_t swizzle, int32_t l2_promotion,
                              int32_t oob_fill);

/* What one copy moves: the bytes that complete_tx reports. Copies take the map's contents wherever
 * they lie; that its device address is a multiple of 64 is the interpreter's to see. */
fb_error fb_tma_bytes(const void *map, uint32_t *bytes);
/* Room that the box takes in shared memory: more, where its rows are narrower than the swizzle. */
fb_error fb_tma_room(const void *map, uint32_t *bytes);

/* .shared::cluster.global.tile: coordinates innermost first, `rank` of them. *bytes is for
 * complete_tx. Multicast is one call per block of the mask, at the same shared address. */
fb_error fb_tma_load(const void *map, uint32_t rank, const int32_t *coordinates,
                     const fb_global *global, fb_shared *shared, uint32_t destination,
                     uint32_t *bytes);
/* .global.shared::cta.tile; elements outside of the tensor are not written. */
fb_error fb_tma_store(const void *map, uint32_t rank, const int32_t *coordinates,
                      const fb_global *global, const fb_shared *shared, uint32_t source);

typedef enum { FB_RED_ADD, FB_RED_MIN, FB_RED_MAX, FB_RED_INC, FB_RED_DEC, FB_RED_AND, FB_RED_OR,
               FB_RED_XOR } fb_reduction;

/* cp.reduce.async.bulk.tensor */
fb_error fb_tma_reduce(const void *map, uint32_t rank, const int32_t *coordinates,
                       int32_t reduction, const fb_global *global, const fb_shared *shared,
                       uint32_t source);

/* cp.async.bulk: addresses and size are multiples of 16. */
fb_error fb_bulk_load(const fb_global *global, uint64_t source, fb_shared *shared,
                      uint32_t destination, uint32_t size);
fb_error fb_bulk_store(const fb_global *global, uint64_t destination, const fb_shared *shared,
                       uint32_t source, uint32_t size);
/* shared::cta to shared::cluster */
fb_error fb_bulk_copy(const fb_shared *from, uint32_t source, fb_shared *to, uint32_t destination,
                      uint32_t size);

/* ---- mbarrier: a 64-bit object in shared memory, at a multiple of 8 ----
 * The interpreter blocks a warp in try_wait by asking again. *state is the token that
 * mbarrier.arrive returns; NULL where it is not wanted (`_`, or a remote block's barrier). */

fb_error fb_mbarrier_init(fb_shared *shared, uint32_t address, uint32_t count);
fb_error fb_mbarrier_inval(fb_shared *shared, uint32_t address);
fb_error fb_mbarrier_expect_tx(fb_shared *shared, uint32_t address, uint32_t bytes);
fb_error fb_mbarrier_complete_tx(fb_shared *shared, uint32_t address, uint32_t bytes);
/* no_complete: an error when this arrival would end the phase. */
fb_error fb_mbarrier_arrive(fb_shared *shared, uint32_t address, uint32_t count, bool no_complete,
                            uint64_t *state);
/* mbarrier.arrive.expect_tx: expect_tx(bytes), then arrive(1). */
fb_error fb_mbarrier_arrive_expect_tx(fb_shared *shared, uint32_t address, uint32_t bytes,
                                      uint64_t *state);
/* mbarrier.arrive_drop[.expect_tx, .noComplete]: arrives, and future phases expect less. */
fb_error fb_mbarrier_arrive_drop(fb_shared *shared, uint32_t address, uint32_t count,
                                 uint32_t bytes, bool no_complete, uint64_t *state);
/* cp.async.mbarrier.arrive without .noinc: one more arrival is pending (the copy's own). */
fb_error fb_mbarrier_increment_pending(fb_shared *shared, uint32_t address);
fb_error fb_mbarrier_test_wait(const fb_shared *shared, uint32_t address, uint64_t state,
                               bool *complete);
fb_error fb_mbarrier_test_wait_parity(const fb_shared *shared, uint32_t address, uint32_t parity,
                                      bool *complete);
/* mbarrier.pending_count of a token */
uint32_t fb_mbarrier_pending_count(uint64_t state);

#ifdef __cplusplus
}
#endif

#endif
