"""CUDA's mathematical functions and narrow types, as nvcc expands them for each architecture."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from fewbits.targets.cuda.emulator import launch

SOURCE = """
#include <cuda_fp16.h>
#include <cuda_bf16.h>
#include <cuda_fp8.h>
extern "C" __global__ void k(const float *x, float *y) {
    int t = threadIdx.x;
    float v = x[t], *o = y + t * 12;
    o[0] = expf(v); o[1] = tanhf(v); o[2] = powf(fabsf(v), 1.7f); o[3] = sinf(v * 1000);
    o[4] = v / 3.f; o[5] = fmodf(v, 0.25f); o[6] = (float)exp((double)v);
    o[7] = __half2float(hexp(__float2half(v)));
    __half2 h = __floats2half2_rn(v, v * 2);
    o[8] = __low2float(__hfma2(h, h, h));
    __nv_bfloat162 b = __floats2bfloat162_rn(v, v);
    o[9] = __low2float(__hmul2(b, b));
    o[10] = float(__nv_fp8_e4m3(v));
    o[11] = float((long long)(v * 1e6f) / 7 % 13);
}
"""


@pytest.mark.parametrize("architecture", ["sm_80", "sm_89", "sm_90a"])
def test_mathematical_functions(compiled, architecture) -> None:
    x = np.random.default_rng(0).normal(size=64).astype("f4")
    y = np.zeros((64, 12), "f4")
    launch(compiled(SOURCE, architecture), "k", 1, 64, [x, y])
    v, half, brain = x.astype("f8"), x.astype("f2").astype("f8"), x.astype(ml_dtypes.bfloat16)
    whole = (x * np.float32(1e6)).astype("i8")
    close = [np.exp(v), np.tanh(v), np.abs(v) ** 1.7, np.sin((x * np.float32(1000)).astype("f8"))]
    close += [v / 3, np.fmod(v, 0.25), np.exp(v)]
    for column, want in enumerate(close):
        np.testing.assert_allclose(y[:, column], want, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(y[:, 7], np.exp(half), rtol=1e-3)
    np.testing.assert_array_equal(y[:, 8], (half * half + half).astype("f2").astype("f4"))
    np.testing.assert_array_equal(y[:, 9], (brain * brain).astype("f4"))
    np.testing.assert_array_equal(y[:, 10], x.astype(ml_dtypes.float8_e4m3fn).astype("f4"))
    quotient = np.trunc(whole / 7).astype("i8")
    np.testing.assert_array_equal(y[:, 11], np.fmod(quotient, 13).astype("f4"))
