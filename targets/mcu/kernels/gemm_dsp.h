/* Inner products on cores with SMLAD: output channels in pairs, depth in quads.
 *
 * SMLAD multiplies two 16-bit halves with two others and adds both products to a sum. Its operands
 * have to be widened from bytes, so:
 *
 * Activations are widened once for all output channels. A quad of bytes k0 k1 k2 k3 becomes two
 * words with one SXTB16 each, and three pixels lie side by side so that one LDM brings all three:
 *
 *     acts     p0:(k2|k0) p1:(k2|k0) p2:(k2|k0)  p0:(k3|k1) p1:(k3|k1) p2:(k3|k1)  next quad ...
 *
 * Weights take one byte each, and a half of a word holds two channels of the same k:
 *
 *     word     ( 256 u + l of k2 | 256 u + l of k0 )  ( .. k3 | .. k1 )  next quad ...
 *
 * with u of the upper channel c+1 and l of the lower channel c. SMLAD with the word as it is adds
 * up raw = 256 upper + lower; one SXTB16 turns the word into the pair of l, and SMLAD with that
 * adds up lower. In the end 256 upper = raw - lower, exact where |upper| < 2^23, which the compiler
 * has checked (biases included). Two channels for one unpacking; the 256 goes away for free in the
 * shift of the final SSAT.
 *
 * table    four words a pair of channels: the sums' start 256 bu + bl, bl; multipliers mu, ml
 *
 * Where accumulators are to be shifted (1 <= shift <= 8), their eight spare bits hold the fractions
 * that the bias then has: with b' = b << (8 - shift) and m' = m << shift, which is below 2^31,
 *
 *     (((acc << shift) + b) m) >> 32  =  (((256 acc + b') m') >> 32) >> 8
 *
 * The upper sum starts from b' and is as cheap as before; 256 lower + b' is one more instruction.
 *
 * table    four words a pair of channels: b'u; b'l, m'u, m'l
 *
 * With an odd number of channels the last pair repeats the last but one channel; a single channel
 * is its own partner.
 *
 * The loops are assembly because they need every register of the core, which compilers will not
 * give: gcc and clang both spill. Each has a portable twin for the tests.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FB_GEMM_DSP_H
#define FB_GEMM_DSP_H

#include "requantize.h"

#define FB_PAIRS_PIXELS 3

/* What a run of channel pairs needs. The assembly knows the order of the fields. */
typedef struct {
    const int32_t *table;
    int8_t *output;
    int32_t pitch;    /* bytes from one pixel's outputs to the next pixel's */
    int8_t *end;      /* where `output` is after the last pair */
    const void *acts; /* widened for 3 pixels or 1 */
    int32_t quads;    /* at least 1 */
    const void *weights;
} fb_pairs_job;

#if FB_DSP

/* r0 acts, r1 weights, r2-r4 raw and r5-r7 lower sums of three pixels, r8-r9 weights,
 * r10 r11 lr activations, r12 quads left. 17 instructions for 24 products. */
#define FB_PAIRS_THREE(weight)    \
    "ldm r0!, {r10, r11, lr}\n"   \
    "smlad r2, " weight ", r10, r2\n" \
    "smlad r3, " weight ", r11, r3\n" \
    "smlad r4, " weight ", lr, r4\n"  \
    "sxtb16 " weight ", " weight "\n" \
    "smlad r5, " weight ", r10, r5\n" \
    "smlad r6, " weight ", r11, r6\n" \
    "smlad r7, " weight ", lr, r7\n"
#define FB_PAIRS_QUAD_THREE "ldrd r8, r9, [r1], #8\n" FB_PAIRS_THREE("r8") FB_PAIRS_THREE("r9")

/* Start values of the sums, at r8: raw in r2, lower in r5. */
#define FB_PAIRS_START_THREE "ldrd r2, r5, [r8], #8\n"
#define FB_PAIRS_START_THREE_SHIFTED \
    "ldr r2, [r8], #4\n"             \
    "movs r5, #0\n"
/* From sums to results, at r8: upper multiplier in r12, lower in lr; before them a bias in r0. */
#define FB_PAIRS_SCALE_THREE  \
    "ldrd r12, lr, [r8], #8\n" \
    "sub r2, r2, r5\n"        \
    "sub r3, r3, r6\n"        \
    "sub r4, r4, r7\n"        \
    "smmul r6, r6, lr\n"      \
    "smmul r7, r7, lr\n"      \
    "smmul r5, r5, lr\n"      \
    "ssat r6, #8, r6\n"       \
    "ssat r7, #8, r7\n"       \
    "ssat r5, #8, r5\n"
