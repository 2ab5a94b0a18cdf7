"""Every arithmetic instruction against numpy, on values at the edges of its types."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

RNG = np.random.default_rng(7)
I32 = np.array([0, 1, -1, 2**31 - 1, -(2**31), 5, -7, 255], np.int32)
X32 = np.concatenate([I32, RNG.integers(-(2**31), 2**31, 24).astype(np.int32)])
Y32 = np.roll(X32, 3)
Z32 = np.roll(X32, 7)
X64 = np.concatenate([X32[:16].astype(np.int64), RNG.integers(-(2**62), 2**62, 16)])
Y64 = np.roll(X64, 5)
X16, Y16 = X32.astype(np.int16), Y32.astype(np.int16)
F32 = np.concatenate(
    [
        np.array([0, -0.0, 1, -1.5, np.inf, -np.inf, 1e-40, 3e38], "f4"),
        RNG.normal(size=24).astype("f4"),
    ]
)
G32 = np.roll(F32, 5)
H32 = np.roll(F32, 11)


def same(got: np.ndarray, want: np.ndarray) -> None:
    np.testing.assert_array_equal(got, want.astype(got.dtype))


@pytest.mark.parametrize(
    ("text", "function"),
    [
        ("add.s32", lambda x, y: x + y),
        ("sub.s32", lambda x, y: x - y),
        ("mul.lo.s32", lambda x, y: x * y),
        ("and.b32", lambda x, y: x & y),
        ("or.b32", lambda x, y: x | y),
        ("xor.b32", lambda x, y: x ^ y),
        ("min.s32", np.minimum),
        ("max.s32", np.maximum),
        ("mul.hi.s32", lambda x, y: (x.astype(object) * y >> 32).astype(np.int64).astype(np.int32)),
    ],
)
def test_int32(one, text, function) -> None:
    with np.errstate(over="ignore"):
        same(one(f"{text} $d, $a, $b;", "i4", X32, Y32), function(X32, Y32))


@pytest.mark.parametrize(
    ("text", "function"),
    [
        ("add.s64", lambda x, y: x + y),
        ("sub.s64", lambda x, y: x - y),
        ("mul.lo.s64", lambda x, y: x * y),
        ("min.s64", np.minimum),
        ("max.u64", lambda x, y: np.maximum(x.view("u8"), y.view("u8")).view("i8")),
        ("xor.b64", lambda x, y: x ^ y),
    ],
)
def test_int64(one, text, function) -> None:
    with np.errstate(over="ignore"):
        same(one(f"{text} $d, $a, $b;", "i8", X64, Y64), function(X64, Y64))


def test_int16(one) -> None:
    with np.errstate(over="ignore"):
        same(one("add.s16 $d, $a, $b;", "i2", X16, Y16), X16 + Y16)
        same(one("mul.lo.s16 $d, $a, $b;", "i2", X16, Y16), X16 * Y16)
        same(one("mul.wide.s16 $d, $a, $b;", "i4", X16, Y16), X16.astype("i4") * Y16)
        same(one("max.s16 $d, $a, $b;", "i2", X16, Y16), np.maximum(X16, Y16))
        same(one("shr.s16 $d, $a, 3;", "i2", X16), X16 >> 3)
        same(one("neg.s16 $d, $a;", "i2", X16), -X16)


def test_wide_and_mad(one) -> None:
    wide = X32.astype("i8") * Y32
    same(one("mul.wide.s32 $d, $a, $b;", "i8", X32, Y32), wide)
    same(
        one("mul.wide.u32 $d, $a, $b;", "u8", X32, Y32),
        X32.view("u4").astype("u8") * Y32.view("u4"),
    )
    with np.errstate(over="ignore"):
        same(one("mad.lo.s32 $d, $a, $b, $c;", "i4", X32, Y32, Z32), X32 * Y32 + Z32)
        same(one("mad.wide.s32 $d, $a, $b, $c;", "i8", X32, Y32, Y64), wide + Y64)


def test_division_truncates(one) -> None:
    divisor = np.where(Y32 == 0, 3, Y32).astype("i4")
    pairs = zip(X32.tolist(), divisor.tolist(), strict=True)
    quotient = np.array([_divide(a, b) for a, b in pairs])
    same(one("div.s32 $d, $a, $b;", "i4", X32, divisor), quotient.astype("i8").astype("i4"))
    rest = X32.astype("i8") - quotient * divisor
    same(one("rem.s32 $d, $a, $b;", "i4", X32, divisor), rest)
    unsigned = divisor.view("u4")
    same(one("div.u32 $d, $a, $b;", "u4", X32, divisor), X32.view("u4") // unsigned)


def _divide(a: int, b: int) -> int:
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def test_carries_make_wide_sums(one) -> None:
    text = """{ .reg .b32 l, h, x, y, u, v;
    mov.b64 {l, h}, $a; mov.b64 {x, y}, $b;
    add.cc.u32 u, l, x; addc.u32 v, h, y;
    mov.b64 $d, {u, v}; }"""
    with np.errstate(over="ignore"):
        same(one(text, "i8", X64, Y64), X64 + Y64)
        minus = text.replace("add.cc", "sub.cc").replace("addc", "subc")
        same(one(minus, "i8", X64, Y64), X64 - Y64)


def test_shifts_beyond_the_width(one) -> None:
    amounts = np.arange(32, dtype="i4") + 10
    x = X32.view("u4")
    left = np.where(amounts > 31, 0, x << (amounts & 31))
    same(one("shl.b32 $d, $a, $b;", "u4", x, amounts), left)
    same(
        one("shr.u32 $d, $a, $b;", "u4", x, amounts), np.where(amounts > 31, 0, x >> (amounts & 31))
    )
    same(one("shr.s32 $d, $a, $b;", "i4", X32, amounts), X32 >> np.minimum(amounts, 31))


def test_bits(one) -> None:
    x, y, z = (value.view("u4") for value in (X32, Y32, Z32))
    same(one("lop3.b32 $d, $a, $b, $c, 0xE8;", "u4", x, y, z), (x & y) | (y & z) | (x & z))
    same(one("lop3.b32 $d, $a, $b, $c, 0x96;", "u4", x, y, z), x ^ y ^ z)
    same(one("not.b32 $d, $a;", "u4", x), ~x)
    same(one("popc.b32 $d, $a;", "u4", x), [bin(v).count("1") for v in x.tolist()] + np.zeros(32))
    same(one("clz.b32 $d, $a;", "u4", x), np.array([32 - v.bit_length() for v in x.tolist()]))
    same(
        one("brev.b32 $d, $a;", "u4", x), np.array([int(f"{v:032b}"[::-1], 2) for v in x.tolist()])
    )
    both = (y.astype("u8") << np.uint64(32)) | x
    same(
        one("shf.r.wrap.b32 $d, $a, $b, 9;", "u4", x, y),
        both >> np.uint64(9) & np.uint64(2**32 - 1),
    )
    same(one("shf.l.wrap.b32 $d, $a, $b, 9;", "u4", x, y), (both << np.uint64(9)) >> np.uint64(32))
    same(one("bfe.u32 $d, $a, 5, 11;", "u4", x), x >> 5 & 2047)
    same(one("bfe.s32 $d, $a, 5, 11;", "i4", x), (X32 << 16) >> 21)
    same(one("bfi.b32 $d, $a, $b, 4, 8;", "u4", x, y), (y & ~np.uint32(0xFF0)) | (x & 255) << 4)
    same(one("prmt.b32 $d, $a, $b, 0x7531;", "u4", x, y), [
        int.from_bytes((v.to_bytes(4, "little") + u.to_bytes(4, "little"))[1::2], "little")
        for v, u in zip(x.tolist(), y.tolist(), strict=True)] + np.zeros(32, "u8"))  # fmt: skip
    a, b = x.view("i1").reshape(-1, 4).astype(int), y.view("i1").reshape(-1, 4).astype(int)
    dot = (a * b).sum(1) + Z32
    same(one("dp4a.s32.s32 $d, $a, $b, $c;", "i4", X32, Y32, Z32), dot)


@pytest.mark.parametrize(
    ("text", "function"),
    [
        ("add.f32", np.add),
        ("sub.f32", np.subtract),
        ("mul.f32", np.multiply),
        ("div.rn.f32", np.divide),
        ("min.f32", np.fmin),
        ("max.f32", np.fmax),
    ],
)
def test_float32(one, text, function) -> None:
    with np.errstate(all="ignore"):
        same(one(f"{text} $d, $a, $b;", "f4", F32, G32), function(F32, G32))


def test_float32_is_rounded_once(one) -> None:
    x = RNG.normal(size=32).astype("f4")
    y = RNG.normal(size=32).astype("f4")
    z = (-(x.astype("f8") * y)).astype("f4")
    exact = np.array([float(a) * float(b) + float(c) for a, b, c in zip(x, y, z, strict=True)])
    same(one("fma.rn.f32 $d, $a, $b, $c;", "f4", x, y, z), exact)
    # Not contracted: the product is rounded before the sum.
    text = "{ .reg .f32 t; mul.rn.f32 t, $a, $b; add.rn.f32 $d, t, $c; }"
    same(one(text, "f4", x, y, z), x * y + z)


@pytest.mark.parametrize(("mode", "sign"), [("rz", 0), ("rm", -1), ("rp", 1)])
def test_directed_rounding(one, mode, sign) -> None:
    x, y = RNG.normal(size=32).astype("f4"), (RNG.normal(size=32) * 1e-4).astype("f4")
    exact = x.astype("f8") * y
    got = one(f"mul.{mode}.f32 $d, $a, $b;", "f4", x, y)
    side = np.sign(got.astype("f8") - exact)
    wanted = -np.sign(exact) if sign == 0 else np.full(32, sign)
    assert (side * wanted >= 0).all()
    assert (np.abs(got - exact) < np.spacing(np.abs(got))).all()


def test_halves(one) -> None:
    a, b, c = (RNG.normal(size=32).astype("f2") for _ in range(3))
    same(one("add.f16 $d, $a, $b;", "f2", a, b), a + b)
    same(one("mul.f16 $d, $a, $b;", "f2", a, b), a * b)
    fused = (a.astype("f8") * b.astype("f8") + c.astype("f8")).astype("f2")
    same(one("fma.rn.f16 $d, $a, $b, $c;", "f2", a, b, c), fused)
    pairs = [RNG.normal(size=64).astype("f2") for _ in range(3)]
    packed = [value.view("u4") for value in pairs]
    got = one("fma.rn.f16x2 $d, $a, $b, $c;", "u4", *packed).view("f2")
    same(got, (pairs[0].astype("f8") * pairs[1].astype("f8") + pairs[2]).astype("f2"))
    brain = [RNG.normal(size=64).astype(ml_dtypes.bfloat16) for _ in range(2)]
    got = one("mul.bf16x2 $d, $a, $b;", "u4", *(value.view("u4") for value in brain))
    same(got.view("u2"), (brain[0] * brain[1]).view("u2"))


def test_functions(one) -> None:
    x = np.abs(RNG.normal(size=32)).astype("f4") + np.float32(0.1)
    for name, function in {
        "rcp.approx.f32": lambda v: 1 / v,
        "sqrt.rn.f32": np.sqrt,
        "rsqrt.approx.f32": lambda v: 1 / np.sqrt(v),
        "ex2.approx.ftz.f32": np.exp2,
        "lg2.approx.f32": np.log2,
        "sin.approx.f32": np.sin,
        "cos.approx.f32": np.cos,
        "tanh.approx.f32": np.tanh,
    }.items():
        got = one(f"{name} $d, $a;", "f4", x)
        np.testing.assert_allclose(got, function(x.astype("f8")), rtol=2e-7, atol=1e-7)


def test_comparisons(one) -> None:
    x = np.where(np.arange(32) % 5 == 0, np.nan, F32).astype("f4")
    for name, function in {
        "lt": np.less,
        "ge": np.greater_equal,
        "neu": np.not_equal,
        "ltu": lambda a, b: ~(a >= b),
        "num": lambda a, b: ~(np.isnan(a) | np.isnan(b)),
    }.items():
        text = f"{{ .reg .pred q; setp.{name}.f32 q, $a, $b; selp.b32 $d, 1, 0, q; }}"
        same(one(text, "i4", x, G32), function(x, G32))
    text = "{ .reg .pred q; setp.lt.and.u32 q, $a, $b, 1; selp.b32 $d, 1, 0, q; }"
    same(one(text, "i4", X32, Y32), X32.view("u4") < Y32.view("u4"))
    same(one("set.gt.s32.s32 $d, $a, $b;", "i4", X32, Y32), -(X32 > Y32).astype("i4"))
