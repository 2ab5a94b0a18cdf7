"""Divergence, barriers, exchange between lanes, calls, atomics, copies."""

from __future__ import annotations

import numpy as np
import pytest
from fewbits.targets.cuda.emulator import launch

INDEX = "mov.u32 %r1, %tid.x; mul.wide.u32 %rd5, %r1, 4; add.u64 %rd6, %rd0, %rd5;\n"


def lanes(ptx, body: str, threads: int = 32) -> np.ndarray:
    out = np.zeros(threads, "i4")
    launch(ptx(f"{INDEX}{body}\nst.global.u32 [%rd6], %r2;", "u64"), "k", 1, threads, [out])
    return out


def test_divergent_loops(ptx) -> None:
    body = """mov.u32 %r2, 0; mov.u32 %r3, 0;
    AGAIN: setp.ge.u32 %p1, %r3, %r1; @%p1 bra OUT;
    add.u32 %r2, %r2, %r3; add.u32 %r3, %r3, 1; bra AGAIN;
    OUT: activemask.b32 %r4; shl.b32 %r4, %r4, 0;"""
    index = np.arange(32)
    np.testing.assert_array_equal(lanes(ptx, body), index * (index - 1) // 2)


def test_lanes_meet_again(ptx) -> None:
    body = """and.b32 %r3, %r1, 1; setp.eq.u32 %p1, %r3, 0; @%p1 bra EVEN;
    mov.u32 %r4, 1; bra MET; EVEN: mov.u32 %r4, 2; MET: activemask.b32 %r2;"""
    assert (lanes(ptx, body) == -1).all()


@pytest.mark.parametrize(
    ("form", "want"),
    [
        ("up.b32 %r2|%p2, %r1, 3, 0", np.r_[0:3, 0:29]),
        ("down.b32 %r2|%p2, %r1, 3, 31", np.r_[3:32, 29:32]),
        ("bfly.b32 %r2|%p2, %r1, 5, 31", np.arange(32) ^ 5),
        ("idx.b32 %r2|%p2, %r1, 2, 0x181f", np.arange(32) // 8 * 8 + 2),
    ],
)  # fmt: skip
def test_shuffles(ptx, form, want) -> None:
    np.testing.assert_array_equal(lanes(ptx, f"shfl.sync.{form}, -1;"), want)


def test_shuffle_after_divergence_waits_for_all(ptx) -> None:
    body = """and.b32 %r3, %r1, 1; setp.eq.u32 %p1, %r3, 0; @%p1 bra LATER;
    BACK: shfl.sync.bfly.b32 %r2, %r1, 1, 31, -1; bra OUT;
    LATER: add.u32 %r5, %r1, 7; bra BACK; OUT:"""
    np.testing.assert_array_equal(lanes(ptx, body), np.arange(32) ^ 1)


def test_votes(ptx) -> None:
    body = "setp.lt.u32 %p1, %r1, 5; vote.sync.ballot.b32 %r2, %p1, -1;"
    assert (lanes(ptx, body) == 31).all()
    body = "redux.sync.add.s32 %r2, %r1, -1;"
    assert (lanes(ptx, body) == 496).all()
    body = "shr.u32 %r3, %r1, 3; match.any.sync.b32 %r2, %r3, -1;"
    want = 255 << (np.arange(32) // 8 * 8)
    np.testing.assert_array_equal(lanes(ptx, body).view("u4"), want.astype("u4"))
    body = "mov.u32 %r2, 0; elect.sync _|%p1, 0xFFFFFF00; @%p1 mov.u32 %r2, 1;"
    guarded = f"setp.ge.u32 %p3, %r1, 8; mov.u32 %r2, 0; @!%p3 bra OVER; {body} OVER:"
    np.testing.assert_array_equal(np.flatnonzero(lanes(ptx, guarded)), [8])


def test_named_barrier_with_arrive(ptx) -> None:
    text = ptx(
        f"""{INDEX} setp.lt.u32 %p1, %r1, 32; mov.u32 %r2, 0; @%p1 bra PRODUCE;
        bar.sync 3, 64; sub.u32 %r3, %r1, 32; shl.b32 %r3, %r3, 2; mov.u32 %r4, s;
        add.u32 %r4, %r4, %r3; ld.shared.u32 %r2, [%r4]; bra OUT;
        PRODUCE: shl.b32 %r3, %r1, 2; mov.u32 %r4, s; add.u32 %r4, %r4, %r3;
        mul.lo.u32 %r5, %r1, 3; st.shared.u32 [%r4], %r5; bar.arrive 3, 64; OUT:
        st.global.u32 [%rd6], %r2;""",
        "u64",
        ".shared .align 4 .b8 s[128];",
    )
    out = np.zeros(64, "i4")
    launch(text, "k", 1, 64, [out])
    np.testing.assert_array_equal(out[32:], np.arange(32) * 3)


def test_atomics(ptx) -> None:
    out = np.zeros(4, "i4")
    body = """mov.u32 %r1, %tid.x; atom.global.add.u32 %r2, [%rd0], 1;
    red.global.max.s32 [%rd0+4], %r1; red.global.add.f32 [%rd0+8], 0f3F000000;
    atom.global.cas.b32 %r3, [%rd0+12], 0, 9;"""
    launch(ptx(body, "u64"), "k", 3, 96, [out])
    assert out.tolist() == [288, 95, int(np.float32(144).view("i4")), 9]


def test_cpp_reduction_calls_tables_and_parameters(compiled) -> None:
    text = compiled(
        """
    struct P { float a[4]; int b; };
    __constant__ float table[4] = {1, 2, 3, 4};
    __device__ __noinline__ float sum(float x, int n) {
        float s = 0; for (int i = 0; i < n; i++) s += x * i; return s; }
    extern "C" __global__ void k(
        const float *x, float *y, int n, P p, const __grid_constant__ P q) {
        __shared__ float s[256]; extern __shared__ float dynamic[];
        int t = threadIdx.x;
        s[t] = t < n ? x[t] : 0; __syncthreads();
        for (int d = 128; d; d >>= 1) { if (t < d) s[t] += s[t + d]; __syncthreads(); }
        float v = s[0] + sum(p.a[t & 3], t & 7) + q.a[(t + p.b) & 3] + table[t & 3];
        int r[8]; for (int j = 0; j < 8; j++) r[j] = n * j;
        v += r[(t + q.b) & 7];
        switch (t & 7) {
            case 0: v += 1; break; case 1: v *= 2; break; case 2: v -= 3; break;
            case 3: v /= 4; break; case 5: v = -v; break;
        }
        dynamic[t] = v; __syncthreads();
        y[t] = dynamic[255 - t];
    }"""
    )
    x = np.random.default_rng(1).integers(0, 9, 256).astype("f4")
    y = np.zeros(256, "f4")
    p = np.array([1, 2, 3, 4], "f4").tobytes() + np.int32(5).tobytes()
    launch(text, "k", 1, 256, [x, y, 200, p, p], shared=1024)
    t = np.arange(256)
    n = t & 7
    v = x[:200].sum() + ((t & 3) + 1) * n * (n - 1) / 2 + ((t + 5 & 3) + 1) + ((t & 3) + 1)
    v += 200 * (t + 5 & 7)
    v = np.select([n == 0, n == 1, n == 2, n == 3, n == 5], [v + 1, v * 2, v - 3, v / 4, -v], v)
    np.testing.assert_allclose(y, v[::-1], rtol=1e-6)


def test_blocks_of_a_cluster_share_memory(compiled) -> None:
    text = compiled(
        """
    #include <cooperative_groups.h>
    namespace cg = cooperative_groups;
    extern "C" __global__ void __cluster_dims__(4, 1, 1) k(int *y) {
        __shared__ int s[32];
        cg::cluster_group c = cg::this_cluster();
        s[threadIdx.x] = blockIdx.x * 100 + threadIdx.x;
        c.sync();
        int *other = c.map_shared_rank(s, (c.block_rank() + 1) % 4);
        y[blockIdx.x * 32 + threadIdx.x] = other[threadIdx.x];
        c.sync();
    }"""
    )
    y = np.zeros(256, "i4")
    launch(text, "k", 8, 32, [y])
    block, lane = np.divmod(np.arange(256), 32)
    np.testing.assert_array_equal(y, (block // 4 * 4 + (block + 1) % 4) * 100 + lane)