#define FB_PAIRS_SCALE_THREE_SHIFTED \
    "ldm r8!, {r0, r12, lr}\n"       \
    "sub r2, r2, r5\n"               \
    "sub r3, r3, r6\n"               \
    "sub r4, r4, r7\n"               \
    "add r5, r0, r5, lsl #8\n"       \
    "add r6, r0, r6, lsl #8\n"       \
    "add r7, r0, r7, lsl #8\n"       \
    "smmul r6, r6, lr\n"             \
    "smmul r7, r7, lr\n"             \
    "smmul r5, r5, lr\n"             \
    "ssat r6, #8, r6, asr #8\n"      \
    "ssat r7, #8, r7, asr #8\n"      \
    "ssat r5, #8, r5, asr #8\n"

/* Three pixels. Stack: table, output, pitch, end, acts, quads. */
#define FB_PAIRS_THREE_FUNCTION(start, scale) \
    "push {r4-r11, lr}\n"                     \
    "ldm r0, {r1-r7}\n"                       \
    "push {r1-r6}\n"                          \
    "mov r8, r1\n"                            \
    "mov r9, r2\n"                            \
    "mov r1, r7\n"                            \
    "1:\n"                                    \
    start                                     \
    "strd r8, r9, [sp]\n"                     \
    "ldrd r0, r12, [sp, #16]\n"               \
    "mov r3, r2\n"                            \
    "mov r4, r2\n"                            \
    "mov r6, r5\n"                            \
    "mov r7, r5\n"                            \
    "subs r12, r12, #4\n"                     \
    "blt 3f\n"                                \
    "2:\n"                                    \
    FB_PAIRS_QUAD_THREE                       \
    FB_PAIRS_QUAD_THREE                       \
    FB_PAIRS_QUAD_THREE                       \
    FB_PAIRS_QUAD_THREE                       \
    "subs r12, r12, #4\n"                     \
    "bge 2b\n"                                \
    "3:\n"                                    \
    "adds r12, r12, #4\n"                     \
    "beq 5f\n"                                \
    "4:\n"                                    \
    FB_PAIRS_QUAD_THREE                       \
    "subs r12, r12, #1\n"                     \
    "bne 4b\n"                                \
    "5:\n"                                    \
    "ldrd r8, r9, [sp]\n"                     \
    "ldrd r10, r11, [sp, #8]\n"               \
    scale                                     \
    "strb r6, [r9, r10]\n"                    \
    "strb r7, [r9, r10, lsl #1]\n"            \
    "strb r5, [r9], #1\n"                     \
    "smmul r3, r3, r12\n"                     \
    "smmul r4, r4, r12\n"                     \
    "smmul r2, r2, r12\n"                     \
    "ssat r3, #8, r3, asr #8\n"               \
    "ssat r4, #8, r4, asr #8\n"               \
    "ssat r2, #8, r2, asr #8\n"               \
    "strb r3, [r9, r10]\n"                    \
    "strb r4, [r9, r10, lsl #1]\n"            \
    "strb r2, [r9], #1\n"                     \
    "cmp r9, r11\n"                           \
    "bne 1b\n"                                \
    "add sp, sp, #24\n"                       \
    "pop {r4-r11, pc}\n"

FB_NAKED void fb_pairs_three(const fb_pairs_job *job __attribute__((unused))) {
    FB_ASM volatile(FB_PAIRS_THREE_FUNCTION(FB_PAIRS_START_THREE, FB_PAIRS_SCALE_THREE));
}

FB_NAKED void fb_pairs_three_shifted(const fb_pairs_job *job __attribute__((unused))) {
    FB_ASM volatile(
        FB_PAIRS_THREE_FUNCTION(FB_PAIRS_START_THREE_SHIFTED, FB_PAIRS_SCALE_THREE_SHIFTED));
}

/* r0 acts, r1 weights, r2 raw and r3 lower sum, r4-r5 weights, r6-r7 activations, r12 quads. */
#define FB_PAIRS_QUAD_ONE     \
    "ldrd r4, r5, [r1], #8\n" \
    "ldrd r6, r7, [r0], #8\n" \
    "smlad r2, r4, r6, r2\n"  \
    "sxtb16 r4, r4\n"         \
    "smlad r3, r4, r6, r3\n"  \
    "smlad r2, r5, r7, r2\n"  \
    "sxtb16 r5, r5\n"         \
    "smlad r3, r5, r7, r3\n"

