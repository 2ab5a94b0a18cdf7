/* wgmma.mma_async and .sp: sections "Asynchronous Warpgroup Level Matrix Instructions".
 *
 * One instruction always reads 32 bytes of a row of A, and of a column of B (64 when A is sparse):
 * two or four chunks of 16 bytes, in which the descriptor's layouts are stated. */
#include "internal.h"

typedef struct {
    uint32_t start, leading, stride, base;
    uint32_t span; /* of the swizzle in bytes; 16 for none */
} descriptor;

/* Section "Matrix Descriptor Format". */
static descriptor decode(uint64_t bits) {
    static const uint32_t spans[] = {16, 128, 64, 32};
    return (descriptor){
        .start = (uint32_t)(bits & 0x3fff) << 4,
        .leading = (uint32_t)(bits >> 16 & 0x3fff) << 4,
        .stride = (uint32_t)(bits >> 32 & 0x3fff) << 4,
        .base = (uint32_t)(bits >> 49 & 7),
        .span = spans[bits >> 62],
    };
}

/* Sections "Canonical Layouts", "Leading" and "Stride Dimension Byte Offset", in chunks of 16
 * bytes. K-major: chunk `minor` of row `major` of A (column of B). MN-major: chunk `minor` of
 * eight rows, at place `major` of k. */
static uint32_t chunk_address(const descriptor *d, bool mn_major, uint32_t major, uint32_t minor) {
    uint32_t span = d->span, chunks = span / 16, offset;
    if (span == 16) {
        offset = major % 8 * 16;
        offset += mn_major ? major / 8 * d->leading + minor * d->stride
                           : major / 8 * d->stride + minor * d->leading;
    } else {
        offset = major % 8 * span + major / 8 * d->stride;
        offset += mn_major ? minor % chunks * 16 + minor / chunks * d->leading : minor * 16;
    }
    return fbt_swizzle(d->start + offset, span, d->base);
}

/* Elements' bits out[rows][k] of the matrix behind a descriptor; b1 by words. */
static fb_error read_matrix(const fb_shared *shared, uint64_t bits_of_descriptor, bool mn_major,
                            int32_t rows, int32_t k, int32_t bits, const char *what,
                            uint32_t *out) {
    descriptor d = decode(bits_of_descriptor);
    uint32_t per_chunk = 128 / (uint32_t)bits;
    uint32_t majors = (uint32_t)(mn_major ? k : rows);
    uint32_t minors = (uint32_t)(mn_major ? rows : k) / per_chunk;
    if (!mn_major && d.span != 16 && minors * 16 > d.span) {
        return fbt_fail("%s: %u bytes along k do not fit a row of the %u-byte swizzle", what,
                       minors * 16, d.span);
    }
    for (uint32_t major = 0; major < majors; major++) {
        for (uint32_t minor = 0; minor < minors; minor++) {
            uint32_t address = chunk_address(&d, mn_major, major, minor);
            fb_error error = fbt_check_shared(shared, address, 16, 16, what);
            if (error) return error;
            const uint8_t *bytes = shared->bytes + address;
            for (uint32_t part = 0; part < per_chunk; part++) {
                uint32_t value = 0;
                for (uint32_t byte = 0; byte < (uint32_t)bits / 8; byte++) {
                    value |= (uint32_t)bytes[part * (uint32_t)bits / 8 + byte] << 8 * byte;
                }
                uint32_t at = minor * per_chunk + part;
                out[mn_major ? at * (uint32_t)k + major : major * (uint32_t)k + at] = value;
            }
        }
    }
    return NULL;
}

