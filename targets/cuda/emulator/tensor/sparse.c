/* 2:4 sparsity of A: sections "Sparse matrix storage" of mma.sp and wgmma.mma_async.sp.
 *
 * Each chunk of a row keeps half of its elements, and has four bits of metadata: two 2-bit indices,
 * the first kept element's lowest. Chunks are 4 elements (16 and 8 bits), 8 elements in pairs
 * (4 bits), or 2 elements (tf32, whose four bits are 0b0100 for the first and 0b1110 for the
 * second: an index for each of its 16-bit halves).
 *
 * Which lane's register has a chunk's bits (the metadata figures; agrees with CUTLASS's ELayout_*
 * for Hopper and its reordering of metadata for Ampere):
 *   16 and 32 bits  a lane has 4 chunks of row g in its low half and of row g + 8 in its high half;
 *                   the next 4 chunks are the next lane's;
 *   8 and 4 bits    a lane has 8 chunks of row g, the next lane those of row g + 8; the next 8
 *                   chunks are in the next pair of lanes.
 * The selector says which of a group's four lanes, or which pair, is the first. */
#include "internal.h"

static int32_t chunk_elements(int32_t type) {
    return type == FB_TF32 ? 2 : fbt_is_int4(type) ? 8 : 4;
}

/* Lanes of a group of four that have metadata. */
static int32_t lanes_used(int32_t type, int32_t k) {
    return k / chunk_elements(type) / 4;
}

fb_error fbt_check_selector(int32_t type, int32_t k, int32_t selector) {
    int32_t values = 4 / lanes_used(type, k);
    if (selector < 0 || selector >= values) {
        return fbt_fail("sparsity selector %d: k%d of %s has 0 to %d", selector, k, fbt_name(type),
                       values - 1);
    }
    return NULL;
}

static uint32_t chunk_metadata(int32_t type, int32_t k, int32_t selector, int32_t row,
                               int32_t chunk, const uint32_t metadata[32]) {
    int32_t lane = row % 8 * 4 + selector * lanes_used(type, k), shift;
    if (fbt_bits(type) >= 16) {
        lane += chunk / 4;
        shift = row / 8 * 16 + chunk % 4 * 4;
    } else {
        lane += chunk / 8 * 2 + row / 8;
        shift = chunk % 8 * 4;
    }
    return metadata[lane] >> shift & 0xf;
}

fb_error fbt_expand_sparse(int32_t type, int32_t k, bool ordered, int32_t selector,
                          const uint32_t metadata[32], const uint32_t *packed, uint32_t *dense) {
    int32_t elements = chunk_elements(type);
    for (int32_t i = 0; i < 16 * k; i++) dense[i] = 0;
    for (int32_t row = 0; row < 16; row++) {
        for (int32_t chunk = 0; chunk < k / elements; chunk++) {
            uint32_t code = chunk_metadata(type, k, selector, row, chunk, metadata);
            const uint32_t *from = packed + row * (k / 2) + chunk * elements / 2;
            uint32_t *to = dense + row * k + chunk * elements;
            uint32_t first = code & 3, second = code >> 2;
            bool valid = type == FB_TF32 ? code == 0x4 || code == 0xe
                         : ordered       ? first < second
                                         : first != second;
            if (!valid) {
                return fbt_fail("sparsity metadata 0x%x of row %d, chunk %d is not valid for %s%s",
                               code, row, chunk, fbt_name(type), ordered ? " (ordered)" : "");
            }
            if (type == FB_TF32) {
                to[code == 0xe] = from[0];
            } else if (elements == 4) {
                to[first] = from[0];
                to[second] = from[1];
            } else {
                for (int32_t i = 0; i < 2; i++) {
                    to[2 * first + (uint32_t)i] = from[i];
                    to[2 * second + (uint32_t)i] = from[2 + i];
                }
            }
        }
    }
    return NULL;
}