#define FB_PAIRS_START_ONE "ldrd r2, r3, [r8], #8\n"
#define FB_PAIRS_START_ONE_SHIFTED \
    "ldr r2, [r8], #4\n"           \
    "movs r3, #0\n"
#define FB_PAIRS_SCALE_ONE   \
    "ldrd r4, r5, [r8], #8\n" \
    "sub r2, r2, r3\n"       \
    "smmul r3, r3, r5\n"     \
    "smmul r2, r2, r4\n"     \
    "ssat r3, #8, r3\n"
#define FB_PAIRS_SCALE_ONE_SHIFTED \
    "ldm r8!, {r4, r5, r6}\n"      \
    "sub r2, r2, r3\n"             \
    "add r3, r4, r3, lsl #8\n"     \
    "smmul r3, r3, r6\n"           \
    "smmul r2, r2, r5\n"           \
    "ssat r3, #8, r3, asr #8\n"

/* One pixel. r8 table, r9 output, r10 end. */
#define FB_PAIRS_ONE_FUNCTION(start, scale) \
    "push {r4-r11, lr}\n"                   \
    "ldrd r8, r9, [r0]\n"                   \
    "ldr r10, [r0, #12]\n"                  \
    "ldrd r11, lr, [r0, #16]\n"             \
    "ldr r1, [r0, #24]\n"                   \
    "1:\n"                                  \
    start                                   \
    "mov r0, r11\n"                         \
    "subs r12, lr, #4\n"                    \
    "blt 3f\n"                              \
    "2:\n"                                  \
    FB_PAIRS_QUAD_ONE                       \
    FB_PAIRS_QUAD_ONE                       \
    FB_PAIRS_QUAD_ONE                       \
    FB_PAIRS_QUAD_ONE                       \
    "subs r12, r12, #4\n"                   \
    "bge 2b\n"                              \
    "3:\n"                                  \
    "adds r12, r12, #4\n"                   \
    "beq 5f\n"                              \
    "4:\n"                                  \
    FB_PAIRS_QUAD_ONE                       \
    "subs r12, r12, #1\n"                   \
    "bne 4b\n"                              \
    "5:\n"                                  \
    scale                                   \
    "ssat r2, #8, r2, asr #8\n"             \
    "strb r3, [r9], #1\n"                   \
    "strb r2, [r9], #1\n"                   \
    "cmp r9, r10\n"                         \
    "bne 1b\n"                              \
    "pop {r4-r11, pc}\n"

FB_NAKED void fb_pairs_one(const fb_pairs_job *job __attribute__((unused))) {
    FB_ASM volatile(FB_PAIRS_ONE_FUNCTION(FB_PAIRS_START_ONE, FB_PAIRS_SCALE_ONE));
}

FB_NAKED void fb_pairs_one_shifted(const fb_pairs_job *job __attribute__((unused))) {
    FB_ASM volatile(FB_PAIRS_ONE_FUNCTION(FB_PAIRS_START_ONE_SHIFTED, FB_PAIRS_SCALE_ONE_SHIFTED));
}

/* Three runs of 4 * quads bytes to activations; returns where they end. Ten instructions a quad. */
FB_NAKED uint32_t *fb_pairs_widen_three(uint32_t *acts __attribute__((unused)),
                                        const int8_t *run0 __attribute__((unused)),
                                        const int8_t *run1 __attribute__((unused)),
                                        const int8_t *run2 __attribute__((unused)),
                                        int32_t quads __attribute__((unused))) {
#define FB_PAIRS_WIDEN_THREE  \
    "ldr r7, [r1], #4\n"      \
    "ldr r8, [r2], #4\n"      \
    "ldr r9, [r3], #4\n"      \
    "sxtb16 r4, r7\n"         \
    "sxtb16 r5, r8\n"         \
    "sxtb16 r6, r9\n"         \
    "sxtb16 r7, r7, ror #8\n" \
    "sxtb16 r8, r8, ror #8\n" \
    "sxtb16 r9, r9, ror #8\n" \
    "stm r0!, {r4-r9}\n"
    FB_ASM volatile(
        "ldr r12, [sp]\n"
        "push {r4-r9}\n"
        "subs r12, r12, #2\n"
        "blt 2f\n"
        "1:\n"
        FB_PAIRS_WIDEN_THREE
        FB_PAIRS_WIDEN_THREE
        "subs r12, r12, #2\n"
        "bge 1b\n"
        "2:\n"
        "tst r12, #1\n"
        "beq 3f\n"
        FB_PAIRS_WIDEN_THREE
        "3:\n"
        "pop {r4-r9}\n"
        "bx lr\n");
}

