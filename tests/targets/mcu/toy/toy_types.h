/* What the toy kernels share; included by them and never by a generated file. */
#ifndef TOY_TYPES_H
#define TOY_TYPES_H

#include <stdint.h>

#define TOY_INLINE static inline __attribute__((always_inline, unused))

TOY_INLINE int8_t toy_clamp(int32_t value) {
    return (int8_t)(value < -128 ? -128 : value > 127 ? 127 : value);
}

#endif
