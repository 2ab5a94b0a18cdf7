/* The 128 bytes of a tensor map, which only these files look into. */
#ifndef FEWBITS_EMULATOR_TENSOR_MAP_H
#define FEWBITS_EMULATOR_TENSOR_MAP_H

#include "internal.h"

typedef struct {
    uint64_t mark;
    uint64_t address;
    uint64_t dimensions[FB_TENSOR_MAP_MAX_RANK]; /* elements, innermost first */
    uint64_t strides[FB_TENSOR_MAP_MAX_RANK - 1]; /* bytes, of dimensions 1 and up */
    uint16_t box[FB_TENSOR_MAP_MAX_RANK];
    uint8_t element_strides[FB_TENSOR_MAP_MAX_RANK];
    uint8_t data_type, rank, swizzle, nan_fill;
} fbt_tensor_map;

/* CUtensorMapDataType */
enum {
    FB_MAP_UINT8, FB_MAP_UINT16, FB_MAP_UINT32, FB_MAP_INT32, FB_MAP_UINT64, FB_MAP_INT64,
    FB_MAP_FLOAT16, FB_MAP_FLOAT32, FB_MAP_FLOAT64, FB_MAP_BFLOAT16, FB_MAP_FLOAT32_FTZ,
    FB_MAP_TFLOAT32, FB_MAP_TFLOAT32_FTZ, FB_MAP_TYPES
};

/* Bytes of one element of a data type. */
uint32_t fbt_map_element_bytes(uint32_t data_type);

/* The map behind a pointer, checked to be one. */
fb_error fbt_map_read(const void *pointer, fbt_tensor_map *map);

#endif
