/* The inner product of gemm.h for two pixels in Armv7-M assembly, for shift = 0.
 *
 * Eight sums, two activations, a weight and three pointers fill the registers; compilers spill.
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
/* One channel of both pixels, saturated to [-128, 127]. r0 and lr outputs, r12 table. */
#define FB_V7M_STORE(channel, offset, sum0, sum1) \
    "ldr r11, [r12, #" offset "]\n"               \
    "smull r10, " sum0 ", " sum0 ", r11\n"        \
    "smull r10, " sum1 ", " sum1 ", r11\n"        \
    "ssat " sum0 ", #8, " sum0 "\n"               \
    "ssat " sum1 ", #8, " sum1 "\n"               \
    "strb " sum0 ", [r0, #" channel "]\n"         \
    "strb " sum1 ", [lr, #" channel "]\n"
#define FB_V7M_LEAVE_AFTER(count) \
    "ldr r10, [sp, #8]\n"         \
    "cmp r10, #" count "\n"       \
    "beq 6f\n"

/* r0 gemm, r1 acts, r2 output. In the loop r0 acts, r1 weights, r2-r5 and r6-r9 the pixels' sums,
 * r10 and r11 activations, r12 weight, lr end. Stack: 0 output, 4 table, 8 channels left, 12 pitch,
 * 16 acts, 20 their end, 24 their end less the last depth % 4. */
FB_NAKED void fb_quads_two_armv7m(const void *gemm __attribute__((unused)),
                                  const int8_t *acts __attribute__((unused)),
                                  int8_t *output __attribute__((unused))) {
    FB_ASM volatile(
        "push {r4-r11, lr}\n"
        "ldr r3, [r0, #4]\n"
        "ldrd r4, r5, [r0, #12]\n"
        "ldr r6, [r0, #8]\n"
        "ldr r7, [r0]\n"
        "mov r8, r1\n"
        "add r9, r1, r6, lsl #1\n"
        "bic r10, r6, #3\n"
        "add r10, r1, r10, lsl #1\n"
        "push {r2-r5, r8-r10}\n"
        "mov r1, r7\n"
        "1:\n"
        "ldr r12, [sp, #4]\n"
        "ldr r2, [r12]\n"
        "ldr r3, [r12, #8]\n"
        "ldr r4, [r12, #16]\n"
        "ldr r5, [r12, #24]\n"
        "mov r6, r2\n"
        "mov r7, r3\n"
        "mov r8, r4\n"
        "mov r9, r5\n"
        "ldr r0, [sp, #16]\n"
        "ldr lr, [sp, #24]\n"
        "cmp r0, lr\n"
        "beq 3f\n"
        "2:\n"
        FB_V7M_STEP("0", "1", "0", "1", "2", "3")
        FB_V7M_STEP("2", "3", "4", "5", "6", "7")
        FB_V7M_STEP("4", "5", "8", "9", "10", "11")
        FB_V7M_STEP("6", "7", "12", "13", "14", "15")
        "adds r0, r0, #8\n"
        "adds r1, r1, #16\n"
        "cmp r0, lr\n"
        "bne 2b\n"
        "3:\n"
        "ldr lr, [sp, #20]\n"
        "4:\n"
        "cmp r0, lr\n"
        "beq 5f\n"
        FB_V7M_STEP("0", "1", "0", "1", "2", "3")
        "adds r0, r0, #2\n"
        "adds r1, r1, #4\n"
        "b 4b\n"
        "5:\n"
        "ldrd r0, r12, [sp]\n"
        "ldr lr, [sp, #12]\n"
        "add lr, lr, r0\n"
        FB_V7M_STORE("0", "4", "r2", "r6")
        FB_V7M_LEAVE_AFTER("1")
        FB_V7M_STORE("1", "12", "r3", "r7")
        FB_V7M_LEAVE_AFTER("2")
        FB_V7M_STORE("2", "20", "r4", "r8")
        FB_V7M_LEAVE_AFTER("3")
        FB_V7M_STORE("3", "28", "r5", "r9")
        "adds r0, r0, #4\n"
        "adds r12, r12, #32\n"
        "strd r0, r12, [sp]\n"
        "ldr r10, [sp, #8]\n"
        "subs r10, r10, #4\n"
        "str r10, [sp, #8]\n"
        "bne 1b\n"
        "6:\n"
        "add sp, sp, #28\n"
        "pop {r4-r11, pc}\n");
}

#endif
#endif
