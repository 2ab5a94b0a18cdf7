/* One warp's registers as matrices: sections "Matrix Fragments for mma.*" and, for the four warps
 * of a warpgroup, "Register Fragments".
 *
 * The manual gives a formula for each shape; all are one rule. A lane is in group lane / 4 and has
 * place lane % 4 in it. One register of a multiplicand holds neighbours along k, and the four
 * lanes of a group together hold 128 bits of one row of A (or column of B): a slab. The registers
 * of A go down first (row, row + 8), then on to the next slab of k; those of B only along k.
 * Accumulators hold two neighbours along n at 2 * place, then the same eight rows further down,
 * then eight columns further on (wgmma). */
#include "internal.h"

void fbt_unpack_a(int32_t m, int32_t k, int32_t bits, const uint32_t (*fragment)[32], uint32_t *a) {
    int32_t parts = 32 / bits, halves = m / 8, slabs = k / (4 * parts);
    uint32_t mask = bits == 32 ? ~0u : (1u << bits) - 1;
    for (int32_t slab = 0; slab < slabs; slab++) {
        for (int32_t half = 0; half < halves; half++) {
            const uint32_t *lanes = fragment[slab * halves + half];
            for (int32_t lane = 0; lane < 32; lane++) {
                uint32_t *row = a + (lane / 4 + 8 * half) * k + (slab * 4 + lane % 4) * parts;
                for (int32_t part = 0; part < parts; part++) {
                    row[part] = lanes[lane] >> part * bits & mask;
                }
            }
        }
    }
}

void fbt_unpack_b(int32_t k, int32_t bits, const uint32_t (*fragment)[32], uint32_t *b) {
    fbt_unpack_a(8, k, bits, fragment, b);
}

static int32_t sum_index(int32_t lane, int32_t half, int32_t tile, int32_t stride) {
    return (lane / 4 + 8 * half) * stride + tile * 8 + lane % 4 * 2;
}

void fbt_unpack_sum(int32_t m, int32_t n, int32_t bits, const uint32_t (*fragment)[32],
                   uint32_t *sum, int32_t stride) {
    for (int32_t tile = 0, pair = 0; tile < n / 8; tile++) {
        for (int32_t half = 0; half < m / 8; half++, pair++) {
            for (int32_t lane = 0; lane < 32; lane++) {
                uint32_t *at = sum + sum_index(lane, half, tile, stride);
                if (bits == 32) {
                    at[0] = fragment[2 * pair][lane];
                    at[1] = fragment[2 * pair + 1][lane];
                } else {
                    at[0] = fragment[pair][lane] & 0xffff;
                    at[1] = fragment[pair][lane] >> 16;
                }
            }
        }
    }
}

void fbt_pack_sum(int32_t m, int32_t n, int32_t bits, const uint32_t *sum, int32_t stride,
                 uint32_t (*fragment)[32]) {
    for (int32_t tile = 0, pair = 0; tile < n / 8; tile++) {
        for (int32_t half = 0; half < m / 8; half++, pair++) {
            for (int32_t lane = 0; lane < 32; lane++) {
                const uint32_t *at = sum + sum_index(lane, half, tile, stride);
                if (bits == 32) {
                    fragment[2 * pair][lane] = at[0];
                    fragment[2 * pair + 1][lane] = at[1];
                } else {
                    fragment[pair][lane] = (at[0] & 0xffff) | at[1] << 16;
                }
            }
        }
    }
}
