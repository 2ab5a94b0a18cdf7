/* The inner products of gemm.h in Armv7-M assembly.
 *
 * Eight sums, two activations, a weight and three pointers fill the registers; compilers spill.
 * Sums start from the bias, or from zero where they are shifted before the bias is added.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FB_GEMM_ARMV7M_H
#define FB_GEMM_ARMV7M_H

#include "isa.h"

#if FB_ARMV7M

#define FB_V7M_MAC(weight, sum0, sum1)    \
    "ldrsb r12, [r1, #" weight "]\n"      \
    "mla " sum0 ", r12, r10, " sum0 "\n"  \
    "mla " sum1 ", r12, r11, " sum1 "\n"
/* One k of two pixels and four channels: 14 instructions for 8 products. */
#define FB_V7M_STEP(x0, x1, w0, w1, w2, w3) \
    "ldrsb r10, [r0, #" x0 "]\n"            \
    "ldrsb r11, [r0, #" x1 "]\n"            \
    FB_V7M_MAC(w0, "r2", "r6")              \
    FB_V7M_MAC(w1, "r3", "r7")              \
    FB_V7M_MAC(w2, "r4", "r8")              \
    FB_V7M_MAC(w3, "r5", "r9")
/* Start values of the sums; r12 table. */
#define FB_V7M_BIAS               \
    "ldr r2, [r12]\n"             \
    "ldr r3, [r12, #8]\n"         \
    "ldr r4, [r12, #16]\n"        \
    "ldr r5, [r12, #24]\n"
#define FB_V7M_ZERO               \
    "movs r2, #0\n"               \
    "movs r3, #0\n"               \
    "movs r4, #0\n"               \
    "movs r5, #0\n"
/* One channel of both pixels, saturated to [-128, 127]. r0 and lr outputs, r12 table. */
#define FB_V7M_STORE(channel, bias, multiplier, sum0, sum1) \
    "ldr r11, [r12, #" multiplier "]\n"           \
    "smull r10, " sum0 ", " sum0 ", r11\n"        \
    "smull r10, " sum1 ", " sum1 ", r11\n"        \
    "ssat " sum0 ", #8, " sum0 "\n"               \
    "ssat " sum1 ", #8, " sum1 "\n"               \
    "strb " sum0 ", [r0, #" channel "]\n"         \
    "strb " sum1 ", [lr, #" channel "]\n"
/* The same with r1 the shift. */
#define FB_V7M_STORE_SHIFTED(channel, bias, multiplier, sum0, sum1) \
    "ldr r10, [r12, #" bias "]\n"                 \
    "lsls " sum0 ", " sum0 ", r1\n"               \
    "lsls " sum1 ", " sum1 ", r1\n"               \
    "adds " sum0 ", " sum0 ", r10\n"              \
    "adds " sum1 ", " sum1 ", r10\n"              \
    FB_V7M_STORE(channel, bias, multiplier, sum0, sum1)
#define FB_V7M_LEAVE_AFTER(count) \
    "ldr r10, [sp, #8]\n"         \
    "cmp r10, #" count "\n"       \
    "beq 6f\n"

/* r0 gemm, r1 acts, r2 output. In the loop r0 acts, r1 weights, r2-r5 and r6-r9 the pixels' sums,
 * r10 and r11 activations, r12 weight, lr end. Stack: 0 output, 4 table, 8 channels left, 12 pitch,
 * 16 shift, 20 acts, 24 their end, 28 their end less the last depth % 4, 32 weights while r1 is the
 * shift. */
