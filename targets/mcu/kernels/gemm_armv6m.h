/* Inner products on Thumb-1 cores: one pixel and four output channels at a time, unsigned bytes.
 *
 * Armv6-M loads signed bytes only from register plus register, unsigned ones from register plus
 * constant. So weights lie in flash as w + 128, and patches are gathered as x + 128:
 *
 *     sum (w + 128)(x + 128)  =  sum w x  +  128 sum w  +  128 sum (x + 128)
 *
 * The second term is constant and taken off the bias beforehand; the third is the same for all
 * channels and found while gathering. A fully connected layer reads x where it lies, signed, and
 * has 128 sum x to take off.
 *
 *     acts     k=0: x  k=1: x ...      weights, channels 0-3   k=0: w0 w1 w2 w3  k=1: ...
 *                                      then channels 4-7 ...
 *     table    one pair per channel: bias, multiplier
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FB_GEMM_ARMV6M_H
#define FB_GEMM_ARMV6M_H

#include "gemm.h"

/* One pixel, all channels, in C. `start` is what the sums start from besides the bias; acts are
 * x where they are signed and x + 128 otherwise. */
FB_INLINE void fb_bytes_portable(const fb_gemm *gemm, const uint8_t *acts, int8_t *output,
                                 int32_t start, int is_signed) {
    const uint8_t *weights = (const uint8_t *)gemm->weights;
    for (int32_t c = 0; c < gemm->channels; c++) {
        const uint8_t *w = weights + (c >> 2) * 4 * gemm->depth + (c & 3);
        int32_t sum = start;
        for (int32_t k = 0; k < gemm->depth; k++, w += 4)
            sum = fb_add(sum, *w * (is_signed ? (int32_t)(int8_t)acts[k] : (int32_t)acts[k]));
        output[c] = (int8_t)fb_requantize(sum, gemm->table[2 * c], gemm->table[2 * c + 1],
                                          gemm->shift, gemm->lo, gemm->hi);
    }
}

FB_NOINLINE void fb_bytes_portable_unsigned(const fb_gemm *gemm, const uint8_t *acts,
                                            int8_t *output, int32_t start) {
    fb_bytes_portable(gemm, acts, output, start, 0);
}

FB_NOINLINE void fb_bytes_portable_signed(const fb_gemm *gemm, const uint8_t *acts, int8_t *output,
                                          int32_t start) {
    fb_bytes_portable(gemm, acts, output, start, 1);
}

#if FB_ARMV6M

/* One k: x in r4, sums r0-r3. `extend` makes x signed where it is. */
#define FB_V6M_MAC(sum, place) \
    "ldrb r5, [r6, #" place "]\n muls r5, r4\n adds " sum ", " sum ", r5\n"
#define FB_V6M_STEP(extend, k, w0, w1, w2, w3)                                           \
    "ldrb r4, [r7, #" k "]\n" extend                                                     \
    FB_V6M_MAC("r0", w0) FB_V6M_MAC("r1", w1) FB_V6M_MAC("r2", w2) FB_V6M_MAC("r3", w3)

/* One result, limited by `low` and lr. */
#define FB_V6M_CLAMP(low, channel)                                                       \
    "cmp r0, " low "\n"                                                                  \
    "bge 8f\n"                                                                           \
    "mov r0, " low "\n"                                                                  \
    "8:\n"                                                                               \
    "cmp r0, lr\n"                                                                       \
    "ble 8f\n"                                                                           \
    "mov r0, lr\n"                                                                       \
    "8:\n"                                                                               \
    "strb r0, [r6, #" channel "]\n"

/* One channel: the sum at `place` of the stack becomes the byte at `channel` of r6. With the sum
 * v = vh:vl and the multiplier m = mh:ml in 16-bit parts,
 *
 *     (v m) >> 32  =  (v mh + vh ml + ((vl ml) >> 16)) >> 16
 *
 * in 32 bits because |v m| < 2^47, which the compiler has checked. r5 and lr hold the limits. */
