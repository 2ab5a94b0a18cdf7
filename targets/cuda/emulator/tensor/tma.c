/* The copy engine by tiles: cp.async.bulk.tensor and cp.reduce.async.bulk.tensor.
 *
 * A box lies in shared memory densely, innermost dimension first; its 16-byte chunks are then
 * swizzled by address. Rows narrower than the swizzle's span lie a span apart (the programming
 * guide asks for room for "the full swizzle width"). Elements outside of the tensor are read as
 * zero (or NaN) and never written; complete_tx counts the whole box all the same. */
#include "tensor_map.h"

#include <string.h>

typedef struct {
    fbt_tensor_map map;
    uint32_t element;                       /* bytes */
    uint32_t counts[FB_TENSOR_MAP_MAX_RANK]; /* elements copied along each dimension */
    uint32_t row_bytes, rows;
    uint32_t span, pitch;                   /* of the swizzle; from a row to the next */
} box;

static fb_error open_box(const void *pointer, box *b) {
    fb_error error = fbt_map_read(pointer, &b->map);
    if (error) return error;
    b->element = fbt_map_element_bytes(b->map.data_type);
    uint64_t rows = 1;
    for (uint32_t i = 0; i < b->map.rank; i++) {
        uint32_t step = b->map.element_strides[i];
        b->counts[i] = (b->map.box[i] + step - 1) / step;
        if (i) rows *= b->counts[i];
    }
    b->row_bytes = b->counts[0] * b->element;
    if (rows * b->row_bytes > 1u << 20) return fbt_fail("TMA: the box is larger than a megabyte");
    b->rows = (uint32_t)rows;
    b->span = 16u << b->map.swizzle;
    b->pitch = b->map.swizzle ? b->span : b->row_bytes;
    return NULL;
}

fb_error fb_tma_bytes(const void *pointer, uint32_t *bytes) {
    box b;
    fb_error error = open_box(pointer, &b);
    if (!error) *bytes = b.row_bytes * b.rows;
    return error;
}

fb_error fb_tma_room(const void *pointer, uint32_t *bytes) {
    box b;
    fb_error error = open_box(pointer, &b);
    if (!error) *bytes = b.pitch * b.rows;
    return error;
}

/* One row of a box: where it starts in global memory, and which of its bytes are in the tensor. */
typedef struct {
    uint64_t address; /* of the first byte inside */
    uint32_t first, last; /* bytes [first, last) of the row are inside */
} row_range;

static row_range find_row(const box *b, const int32_t *coordinates, uint32_t row) {
    const fbt_tensor_map *map = &b->map;
    row_range range = {map->address, 0, 0};
    for (uint32_t i = 1; i < map->rank; i++) {
        int64_t at = (int64_t)coordinates[i] +
                     (int64_t)(row % b->counts[i]) * map->element_strides[i];
        row /= b->counts[i];
        if (at < 0 || (uint64_t)at >= map->dimensions[i]) return range;
        range.address += (uint64_t)at * map->strides[i - 1];
    }
    int64_t start = coordinates[0], end = start + b->counts[0], limit = (int64_t)map->dimensions[0];
    int64_t from = start < 0 ? 0 : start, to = end > limit ? limit : end;
    if (from >= to) return range;
    range.address += (uint64_t)from * b->element;
    range.first = (uint32_t)(from - start) * b->element;
    range.last = (uint32_t)(to - start) * b->element;
    return range;
}

static void fill(const box *b, uint8_t *bytes, uint32_t from, uint32_t to) {
    memset(bytes + from, 0, to - from);
    if (!b->map.nan_fill) return;
    for (uint32_t at = from; at < to; at += b->element) {
        memset(bytes + at, 0xff, b->element);
        bytes[at + b->element - 1] = 0x7f;
    }
}

static void flush_subnormals(const box *b, uint8_t *bytes) {
    if (b->map.data_type != FB_MAP_FLOAT32_FTZ && b->map.data_type != FB_MAP_TFLOAT32_FTZ) return;
    for (uint32_t at = 0; at < b->row_bytes; at += 4) {
        uint32_t word;
        memcpy(&word, bytes + at, sizeof word);
        if ((word & 0x7f800000u) == 0) word &= 0x80000000u;
        memcpy(bytes + at, &word, sizeof word);
    }
}

/* The host's pointer to the bytes of a row that are inside; NULL and an error when they are not in
 * one allocation. */
static fb_error locate(const fb_global *global, const row_range *range, bool write, void **at) {
    uint64_t size = range->last - range->first;
    *at = global->at(global->context, range->address, size, write);
    if (!*at) {
        return fbt_fail("TMA: %llu bytes at 0x%llx are outside of every allocation",
                       (unsigned long long)size, (unsigned long long)range->address);
    }
    return NULL;
}

static uint32_t place(const box *b, uint32_t base, uint32_t row, uint32_t chunk) {
    return fbt_swizzle(base + row * b->pitch + chunk, b->span, 0);
}

static fb_error open_copy(const void *pointer, uint32_t rank, const fb_shared *shared,
                          uint32_t address, box *b) {
    fb_error error = open_box(pointer, b);
    if (error) return error;
    if (rank != b->map.rank) {
        return fbt_fail("TMA: a %ud instruction, a tensor map of %u dimensions", rank, b->map.rank);
    }
    /* A swizzle moves chunks within their row, so this bounds it too. */
    uint64_t size = (uint64_t)b->pitch * b->rows;
    return fbt_check_shared(shared, address, size, 128, "TMA");
}

enum { MAX_ROW_BYTES = 256 * 8 };