#define FB_V7M_TWO_FUNCTION(start, prepare, store, recover) \
    "push {r4-r11, lr}\n"                         \
    "ldr r3, [r0, #4]\n"                          \
    "ldrd r4, r5, [r0, #12]\n"                    \
    "ldr r6, [r0, #20]\n"                         \
    "ldr r8, [r0, #8]\n"                          \
    "ldr r0, [r0]\n"                              \
    "bic r9, r8, #3\n"                            \
    "add r9, r1, r9, lsl #1\n"                    \
    "add r8, r1, r8, lsl #1\n"                    \
    "mov r7, r1\n"                                \
    "push {r2-r10}\n"                             \
    "mov r1, r0\n"                                \
    "1:\n"                                        \
    "ldr r12, [sp, #4]\n"                         \
    start                                         \
    "mov r6, r2\n"                                \
    "mov r7, r3\n"                                \
    "mov r8, r4\n"                                \
    "mov r9, r5\n"                                \
    "ldr r0, [sp, #20]\n"                         \
    "ldr lr, [sp, #28]\n"                         \
    "cmp r0, lr\n"                                \
    "beq 3f\n"                                    \
    "2:\n"                                        \
    FB_V7M_STEP("0", "1", "0", "1", "2", "3")     \
    FB_V7M_STEP("2", "3", "4", "5", "6", "7")     \
    FB_V7M_STEP("4", "5", "8", "9", "10", "11")   \
    FB_V7M_STEP("6", "7", "12", "13", "14", "15") \
    "adds r0, r0, #8\n"                           \
    "adds r1, r1, #16\n"                          \
    "cmp r0, lr\n"                                \
    "bne 2b\n"                                    \
    "3:\n"                                        \
    "ldr lr, [sp, #24]\n"                         \
    "4:\n"                                        \
    "cmp r0, lr\n"                                \
    "beq 5f\n"                                    \
    FB_V7M_STEP("0", "1", "0", "1", "2", "3")     \
    "adds r0, r0, #2\n"                           \
    "adds r1, r1, #4\n"                           \
    "b 4b\n"                                      \
    "5:\n"                                        \
    "ldrd r0, r12, [sp]\n"                        \
    "ldr lr, [sp, #12]\n"                         \
    "add lr, lr, r0\n"                            \
    prepare                                       \
    store("0", "0", "4", "r2", "r6")              \
    FB_V7M_LEAVE_AFTER("1")                       \
    store("1", "8", "12", "r3", "r7")             \
    FB_V7M_LEAVE_AFTER("2")                       \
    store("2", "16", "20", "r4", "r8")            \
    FB_V7M_LEAVE_AFTER("3")                       \
    store("3", "24", "28", "r5", "r9")            \
    recover                                       \
    "adds r0, r0, #4\n"                           \
    "adds r12, r12, #32\n"                        \
    "strd r0, r12, [sp]\n"                        \
    "ldr r10, [sp, #8]\n"                         \
    "subs r10, r10, #4\n"                         \
    "str r10, [sp, #8]\n"                         \
    "bne 1b\n"                                    \
    "6:\n"                                        \
    "add sp, sp, #36\n"                           \
    "pop {r4-r11, pc}\n"

FB_NAKED void fb_quads_two_armv7m(const void *gemm __attribute__((unused)),
                                  const int8_t *acts __attribute__((unused)),
                                  int8_t *output __attribute__((unused))) {
    FB_ASM volatile(FB_V7M_TWO_FUNCTION(FB_V7M_BIAS, "", FB_V7M_STORE, ""));
}

FB_NAKED void fb_quads_two_armv7m_shifted(const void *gemm __attribute__((unused)),
                                          const int8_t *acts __attribute__((unused)),
                                          int8_t *output __attribute__((unused))) {
    FB_ASM volatile(FB_V7M_TWO_FUNCTION(FB_V7M_ZERO, "str r1, [sp, #32]\n ldr r1, [sp, #16]\n",
                                        FB_V7M_STORE_SHIFTED, "ldr r1, [sp, #32]\n"));
}

/* One k of one pixel and four channels. 9 instructions for 4 products. */
#define FB_V7M_STEP_ONE(x, w0, w1, w2, w3) \
    "ldrsb r10, [r0, #" x "]\n"            \
    "ldrsb r6, [r1, #" w0 "]\n"            \
    "ldrsb r7, [r1, #" w1 "]\n"            \
    "ldrsb r8, [r1, #" w2 "]\n"            \
    "ldrsb r9, [r1, #" w3 "]\n"            \
    "mla r2, r6, r10, r2\n"                \
    "mla r3, r7, r10, r3\n"                \
    "mla r4, r8, r10, r4\n"                \
    "mla r5, r9, r10, r5\n"
/* One channel, saturated to [-128, 127]. r6 output, r12 table. */
#define FB_V7M_STORE_ONE(bias, multiplier, sum) \
    "ldr r7, [r12, #" multiplier "]\n"          \
    "smull r8, " sum ", " sum ", r7\n"          \
    "ssat " sum ", #8, " sum "\n"               \
    "strb " sum ", [r6], #1\n"                  \
    "subs r11, r11, #1\n"                       \
    "beq 6f\n"
