/* A fully connected layer on one row, on cores with SMLAD.
 *
 * The row is used once per output channel but lies in memory as bytes, and there may be no memory
 * to widen it into. So four channel pairs (see gemm_dsp.h) share the widening of a quad on the fly:
 *
 *     weights   channels 0-7   quad 0: pair 0, pair 1, pair 2, pair 3   quad 1: ...
 *               channels 8-15 ...
 *               then what is left, pair by pair: quad 0, quad 1, ...
 *     table     four pairs: their four sums' starts (raw, lower), then their four multipliers
 *               (upper, lower); what is left as in gemm_dsp.h. With shifted accumulators four
 *               starts (upper), then four times the lower start and the multipliers
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FB_DENSE_DSP_H
#define FB_DENSE_DSP_H

#include "gemm_dsp.h"

/* The assembly knows the order of the fields. */
typedef struct {
    const int32_t *table;
    int8_t *output;
    const int8_t *end;      /* where `output` is in the end */
    const int8_t *input;
    const int8_t *main_end; /* after the last whole four quads */
    const int8_t *quad_end; /* after the last whole quad */
    uint32_t tail;          /* the bytes behind it */
    int32_t has_tail;
    const void *weights;
} fb_dense_job;

#if FB_DSP

/* One quad (r10) and one pair. 7 instructions for 8 products. */
#define FB_DENSE_PAIR(raw, lower)            \
    "ldrd r12, lr, [r1], #8\n"               \
    "smlad " raw ", r12, r10, " raw "\n"     \
    "smlad " raw ", lr, r11, " raw "\n"      \
    "sxtb16 r12, r12\n"                      \
    "sxtb16 lr, lr\n"                        \
    "smlad " lower ", r12, r10, " lower "\n" \
    "smlad " lower ", lr, r11, " lower "\n"
#define FB_DENSE_WIDEN        \
    "sxtb16 r11, r10, ror #8\n" \
    "sxtb16 r10, r10\n"
#define FB_DENSE_FOUR                                                                     \
    FB_DENSE_WIDEN FB_DENSE_PAIR("r2", "r6") FB_DENSE_PAIR("r3", "r7")                    \
        FB_DENSE_PAIR("r4", "r8") FB_DENSE_PAIR("r5", "r9")
#define FB_DENSE_ONE FB_DENSE_WIDEN FB_DENSE_PAIR("r2", "r6")
#define FB_DENSE_LOAD "ldr r10, [r0], #4\n"
#define FB_DENSE_STORE(raw, lower)           \
    "ldrd r12, lr, [r10], #8\n"              \
    "sub " raw ", " raw ", " lower "\n"      \
    "smmul " lower ", " lower ", lr\n"       \
    "smmul " raw ", " raw ", r12\n"          \
    "ssat " lower ", #8, " lower "\n"        \
    "ssat " raw ", #8, " raw ", asr #8\n"    \
    "strb " lower ", [r11], #1\n"            \
    "strb " raw ", [r11], #1\n"
#define FB_DENSE_STORE_SHIFTED(raw, lower)       \
    "ldm r10!, {r0, r12, lr}\n"                  \
    "sub " raw ", " raw ", " lower "\n"          \
    "add " lower ", r0, " lower ", lsl #8\n"     \
    "smmul " lower ", " lower ", lr\n"           \
    "smmul " raw ", " raw ", r12\n"              \
    "ssat " lower ", #8, " lower ", asr #8\n"    \
    "ssat " raw ", #8, " raw ", asr #8\n"        \
    "strb " lower ", [r11], #1\n"                \
    "strb " raw ", [r11], #1\n"

/* r0 input, r1 weights, r2-r5 raw and r6-r9 lower sums, r10 and r11 activations, r12 and lr weights
 * and whatever else; stack: the job's fields but the last. */
