/* Operators without a kernel of their own, generated for this model. */
#ifndef FEWBITS_SEVERAL_GENERATED_H
#define FEWBITS_SEVERAL_GENERATED_H

#include <stddef.h>
#include <stdint.h>
#include "kernels/toy_types.h"

#if defined(__clang__)
#pragma clang diagnostic push /* conditions that are never true, as where padding is padded */
#pragma clang diagnostic ignored "-Wtautological-compare"
#endif

static void generated_count(const int8_t *x, int64_t *y) {
    *y = 0;
    for (int32_t i = 0; i < 5; ++i) {
        *y += toy_clamp(x[i]);
    }
}

#if defined(__clang__)
#pragma clang diagnostic pop
#endif

#endif
