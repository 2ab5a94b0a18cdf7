/* Elementary functions of floats for cores without a mathematical library.
 *
 * All targets use these, so that all give the same bits (compile with -ffp-contract=off). The
 * functions that networks call per element (exp, log, tanh, sigmoid, erf) work in float, which
 * counts where every operation is a library call; the rest go through double. Errors are measured
 * in tests/targets/mcu/tir/test_float_math.py: at most 2 ulp, sigmoid 3, over all magnitudes
 * including denormals; special values are IEEE's.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FB_FLOAT_MATH_H
#define FB_FLOAT_MATH_H

#include "float_bits.h"

/* exp(x) = 2^n * exp(r), |r| <= ln(2)/2, where ln(2) is split so that n times its head is exact. */
FB_NOINLINE float fb_expf(float x) {
    float n, r, q;
    if (x > 88.72284f) return FB_INFINITY;
    if (x < -103.97208f) return 0.0f;
    if (x != x) return x;
    n = fb_nearbyintf(x * 1.44269504f);
    r = x - n * 0.693145752f;
    r = r - n * 1.42860677e-06f;
    q = 0.0013951670f;
    q = q * r + 0.0083696032f;
    q = q * r + 0.041666187f;
    q = q * r + 0.16666512f;
    q = q * r + 0.5f;
    return fb_scale2f(1.0f + (r + r * r * q), (int32_t)n);
}