/* Section "Matrix Shape": floats have every multiple of 8, integers and bits fewer. */
static fb_error check(const fb_wgmma *op, bool a_in_registers) {
    bool floating = fbt_is_float(op->a), bit = op->a == FB_B1;
    bool types = op->b == op->a || (fbt_is_fp8(op->a) && fbt_is_fp8(op->b)) ||
                 (fbt_is_int8(op->a) && fbt_is_int8(op->b));
    bool sum = floating ? op->d == FB_F32 ||
                              (op->d == FB_F16 && (op->a == FB_F16 || fbt_is_fp8(op->a)))
                        : op->d == FB_S32 && (bit || fbt_is_int8(op->a));
    bool n = op->n >= 8 && op->n <= FB_MAX_N && op->n % 8 == 0 &&
             (floating || op->n <= 32 || op->n % 16 == 0);
    int32_t bits = fbt_bits(op->a);
    if (!types || !sum || !n || bits == 0 || (op->sparse && bit) ||
        op->k != 256 / bits * (op->sparse ? 2 : 1)) {
        return fbt_fail("there is no wgmma.mma_async%s.m64n%dk%d.%s.%s.%s", op->sparse ? ".sp" : "",
                       op->n, op->k, fbt_name(op->d), fbt_name(op->a), fbt_name(op->b));
    }
    if (op->saturate && !fbt_is_int8(op->a)) {
        return fbt_fail("wgmma: .satfinite is for integers of 8 bits only");
    }
    if ((op->scale_a != 1 && op->scale_a != -1) || (op->scale_b != 1 && op->scale_b != -1)) {
        return fbt_fail("wgmma: imm-scale-a and -b are 1 or -1");
    }
    if (!floating && (op->scale_a != 1 || op->scale_b != 1)) {
        return fbt_fail("wgmma: integers have no imm-scale");
    }
    if ((op->trans_a || op->trans_b) && op->a != FB_F16 && op->a != FB_BF16) {
        return fbt_fail("wgmma: only f16 and bf16 can be MN-major");
    }
    if (op->trans_a && a_in_registers) {
        return fbt_fail("wgmma: imm-trans-a is for A in shared memory");
    }
    return op->sparse ? fbt_check_selector(op->a, op->k, op->selector) : NULL;
}

fb_error fb_wgmma_registers(const fb_wgmma *op, int32_t counts[2]) {
    fb_error error = check(op, false);
    if (error) return error;
    counts[0] = 4;
    counts[1] = op->n * fbt_bits(op->d) / 64;
    return NULL;
}

fb_error fb_wgmma_mma_async(const fb_wgmma *op, const fb_shared *shared, uint32_t (*const d[4])[32],
                            const uint32_t (*const a[4])[32], uint64_t a_descriptor,
                            uint64_t b_descriptor, const uint32_t *const metadata[4]) {
    uint32_t left[FB_MAX_M * FB_MAX_WGMMA_K], dense[FB_MAX_M * FB_MAX_WGMMA_K];
    uint32_t right[FB_MAX_N * FB_MAX_WGMMA_K], sum[FB_MAX_M * FB_MAX_N] = {0};
    fb_error error = check(op, a != NULL);
    if (error) return error;
    int32_t bits = op->a == FB_B1 ? 32 : fbt_bits(op->a);
    int32_t k = op->a == FB_B1 ? op->k / 32 : op->k;
    int32_t stored_k = op->sparse ? k / 2 : k;
    if (a) {
        for (int32_t warp = 0; warp < 4; warp++) {
            fbt_unpack_a(16, stored_k, bits, a[warp], left + 16 * warp * stored_k);
        }
    } else {
        error = read_matrix(shared, a_descriptor, op->trans_a, 64, stored_k, bits, "wgmma: A",
                            left);
        if (error) return error;
    }
    error = read_matrix(shared, b_descriptor, op->trans_b, op->n, k, bits, "wgmma: B", right);
    if (error) return error;
    if (op->sparse) {
        if (!metadata) return fbt_fail("wgmma.mma_async.sp without metadata");
        for (int32_t warp = 0; warp < 4; warp++) {
            error = fbt_expand_sparse(op->a, k, false, op->selector, metadata[warp],
                                     left + 16 * warp * stored_k, dense + 16 * warp * k);
            if (error) return error;
        }
    }
    int32_t sum_bits = fbt_bits(op->d);
    if (op->scale_d) {
        for (int32_t warp = 0; warp < 4; warp++) {
            fbt_unpack_sum(16, op->n, sum_bits, (const uint32_t (*)[32])d[warp],
                          sum + 16 * warp * op->n, op->n);
        }
    }
    fbt_product product = {.m = 64, .n = op->n, .k = k, .a = op->a, .b = op->b, .sum = op->d,
                          .saturate = op->saturate, .negate_a = op->scale_a < 0,
                          .negate_b = op->scale_b < 0};
    fbt_multiply(&product, op->sparse ? dense : left, right, sum);
    for (int32_t warp = 0; warp < 4; warp++) {
        fbt_pack_sum(16, op->n, sum_bits, sum + 16 * warp * op->n, op->n, d[warp]);
    }
    return NULL;
}
