"""Tensor cores, asynchronous copies and barriers in programs, with their synchronisation broken."""

from __future__ import annotations

import re

import numpy as np
import pytest
from fewbits.targets.cuda.emulator import LaunchError, TensorMap, launch

RNG = np.random.default_rng(17)

MMA = """
#include <cstdint>
extern "C" __global__ void k(const int8_t *A, const int8_t *B, int *C) {
    __shared__ __align__(16) int8_t sa[16 * 32], sb[8 * 32];
    int t = threadIdx.x;
    uint32_t a = __cvta_generic_to_shared(sa), b = __cvta_generic_to_shared(sb);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(a + t * 16), "l"(A + t * 16));
    if (t < 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(b + t * 16), "l"(B + t * 16));
    asm volatile("cp.async.commit_group;\\n\\tcp.async.wait_group 0;");
    __syncthreads();
    uint32_t x[4], y[2];
    int c[4] = {0, 0, 0, 0};
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
        : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(a + t % 16 * 32 + t / 16 * 16));
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
        : "=r"(y[0]), "=r"(y[1]) : "r"(b + t % 8 * 32 + t / 8 % 2 * 16));
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[0]), "r"(y[1]));
    for (int i = 0; i < 4; ++i) C[(t / 4 + i / 2 * 8) * 8 + t % 4 * 2 + i % 2] = c[i];
}
"""  # noqa: E501

WGMMA = """
#include <cstdint>
#include <cuda.h>
__device__ uint64_t describe(uint32_t at) {
    return uint64_t(at >> 4 & 0x3FFF) | 1ull << 16 | 64ull << 32 | 1ull << 62;
}
extern "C" __global__ void k(const __grid_constant__ CUtensorMap A, const __grid_constant__ CUtensorMap B, int *C) {
    extern __shared__ __align__(1024) int8_t s[];
    int t = threadIdx.x;
    uint32_t a = __cvta_generic_to_shared(s), b = a + 64 * 128, bar = b + 8 * 128;
    if (t == 0) {
        asm volatile("mbarrier.init.shared.b64 [%0], 1;" :: "r"(bar));
        asm volatile("fence.proxy.async.shared::cta;");
    }
    __syncthreads();
    if (t == 0) {
        asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" :: "r"(bar), "r"(72 * 128));
        asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];"
            :: "r"(a), "l"(&A), "r"(0), "r"(0), "r"(bar) : "memory");
        asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];"
            :: "r"(b), "l"(&B), "r"(0), "r"(0), "r"(bar) : "memory");
    }
    asm volatile("{.reg .pred p; AGAIN: mbarrier.try_wait.parity.shared.b64 p, [%0], 0; @!p bra AGAIN;}" :: "r"(bar) : "memory");
    int c[4] = {0, 0, 0, 0};
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
    for (int i = 0; i < 4; ++i)
        asm volatile("wgmma.mma_async.sync.aligned.m64n8k32.s32.s8.s8 {%0,%1,%2,%3}, %4, %5, 1;"
            : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3]) : "l"(describe(a) + 2 * i), "l"(describe(b) + 2 * i));
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3]) :: "memory");
    for (int i = 0; i < 4; ++i)
        C[(t / 32 * 16 + t % 32 / 4 + i / 2 * 8) * 8 + t % 4 * 2 + i % 2] = c[i];
}
"""  # noqa: E501


def test_mma_of_copied_tiles(compiled) -> None:
    text = compiled(MMA, "sm_80")
    a = RNG.integers(-128, 128, (16, 32)).astype("i1")
    b = RNG.integers(-128, 128, (8, 32)).astype("i1")
    c = np.zeros((16, 8), "i4")
    counts = launch(text, "k", 1, 32, [a, b, c])
    np.testing.assert_array_equal(c, a.astype("i4") @ b.astype("i4").T)
    assert counts.tensor_instructions == 1
    with pytest.raises(LaunchError, match="asynchronous copy"):
        launch(re.sub(r"cp\.async\.wait_group 0;", "", text), "k", 1, 32, [a, b, c])
    with pytest.raises(LaunchError, match="argument 1"):
        launch(text, "k", 1, 32, [a, b[:4].copy(), c])


def test_warpgroup_product_of_tensor_maps(compiled) -> None:
    text = compiled(WGMMA)
    a = RNG.integers(-128, 128, (64, 128)).astype("i1")
    b = RNG.integers(-128, 128, (8, 128)).astype("i1")
    c = np.zeros((64, 8), "i4")
    args = [TensorMap(a, (64, 128), 3), TensorMap(b, (8, 128), 3), c]
    for delay in (0, 3, 20):
        c[:] = 0
        launch(text, "k", 1, 128, args, shared=16384, options={"delay": delay})
        np.testing.assert_array_equal(c, a.astype("i4") @ b.astype("i4").T)
    broken = {
        r"wgmma\.wait_group[^;]*;": "wait_group is missing",
        r"mbarrier\.arrive\.expect_tx[^;]*;": "deadlock",
        r"mbarrier\.init[^;]*;": "never initialised",
    }
    for pattern, message in broken.items():
        with pytest.raises(LaunchError, match=message):
            launch(re.sub(pattern, "", text), "k", 1, 128, args, shared=16384)


def test_wrong_swizzle_gives_other_numbers(compiled) -> None:
    a = RNG.integers(-128, 128, (64, 128)).astype("i1")
    b = RNG.integers(-128, 128, (8, 128)).astype("i1")
    c = np.zeros((64, 8), "i4")
    args = [TensorMap(a, (64, 128), 0), TensorMap(b, (8, 128), 3), c]
    launch(compiled(WGMMA), "k", 1, 128, args, shared=16384)
    assert (c != a.astype("i4") @ b.astype("i4").T).any()