#define FB_V6M_STORE(place, bias, low, high, channel)                                    \
    "ldr r0, [sp, #" place "]\n"                                                         \
    "ldrh r2, [r7, #" low "]\n"                                                          \
    "ldrh r3, [r7, #" high "]\n"                                                         \
    "asrs r1, r0, #16\n"                                                                 \
    "uxth r4, r0\n"                                                                      \
    "muls r0, r3\n"                                                                      \
    "muls r1, r2\n"                                                                      \
    "muls r4, r2\n"                                                                      \
    "lsrs r4, r4, #16\n"                                                                 \
    "adds r0, r0, r1\n"                                                                  \
    "adds r0, r0, r4\n"                                                                  \
    "asrs r0, r0, #16\n"                                                                 \
    FB_V6M_CLAMP("r5", channel)
#define FB_V6M_PREPARE                                                                   \
    "ldr r5, [sp, #20]\n mov lr, r5\n"                                                   \
    "ldr r5, [sp, #16]\n"                                                                \
    "mov r7, r12\n"

/* The same with a shift before the bias, and for wider products:
 *
 *     (v m) >> 32  =  vh mh + ((vl mh + vh ml + ((vl ml) >> 16)) >> 16)
 *
 * in 32 bits because |v| < 2^30 and m < 2^30. r5 holds the shift, r12 and lr the limits. */
#define FB_V6M_STORE_WIDE(place, bias, low, high, channel)                               \
    "ldr r0, [sp, #" place "]\n"                                                         \
    "ldr r4, [r7, #" bias "]\n"                                                          \
    "lsls r0, r5\n"                                                                      \
    "adds r0, r0, r4\n"                                                                  \
    "ldrh r2, [r7, #" low "]\n"                                                          \
    "ldrh r3, [r7, #" high "]\n"                                                         \
    "asrs r1, r0, #16\n"                                                                 \
    "uxth r0, r0\n"                                                                      \
    "mov r4, r0\n"                                                                       \
    "muls r0, r3\n"                                                                      \
    "muls r3, r1\n"                                                                      \
    "muls r1, r2\n"                                                                      \
    "muls r4, r2\n"                                                                      \
    "lsrs r4, r4, #16\n"                                                                 \
    "adds r0, r0, r1\n"                                                                  \
    "adds r0, r0, r4\n"                                                                  \
    "asrs r0, r0, #16\n"                                                                 \
    "adds r0, r0, r3\n"                                                                  \
    FB_V6M_CLAMP("r12", channel)
#define FB_V6M_PREPARE_WIDE                                                              \
    "ldr r5, [sp, #20]\n mov lr, r5\n"                                                   \
    "mov r7, r12\n"                                                                      \
    "ldr r5, [sp, #16]\n mov r12, r5\n"                                                  \
    "ldr r5, [sp, #40]\n"

/* Start values of the sums; r7 table, r4 what they start from besides the bias. */
#define FB_V6M_START                                                                     \
    "ldr r0, [r7]\n ldr r1, [r7, #8]\n ldr r2, [r7, #16]\n ldr r3, [r7, #24]\n"          \
    "adds r0, r0, r4\n adds r1, r1, r4\n adds r2, r2, r4\n adds r3, r3, r4\n"
#define FB_V6M_START_WIDE "mov r0, r4\n mov r1, r4\n mov r2, r4\n mov r3, r4\n"

/* r0 gemm, r1 acts, r2 output, r3 start. In the loop r6 weights, r7 acts; r8 all acts, r9 where
 * they end less the last depth % 8, r10 where they end, r11 output, r12 table. Stack: 0 sums,
 * 16 lo, 20 hi, 24 channels left, 28 start, 32 weights, 36 results of an incomplete four,
 * 40 shift. */
