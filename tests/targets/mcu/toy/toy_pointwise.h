/* Element by element, lowest address first: the output may lie over or under its inputs. */
#ifndef TOY_POINTWISE_H
#define TOY_POINTWISE_H

#include "toy_types.h"

TOY_INLINE void toy_add(const int8_t *a, const int8_t *b, int8_t *y, int32_t count, int32_t offset) {
    for (int32_t i = 0; i < count; ++i) {
        y[i] = toy_clamp((int32_t)a[i] + (int32_t)b[i] + offset);
    }
}

TOY_INLINE void toy_scale(const int8_t *x, float *y, int32_t count, float factor) {
    for (int32_t i = count - 1; i >= 0; --i) {
        y[i] = (float)x[i] * factor;
    }
}

#endif