fb_error fb_tma_load(const void *pointer, uint32_t rank, const int32_t *coordinates,
                     const fb_global *global, fb_shared *shared, uint32_t destination,
                     uint32_t *bytes) {
    box b;
    uint8_t line[MAX_ROW_BYTES];
    fb_error error = open_copy(pointer, rank, shared, destination, &b);
    if (error) return error;
    for (uint32_t row = 0; row < b.rows; row++) {
        row_range range = find_row(&b, coordinates, row);
        fill(&b, line, 0, range.first);
        fill(&b, line, range.last, b.row_bytes);
        if (range.first < range.last) {
            void *from;
            error = locate(global, &range, false, &from);
            if (error) return error;
            memcpy(line + range.first, from, range.last - range.first);
            flush_subnormals(&b, line);
        }
        for (uint32_t chunk = 0; chunk < b.row_bytes; chunk += 16) {
            memcpy(shared->bytes + place(&b, destination, row, chunk), line + chunk, 16);
        }
    }
    *bytes = b.row_bytes * b.rows;
    return NULL;
}

static void read_line(const box *b, const fb_shared *shared, uint32_t source, uint32_t row,
                      uint8_t *line) {
    for (uint32_t chunk = 0; chunk < b->row_bytes; chunk += 16) {
        memcpy(line + chunk, shared->bytes + place(b, source, row, chunk), 16);
    }
}

fb_error fb_tma_store(const void *pointer, uint32_t rank, const int32_t *coordinates,
                      const fb_global *global, const fb_shared *shared, uint32_t source) {
    box b;
    uint8_t line[MAX_ROW_BYTES];
    fb_error error = open_copy(pointer, rank, shared, source, &b);
    if (error) return error;
    for (uint32_t row = 0; row < b.rows; row++) {
        row_range range = find_row(&b, coordinates, row);
        void *to;
        if (range.first >= range.last) continue;
        read_line(&b, shared, source, row, line);
        error = locate(global, &range, true, &to);
        if (error) return error;
        memcpy(to, line + range.first, range.last - range.first);
    }
    return NULL;
}

/* The table of .redOp and element types in "cp.reduce.async.bulk.tensor". */
static bool can_reduce(uint32_t data_type, int32_t reduction) {
    bool half = data_type == FB_MAP_FLOAT16 || data_type == FB_MAP_BFLOAT16;
    bool word = data_type == FB_MAP_UINT32 || data_type == FB_MAP_INT32;
    bool wide = data_type == FB_MAP_UINT64 || data_type == FB_MAP_INT64;
    switch (reduction) {
    case FB_RED_ADD: return half || word || data_type == FB_MAP_UINT64 ||
                            data_type == FB_MAP_FLOAT32 || data_type == FB_MAP_FLOAT32_FTZ;
    case FB_RED_MIN: case FB_RED_MAX: return half || word || wide;
    case FB_RED_INC: case FB_RED_DEC: return data_type == FB_MAP_UINT32;
    case FB_RED_AND: case FB_RED_OR: case FB_RED_XOR: return word || wide;
    default: return false;
    }
}

static uint64_t reduce_bits(uint32_t data_type, int32_t reduction, uint64_t old, uint64_t value) {
    bool keep;
    if (data_type == FB_MAP_FLOAT16 || data_type == FB_MAP_BFLOAT16 ||
        data_type == FB_MAP_FLOAT32 || data_type == FB_MAP_FLOAT32_FTZ) {
        int32_t type = data_type == FB_MAP_FLOAT16 ? FB_F16
                       : data_type == FB_MAP_BFLOAT16 ? FB_BF16 : FB_F32;
        double left = fbt_decode_float(type, (uint32_t)old);
        double right = fbt_decode_float(type, (uint32_t)value);
        if (reduction == FB_RED_ADD) return fbt_encode_float(type, left + right);
        /* A NaN gives way to a number. */
        keep = right != right || (reduction == FB_RED_MIN ? left <= right : left >= right);
        return keep ? old : value;
    }
    switch (reduction) {
    case FB_RED_ADD: return old + value;
    case FB_RED_AND: return old & value;
    case FB_RED_OR: return old | value;
    case FB_RED_XOR: return old ^ value;
    case FB_RED_INC: return old >= value ? 0 : old + 1;
    case FB_RED_DEC: return old == 0 || old > value ? value : old - 1;
    default: break;
    }
    if (data_type == FB_MAP_INT32) {
        keep = (int32_t)old < (int32_t)value;
    } else if (data_type == FB_MAP_INT64) {
        keep = (int64_t)old < (int64_t)value;
    } else {
        keep = old < value;
    }
    return keep == (reduction == FB_RED_MIN) ? old : value;
}

fb_error fb_tma_reduce(const void *pointer, uint32_t rank, const int32_t *coordinates,
                       int32_t reduction, const fb_global *global, const fb_shared *shared,
                       uint32_t source) {
    box b;
    uint8_t line[MAX_ROW_BYTES];
    fb_error error = open_copy(pointer, rank, shared, source, &b);
    if (error) return error;
    if (!can_reduce(b.map.data_type, reduction)) {
        return fbt_fail("TMA: reduction %d has no data type %d", reduction, b.map.data_type);
    }
    for (uint32_t row = 0; row < b.rows; row++) {
        row_range range = find_row(&b, coordinates, row);
        void *to;
        if (range.first >= range.last) continue;
        read_line(&b, shared, source, row, line);
        error = locate(global, &range, true, &to);
        if (error) return error;
        for (uint32_t at = range.first; at < range.last; at += b.element) {
            uint8_t *target = (uint8_t *)to + (at - range.first);
            uint64_t old = 0, value = 0; /* little-endian, like the device */
            memcpy(&old, target, b.element);
            memcpy(&value, line + at, b.element);
            value = reduce_bits(b.map.data_type, reduction, old, value);
            memcpy(target, &value, b.element);
        }
    }
    return NULL;
}
