/* residual: layers, and the function that calls them in order. */
#include "fewbits_residual.h"

#include <stddef.h>

#include "weights.h"
#include "kernels/toy_dense.h"
#include "kernels/toy_pointwise.h"

/* A layer is a function of its own, so that profilers and debuggers see it. */
#if defined(__clang__)
#define FB_LAYER static __attribute__((noinline))
#else
#define FB_LAYER static __attribute__((noinline, noclone, no_icf))
#endif

/* 0: dense1 (dense)
 * int8[3,4] -> int8[2,4], 96 MACs, 32 bytes of scratch */
FB_LAYER void fb_layer_0(const int8_t *in, uint8_t *arena)
{
    toy_dense(
        in, (int8_t *)(void *)(arena + 32), residual_weights_0, residual_bias_0, arena + 0, 12, 8,
        4);
}

/* 1: dense2 (dense)
 * int8[8] -> int8[8], 64 MACs, 32 bytes of scratch */
FB_LAYER void fb_layer_1(uint8_t *arena)
{
    toy_dense(
        (const int8_t *)(const void *)(arena + 32), (int8_t *)(void *)(arena + 40),
        residual_weights_1, residual_bias_0, arena + 0, 8, 8, 4);
}

/* 2: add (add)
 * int8[8], int8[8] -> int8[8] */
FB_LAYER void fb_layer_2(int8_t *out, uint8_t *arena)
{
    toy_add(
        (const int8_t *)(const void *)(arena + 32), (const int8_t *)(const void *)(arena + 40),
        out, 8, -2);
}

int residual_run(const int8_t *in, int8_t *out, void *arena)
{
    uint8_t *const base = (uint8_t *)arena;
    if (in == NULL || out == NULL || arena == NULL) {
        return RESIDUAL_ERROR_NULL;
    }
    if ((((uintptr_t)in | (uintptr_t)out) & 3u) != 0u) {
        return RESIDUAL_ERROR_ALIGNMENT;
    }
    if ((((uintptr_t)arena) & 7u) != 0u) {
        return RESIDUAL_ERROR_ALIGNMENT;
    }
    fb_layer_0(in, base);
    fb_layer_1(base);
    fb_layer_2(out, base);
    return RESIDUAL_OK;
}