#define FB_V6M_FUNCTION(extend, begin, prepare, store)                                   \
    "push {r4-r7, lr}\n"                                                                 \
    "mov r4, r8\n mov r5, r9\n mov r6, r10\n mov r7, r11\n"                              \
    "push {r4-r7}\n"                                                                     \
    "sub sp, #44\n"                                                                      \
    "ldr r4, [r0, #20]\n str r4, [sp, #40]\n"                                            \
    "str r3, [sp, #28]\n"                                                                \
    "mov r8, r1\n"                                                                       \
    "mov r11, r2\n"                                                                      \
    "ldr r4, [r0, #24]\n str r4, [sp, #16]\n"                                            \
    "ldr r4, [r0, #28]\n str r4, [sp, #20]\n"                                            \
    "ldr r4, [r0, #12]\n str r4, [sp, #24]\n"                                            \
    "ldr r4, [r0, #8]\n"                                                                 \
    "adds r5, r4, r1\n mov r10, r5\n"                                                    \
    "movs r5, #7\n bics r4, r5\n adds r4, r4, r1\n mov r9, r4\n"                         \
    "ldr r6, [r0]\n"                                                                     \
    "ldr r7, [r0, #4]\n mov r12, r7\n"                                                   \
    "1:\n"                                                                               \
    "mov r7, r12\n"                                                                      \
    "ldr r4, [sp, #28]\n"                                                                \
    begin                                                                                \
    "mov r7, r8\n"                                                                       \
    "cmp r7, r9\n"                                                                       \
    "beq 3f\n"                                                                           \
    "2:\n"                                                                               \
    FB_V6M_STEP(extend, "0", "0", "1", "2", "3")                                         \
    FB_V6M_STEP(extend, "1", "4", "5", "6", "7")                                         \
    FB_V6M_STEP(extend, "2", "8", "9", "10", "11")                                       \
    FB_V6M_STEP(extend, "3", "12", "13", "14", "15")                                     \
    FB_V6M_STEP(extend, "4", "16", "17", "18", "19")                                     \
    FB_V6M_STEP(extend, "5", "20", "21", "22", "23")                                     \
    FB_V6M_STEP(extend, "6", "24", "25", "26", "27")                                     \
    FB_V6M_STEP(extend, "7", "28", "29", "30", "31")                                     \
    "adds r6, #32\n"                                                                     \
    "adds r7, #8\n"                                                                      \
    "cmp r7, r9\n"                                                                       \
    "bne 2b\n"                                                                           \
    "3:\n"                                                                               \
    "cmp r7, r10\n"                                                                      \
    "beq 5f\n"                                                                           \
    "4:\n"                                                                               \
    FB_V6M_STEP(extend, "0", "0", "1", "2", "3")                                         \
    "adds r6, #4\n"                                                                      \
    "adds r7, #1\n"                                                                      \
    "cmp r7, r10\n"                                                                      \
    "bne 4b\n"                                                                           \
    "5:\n"                                                                               \
    "str r0, [sp]\n str r1, [sp, #4]\n str r2, [sp, #8]\n str r3, [sp, #12]\n"           \
    "str r6, [sp, #32]\n"                                                                \
    "mov r6, r11\n"                                                                      \
    "ldr r4, [sp, #24]\n"                                                                \
    "cmp r4, #4\n"                                                                       \
    "bge 6f\n"                                                                           \
    "add r6, sp, #36\n"                                                                  \
    "6:\n"                                                                               \
    prepare                                                                              \
    store("0", "0", "4", "6", "0")                                                       \
    store("4", "8", "12", "14", "1")                                                     \
    store("8", "16", "20", "22", "2")                                                    \
    store("12", "24", "28", "30", "3")                                                   \
    "adds r7, #32\n mov r12, r7\n"                                                       \
    "ldr r4, [sp, #24]\n"                                                                \
    "subs r4, #4\n"                                                                      \
    "ble 7f\n"                                                                           \
    "str r4, [sp, #24]\n"                                                                \
    "adds r6, #4\n mov r11, r6\n"                                                        \
    "ldr r6, [sp, #32]\n"                                                                \
    "b 1b\n"                                                                             \
    "7:\n"                                                                               \
    "beq 9f\n"                                                                           \
    "adds r4, #4\n"                                                                      \
    "mov r7, r11\n"                                                                      \
    "8:\n"                                                                               \
    "subs r4, #1\n"                                                                      \
    "ldrb r0, [r6, r4]\n"                                                                \
    "strb r0, [r7, r4]\n"                                                                \
    "bne 8b\n"                                                                           \
    "9:\n"                                                                               \
    "add sp, #44\n"                                                                      \
    "pop {r4-r7}\n"                                                                      \
    "mov r8, r4\n mov r9, r5\n mov r10, r6\n mov r11, r7\n"                              \
    "pop {r4-r7, pc}\n"                                                                  \
    ".align 2\n"

FB_NAKED void fb_bytes_unsigned_narrow(const fb_gemm *gemm __attribute__((unused)),
                                       const uint8_t *acts __attribute__((unused)),
                                       int8_t *output __attribute__((unused)),
                                       int32_t start __attribute__((unused))) {
    FB_ASM volatile(".syntax unified\n"
                    FB_V6M_FUNCTION("", FB_V6M_START, FB_V6M_PREPARE, FB_V6M_STORE));
}