#define FB_DENSE_FUNCTION(starts, step, stores) \
    "push {r4-r11, lr}\n"                       \
    "ldm r0, {r1-r9}\n"                         \
    "push {r1-r8}\n"                            \
    "mov r1, r9\n"                              \
    "1:\n"                                      \
    "ldr r12, [sp]\n"                           \
    starts                                      \
    "str r12, [sp]\n"                           \
    "ldrd r0, lr, [sp, #12]\n"                  \
    "cmp r0, lr\n"                              \
    "beq 3f\n"                                  \
    "2:\n"                                      \
    FB_DENSE_LOAD step                          \
    FB_DENSE_LOAD step                          \
    FB_DENSE_LOAD step                          \
    FB_DENSE_LOAD step                          \
    "ldr r12, [sp, #16]\n"                      \
    "cmp r0, r12\n"                             \
    "bne 2b\n"                                  \
    "3:\n"                                      \
    "ldr r12, [sp, #20]\n"                      \
    "cmp r0, r12\n"                             \
    "beq 4f\n"                                  \
    FB_DENSE_LOAD step                          \
    "b 3b\n"                                    \
    "4:\n"                                      \
    "ldrd r10, r12, [sp, #24]\n"                \
    "cmp r12, #0\n"                             \
    "beq 5f\n"                                  \
    step                                        \
    "5:\n"                                      \
    "ldrd r10, r11, [sp]\n"                     \
    stores                                      \
    "strd r10, r11, [sp]\n"                     \
    "ldr r12, [sp, #8]\n"                       \
    "cmp r11, r12\n"                            \
    "bne 1b\n"                                  \
    "add sp, sp, #32\n"                         \
    "pop {r4-r11, pc}\n"

FB_NAKED void fb_dense_four_pairs(const fb_dense_job *job __attribute__((unused))) {
    FB_ASM volatile(FB_DENSE_FUNCTION(
        "ldrd r2, r6, [r12], #8\n ldrd r3, r7, [r12], #8\n"
        "ldrd r4, r8, [r12], #8\n ldrd r5, r9, [r12], #8\n",
        FB_DENSE_FOUR,
        FB_DENSE_STORE("r2", "r6") FB_DENSE_STORE("r3", "r7") FB_DENSE_STORE("r4", "r8")
            FB_DENSE_STORE("r5", "r9")));
}

FB_NAKED void fb_dense_four_pairs_shifted(const fb_dense_job *job __attribute__((unused))) {
    FB_ASM volatile(FB_DENSE_FUNCTION(
        "ldm r12!, {r2-r5}\n"
        "movs r6, #0\n movs r7, #0\n mov r8, r6\n mov r9, r6\n",
        FB_DENSE_FOUR,
        FB_DENSE_STORE_SHIFTED("r2", "r6") FB_DENSE_STORE_SHIFTED("r3", "r7")
            FB_DENSE_STORE_SHIFTED("r4", "r8") FB_DENSE_STORE_SHIFTED("r5", "r9")));
}

FB_NAKED void fb_dense_one_pair(const fb_dense_job *job __attribute__((unused))) {
    FB_ASM volatile(FB_DENSE_FUNCTION("ldrd r2, r6, [r12], #8\n", FB_DENSE_ONE,
                                      FB_DENSE_STORE("r2", "r6")));
}

FB_NAKED void fb_dense_one_pair_shifted(const fb_dense_job *job __attribute__((unused))) {
    FB_ASM volatile(FB_DENSE_FUNCTION("ldr r2, [r12], #4\n movs r6, #0\n", FB_DENSE_ONE,
                                      FB_DENSE_STORE_SHIFTED("r2", "r6")));
}

#else /* the same, portably */

