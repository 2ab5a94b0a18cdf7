/* The inner products of gemm.h in RISC-V assembly.
 *
 * A product costs a multiplication and an addition, and one load per four with sixteen sums in
 * registers; compilers reorder the loop until half of the sums are spilled. Four steps of k share
 * one round of pointer updates. Sums start from the bias, or from zero where they are shifted
 * before the bias is added.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FB_GEMM_RISCV_H
#define FB_GEMM_RISCV_H

#include "isa.h"

#if FB_RISCV

/* The order of fb_gemm's fields, as assembly knows it. */
#define FB_GEMM_WEIGHTS "0"
#define FB_GEMM_TABLE "4"
#define FB_GEMM_DEPTH "8"
#define FB_GEMM_CHANNELS "12"
#define FB_GEMM_PITCH "16"
#define FB_GEMM_SHIFT "20"
#define FB_GEMM_LO "24"
#define FB_GEMM_HI "28"

#define FB_RV_SAVE                                                                              \
    "addi sp, sp, -64\n"                                                                        \
    "sw ra, 60(sp)\n sw s0, 56(sp)\n sw s1, 52(sp)\n sw s2, 48(sp)\n sw s3, 44(sp)\n"           \
    "sw s4, 40(sp)\n sw s5, 36(sp)\n sw s6, 32(sp)\n sw s7, 28(sp)\n sw s8, 24(sp)\n"           \
    "sw s9, 20(sp)\n sw s10, 16(sp)\n sw s11, 12(sp)\n"
#define FB_RV_RESTORE                                                                           \
    "lw ra, 60(sp)\n lw s0, 56(sp)\n lw s1, 52(sp)\n lw s2, 48(sp)\n lw s3, 44(sp)\n"           \
    "lw s4, 40(sp)\n lw s5, 36(sp)\n lw s6, 32(sp)\n lw s7, 28(sp)\n lw s8, 24(sp)\n"           \
    "lw s9, 20(sp)\n lw s10, 16(sp)\n lw s11, 12(sp)\n"                                         \
    "addi sp, sp, 64\n"                                                                         \
    "ret\n"

/* `sum` += weight t4 * `x`. */
#define FB_RV_MAC(sum, x) "mul t5, t4, " x "\n add " sum ", " sum ", t5\n"
#define FB_RV_FOUR(weight, sum0, sum1, sum2, sum3)                                              \
    "lb t4, " weight "(a2)\n" FB_RV_MAC(sum0, "t0") FB_RV_MAC(sum1, "t1") FB_RV_MAC(sum2, "t2") \
        FB_RV_MAC(sum3, "t3")
/* One k of four pixels and four channels: 40 instructions for 16 products. */
#define FB_RV_STEP(x0, x1, x2, x3)                                                              \
    "lb t0, " x0 "(a1)\n lb t1, " x1 "(a1)\n lb t2, " x2 "(a1)\n lb t3, " x3 "(a1)\n"           \
    FB_RV_FOUR(x0, "s0", "s1", "s2", "s3")                                                      \
    FB_RV_FOUR(x1, "s4", "s5", "s6", "s7")                                                      \
    FB_RV_FOUR(x2, "s8", "s9", "s10", "s11")                                                    \
    FB_RV_FOUR(x3, "a4", "a5", "a6", "a7")
/* Start values of the sums of one channel. */
#define FB_RV_BIAS(offset, sum0, sum1, sum2, sum3)                                              \
    "lw " sum0 ", " offset "(t5)\n mv " sum1 ", " sum0 "\n mv " sum2 ", " sum0 "\n"             \
    "mv " sum3 ", " sum0 "\n"
#define FB_RV_ZERO(offset, sum0, sum1, sum2, sum3)                                              \
    "li " sum0 ", 0\n li " sum1 ", 0\n li " sum2 ", 0\n li " sum3 ", 0\n"
/* Shifts `sum` and adds the bias. */
#define FB_RV_SHIFT(sum, shift, bias)                                                           \
    "sll " sum ", " sum ", " shift "\n"                                                         \
    "add " sum ", " sum ", " bias "\n"
/* Requantizes `sum` with multiplier t4, limits t5 and t6, and stores it. */
#define FB_RV_STORE(sum, place)                                                                 \
    "mulh " sum ", " sum ", t4\n"                                                               \
    "bge " sum ", t5, 8f\n mv " sum ", t5\n 8:\n"                                               \
    "bge t6, " sum ", 8f\n mv " sum ", t6\n 8:\n"                                               \
    "sb " sum ", 0(" place ")\n"
