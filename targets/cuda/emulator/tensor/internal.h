/* What the instructions share: error texts, number formats, swizzles and the product itself.
 * Names that only these files know begin with fbt_, since all of the emulator is one library. */
#ifndef FEWBITS_EMULATOR_TENSOR_INTERNAL_H
#define FEWBITS_EMULATOR_TENSOR_INTERNAL_H

#include "tensor.h"

#include <stddef.h>

#if defined(__GNUC__)
#define FB_PRINTF __attribute__((format(printf, 1, 2)))
#else
#define FB_PRINTF
#endif

/* Formats an error text (one buffer per thread) and returns it. */
fb_error fbt_fail(const char *format, ...) FB_PRINTF;

/* NULL when [address, address + size) lies in shared memory and address is aligned. */
fb_error fbt_check_shared(const fb_shared *shared, uint64_t address, uint64_t size,
                         uint32_t alignment, const char *what);

/* ---- numbers.c ---- */

bool fbt_is_float(int32_t type);   /* multiplicands that are summed in floating point */
bool fbt_is_fp8(int32_t type);
bool fbt_is_int8(int32_t type);
bool fbt_is_int4(int32_t type);
int32_t fbt_bits(int32_t type);    /* of one element; 0 for no type */
const char *fbt_name(int32_t type);

float fbt_decode_float(int32_t type, uint32_t bits);    /* F16, BF16, TF32, F32, E4M3, E5M2 */
int32_t fbt_decode_integer(int32_t type, uint32_t bits); /* S8, U8, S4, U4 */
/* Rounds once, to nearest even: F16, BF16, F32. */
uint32_t fbt_encode_float(int32_t type, double value);

/* ---- product.c ---- */

enum {
    FB_MAX_M = 64,
    FB_MAX_N = 256,
    FB_MAX_K = 128,        /* elements of one row, when a word of 32 bits counts as one for b1 */
    FB_MAX_WGMMA_K = 64
};

typedef struct {
    int32_t m, n, k;       /* k in elements; words of 32 bits for b1 */
    int32_t a, b, sum;     /* fb_type */
    int32_t saturate, xor_popc;
    int32_t negate_a, negate_b;
} fbt_product;

/* sum += a * b on the elements' bits: a[m][k], b[n][k] (so column by column), sum[m][n]. */
void fbt_multiply(const fbt_product *p, const uint32_t *a, const uint32_t *b, uint32_t *sum);

/* ---- fragments.c: one warp's registers to matrices and back ---- */

/* a[16 or 8][k], from `registers` registers of elements of `bits` bits. */
void fbt_unpack_a(int32_t m, int32_t k, int32_t bits, const uint32_t (*fragment)[32], uint32_t *a);
/* b[8][k]: a column of B after another. */
void fbt_unpack_b(int32_t k, int32_t bits, const uint32_t (*fragment)[32], uint32_t *b);
/* sum[m][stride], columns 0 to n - 1; bits is 32 or 16. */
void fbt_unpack_sum(int32_t m, int32_t n, int32_t bits, const uint32_t (*fragment)[32],
                   uint32_t *sum, int32_t stride);
void fbt_pack_sum(int32_t m, int32_t n, int32_t bits, const uint32_t *sum, int32_t stride,
                 uint32_t (*fragment)[32]);

/* ---- sparse.c ---- */

/* The 16 rows of one warp: dense[16][k] from packed[16][k / 2] and the warp's metadata. */
fb_error fbt_expand_sparse(int32_t type, int32_t k, bool ordered, int32_t selector,
                          const uint32_t metadata[32], const uint32_t *packed, uint32_t *dense);
/* NULL when the selector is one that the shape has. */
fb_error fbt_check_selector(int32_t type, int32_t k, int32_t selector);

/* ---- swizzle ---- */

/* Chunks of 16 bytes change places in a span of 32, 64 or 128 bytes: the address's bits 4 to 6 are
 * XORed with its bits 7 to 9 (as many as the span has). `base` is the row that the pattern starts
 * with, 0 where it starts at a multiple of eight spans. Tensor maps and matrix descriptors share
 * it: sections "Tensor swizzling modes" and "Shared Memory Matrix Layout" (Swizzle<x, 4, 3>). */
static inline uint32_t fbt_swizzle(uint32_t address, uint32_t span, uint32_t base) {
    uint32_t mask = span / 16 - 1;
    return span < 32 ? address : address ^ ((((address >> 7) - base) & mask) << 4);
}

#endif
