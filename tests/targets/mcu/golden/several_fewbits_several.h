/* several: a neural network compiled by fewbits.
 *
 * several_run() computes the outputs from the inputs. It needs an arena of
 * SEVERAL_ARENA_BYTES bytes, aligned to SEVERAL_ARENA_ALIGNMENT, whose contents before
 * and after do not matter. Nothing is kept between calls: several threads may run the
 * model at once, each with an arena of its own. Parts of it compute in floating point.
 *
 * Inputs and outputs may be separate arrays, or lie in the arena at the offsets given
 * below (SEVERAL_INPUT_0_IN(arena)), which saves their memory; an input in the
 * arena does not survive the call. Pointers are aligned like int32_t (int64_t data like
 * int64_t).
 */
#ifndef FEWBITS_SEVERAL_H
#define FEWBITS_SEVERAL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SEVERAL_ARENA_BYTES 33
#define SEVERAL_ARENA_ALIGNMENT 8

/* input "a": int8 [5] */
#define SEVERAL_INPUT_0_NAME "a"
#define SEVERAL_INPUT_0_ELEMENTS 5
#define SEVERAL_INPUT_0_RANK 1
#define SEVERAL_INPUT_0_DIM_0 5
#define SEVERAL_INPUT_0_OFFSET 0
#define SEVERAL_INPUT_0_IN(arena) ((int8_t *)(void *)((uint8_t *)(arena) + SEVERAL_INPUT_0_OFFSET))
#define SEVERAL_INPUT_0_SCALE 0.125f /* real = (code - zero point) * scale */
#define SEVERAL_INPUT_0_ZERO_POINT (-3)

/* input "b": int8 [5] */
#define SEVERAL_INPUT_1_NAME "b"
#define SEVERAL_INPUT_1_ELEMENTS 5
#define SEVERAL_INPUT_1_RANK 1
#define SEVERAL_INPUT_1_DIM_0 5
#define SEVERAL_INPUT_1_OFFSET 8
#define SEVERAL_INPUT_1_IN(arena) ((int8_t *)(void *)((uint8_t *)(arena) + SEVERAL_INPUT_1_OFFSET))

/* output "real": float32 [5] */
#define SEVERAL_OUTPUT_0_NAME "real"
#define SEVERAL_OUTPUT_0_ELEMENTS 5
#define SEVERAL_OUTPUT_0_RANK 1
#define SEVERAL_OUTPUT_0_DIM_0 5
#define SEVERAL_OUTPUT_0_OFFSET 8
#define SEVERAL_OUTPUT_0_IN(arena) ((float *)(void *)((uint8_t *)(arena) + SEVERAL_OUTPUT_0_OFFSET))

/* output "total": int8 [5] */
#define SEVERAL_OUTPUT_1_NAME "total"
#define SEVERAL_OUTPUT_1_ELEMENTS 5
#define SEVERAL_OUTPUT_1_RANK 1
#define SEVERAL_OUTPUT_1_DIM_0 5
#define SEVERAL_OUTPUT_1_OFFSET 28
#define SEVERAL_OUTPUT_1_IN(arena) ((int8_t *)(void *)((uint8_t *)(arena) + SEVERAL_OUTPUT_1_OFFSET))

/* output "count": int64 [] */
#define SEVERAL_OUTPUT_2_NAME "count"
#define SEVERAL_OUTPUT_2_ELEMENTS 1
#define SEVERAL_OUTPUT_2_RANK 0
#define SEVERAL_OUTPUT_2_OFFSET 0
#define SEVERAL_OUTPUT_2_IN(arena) ((int64_t *)(void *)((uint8_t *)(arena) + SEVERAL_OUTPUT_2_OFFSET))

/* What the function returns. */
#define SEVERAL_OK 0
#define SEVERAL_ERROR_NULL (-1)      /* a pointer is NULL */
#define SEVERAL_ERROR_ALIGNMENT (-2) /* a pointer is not aligned */

int several_run(
    const int8_t *in_a, const int8_t *in_b, float *out_real, int8_t *out_total, int64_t *out_count,
    void *arena);

#ifdef __cplusplus
}
#endif

#endif