/* log(x) = k ln(2) + log(1 + f), with s = f / (2 + f) and log(1 + f) = 2 atanh(s). */
FB_NOINLINE float fb_logf(float x) {
    uint32_t bits = fb_float_bits(x);
    int32_t k = 0;
    float f, s, z, half, k_real, series;
    if (bits >= 0x7f800000u || bits == 0u) { /* NaN, infinity, negative or zero */
        if (x == 0.0f) return -FB_INFINITY;
        return (x != x || bits == 0x7f800000u) ? x : FB_NAN;
    }
    if (bits < 0x00800000u) {
        bits = fb_float_bits(x * 33554432.0f);
        k = -25;
    }
    bits += 0x3f800000u - 0x3f3504f3u; /* mantissas from sqrt(1/2) up count as the exponent above */
    k += (int32_t)(bits >> 23) - 127;
    f = fb_bits_float((bits & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
    s = f / (2.0f + f);
    z = s * s;
    series = 0.23610733f;
    series = series * z + 0.28535879f;
    series = series * z + 0.40000355f;
    series = series * z + 0.66666663f;
    series = series * z;
    half = 0.5f * f * f;
    k_real = (float)k;
    return (s * (half + series) + k_real * 9.05800061e-06f) - half + f + k_real * 0.693138123f;
}

FB_NOINLINE float fb_tanhf(float x) {
    float size = fb_fabsf(x), z, p;
    if (size < 0.625f) {
        z = x * x;
        p = -0.0057168431f;
        p = p * z + 0.020650391f;
        p = p * z - 0.053743429f;
        p = p * z + 0.13331491f;
        p = p * z - 0.33333284f;
        return fb_copysignf(size + size * (z * p), x);
    }
    if (size > 9.1f) return fb_copysignf(1.0f, x);
    if (x != x) return x;
    return fb_copysignf(1.0f - 2.0f / (fb_expf(2.0f * size) + 1.0f), x);
}

FB_NOINLINE float fb_sigmoidf(float x) {
    float e = fb_expf(-fb_fabsf(x)), share = 1.0f / (1.0f + e);
    return x < 0.0f ? e * share : share;
}

FB_NOINLINE float fb_erff(float x) {
    float size = fb_fabsf(x), z, p;
    if (size < 0.921875f) {
        z = x * x;
        p = 8.3977386e-05f;
        p = p * z - 0.00081497914f;
        p = p * z + 0.0052017146f;
        p = p * z - 0.026859703f;
        p = p * z + 0.11283702f;
        p = p * z - 0.37612635f;
        p = p * z + 0.12837917f;
        return x + x * p;
    }
    if (size > 3.9192059f) return fb_copysignf(1.0f, x);
    if (x != x) return x;
    p = -2.1097158e-05f; /* log(1 - erf) */
    p = p * size + 0.00043448564f;
    p = p * size - 0.0041711684f;
    p = p * size + 0.025119690f;
    p = p * size - 0.10828047f;
    p = p * size - 0.63334656f;
    p = p * size - 1.1295151f;
    p = p * size + 0.00017471460f;
    return fb_copysignf(1.0f - fb_expf(p), x);
}

/* From here on through double, by power series on short intervals. */

/* x 2^n as a float, for x in [0.5, 2]. */
FB_INLINE float fb_scaled_float(double x, int32_t n) {
    if (n > 128) return FB_INFINITY;
    if (n < -151) return 0.0f;
    x *= fb_bits_double((uint64_t)(n + 1023) << 52);
    return x >= 3.4028235677973366e38 ? FB_INFINITY : (float)x;
}

/* exp(r) for |r| <= ln(2)/2. */
FB_INLINE double fb_exp_series(double r) {
    double sum = 1.0;
    int32_t i;
    for (i = 13; i > 0; i--) sum = 1.0 + sum * r / (double)i;
    return sum;
}

FB_NOINLINE float fb_exp_wide(double x) {
    double n;
    if (x != x) return (float)x;
    if (x > 89.0) return FB_INFINITY;
    if (x < -104.0) return 0.0f;
    n = fb_nearbyint(x * 1.4426950408889634);
    return fb_scaled_float(fb_exp_series(x - n * 0.6931471805599453), (int32_t)n);
}

/* exp(x) for |x| < 700 as a double. */
FB_NOINLINE double fb_exp_double(double x) {
    double n = fb_nearbyint(x * 1.4426950408889634);
    return fb_exp_series(x - n * 0.6931471805599453) *
           fb_bits_double((uint64_t)((int32_t)n + 1023) << 52);
}

/* log(x) for positive, normal, finite x. */
FB_NOINLINE double fb_log_double(double x) {
    uint64_t bits = fb_double_bits(x);
    int32_t k, i;
    double f, s, z, sum = 1.0 / 21.0;
    bits += UINT64_C(0x3ff0000000000000) - UINT64_C(0x3fe6a09e667f3bcd);
    k = (int32_t)(bits >> 52) - 1023;
    f = fb_bits_double((bits & UINT64_C(0x000fffffffffffff)) + UINT64_C(0x3fe6a09e667f3bcd)) - 1.0;
    s = f / (2.0 + f);
    z = s * s;
    for (i = 19; i > 0; i -= 2) sum = sum * z + 1.0 / (double)i;
    return 2.0 * s * sum + (double)k * 0.6931471805599453;
}

/* log(1 + x) for x > -1, exact to double's rounding also where x is tiny. */
FB_NOINLINE double fb_log1p_double(double x) {
    double u = 1.0 + x;
    return u == 1.0 ? x : fb_log_double(u) * (x / (u - 1.0));
}

/* log(x) times a factor, with log's special values. */
FB_INLINE float fb_log_times(float x, double factor) {
    if (x == 0.0f) return -FB_INFINITY;
    if (!(x > 0.0f)) return x != x ? x : FB_NAN;
    if (x == FB_INFINITY) return x;
    return (float)(fb_log_double((double)x) * factor);
}
FB_NOINLINE float fb_log2f(float x) { return fb_log_times(x, 1.4426950408889634); }
FB_NOINLINE float fb_log10f(float x) { return fb_log_times(x, 0.4342944819032518); }
FB_NOINLINE float fb_log1pf(float x) {
    if (x == -1.0f) return -FB_INFINITY;
    if (!(x > -1.0f)) return x != x ? x : FB_NAN;
    if (x == FB_INFINITY || x == 0.0f) return x;
    return (float)fb_log1p_double((double)x);
}
FB_NOINLINE float fb_exp2f(float x) { return fb_exp_wide((double)x * 0.6931471805599453); }
FB_NOINLINE float fb_exp10f(float x) { return fb_exp_wide((double)x * 2.302585092994046); }

FB_NOINLINE float fb_powf(float x, float y) {
    float size = fb_fabsf(x), result;
    int32_t whole = fb_truncf(y) == y;
    int32_t odd = whole && fb_fabsf(y) < 16777216.0f && ((int32_t)y & 1);
    if (y == 0.0f || x == 1.0f) return 1.0f;
    if (x != x || y != y) return x != x ? x : y;
    if (y == FB_INFINITY || y == -FB_INFINITY) {
        if (size == 1.0f) return 1.0f;
        return ((size > 1.0f) == (y > 0.0f)) ? FB_INFINITY : 0.0f;
    }
    if (size == 0.0f || size == FB_INFINITY) {
        result = ((size == 0.0f) == (y > 0.0f)) ? 0.0f : FB_INFINITY;
    } else {
        if (x < 0.0f && !whole) return FB_NAN;
        result = fb_exp_wide((double)y * fb_log_double((double)size));
    }
    return (odd && (fb_float_bits(x) >> 31)) ? -result : result;
}

/* Trigonometry. The angle is reduced to r in [-pi/4, pi/4] and the number of quarter turns (mod 4):
 * small angles with a two-part pi/2, large ones with as many bits of 2/pi as they need. */
typedef struct {
    double r;
    int32_t quarters;
} fb_angle;

FB_NOINLINE fb_angle fb_reduce(float x) {
    /* 2/pi after 32 zero bits. */
    static const uint32_t two_over_pi[9] = {0x00000000u, 0xa2f9836eu, 0x4e441529u,
                                            0xfc2757d1u, 0xf534ddc0u, 0xdb629599u,
                                            0x3c439041u, 0xfe5163abu, 0xdebbc561u};
    fb_angle angle;
    uint32_t bits = fb_float_bits(x), mantissa, w0, w1, w2;
    int32_t offset, word, bit;
    uint64_t product;
    if (fb_fabsf(x) < 65536.0f) {
        double n = fb_nearbyint((double)x * 0.6366197723675814);
        angle.quarters = (int32_t)n & 3;
        angle.r = ((double)x - n * 1.57079632673412561417) - n * 6.07710050650619224932e-11;
        return angle;
    }
    /* |x| = mantissa * 2^e. Of 2^e * 2/pi only the 96 bits from the one that counts two quarter
     * turns on are needed: those above give whole turns. */
    mantissa = (bits & 0x007fffffu) | 0x00800000u;
    offset = (int32_t)((bits >> 23) & 0xffu) - 150 - 2 + 32;
    word = offset >> 5;
    bit = offset & 31;
    w0 = two_over_pi[word];
    w1 = two_over_pi[word + 1];
    w2 = two_over_pi[word + 2];
    if (bit) {
        w0 = (w0 << bit) | (w1 >> (32 - bit));
        w1 = (w1 << bit) | (w2 >> (32 - bit));
        w2 = (w2 << bit) | (two_over_pi[word + 3] >> (32 - bit));
    }
    /* In units of 2^-62 quarter turns, modulo one turn. */
    product = ((uint64_t)(w0 * mantissa) << 32) + (uint64_t)w1 * mantissa +
              (((uint64_t)w2 * mantissa) >> 32);
    angle.quarters = (int32_t)((product + (UINT64_C(1) << 61)) >> 62);
    product -= (uint64_t)(uint32_t)angle.quarters << 62;
    angle.r = (double)(int64_t)product * 2.168404344971009e-19 * 1.5707963267948966;
    if (bits >> 31) {
        angle.r = -angle.r;
        angle.quarters = (4 - angle.quarters) & 3;
    }
    return angle;
}

FB_INLINE double fb_sin_series(double r) {
    double z = r * r, sum = 1.0;
    int32_t i;
    for (i = 14; i > 0; i -= 2) sum = 1.0 - sum * z / (double)(i * (i + 1));
    return r * sum;
}
FB_INLINE double fb_cos_series(double r) {
    double z = r * r, sum = 1.0;
    int32_t i;
    for (i = 15; i > 0; i -= 2) sum = 1.0 - sum * z / (double)(i * (i + 1));
    return sum;
}

/* sin of an angle plus so many quarter turns. */
FB_INLINE double fb_sin_turned(double r, int32_t quarters) {
    double value = (quarters & 1) ? fb_cos_series(r) : fb_sin_series(r);
    return (quarters & 2) ? -value : value;
}
FB_NOINLINE float fb_sinf(float x) {
    fb_angle angle;
    if (!fb_isfinite((double)x)) return FB_NAN;
    if (x == 0.0f) return x;
    angle = fb_reduce(x);
    return (float)fb_sin_turned(angle.r, angle.quarters);
}
FB_NOINLINE float fb_cosf(float x) {
    fb_angle angle;
    if (!fb_isfinite((double)x)) return FB_NAN;
    angle = fb_reduce(x);
    return (float)fb_sin_turned(angle.r, angle.quarters + 1);
}
FB_NOINLINE float fb_tanf(float x) {
    fb_angle angle;
    if (!fb_isfinite((double)x)) return FB_NAN;
    if (x == 0.0f) return x;
    angle = fb_reduce(x);
    return (float)(fb_sin_turned(angle.r, angle.quarters) /
                   fb_sin_turned(angle.r, angle.quarters + 1));
}

/* atan(x): the reciprocal brings it to [0, 1], the angle pi/6 to [-0.268, 0.268]. */
FB_NOINLINE double fb_atan_double(double x) {
    double size = fb_fabs(x), base = 0.0, sign = 1.0, z, sum = 1.0 / 23.0;
    int32_t i;
    if (size > 1.0) {
        size = 1.0 / size;
        base = 1.5707963267948966;
        sign = -1.0;
    }
    if (size > 0.2679491924311227) {
        base += sign * 0.5235987755982989;
        size = (size * 1.7320508075688772 - 1.0) / (size + 1.7320508075688772);
    }
    z = size * size;
    for (i = 21; i > 0; i -= 2) sum = 1.0 / (double)i - sum * z;
    size = base + sign * (size * sum);
    return (fb_double_bits(x) >> 63) ? -size : size;
}
FB_NOINLINE double fb_atan2_double(double y, double x) {
    double angle;
    if (x == 0.0 && y == 0.0) {
        angle = (fb_double_bits(x) >> 63) ? 3.141592653589793 : 0.0;
        return (fb_double_bits(y) >> 63) ? -angle : angle;
    }
    if (fb_isinf(x) && fb_isinf(y)) {
        x = x > 0.0 ? 1.0 : -1.0;
        y = y > 0.0 ? 1.0 : -1.0;
    }
    angle = fb_atan_double(y / x);
    if ((fb_double_bits(x) >> 63) && x == x) {
        angle += (fb_double_bits(y) >> 63) ? -3.141592653589793 : 3.141592653589793;
    }
    return angle;
}
FB_NOINLINE float fb_atanf(float x) { return x == 0.0f ? x : (float)fb_atan_double((double)x); }
FB_NOINLINE float fb_atan2f(float y, float x) {
    return (float)fb_atan2_double((double)y, (double)x);
}
FB_NOINLINE float fb_asinf(float x) {
    double wide = (double)x;
    if (x == 0.0f) return x;
    if (!(fb_fabsf(x) <= 1.0f)) return x != x ? x : FB_NAN;
    return (float)fb_atan2_double(wide, fb_sqrt((1.0 - wide) * (1.0 + wide)));
}
FB_NOINLINE float fb_acosf(float x) {
    double wide = (double)x;
    if (!(fb_fabsf(x) <= 1.0f)) return x != x ? x : FB_NAN;
    return (float)fb_atan2_double(fb_sqrt((1.0 - wide) * (1.0 + wide)), wide);
}

/* Hyperbolic functions and their inverses. */
FB_NOINLINE float fb_sinhf(float x) {
    double wide = (double)fb_fabsf(x), e;
    if (wide < 1.0) {
        double z = wide * wide, sum = 1.0;
        int32_t i;
        for (i = 16; i > 0; i -= 2) sum = 1.0 + sum * z / (double)(i * (i + 1));
        return x == 0.0f ? x : fb_copysignf((float)(wide * sum), x);
    }
    if (x != x) return x;
    if (wide > 90.0) return fb_copysignf(FB_INFINITY, x);
    e = fb_exp_double(wide);
    e = 0.5 * (e - 1.0 / e);
    return fb_copysignf(e >= 3.4028235677973366e38 ? FB_INFINITY : (float)e, x);
}
FB_NOINLINE float fb_coshf(float x) {
    double wide = (double)fb_fabsf(x), e;
    if (x != x) return x;
    if (wide > 90.0) return FB_INFINITY;
    e = fb_exp_double(wide);
    e = 0.5 * (e + 1.0 / e);
    return e >= 3.4028235677973366e38 ? FB_INFINITY : (float)e;
}
FB_NOINLINE float fb_asinhf(float x) {
    double wide = (double)fb_fabsf(x), square = wide * wide;
    if (x == 0.0f || !fb_isfinite((double)x)) return x;
    return fb_copysignf((float)fb_log1p_double(wide + square / (1.0 + fb_sqrt(1.0 + square))), x);
}
FB_NOINLINE float fb_acoshf(float x) {
    double over = (double)x - 1.0;
    if (!(x >= 1.0f)) return x != x ? x : FB_NAN;
    if (x == FB_INFINITY) return x;
    return (float)fb_log1p_double(over + fb_sqrt(over * (over + 2.0)));
}
FB_NOINLINE float fb_atanhf(float x) {
    double wide = (double)x;
    if (x == 0.0f) return x;
    if (!(fb_fabsf(x) <= 1.0f)) return x != x ? x : FB_NAN;
    if (fb_fabsf(x) == 1.0f) return fb_copysignf(FB_INFINITY, x);
    return (float)(0.5 * fb_log1p_double(2.0 * wide / (1.0 - wide)));
}

/* The remainder of x / y, with x's sign, exact: long division in binary. */
FB_NOINLINE float fb_fmodf(float x, float y) {
    uint32_t a = fb_float_bits(x) & 0x7fffffffu, b = fb_float_bits(y) & 0x7fffffffu;
    int32_t exponent_a = (int32_t)(a >> 23), exponent_b = (int32_t)(b >> 23);
    if (x != x || y != y) return x != x ? x : y;
    if (a >= 0x7f800000u || b == 0u) return FB_NAN;
    if (a < b) return x;
    a = exponent_a ? (a & 0x007fffffu) | 0x00800000u : a << 1;
    b = exponent_b ? (b & 0x007fffffu) | 0x00800000u : b << 1;
    for (; a < 0x00800000u; exponent_a--) a <<= 1;
    for (; b < 0x00800000u; exponent_b--) b <<= 1;
    while (exponent_a > exponent_b) {
        if (a >= b) a -= b;
        a <<= 1;
        exponent_a--;
    }
    if (a >= b) a -= b;
    /* a * 2^(exponent_b - 150), which is a float. */
    if (a == 0u) return fb_copysignf(0.0f, x);
    while (a < 0x00800000u && exponent_b > 0) {
        a <<= 1;
        exponent_b--;
    }
    if (exponent_b <= 0) {
        a >>= 1 - exponent_b;
    } else {
        a = (a & 0x007fffffu) | ((uint32_t)exponent_b << 23);
    }
    return fb_copysignf(fb_bits_float(a), x);
}

/* The same with y's sign. */
FB_NOINLINE float fb_floormodf(float x, float y) {
    float rest = fb_fmodf(x, y);
    if (rest != 0.0f && (rest < 0.0f) != (y < 0.0f)) return rest + y;
    return rest;
}

/* Of doubles there is what integer powers and sums of exponentials need; relative errors stay under
 * 1e-15, those of pow under 1e-12. */
FB_NOINLINE double fb_exp(double x) {
    double n, value;
    int32_t k;
    if (x != x) return x;
    if (x > 709.782712893384) return (double)FB_INFINITY;
    if (x < -745.1332191019412) return 0.0;
    n = fb_nearbyint(x * 1.4426950408889634);
    k = (int32_t)n;
    value = fb_exp_series((x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10);
    /* In two steps: 2^1024 is no double, and a denormal result must be rounded once. */
    if (k > 0) return value * 2.0 * fb_bits_double((uint64_t)(k - 1 + 1023) << 52);
    if (k > -1022) return value * fb_bits_double((uint64_t)(k + 1023) << 52);
    return value * fb_bits_double((uint64_t)(k + 54 + 1023) << 52) * 5.5511151231257827e-17;
}
FB_NOINLINE double fb_log(double x) {
    if (x == 0.0) return -(double)FB_INFINITY;
    if (!(x > 0.0)) return x != x ? x : (double)FB_NAN;
    if (x == (double)FB_INFINITY) return x;
    if (x < 2.2250738585072014e-308) {
        return fb_log_double(x * 18014398509481984.0) - 37.42994775023705;
    }
    return fb_log_double(x);
}
FB_NOINLINE double fb_pow(double x, double y) {
    double size = fb_fabs(x), result;
    int32_t whole = fb_trunc(y) == y, i;
    int32_t odd = whole && fb_fabs(y) < 9007199254740992.0 && ((int64_t)y & 1);
    if (y == 0.0 || x == 1.0) return 1.0;
    if (x != x || y != y) return x != x ? x : y;
    if (whole && fb_fabs(y) <= 64.0) { /* repeated multiplication: exact where the result is */
        result = 1.0;
        for (i = (int32_t)fb_fabs(y); i > 0; i--) result *= x;
        return y < 0.0 ? 1.0 / result : result;
    }
    if (fb_isinf(y)) {
        if (size == 1.0) return 1.0;
        return ((size > 1.0) == (y > 0.0)) ? (double)FB_INFINITY : 0.0;
    }
    if (size == 0.0 || fb_isinf(size)) {
        result = ((size == 0.0) == (y > 0.0)) ? 0.0 : (double)FB_INFINITY;
    } else {
        if (x < 0.0 && !whole) return (double)FB_NAN;
        result = fb_exp(y * fb_log(size));
    }
    return (odd && (fb_double_bits(x) >> 63)) ? -result : result;
}
FB_NOINLINE double fb_fmod(double x, double y) {
    uint64_t a = fb_double_bits(x) & INT64_MAX, b = fb_double_bits(y) & INT64_MAX;
    int32_t exponent_a = (int32_t)(a >> 52), exponent_b = (int32_t)(b >> 52);
    const uint64_t one = UINT64_C(0x0010000000000000);
    if (x != x || y != y) return x != x ? x : y;
    if (exponent_a == 0x7ff || b == 0u) return (double)FB_NAN;
    if (a < b) return x;
    a = exponent_a ? (a & (one - 1u)) | one : a << 1;
    b = exponent_b ? (b & (one - 1u)) | one : b << 1;
    for (; a < one; exponent_a--) a <<= 1;
    for (; b < one; exponent_b--) b <<= 1;
    while (exponent_a > exponent_b) {
        if (a >= b) a -= b;
        a <<= 1;
        exponent_a--;
    }
    if (a >= b) a -= b;
    while (a != 0u && a < one && exponent_b > 0) {
        a <<= 1;
        exponent_b--;
    }
    if (exponent_b <= 0) {
        a >>= 1 - exponent_b;
    } else if (a != 0u) {
        a = (a & (one - 1u)) | ((uint64_t)(uint32_t)exponent_b << 52);
    }
    return fb_bits_double(a | (fb_double_bits(x) & ~(uint64_t)INT64_MAX));
}
FB_NOINLINE double fb_floormod(double x, double y) {
    double rest = fb_fmod(x, y);
    if (rest != 0.0 && (rest < 0.0) != (y < 0.0)) return rest + y;
    return rest;
}

#endif