#else /* the same, portably */

FB_INLINE void fb_pairs_portable(const fb_pairs_job *job, int32_t pixels, int shifted) {
    const int32_t *table = job->table;
    const fb_word *weights = (const fb_word *)job->weights;
    for (int8_t *output = job->output; output != job->end; output += 2, table += 4) {
        for (int32_t p = 0; p < pixels; p++) {
            const uint32_t *x = (const uint32_t *)job->acts + p;
            int32_t raw = table[0], lower = shifted ? 0 : table[1];
            for (int32_t i = 0; i < 2 * job->quads; i++, x += pixels) {
                raw = fb_smlad(weights[i], *x, raw);
                lower = fb_smlad(fb_sxtb16(weights[i]), *x, lower);
            }
            raw = fb_sub(raw, lower);
            if (shifted) lower = fb_add(fb_shl(lower, 8), table[1]);
            lower = fb_mulh(lower, table[3]);
            output[p * job->pitch] = (int8_t)fb_saturate8(shifted ? fb_asr(lower, 8) : lower);
            output[p * job->pitch + 1] =
                (int8_t)fb_saturate8(fb_asr(fb_mulh(raw, table[2]), 8));
        }
        weights += 2 * job->quads;
    }
}

FB_NOINLINE void fb_pairs_three(const fb_pairs_job *job) { fb_pairs_portable(job, 3, 0); }
FB_NOINLINE void fb_pairs_three_shifted(const fb_pairs_job *job) { fb_pairs_portable(job, 3, 1); }
FB_NOINLINE void fb_pairs_one(const fb_pairs_job *job) { fb_pairs_portable(job, 1, 0); }
FB_NOINLINE void fb_pairs_one_shifted(const fb_pairs_job *job) { fb_pairs_portable(job, 1, 1); }

#endif

/* Channel pairs of 3 pixels or 1; `pixels` and `shift` are literals. */
FB_INLINE void fb_pairs_multiply(const fb_pairs_job *job, int32_t pixels, int32_t shift) {
    if (pixels == 3 && shift == 0)
        fb_pairs_three(job);
    else if (pixels == 3)
        fb_pairs_three_shifted(job);
    else if (shift == 0)
        fb_pairs_one(job);
    else
        fb_pairs_one_shifted(job);
}

/* One quad of each pixel to activations; `pixels` is a literal. */
FB_INLINE uint32_t *fb_pairs_widen(uint32_t *acts, const int8_t *const *runs, int32_t quads,
                                   int32_t pixels) {
#if FB_DSP
    if (pixels == 3 && quads > 4)
        return fb_pairs_widen_three(acts, runs[0], runs[1], runs[2], quads);
#endif
    for (int32_t i = 0; i < quads; i++) {
        _Pragma("GCC unroll 3") for (int32_t p = 0; p < pixels; p++) {
            const uint32_t word = fb_load32_unaligned(runs[p] + 4 * i);
            acts[p] = fb_sxtb16(word);
            acts[p + pixels] = fb_sxtb16_ror8(word);
        }
        acts += 2 * pixels;
    }
    return acts;
}

/* All the channels of a block of 3 pixels or 1; `pixels` and `shift` are literals. */
FB_INLINE void fb_pairs_block(const fb_pairs_job *job, int32_t channels, int32_t pixels,
                              int32_t shift, int32_t lo, int32_t hi) {
    fb_pairs_job part = *job;
    int8_t twice[2 * FB_PAIRS_PIXELS];
    if (channels == 1) {
        part.output = twice;
        part.pitch = 2;
    }
    part.end = part.output + (channels == 1 ? 2 : channels & ~1);
    fb_pairs_multiply(&part, pixels, shift);
    if (channels == 1) {
        for (int32_t p = 0; p < pixels; p++) job->output[p * job->pitch] = twice[2 * p];
    } else if (channels & 1) {
        part.table += 4 * (channels >> 1);
        part.weights = (const int8_t *)part.weights + 8 * part.quads * (channels >> 1);
        part.output += channels - 2;
        part.end = part.output + 2;
        fb_pairs_multiply(&part, pixels, shift);
    }
    if (lo > -128 || hi < 127) {
        for (int32_t p = 0; p < pixels; p++)
            fb_clamp_bytes(job->output + p * job->pitch, channels, lo, hi);
    }
}

#endif
