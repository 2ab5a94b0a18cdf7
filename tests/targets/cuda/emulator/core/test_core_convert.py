"""cvt among all types against numpy and ml_dtypes."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

RNG = np.random.default_rng(11)
F32 = np.concatenate(
    [np.array([0, -0.0, 0.5, 1.5, 2.5, -2.5, 448, 449, 465, 1e9, -1e9, 1e-7], "f4"),
     (RNG.normal(size=20) * 100).astype("f4")]
)  # fmt: skip


@pytest.mark.parametrize(("name", "kind"), [("f16", "f2"), ("bf16", ml_dtypes.bfloat16)])
def test_narrow_floats(one, name, kind) -> None:
    with np.errstate(over="ignore"):
        want = F32.astype(kind)
    bits = one(f"cvt.rn.{name}.f32 $d, $a;", "u2", F32)
    np.testing.assert_array_equal(bits, want.view("u2"))
    back = one(f"cvt.f32.{name} $d, $a;", "f4", want.view("u2"))
    np.testing.assert_array_equal(back, want.astype("f4"))


@pytest.mark.parametrize(
    ("name", "kind"), [("e4m3", ml_dtypes.float8_e4m3fn), ("e5m2", ml_dtypes.float8_e5m2)]
)
def test_fp8_pairs_saturate(one, name, kind) -> None:
    limit = float(ml_dtypes.finfo(kind).max)
    want = np.clip(F32, -limit, limit).astype(kind).view("u1")
    high = np.roll(want, 1)
    bits = one(f"cvt.rn.satfinite.{name}x2.f32 $d, $a, $b;", "u2", np.roll(F32, 1), F32)
    np.testing.assert_array_equal(bits, want.astype("u2") | high.astype("u2") << 8)
    halves = one(f"cvt.rn.f16x2.{name}x2 $d, $a;", "u4", bits).view("f2")
    np.testing.assert_array_equal(halves[::2], want.view(kind).astype("f2"))


def test_float_to_integer(one) -> None:
    x = F32.astype("f8")
    for mode, function in {
        "rzi": np.trunc,
        "rni": np.rint,
        "rmi": np.floor,
        "rpi": np.ceil,
    }.items():
        got = one(f"cvt.{mode}.s32.f32 $d, $a;", "i4", F32)
        np.testing.assert_array_equal(got, function(x))
        same = one(f"cvt.{mode}.f32.f32 $d, $a;", "f4", F32)
        np.testing.assert_array_equal(same, function(F32))
    got = one("cvt.rni.sat.s8.f32 $d, $a;", "i4", F32)
    np.testing.assert_array_equal(got, np.clip(np.rint(x), -128, 127))
    big = np.full(32, 1e30, "f4")
    assert (one("cvt.rzi.s32.f32 $d, $a;", "i4", big) == 2**31 - 1).all()
    assert (one("cvt.rzi.u32.f32 $d, $a;", "u4", -big) == 0).all()
    assert (one("cvt.rzi.s32.f32 $d, $a;", "i4", np.full(32, np.nan, "f4")) == 0).all()


def test_integers(one) -> None:
    x = RNG.integers(-(2**31), 2**31, 32).astype("i4")
    np.testing.assert_array_equal(one("cvt.s64.s32 $d, $a;", "i8", x), x)
    np.testing.assert_array_equal(one("cvt.u64.u32 $d, $a;", "i8", x), x.view("u4"))
    np.testing.assert_array_equal(one("cvt.s32.s8 $d, $a;", "i4", x), x.astype("i1"))
    np.testing.assert_array_equal(one("cvt.sat.s8.s32 $d, $a;", "i4", x), np.clip(x, -128, 127))
    np.testing.assert_array_equal(one("cvt.rn.f32.s32 $d, $a;", "f4", x), x.astype("f4"))
    np.testing.assert_array_equal(one("cvt.rn.f64.s32 $d, $a;", "f8", x), x)
    wide = RNG.integers(-(2**62), 2**62, 32)
    np.testing.assert_array_equal(one("cvt.u32.u64 $d, $a;", "u4", wide), wide.astype("u4"))
    np.testing.assert_array_equal(one("cvt.rn.f32.s64 $d, $a;", "f4", wide), wide.astype("f4"))


def test_pack_saturates(one) -> None:
    x = RNG.integers(-300, 300, 32).astype("i4")
    y, c = np.roll(x, 1), np.arange(32, dtype="i4") * 77
    got = one("cvt.pack.sat.s8.s32.b32 $d, $a, $b, $c;", "u4", x, y, c)
    high, low = (np.clip(v, -128, 127).astype("i1").view("u1").astype("u4") for v in (x, y))
    np.testing.assert_array_equal(got, c.view("u4") << 16 | high << 8 | low)
