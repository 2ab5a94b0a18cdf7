/* Self-test: runs the model on the golden samples and compares every output.
 *
 * Returns 0 when all is well, the number of wrong samples, or 255 when the model refuses to run.
 * Inputs and outputs lie in the arena, as on a device without memory to spare.
 */
#include <stddef.h>
#include <stdint.h>

#include "fewbits_residual.h"
#include "golden.h"

static uint8_t arena[RESIDUAL_ARENA_BYTES]
    __attribute__((aligned(RESIDUAL_ARENA_ALIGNMENT)));

static int run(void)
{
    return residual_run(
        RESIDUAL_INPUT_IN(arena),
        RESIDUAL_OUTPUT_IN(arena),
        arena);
}

static int sample_is_wrong(size_t sample)
{
    {
        const int8_t *expected =
            residual_golden_output + sample * RESIDUAL_OUTPUT_ELEMENTS;
        const int8_t *got = RESIDUAL_OUTPUT_IN(arena);
        for (size_t i = 0; i < RESIDUAL_OUTPUT_ELEMENTS; ++i) {
            if (got[i] != expected[i]) {
                return 1;
            }
        }
    }
    return 0;
}

int main(void)
{
    int wrong = 0;
    for (size_t sample = 0; sample < RESIDUAL_GOLDEN_COUNT; ++sample) {
        for (size_t i = 0; i < RESIDUAL_INPUT_ELEMENTS; ++i) {
            RESIDUAL_INPUT_IN(arena)[i] =
                residual_golden_input[sample * RESIDUAL_INPUT_ELEMENTS + i];
        }
        if (run() != RESIDUAL_OK) {
            return 255;
        }
        wrong += sample_is_wrong(sample);
    }
    return wrong < 254 ? wrong : 254;
}
