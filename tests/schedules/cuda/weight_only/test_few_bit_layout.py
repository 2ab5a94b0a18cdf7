"""The stored form gives back the tensor, takes exactly its bits, and refuses in sentences."""

from __future__ import annotations

import numpy as np
import pytest
from fewbits.errors import FewbitsError
from fewbits.formats.compress import compress
from fewbits.formats.granularity import (
    Granularity,
    PerBlock,
    PerChannel,
    PerGroup,
    PerTensor,
)
from fewbits.formats.parse import parse_format
from fewbits.schedules.cuda.weight_only.few_bit import FewBit
from fewbits.schedules.cuda.weight_only.planes import padded

EXACT = [
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in range(2, 9)),
    "fp8_e4m3fn", "fp8_e5m2", "fp8_e3m4", "fp8_e4m3fnuz", "fp8_e1m6", "fp6_e3m2", "fp6_e2m3",
    "fp5_e2m2", "fp7_e3m3", "fp4_e2m1", "fp3_e1m1", "fp8_e5m2fnuz", "flint4", "flint8", "pot4",
    "pot6", "flint3",
]  # fmt: skip
ROUNDED = ["nf4", "af4", "fp4-bnb", "quantile2", "quantile3", "quantile5", "dynamic8", "log8x16"]


def weight(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def packed(name: str, shape: tuple[int, int], granularity: Granularity, **how: str):
    number_format = parse_format(name)
    array = weight(shape)
    if not number_format.signed and how.get("method") != "affine":
        array = np.abs(array)
    tensor = compress(array, number_format, granularity=granularity, **how)  # type: ignore[arg-type]
    layout = FewBit.of(tensor)
    arrays = layout.pack(tensor)
    for declared, content in zip(layout.arrays(*shape), arrays, strict=True):
        assert content.dtype == declared.dtype
        assert content.shape == declared.shape
    return tensor, layout, arrays


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("granularity", [PerChannel(), PerGroup(32)], ids=str)
def test_decoded_is_the_tensor(name: str, granularity: Granularity) -> None:
    tensor, layout, arrays = packed(name, (37, 100), granularity)
    np.testing.assert_allclose(
        layout.decoded(arrays, 37, 100), tensor.decode().astype(np.float64), rtol=3e-7
    )


@pytest.mark.parametrize("name", ROUNDED)
def test_tables_are_rounded_to_half_precision(name: str) -> None:
    tensor, layout, arrays = packed(name, (32, 128), PerGroup(64))
    exact = tensor.decode().astype(np.float64)
    error = np.abs(layout.decoded(arrays, 32, 128) - exact)
    assert (error <= np.abs(exact) * 2.0**-11 + np.abs(exact).max() * 2.0**-36).all()


@pytest.mark.parametrize("storage", ["float32", "float16", "bfloat16", "e8m0", "double"])
@pytest.mark.parametrize(
    "granularity",
    [PerTensor(), PerChannel(), PerGroup(16), PerGroup(48), PerGroup(256), PerBlock(64),
     PerBlock(512)],
    ids=str,
)  # fmt: skip
def test_every_storage_and_granularity_of_scales(storage: str, granularity: Granularity) -> None:
    tensor, layout, arrays = packed("int4", (20, 256), granularity, scale_storage=storage)
    np.testing.assert_allclose(
        layout.decoded(arrays, 20, 256), tensor.decode().astype(np.float64), rtol=3e-7
    )


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("granularity", [PerChannel(), PerGroup(64)], ids=str)
def test_zero_points(bits: int, granularity: Granularity) -> None:
    tensor, layout, arrays = packed(f"uint{bits}", (33, 200), granularity, method="affine")
    assert layout.zero_points
    np.testing.assert_allclose(
        layout.decoded(arrays, 33, 200), tensor.decode().astype(np.float64), rtol=3e-7, atol=1e-12
    )


@pytest.mark.parametrize("bits", range(2, 9))
def test_codes_take_exactly_their_bits(bits: int) -> None:
    _, _, arrays = packed(f"int{bits}", (64, 256), PerChannel())
    assert arrays[0].nbytes * 8 == 64 * 256 * bits
    assert padded(17, 65) == (32, 128)


def test_tiny_scales_survive_float16() -> None:
    array = weight((16, 128)) * np.float32(1e-20)
    tensor = compress(
        array, parse_format("int4"), granularity=PerGroup(32), scale_storage="bfloat16"
    )
    layout = FewBit.of(tensor)
    assert layout.scale == "float16"
    np.testing.assert_allclose(
        layout.decoded(layout.pack(tensor), 16, 128), tensor.decode(), rtol=3e-7
    )


def test_scales_that_float16_rounds_stay_float32() -> None:
    tensor = compress(weight((16, 128)), parse_format("int4"), granularity=PerGroup(32))
    assert FewBit.of(tensor).scale == "float32"


@pytest.mark.parametrize(
    ("granularity", "words"),
    [(PerChannel(axis=1), "per input"), (PerGroup(20), "multiple of 16"), (PerBlock(96), "divide")],
    ids=str,
)
def test_refusals_are_sentences(granularity: Granularity, words: str) -> None:
    tensor = compress(weight((16, 128)), parse_format("int4"), granularity=granularity)
    with pytest.raises(FewbitsError, match=words) as caught:
        FewBit.of(tensor)
    assert caught.value.code == "no-layout"


def test_another_layout_is_refused() -> None:
    tensor = compress(weight((16, 128)), parse_format("int4"), granularity=PerGroup(32))
    with pytest.raises(FewbitsError, match="layout is"):
        FewBit("int4", 64).pack(tensor)
