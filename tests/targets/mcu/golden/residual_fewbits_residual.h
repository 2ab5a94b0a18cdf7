/* residual: a neural network compiled by fewbits.
 *
 * residual_run() computes the outputs from the inputs. It needs an arena of
 * RESIDUAL_ARENA_BYTES bytes, aligned to RESIDUAL_ARENA_ALIGNMENT, whose contents before
 * and after do not matter. Nothing is kept between calls: several threads may run the
 * model at once, each with an arena of its own.
 *
 * Inputs and outputs may be separate arrays, or lie in the arena at the offsets given
 * below (RESIDUAL_INPUT_IN(arena)), which saves their memory; an input in the
 * arena does not survive the call. Pointers are aligned like int32_t (int64_t data like
 * int64_t).
 */
#ifndef FEWBITS_RESIDUAL_H
#define FEWBITS_RESIDUAL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RESIDUAL_ARENA_BYTES 48
#define RESIDUAL_ARENA_ALIGNMENT 8

/* input "input": int8 [3, 4] */
#define RESIDUAL_INPUT_NAME "input"
#define RESIDUAL_INPUT_ELEMENTS 12
#define RESIDUAL_INPUT_RANK 2
#define RESIDUAL_INPUT_DIM_0 3
#define RESIDUAL_INPUT_DIM_1 4
#define RESIDUAL_INPUT_OFFSET 32
#define RESIDUAL_INPUT_IN(arena) ((int8_t *)(void *)((uint8_t *)(arena) + RESIDUAL_INPUT_OFFSET))
#define RESIDUAL_INPUT_SCALE 0.125f /* real = (code - zero point) * scale */
#define RESIDUAL_INPUT_ZERO_POINT (-3)

/* output "add": int8 [8] */
#define RESIDUAL_OUTPUT_NAME "add"
#define RESIDUAL_OUTPUT_ELEMENTS 8
#define RESIDUAL_OUTPUT_RANK 1
#define RESIDUAL_OUTPUT_DIM_0 8
#define RESIDUAL_OUTPUT_OFFSET 0
#define RESIDUAL_OUTPUT_IN(arena) ((int8_t *)(void *)((uint8_t *)(arena) + RESIDUAL_OUTPUT_OFFSET))
#define RESIDUAL_OUTPUT_SCALE 0.125f /* real = (code - zero point) * scale */
#define RESIDUAL_OUTPUT_ZERO_POINT (-3)

/* What the function returns. */
#define RESIDUAL_OK 0
#define RESIDUAL_ERROR_NULL (-1)      /* a pointer is NULL */
#define RESIDUAL_ERROR_ALIGNMENT (-2) /* a pointer is not aligned */

int residual_run(const int8_t *in, int8_t *out, void *arena);

#ifdef __cplusplus
}
#endif

#endif
