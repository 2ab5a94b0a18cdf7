/* y[o] = clamp((sum_i x[i] * w[o][i] + bias[o]) >> shift), through scratch memory. */
#ifndef TOY_DENSE_H
#define TOY_DENSE_H

#include "toy_types.h"

TOY_INLINE void toy_dense(const int8_t *x, int8_t *y, const int8_t *w, const int32_t *bias,
                          void *scratch, int32_t inputs, int32_t outputs, int32_t shift) {
    int32_t *sums = (int32_t *)scratch;
    for (int32_t o = 0; o < outputs; ++o) {
        sums[o] = bias[o];
        for (int32_t i = 0; i < inputs; ++i) {
            sums[o] += x[i] * w[o * inputs + i];
        }
    }
    for (int32_t o = 0; o < outputs; ++o) {
        y[o] = toy_clamp(sums[o] >> shift);
    }
}

#endif
