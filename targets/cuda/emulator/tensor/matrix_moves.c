/* ldmatrix, stmatrix, movmatrix of 8 x 8 matrices of 16-bit elements: sections "Warp-level Matrix
 * Load", "Store" and "Transpose Instruction". A lane holds two neighbours of row lane / 4; with
 * .trans it holds what it would hold of the transposed matrix. */
#include "internal.h"

#include <string.h>

static fb_error check(const fb_shared *shared, int32_t count, const uint32_t address[32],
                      const char *what) {
    if (count != 1 && count != 2 && count != 4) return fbt_fail("%s: .x%d", what, count);
    for (int32_t lane = 0; lane < 8 * count; lane++) {
        fb_error error = fbt_check_shared(shared, address[lane], 16, 16, what);
        if (error) return error;
    }
    return NULL;
}

/* Row and column of half `part` of a lane's register. */
static void place(int32_t lane, int32_t part, bool transpose, int32_t *row, int32_t *column) {
    int32_t group = lane / 4, pair = lane % 4 * 2 + part;
    *row = transpose ? pair : group;
    *column = transpose ? group : pair;
}

fb_error fb_ldmatrix(const fb_shared *shared, int32_t count, bool transpose,
                     const uint32_t address[32], uint32_t (*d)[32]) {
    uint32_t rows[32]; /* d may be where the addresses are */
    fb_error error = check(shared, count, address, "ldmatrix");
    if (error) return error;
    memcpy(rows, address, sizeof rows);
    for (int32_t matrix = 0; matrix < count; matrix++) {
        for (int32_t lane = 0; lane < 32; lane++) {
            uint16_t halves[2];
            for (int32_t part = 0; part < 2; part++) {
                int32_t row, column;
                place(lane, part, transpose, &row, &column);
                memcpy(&halves[part], shared->bytes + rows[8 * matrix + row] + 2 * column, 2);
            }
            d[matrix][lane] = halves[0] | (uint32_t)halves[1] << 16;
        }
    }
    return NULL;
}

fb_error fb_stmatrix(fb_shared *shared, int32_t count, bool transpose, const uint32_t address[32],
                     const uint32_t (*s)[32]) {
    fb_error error = check(shared, count, address, "stmatrix");
    if (error) return error;
    for (int32_t matrix = 0; matrix < count; matrix++) {
        for (int32_t lane = 0; lane < 32; lane++) {
            for (int32_t part = 0; part < 2; part++) {
                int32_t row, column;
                uint16_t half = (uint16_t)(s[matrix][lane] >> 16 * part);
                place(lane, part, transpose, &row, &column);
                memcpy(shared->bytes + address[8 * matrix + row] + 2 * column, &half, 2);
            }
        }
    }
    return NULL;
}

void fb_movmatrix(uint32_t d[32], const uint32_t a[32]) {
    uint32_t source[32];
    memcpy(source, a, sizeof source);
    for (int32_t lane = 0; lane < 32; lane++) {
        uint32_t value = 0;
        for (int32_t part = 0; part < 2; part++) {
            int32_t row, column;
            place(lane, part, true, &row, &column);
            value |= (source[row * 4 + column / 2] >> 16 * (column % 2) & 0xffff) << 16 * part;
        }
        d[lane] = value;
    }
}