/* The same with r9 the shift. */
#define FB_V7M_STORE_ONE_SHIFTED(bias, multiplier, sum) \
    "ldr r7, [r12, #" bias "]\n"                        \
    "lsls " sum ", " sum ", r9\n"                       \
    "adds " sum ", " sum ", r7\n"                       \
    FB_V7M_STORE_ONE(bias, multiplier, sum)

/* One pixel. r0 acts, r1 weights, r2-r5 sums, r6-r9 weights, r10 activation, r11 channels left,
 * r12 table, lr end. Stack: 0 output, 4 acts, 8 their end less the last depth % 8, 12 their end,
 * 16 shift. */
#define FB_V7M_ONE_FUNCTION(start, prepare, store)           \
    "push {r4-r11, lr}\n"                                    \
    "ldrd r7, r12, [r0]\n"                                   \
    "ldrd r8, r11, [r0, #8]\n"                               \
    "ldr r6, [r0, #20]\n"                                    \
    "bic r4, r8, #7\n"                                       \
    "add r4, r4, r1\n"                                       \
    "add r5, r8, r1\n"                                       \
    "mov r3, r1\n"                                           \
    "mov r1, r7\n"                                           \
    "push {r2-r6}\n"                                         \
    "1:\n"                                                   \
    start                                                    \
    "ldrd r0, lr, [sp, #4]\n"                                \
    "cmp r0, lr\n"                                           \
    "beq 3f\n"                                               \
    "2:\n"                                                   \
    FB_V7M_STEP_ONE("0", "0", "1", "2", "3")                 \
    FB_V7M_STEP_ONE("1", "4", "5", "6", "7")                 \
    FB_V7M_STEP_ONE("2", "8", "9", "10", "11")               \
    FB_V7M_STEP_ONE("3", "12", "13", "14", "15")             \
    FB_V7M_STEP_ONE("4", "16", "17", "18", "19")             \
    FB_V7M_STEP_ONE("5", "20", "21", "22", "23")             \
    FB_V7M_STEP_ONE("6", "24", "25", "26", "27")             \
    FB_V7M_STEP_ONE("7", "28", "29", "30", "31")             \
    "adds r0, r0, #8\n"                                      \
    "adds r1, r1, #32\n"                                     \
    "cmp r0, lr\n"                                           \
    "bne 2b\n"                                               \
    "3:\n"                                                   \
    "ldr lr, [sp, #12]\n"                                    \
    "4:\n"                                                   \
    "cmp r0, lr\n"                                           \
    "beq 5f\n"                                               \
    FB_V7M_STEP_ONE("0", "0", "1", "2", "3")                 \
    "adds r0, r0, #1\n"                                      \
    "adds r1, r1, #4\n"                                      \
    "b 4b\n"                                                 \
    "5:\n"                                                   \
    "ldr r6, [sp]\n"                                         \
    prepare                                                  \
    store("0", "4", "r2")                                    \
    store("8", "12", "r3")                                   \
    store("16", "20", "r4")                                  \
    store("24", "28", "r5")                                  \
    "str r6, [sp]\n"                                         \
    "adds r12, r12, #32\n"                                   \
    "b 1b\n"                                                 \
    "6:\n"                                                   \
    "add sp, sp, #20\n"                                      \
    "pop {r4-r11, pc}\n"

FB_NAKED void fb_quads_one_armv7m(const void *gemm __attribute__((unused)),
                                  const int8_t *acts __attribute__((unused)),
                                  int8_t *output __attribute__((unused))) {
    FB_ASM volatile(FB_V7M_ONE_FUNCTION(FB_V7M_BIAS, "", FB_V7M_STORE_ONE));
}

FB_NAKED void fb_quads_one_armv7m_shifted(const void *gemm __attribute__((unused)),
                                          const int8_t *acts __attribute__((unused)),
                                          int8_t *output __attribute__((unused))) {
    FB_ASM volatile(
        FB_V7M_ONE_FUNCTION(FB_V7M_ZERO, "ldr r9, [sp, #16]\n", FB_V7M_STORE_ONE_SHIFTED));
}

#endif
#endif