#define FB_RV_STORE_FOUR(bias, multiplier, sum0, sum1, sum2, sum3)                              \
    "lw t4, " multiplier "(a1)\n"                                                               \
    FB_RV_STORE(sum0, "t0") FB_RV_STORE(sum1, "t1") FB_RV_STORE(sum2, "t2")                     \
    FB_RV_STORE(sum3, "t3")
#define FB_RV_STORE_FOUR_SHIFTED(bias, multiplier, sum0, sum1, sum2, sum3)                      \
    "lw ra, " bias "(a1)\n"                                                                     \
    FB_RV_SHIFT(sum0, "a2", "ra") FB_RV_SHIFT(sum1, "a2", "ra")                                 \
    FB_RV_SHIFT(sum2, "a2", "ra") FB_RV_SHIFT(sum3, "a2", "ra")                                 \
    FB_RV_STORE_FOUR(bias, multiplier, sum0, sum1, sum2, sum3)
#define FB_RV_NEXT_CHANNEL                                                                      \
    "addi a3, a3, -1\n beqz a3, 9f\n"                                                           \
    "addi t0, t0, 1\n addi t1, t1, 1\n addi t2, t2, 1\n addi t3, t3, 1\n"

/* Four pixels. a0 gemm, a1 acts, a2 weights, a3 channels left, ra output, t0-t3 activations,
 * t4 weight, t5 product, t6 end; the sums are s0-s11 and a4-a7. 0(sp) acts, 4(sp) table,
 * 8(sp) weights while a2 is the shift. */
#define FB_RV_FOUR_FUNCTION(start, prepare, store, recover)                                     \
    FB_RV_SAVE                                                                                  \
    "mv ra, a2\n"                                                                               \
    "lw a2, " FB_GEMM_WEIGHTS "(a0)\n"                                                          \
    "lw t5, " FB_GEMM_TABLE "(a0)\n"                                                            \
    "lw a3, " FB_GEMM_CHANNELS "(a0)\n"                                                         \
    "sw a1, 0(sp)\n"                                                                            \
    "1:\n"                                                                                      \
    "sw t5, 4(sp)\n"                                                                            \
    start("0", "s0", "s1", "s2", "s3")                                                          \
    start("8", "s4", "s5", "s6", "s7")                                                          \
    start("16", "s8", "s9", "s10", "s11")                                                       \
    start("24", "a4", "a5", "a6", "a7")                                                         \
    "lw t5, " FB_GEMM_DEPTH "(a0)\n"                                                            \
    "andi t6, t5, -4\n"                                                                         \
    "slli t6, t6, 2\n"                                                                          \
    "add t6, t6, a1\n"                                                                          \
    "beq t6, a1, 4f\n"                                                                          \
    "3:\n"                                                                                      \
    FB_RV_STEP("0", "1", "2", "3")                                                              \
    FB_RV_STEP("4", "5", "6", "7")                                                              \
    FB_RV_STEP("8", "9", "10", "11")                                                            \
    FB_RV_STEP("12", "13", "14", "15")                                                          \
    "addi a1, a1, 16\n"                                                                         \
    "addi a2, a2, 16\n"                                                                         \
    "bne a1, t6, 3b\n"                                                                          \
    "4:\n"                                                                                      \
    "lw t5, " FB_GEMM_DEPTH "(a0)\n"                                                            \
    "lw t6, 0(sp)\n"                                                                            \
    "slli t5, t5, 2\n"                                                                          \
    "add t6, t6, t5\n"                                                                          \
    "beq a1, t6, 6f\n"                                                                          \
    "5:\n"                                                                                      \
    FB_RV_STEP("0", "1", "2", "3")                                                              \
    "addi a1, a1, 4\n"                                                                          \
    "addi a2, a2, 4\n"                                                                          \
    "bne a1, t6, 5b\n"                                                                          \
    "6:\n"                                                                                      \
    "lw t5, " FB_GEMM_PITCH "(a0)\n"                                                            \
    "mv t0, ra\n"                                                                               \
    "add t1, t0, t5\n"                                                                          \
    "add t2, t1, t5\n"                                                                          \
    "add t3, t2, t5\n"                                                                          \
    "lw a1, 4(sp)\n"                                                                            \
    "lw t5, " FB_GEMM_LO "(a0)\n"                                                               \
    "lw t6, " FB_GEMM_HI "(a0)\n"                                                               \
    prepare                                                                                     \
    store("0", "4", "s0", "s1", "s2", "s3")                                                     \
    FB_RV_NEXT_CHANNEL                                                                          \
    store("8", "12", "s4", "s5", "s6", "s7")                                                    \
    FB_RV_NEXT_CHANNEL                                                                          \
    store("16", "20", "s8", "s9", "s10", "s11")                                                 \
    FB_RV_NEXT_CHANNEL                                                                          \
    store("24", "28", "a4", "a5", "a6", "a7")                                                   \
    "addi a3, a3, -1\n"                                                                         \
    "beqz a3, 9f\n"                                                                             \
    recover                                                                                     \
    "addi ra, t0, 1\n"                                                                          \
    "addi t5, a1, 32\n"                                                                         \
    "lw a1, 0(sp)\n"                                                                            \
    "j 1b\n"                                                                                    \
    "9:\n"                                                                                      \
    FB_RV_RESTORE

