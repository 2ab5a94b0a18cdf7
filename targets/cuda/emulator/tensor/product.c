/* The product at the heart of mma.sync and wgmma, on plain matrices.
 *
 * Floating point: every product is exact in double, the sum with the accumulator is made in double
 * and rounded once. Integers: a sum of one instruction fits 32 bits, adding the accumulator wraps
 * or saturates. Bits: AND or XOR, then count (sections "Multiply-and-Accumulate Instruction"). */
#include "internal.h"

#include <stdint.h>

static void multiply_floats(const fbt_product *p, const uint32_t *a, const uint32_t *b,
                            uint32_t *sum) {
    static const float one = 1.0f;
    float transposed[FB_MAX_WGMMA_K * FB_MAX_N]; /* [k][n], so that the inner loop runs over n */
    double row[FB_MAX_N];
    float sign_b = p->negate_b ? -one : one;
    float sign_a = p->negate_a ? -one : one;
    for (int32_t j = 0; j < p->n; j++) {
        for (int32_t k = 0; k < p->k; k++) {
            transposed[k * p->n + j] = sign_b * fbt_decode_float(p->b, b[j * p->k + k]);
        }
    }
    for (int32_t i = 0; i < p->m; i++) {
        for (int32_t j = 0; j < p->n; j++) row[j] = 0;
        for (int32_t k = 0; k < p->k; k++) {
            double left = sign_a * fbt_decode_float(p->a, a[i * p->k + k]);
            const float *right = transposed + k * p->n;
            for (int32_t j = 0; j < p->n; j++) row[j] += left * (double)right[j];
        }
        for (int32_t j = 0; j < p->n; j++) {
            uint32_t *target = sum + i * p->n + j;
            double start = fbt_decode_float(p->sum, *target);
            *target = fbt_encode_float(p->sum, start + row[j]);
        }
    }
}

static uint32_t add(uint32_t accumulator, int32_t value, bool saturate) {
    if (!saturate) return accumulator + (uint32_t)value;
    int64_t exact = (int64_t)(int32_t)accumulator + value;
    if (exact > INT32_MAX) exact = INT32_MAX;
    if (exact < INT32_MIN) exact = INT32_MIN;
    return (uint32_t)(int32_t)exact;
}

static void multiply_integers(const fbt_product *p, const uint32_t *a, const uint32_t *b,
                              uint32_t *sum) {
    int16_t right[FB_MAX_N * FB_MAX_WGMMA_K], left[FB_MAX_K];
    for (int32_t j = 0; j < p->n * p->k; j++) right[j] = (int16_t)fbt_decode_integer(p->b, b[j]);
    for (int32_t i = 0; i < p->m; i++) {
        for (int32_t k = 0; k < p->k; k++) {
            left[k] = (int16_t)fbt_decode_integer(p->a, a[i * p->k + k]);
        }
        for (int32_t j = 0; j < p->n; j++) {
            const int16_t *column = right + j * p->k;
            int32_t dot = 0;
            for (int32_t k = 0; k < p->k; k++) dot += (int32_t)left[k] * column[k];
            sum[i * p->n + j] = add(sum[i * p->n + j], dot, p->saturate);
        }
    }
}

static int32_t count_ones(uint32_t word) {
    word = word - (word >> 1 & 0x55555555u);
    word = (word & 0x33333333u) + (word >> 2 & 0x33333333u);
    return (int32_t)(((word + (word >> 4)) & 0x0f0f0f0fu) * 0x01010101u >> 24);
}

static void multiply_bits(const fbt_product *p, const uint32_t *a, const uint32_t *b,
                          uint32_t *sum) {
    for (int32_t i = 0; i < p->m; i++) {
        for (int32_t j = 0; j < p->n; j++) {
            int32_t ones = 0;
            for (int32_t k = 0; k < p->k; k++) {
                uint32_t left = a[i * p->k + k], right = b[j * p->k + k];
                ones += count_ones(p->xor_popc ? left ^ right : left & right);
            }
            sum[i * p->n + j] = add(sum[i * p->n + j], ones, p->saturate);
        }
    }
}

void fbt_multiply(const fbt_product *p, const uint32_t *a, const uint32_t *b, uint32_t *sum) {
    if (p->a == FB_B1) {
        multiply_bits(p, a, b, sum);
    } else if (fbt_is_float(p->a)) {
        multiply_floats(p, a, b, sum);
    } else {
        multiply_integers(p, a, b, sum);
    }
}
