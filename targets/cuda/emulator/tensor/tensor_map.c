/* Tensor maps: what cuTensorMapEncodeTiled demands of its arguments (cuda.h), and their encoding.
 *
 * The real encoding is not documented, so this one is ours. Interleaved layouts and the packed 4-
 * and 6-bit types (Blackwell's) are not emulated and are refused. */
#include "tensor_map.h"

#include <string.h>

static const uint64_t mark_of_a_map = 0x70616d5242464642ull;

_Static_assert(sizeof(fbt_tensor_map) <= FB_TENSOR_MAP_BYTES, "a tensor map has 128 bytes");

uint32_t fbt_map_element_bytes(uint32_t data_type) {
    static const uint8_t bytes[FB_MAP_TYPES] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4};
    return data_type < FB_MAP_TYPES ? bytes[data_type] : 0;
}

fb_error fbt_map_read(const void *pointer, fbt_tensor_map *map) {
    memcpy(map, pointer, sizeof *map);
    if (map->mark != mark_of_a_map) {
        return fbt_fail("the tensor map was not made by cuTensorMapEncodeTiled");
    }
    return NULL;
}

static bool has_nan(uint32_t data_type) {
    return data_type >= FB_MAP_FLOAT16;
}

static fb_error check_dimensions(const fbt_tensor_map *map, const uint32_t *box,
                                 const uint32_t *element_strides) {
    for (uint32_t i = 0; i < map->rank; i++) {
        if (map->dimensions[i] == 0 || map->dimensions[i] > 1ull << 32) {
            return fbt_fail("tensor map: globalDim[%u] is %llu", i,
                           (unsigned long long)map->dimensions[i]);
        }
        if (box[i] == 0 || box[i] > 256) {
            return fbt_fail("tensor map: boxDim[%u] is %u, not 1 to 256", i, box[i]);
        }
        if (element_strides[i] == 0 || element_strides[i] > 8) {
            return fbt_fail("tensor map: elementStrides[%u] is %u, not 1 to 8", i,
                           element_strides[i]);
        }
        if (i + 1 < map->rank && (map->strides[i] % 16 || map->strides[i] >= 1ull << 40)) {
            return fbt_fail("tensor map: globalStrides[%u] is %llu, not 16 k below 2^40", i,
                            (unsigned long long)map->strides[i]);
        }
    }
    return NULL;
}

fb_error fb_tensor_map_encode(void *pointer, int32_t data_type, uint32_t rank, uint64_t address,
                              const uint64_t *dimensions, const uint64_t *strides,
                              const uint32_t *box, const uint32_t *element_strides,
                              int32_t interleave, int32_t swizzle, int32_t l2_promotion,
                              int32_t oob_fill) {
    fbt_tensor_map map;
    memset(&map, 0, sizeof map);
    if (!pointer || (uintptr_t)pointer % 64) {
        return fbt_fail("tensor map: tensorMap is not at a multiple of 64 bytes");
    }
    if (rank == 0 || rank > FB_TENSOR_MAP_MAX_RANK) return fbt_fail("tensor map: rank %u", rank);
    if (!dimensions || !box || !element_strides || (rank > 1 && !strides)) {
        return fbt_fail("tensor map: an array is missing");
    }
    uint32_t element = fbt_map_element_bytes((uint32_t)data_type);
    if (element == 0) return fbt_fail("tensor map: tensorDataType %d is not of sm_90", data_type);
    if (interleave != 0) return fbt_fail("tensor map: interleaved layouts are not emulated");
    if (swizzle < 0 || swizzle > 3) return fbt_fail("tensor map: swizzle %d", swizzle);
    if (l2_promotion < 0 || l2_promotion > 3) {
        return fbt_fail("tensor map: l2Promotion %d", l2_promotion);
    }
    if (oob_fill < 0 || oob_fill > 1 || (oob_fill && !has_nan((uint32_t)data_type))) {
        return fbt_fail("tensor map: oobFill %d for data type %d", oob_fill, data_type);
    }
    if (address % 16) return fbt_fail("tensor map: globalAddress is not a multiple of 16");
    map.mark = mark_of_a_map;
    map.address = address;
    map.data_type = (uint8_t)data_type;
    map.rank = (uint8_t)rank;
    map.swizzle = (uint8_t)swizzle;
    map.nan_fill = (uint8_t)oob_fill;
    memcpy(map.dimensions, dimensions, rank * sizeof *dimensions);
    if (rank > 1) memcpy(map.strides, strides, (rank - 1) * sizeof *strides);
    fb_error error = check_dimensions(&map, box, element_strides);
    if (error) return error;
    for (uint32_t i = 0; i < rank; i++) {
        map.box[i] = (uint16_t)box[i];
        /* The innermost stride is ignored without interleaving. */
        map.element_strides[i] = (uint8_t)(i ? element_strides[i] : 1);
    }
    uint32_t inner = box[0] * element;
    if (inner % 16) return fbt_fail("tensor map: the box's rows have %u bytes, not 16 k", inner);
    if (swizzle && inner > 16u << swizzle) {
        return fbt_fail("tensor map: the box's rows have %u bytes, the swizzle only %u", inner,
                       16u << swizzle);
    }
    memset(pointer, 0, FB_TENSOR_MAP_BYTES);
    memcpy(pointer, &map, sizeof map);
    return NULL;
}