FB_NAKED void fb_quads_four_riscv(const void *gemm __attribute__((unused)),
                                  const int8_t *acts __attribute__((unused)),
                                  int8_t *output __attribute__((unused))) {
    FB_ASM volatile(FB_RV_FOUR_FUNCTION(FB_RV_BIAS, "", FB_RV_STORE_FOUR, ""));
}

FB_NAKED void fb_quads_four_riscv_shifted(const void *gemm __attribute__((unused)),
                                          const int8_t *acts __attribute__((unused)),
                                          int8_t *output __attribute__((unused))) {
    FB_ASM volatile(FB_RV_FOUR_FUNCTION(FB_RV_ZERO,
                                        "sw a2, 8(sp)\n lw a2, " FB_GEMM_SHIFT "(a0)\n",
                                        FB_RV_STORE_FOUR_SHIFTED, "lw a2, 8(sp)\n"));
}

/* One k of one pixel (t0) and four channels. */
#define FB_RV_ONE(pointer, w0, w1, w2, w3, sum0, sum1, sum2, sum3)                              \
    "lb t4, " w0 "(" pointer ")\n" FB_RV_MAC(sum0, "t0")                                        \
    "lb t4, " w1 "(" pointer ")\n" FB_RV_MAC(sum1, "t0")                                        \
    "lb t4, " w2 "(" pointer ")\n" FB_RV_MAC(sum2, "t0")                                        \
    "lb t4, " w3 "(" pointer ")\n" FB_RV_MAC(sum3, "t0")
#define FB_RV_ONE_BY_FOUR(x, w0, w1, w2, w3)                                                    \
    "lb t0, " x "(a1)\n" FB_RV_ONE("a2", w0, w1, w2, w3, "s0", "s1", "s2", "s3")
#define FB_RV_ONE_BY_EIGHT(x, w0, w1, w2, w3)                                                   \
    "lb t0, " x "(a1)\n" FB_RV_ONE("a2", w0, w1, w2, w3, "s0", "s1", "s2", "s3")                \
        FB_RV_ONE("a4", w0, w1, w2, w3, "s4", "s5", "s6", "s7")
#define FB_RV_STORE_ONE(bias, multiplier, sum)                                                  \
    "lw t4, " multiplier "(a7)\n" FB_RV_STORE(sum, "ra")                                        \
    "addi a3, a3, -1\n beqz a3, 9f\n addi ra, ra, 1\n"
#define FB_RV_STORE_ONE_SHIFTED(bias, multiplier, sum)                                          \
    "lw a6, " bias "(a7)\n" FB_RV_SHIFT(sum, "a5", "a6") FB_RV_STORE_ONE(bias, multiplier, sum)
#define FB_RV_BIAS_ONE(offset, sum) "lw " sum ", " offset "(a7)\n"
#define FB_RV_ZERO_ONE(offset, sum) "li " sum ", 0\n"

/* One pixel. a0 gemm, a1 acts, a2 weights of four channels, a4 of the next four, a3 channels left,
 * ra output, t0 activation, t4 weight, t5 product, t1 and t2 ends, a7 table; sums s0-s7. At the
 * end a5 shift, a6 bias. */