FB_NAKED void fb_bytes_unsigned_wide(const fb_gemm *gemm __attribute__((unused)),
                                     const uint8_t *acts __attribute__((unused)),
                                     int8_t *output __attribute__((unused)),
                                     int32_t start __attribute__((unused))) {
    FB_ASM volatile(".syntax unified\n"
                    FB_V6M_FUNCTION("", FB_V6M_START_WIDE, FB_V6M_PREPARE_WIDE, FB_V6M_STORE_WIDE));
}

#define FB_V6M_EXTEND "sxtb r4, r4\n"
FB_NAKED void fb_bytes_signed_narrow(const fb_gemm *gemm __attribute__((unused)),
                                     const uint8_t *acts __attribute__((unused)),
                                     int8_t *output __attribute__((unused)),
                                     int32_t start __attribute__((unused))) {
    FB_ASM volatile(".syntax unified\n"
                    FB_V6M_FUNCTION(FB_V6M_EXTEND, FB_V6M_START, FB_V6M_PREPARE,
                                    FB_V6M_STORE));
}

FB_NAKED void fb_bytes_signed_wide(const fb_gemm *gemm __attribute__((unused)),
                                   const uint8_t *acts __attribute__((unused)),
                                   int8_t *output __attribute__((unused)),
                                   int32_t start __attribute__((unused))) {
    FB_ASM volatile(".syntax unified\n"
                    FB_V6M_FUNCTION(FB_V6M_EXTEND, FB_V6M_START_WIDE, FB_V6M_PREPARE_WIDE,
                                    FB_V6M_STORE_WIDE));
}

#endif

/* How large a shifted sum with its bias, v, and its product with the multiplier m become: literals
 * that choose the multiplication. The narrow one knows no shift. */
#define FB_BYTES_ANY 0
#define FB_BYTES_WIDE 1   /* |v| < 2^30 and m < 2^30 */
#define FB_BYTES_NARROW 2 /* |v m| < 2^47 */

/* One pixel of x + 128, all channels; `start` is -128 sum (x + 128). */
FB_INLINE void fb_bytes_unsigned(const fb_gemm *gemm, const uint8_t *acts, int8_t *output,
                                 int32_t start, int32_t range) {
#if FB_ARMV6M
    if (range == FB_BYTES_NARROW) {
        fb_bytes_unsigned_narrow(gemm, acts, output, start);
        return;
    }
    if (range == FB_BYTES_WIDE) {
        fb_bytes_unsigned_wide(gemm, acts, output, start);
        return;
    }
#endif
    (void)range;
    fb_bytes_portable_unsigned(gemm, acts, output, start);
}

/* One row of x, all channels; `start` is -128 sum x. */
FB_INLINE void fb_bytes_signed(const fb_gemm *gemm, const int8_t *acts, int8_t *output,
                               int32_t start, int32_t range) {
#if FB_ARMV6M
    if (range == FB_BYTES_NARROW) {
        fb_bytes_signed_narrow(gemm, (const uint8_t *)acts, output, start);
        return;
    }
    if (range == FB_BYTES_WIDE) {
        fb_bytes_signed_wide(gemm, (const uint8_t *)acts, output, start);
        return;
    }
#endif
    (void)range;
    fb_bytes_portable_signed(gemm, (const uint8_t *)acts, output, start);
}

/* Appends a run as x + 128 and adds its sum to `*sum`. */
FB_NOINLINE uint8_t *fb_bytes_append(uint8_t *acts, const int8_t *run, int32_t length,
                                     int32_t *sum) {
    const uint8_t *from = (const uint8_t *)run;
    uint32_t total = 0;
    for (; length >= 4; length -= 4, from += 4, acts += 4) {
        const uint32_t a = from[0] ^ 128u, b = from[1] ^ 128u, c = from[2] ^ 128u,
                       d = from[3] ^ 128u;
        acts[0] = (uint8_t)a;
        acts[1] = (uint8_t)b;
        acts[2] = (uint8_t)c;
        acts[3] = (uint8_t)d;
        total += a + b + c + d;
    }
    for (; length > 0; length--) {
        const uint32_t a = *from++ ^ 128u;
        *acts++ = (uint8_t)a;
        total += a;
    }
    *sum += (int32_t)total;
    return acts;
}

#endif