FB_INLINE void fb_dense_portable(const fb_dense_job *job, int32_t pairs, int shifted) {
    const int32_t *table = job->table;
    const fb_word *weights = (const fb_word *)job->weights;
    for (int8_t *output = job->output; output != job->end; output += 2 * pairs) {
        int32_t raw[4], lower[4];
        for (int32_t i = 0; i < pairs; i++) {
            raw[i] = *table++;
            lower[i] = shifted ? 0 : *table++;
        }
        for (const int8_t *x = job->input;; x += 4) {
            if (x == job->quad_end && !job->has_tail) break;
            const uint32_t quad = x == job->quad_end ? job->tail : fb_load32_unaligned(x);
            const uint32_t even = fb_sxtb16(quad), odd = fb_sxtb16_ror8(quad);
            for (int32_t i = 0; i < pairs; i++, weights += 2) {
                raw[i] = fb_smlad(weights[1], odd, fb_smlad(weights[0], even, raw[i]));
                lower[i] = fb_smlad(fb_sxtb16(weights[1]), odd,
                                    fb_smlad(fb_sxtb16(weights[0]), even, lower[i]));
            }
            if (x == job->quad_end) break;
        }
        for (int32_t i = 0; i < pairs; i++, table += 2) {
            const int32_t upper = fb_sub(raw[i], lower[i]);
            if (shifted) lower[i] = fb_add(fb_shl(lower[i], 8), *table++);
            lower[i] = fb_asr(fb_mulh(lower[i], table[1]), shifted ? 8 : 0);
            output[2 * i] = (int8_t)fb_saturate8(lower[i]);
            output[2 * i + 1] = (int8_t)fb_saturate8(fb_asr(fb_mulh(upper, table[0]), 8));
        }
    }
}

FB_NOINLINE void fb_dense_four_pairs(const fb_dense_job *job) { fb_dense_portable(job, 4, 0); }
FB_NOINLINE void fb_dense_four_pairs_shifted(const fb_dense_job *job) {
    fb_dense_portable(job, 4, 1);
}
FB_NOINLINE void fb_dense_one_pair(const fb_dense_job *job) { fb_dense_portable(job, 1, 0); }
FB_NOINLINE void fb_dense_one_pair_shifted(const fb_dense_job *job) {
    fb_dense_portable(job, 1, 1);
}

#endif

FB_INLINE void fb_dense_multiply(const fb_dense_job *job, int32_t pairs, int32_t shift) {
    if (pairs == 4 && shift == 0)
        fb_dense_four_pairs(job);
    else if (pairs == 4)
        fb_dense_four_pairs_shifted(job);
    else if (shift == 0)
        fb_dense_one_pair(job);
    else
        fb_dense_one_pair_shifted(job);
}

/* weights and table as above. */
FB_INLINE void fb_dense_pairs(const int8_t *input, int8_t *output, const int16_t *weights,
                              const int32_t *table, int32_t rows, int32_t depth, int32_t channels,
                              int32_t shift, int32_t lo, int32_t hi) {
    const int32_t quads = (depth + 3) / 4, pairs = channels / 2;
    const int32_t together = pairs / 4 * 4; /* pairs that go four by four */
    for (int32_t row = 0; row < rows; row++, input += depth, output += channels) {
        fb_dense_job job = {table, output, output + 2 * together, input, input + depth / 16 * 16,
                            input + depth / 4 * 4, 0, depth % 4, weights};
        for (int32_t k = depth % 4; k > 0; k--)
            job.tail = job.tail << 8 | (uint8_t)job.quad_end[k - 1];
        if (together > 0) fb_dense_multiply(&job, 4, shift);
        if (pairs > together) {
            job.table = table + 4 * together;
            job.weights = weights + 4 * quads * together;
            job.output = output + 2 * together;
            job.end = output + 2 * pairs;
            fb_dense_multiply(&job, 1, shift);
        }
        if (channels == 1) {
            int8_t twice[2];
            job.output = twice;
            job.end = twice + 2;
            fb_dense_multiply(&job, 1, shift);
            *output = twice[0];
        } else if (channels % 2) {
            job.table = table + 4 * pairs;
            job.weights = weights + 4 * quads * pairs;
            job.output = output + channels - 2;
            job.end = output + channels;
            fb_dense_multiply(&job, 1, shift);
        }
        if (lo > -128 || hi < 127) fb_clamp_bytes(output, channels, lo, hi);
    }
}

#endif