#define FB_RV_ONE_FUNCTION(start, prepare, store)                                               \
    FB_RV_SAVE                                                                                  \
    "mv ra, a2\n"                                                                               \
    "lw a2, " FB_GEMM_WEIGHTS "(a0)\n"                                                          \
    "lw a7, " FB_GEMM_TABLE "(a0)\n"                                                            \
    "lw a3, " FB_GEMM_CHANNELS "(a0)\n"                                                         \
    "lw s8, " FB_GEMM_DEPTH "(a0)\n"                                                            \
    prepare                                                                                     \
    "mv s9, a1\n"                                                                               \
    "add t2, a1, s8\n"                                                                          \
    "andi t1, s8, -4\n"                                                                         \
    "add t1, t1, a1\n"                                                                          \
    "slli s10, s8, 2\n"                                                                         \
    "li s11, 5\n"                                                                               \
    "1:\n"                                                                                      \
    "mv a1, s9\n"                                                                               \
    start("0", "s0") start("8", "s1") start("16", "s2") start("24", "s3")                       \
    "blt a3, s11, 4f\n"                                                                         \
    start("32", "s4") start("40", "s5") start("48", "s6") start("56", "s7")                     \
    "add a4, a2, s10\n"                                                                         \
    "beq a1, t1, 3f\n"                                                                          \
    "2:\n"                                                                                      \
    FB_RV_ONE_BY_EIGHT("0", "0", "1", "2", "3")                                                 \
    FB_RV_ONE_BY_EIGHT("1", "4", "5", "6", "7")                                                 \
    FB_RV_ONE_BY_EIGHT("2", "8", "9", "10", "11")                                               \
    FB_RV_ONE_BY_EIGHT("3", "12", "13", "14", "15")                                             \
    "addi a1, a1, 4\n"                                                                          \
    "addi a2, a2, 16\n"                                                                         \
    "addi a4, a4, 16\n"                                                                         \
    "bne a1, t1, 2b\n"                                                                          \
    "3:\n"                                                                                      \
    "beq a1, t2, 7f\n"                                                                          \
    FB_RV_ONE_BY_EIGHT("0", "0", "1", "2", "3")                                                 \
    "addi a1, a1, 1\n"                                                                          \
    "addi a2, a2, 4\n"                                                                          \
    "addi a4, a4, 4\n"                                                                          \
    "j 3b\n"                                                                                    \
    "4:\n"                                                                                      \
    "beq a1, t1, 6f\n"                                                                          \
    "5:\n"                                                                                      \
    FB_RV_ONE_BY_FOUR("0", "0", "1", "2", "3")                                                  \
    FB_RV_ONE_BY_FOUR("1", "4", "5", "6", "7")                                                  \
    FB_RV_ONE_BY_FOUR("2", "8", "9", "10", "11")                                                \
    FB_RV_ONE_BY_FOUR("3", "12", "13", "14", "15")                                              \
    "addi a1, a1, 4\n"                                                                          \
    "addi a2, a2, 16\n"                                                                         \
    "bne a1, t1, 5b\n"                                                                          \
    "6:\n"                                                                                      \
    "beq a1, t2, 7f\n"                                                                          \
    FB_RV_ONE_BY_FOUR("0", "0", "1", "2", "3")                                                  \
    "addi a1, a1, 1\n"                                                                          \
    "addi a2, a2, 4\n"                                                                          \
    "j 6b\n"                                                                                    \
    "7:\n"                                                                                      \
    "lw t5, " FB_GEMM_LO "(a0)\n"                                                               \
    "lw t6, " FB_GEMM_HI "(a0)\n"                                                               \
    store("0", "4", "s0") store("8", "12", "s1") store("16", "20", "s2")                        \
    store("24", "28", "s3") store("32", "36", "s4") store("40", "44", "s5")                     \
    store("48", "52", "s6") store("56", "60", "s7")                                             \
    "addi a7, a7, 64\n"                                                                         \
    "mv a2, a4\n"                                                                               \
    "j 1b\n"                                                                                    \
    "9:\n"                                                                                      \
    FB_RV_RESTORE

FB_NAKED void fb_quads_one_riscv(const void *gemm __attribute__((unused)),
                                 const int8_t *acts __attribute__((unused)),
                                 int8_t *output __attribute__((unused))) {
    FB_ASM volatile(FB_RV_ONE_FUNCTION(FB_RV_BIAS_ONE, "", FB_RV_STORE_ONE));
}

FB_NAKED void fb_quads_one_riscv_shifted(const void *gemm __attribute__((unused)),
                                         const int8_t *acts __attribute__((unused)),
                                         int8_t *output __attribute__((unused))) {
    FB_ASM volatile(FB_RV_ONE_FUNCTION(FB_RV_ZERO_ONE, "lw a5, " FB_GEMM_SHIFT "(a0)\n",
                                       FB_RV_STORE_ONE_SHIFTED));
}

#endif
#endif
