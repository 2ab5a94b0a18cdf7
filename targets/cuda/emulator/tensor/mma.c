/* mma.sync and mma.sp.sync: sections "Multiply-and-Accumulate Instruction: mma" and "mma.sp". */
#include "internal.h"

#include <math.h>
#include <string.h>

typedef enum { HALF, BRAIN, TENSOR, FP8, DOUBLE, INT8, INT4, BIT, NO_CLASS } type_class;

static const struct {
    type_class class;
    int32_t sparse;
    int32_t m, k;
} shapes[] = {
    {HALF, 0, 16, 8},    {HALF, 0, 16, 16},   {HALF, 1, 16, 16},  {HALF, 1, 16, 32},
    {BRAIN, 0, 16, 8},   {BRAIN, 0, 16, 16},  {BRAIN, 1, 16, 16}, {BRAIN, 1, 16, 32},
    {TENSOR, 0, 16, 4},  {TENSOR, 0, 16, 8},  {TENSOR, 1, 16, 8}, {TENSOR, 1, 16, 16},
    {FP8, 0, 16, 16},    {FP8, 0, 16, 32},    {FP8, 1, 16, 64},   {DOUBLE, 0, 8, 4},
    {DOUBLE, 0, 16, 4},  {DOUBLE, 0, 16, 8},  {DOUBLE, 0, 16, 16}, {INT8, 0, 8, 16},
    {INT8, 0, 16, 16},   {INT8, 0, 16, 32},   {INT8, 1, 16, 32},  {INT8, 1, 16, 64},
    {INT4, 0, 8, 32},    {INT4, 0, 16, 32},   {INT4, 0, 16, 64},  {INT4, 1, 16, 64},
    {INT4, 1, 16, 128},  {BIT, 0, 8, 128},    {BIT, 0, 16, 128},  {BIT, 0, 16, 256},
};

static type_class class_of(int32_t type) {
    switch (type) {
    case FB_F16: return HALF;
    case FB_BF16: return BRAIN;
    case FB_TF32: return TENSOR;
    case FB_E4M3: case FB_E5M2: return FP8;
    case FB_F64: return DOUBLE;
    case FB_S8: case FB_U8: return INT8;
    case FB_S4: case FB_U4: return INT4;
    case FB_B1: return BIT;
    default: return NO_CLASS;
    }
}

static fb_error check(const fb_mma *op) {
    type_class class = class_of(op->a);
    bool mixed = class == FP8 || class == INT8 || class == INT4;
    bool sum = op->d == op->c;
    bool integer = class == INT8 || class == INT4 || class == BIT;
    bool found = false;
    if (integer) {
        sum = sum && op->d == FB_S32;
    } else if (class == DOUBLE) {
        sum = sum && op->d == FB_F64;
    } else {
        bool half = class == HALF || (class == FP8 && !op->sparse);
        sum = sum && (op->d == FB_F32 || (op->d == FB_F16 && half));
    }
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        found |= shapes[i].class == class && shapes[i].sparse == (op->sparse != 0) &&
                 shapes[i].m == op->m && shapes[i].k == op->k && op->n == 8;
    }
    bool pair = mixed ? class_of(op->b) == class : op->b == op->a;
    if (class == NO_CLASS || !found || !sum || !pair) {
        return fbt_fail("there is no mma%s.m%dn%dk%d.%s.%s.%s.%s", op->sparse ? ".sp" : "", op->m,
                       op->n, op->k, fbt_name(op->d), fbt_name(op->a), fbt_name(op->b),
                       fbt_name(op->c));
    }
    if (op->saturate && class != INT8 && class != INT4) {
        return fbt_fail(".satfinite is for integers of 8 and 4 bits only");
    }
    return op->sparse ? fbt_check_selector(op->a, op->k, op->selector) : NULL;
}

fb_error fb_mma_registers(const fb_mma *op, int32_t counts[4]) {
    fb_error error = check(op);
    if (error) return error;
    int32_t bits = fbt_bits(op->a);
    counts[0] = op->m * op->k * bits / (op->sparse ? 2 : 1) / 1024;
    counts[1] = op->n * op->k * bits / 1024;
    counts[2] = counts[3] = op->m * op->n * fbt_bits(op->d) / 1024;
    return NULL;
}

/* A 64-bit element is two registers, low word first; elements as in "mma.m8n8k4 with .f64". */
static double element(const uint32_t (*fragment)[32], int32_t index, int32_t lane) {
    uint64_t bits = fragment[2 * index][lane] | (uint64_t)fragment[2 * index + 1][lane] << 32;
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void multiply_doubles(const fb_mma *op, uint32_t (*d)[32], const uint32_t (*a)[32],
                             const uint32_t (*b)[32], const uint32_t (*c)[32]) {
    int32_t halves = op->m / 8;
    double result[4][32];
    for (int32_t lane = 0; lane < 32; lane++) {
        for (int32_t i = 0; i < 2 * halves; i++) {
            int32_t row = lane / 4, half = i / 2, column = lane % 4 * 2 + i % 2;
            double sum = element(c, i, lane);
            for (int32_t k = 0; k < op->k; k++) {
                /* fused multiply-add, along k */
                sum = fma(element(a, k / 4 * halves + half, row * 4 + k % 4),
                          element(b, k / 4, column * 4 + k % 4), sum);
            }
            result[i][lane] = sum;
        }
    }
    for (int32_t i = 0; i < 2 * halves; i++) {
        for (int32_t lane = 0; lane < 32; lane++) {
            uint64_t bits;
            memcpy(&bits, &result[i][lane], sizeof bits);
            d[2 * i][lane] = (uint32_t)bits;
            d[2 * i + 1][lane] = (uint32_t)(bits >> 32);
        }
    }
}

fb_error fb_mma_sync(const fb_mma *op, uint32_t (*d)[32], const uint32_t (*a)[32],
                     const uint32_t (*b)[32], const uint32_t (*c)[32],
                     const uint32_t metadata[32]) {
    uint32_t left[16 * FB_MAX_K], right[8 * FB_MAX_K], sum[16 * 8];
    fb_error error = check(op);
    if (error) return error;
    if (op->a == FB_F64) {
        multiply_doubles(op, d, a, b, c);
        return NULL;
    }
    /* Bits go by words. */
    int32_t bits = op->a == FB_B1 ? 32 : fbt_bits(op->a);
    int32_t k = op->a == FB_B1 ? op->k / 32 : op->k;
    if (op->sparse) {
        uint32_t packed[16 * FB_MAX_K / 2];
        if (!metadata) return fbt_fail("mma.sp without metadata");
        fbt_unpack_a(op->m, k / 2, bits, a, packed);
        error = fbt_expand_sparse(op->a, k, op->sparse == 2, op->selector, metadata, packed, left);
        if (error) return error;
    } else {
        fbt_unpack_a(op->m, k, bits, a, left);
    }
    fbt_unpack_b(k, bits, b, right);
    fbt_unpack_sum(op->m, 8, fbt_bits(op->d), c, sum, 8);
    fbt_product product = {.m = op->m, .n = 8, .k = k, .a = op->a, .b = op->b, .sum = op->d,
                          .saturate = op->saturate, .xor_popc = op->xor_popc};
    fbt_multiply(&product, left, right, sum);
    fbt_pack_sum(op->m, 8, fbt_bits(op->d), sum, 8, d);
    return NULL;
}
