/* several: layers, and the function that calls them in order. */
#include "fewbits_several.h"

#include <stddef.h>

#include "weights.h"
#include "kernels/toy_pointwise.h"
#include "generated.h"

/* A layer is a function of its own, so that profilers and debuggers see it. */
#if defined(__clang__)
#define FB_LAYER static __attribute__((noinline))
#else
#define FB_LAYER static __attribute__((noinline, noclone, no_icf))
#endif

/* 0: sum (add)
 * int8[5], int8[5] -> int8[5] */
FB_LAYER void fb_layer_0(const int8_t *in_a, const int8_t *in_b, int8_t *out_total)
{
    toy_add(in_a, in_b, out_total, 5, 0);
}

/* 1: float island (scale)
 * int8[5] -> float32[5]
 * computes in float */
FB_LAYER void fb_layer_1(int8_t *out_total, float *out_real)
{
    toy_scale(out_total, out_real, 5, 0x1.99999ap-4f);
}

/* 2: count (reduce)
 * int8[5] -> int64[] */
FB_LAYER void fb_layer_2(int8_t *out_total, int64_t *out_count)
{
    generated_count(out_total, out_count);
}

int several_run(
    const int8_t *in_a, const int8_t *in_b, float *out_real, int8_t *out_total, int64_t *out_count,
    void *arena)
{
    if (in_a == NULL ||
        in_b == NULL ||
        out_real == NULL ||
        out_total == NULL ||
        out_count == NULL ||
        arena == NULL) {
        return SEVERAL_ERROR_NULL;
    }
    if ((((uintptr_t)in_a |
        (uintptr_t)in_b |
        (uintptr_t)out_real |
        (uintptr_t)out_total) & 3u) != 0u) {
        return SEVERAL_ERROR_ALIGNMENT;
    }
    if ((((uintptr_t)out_count | (uintptr_t)arena) & 7u) != 0u) {
        return SEVERAL_ERROR_ALIGNMENT;
    }
    fb_layer_0(in_a, in_b, out_total);
    fb_layer_1(out_total, out_real);
    fb_layer_2(out_total, out_count);
    return SEVERAL_OK;
}
