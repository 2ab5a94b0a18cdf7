"""The stored form of binary-coded weights gives back the tensor, and refuses in sentences."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from fewbits.errors import FewbitsError
from fewbits.formats.compress import compress
from fewbits.formats.compressed import CompressedTensor
from fewbits.formats.granularity import Granularity, PerBlock, PerChannel, PerGroup, PerTensor
from fewbits.formats.parse import parse_format
from fewbits.formats.scales import StoredScales, store_scales
from fewbits.schedules.cuda.lookup import BinaryCoded


def coded(
    bits: int,
    shape: tuple[int, int],
    granularity: Granularity,
    storage: Any = "float16",
) -> CompressedTensor:
    array = np.random.default_rng(bits).standard_normal(shape).astype(np.float32)
    return compress(
        array, parse_format(f"bcq{bits}"), granularity=granularity, scale_storage=storage
    )


def with_offsets(tensor: CompressedTensor, offsets: np.ndarray) -> CompressedTensor:
    return CompressedTensor.from_codes(
        tensor.codes(), tensor.number_format, tensor.granularity, tensor.scales,
        offsets=offsets.astype(np.float32),
    )  # fmt: skip


def check(tensor: CompressedTensor) -> BinaryCoded:
    layout = BinaryCoded.of(tensor)
    arrays = layout.pack(tensor)
    outputs, inputs = tensor.shape
    for declared, content in zip(layout.arrays(outputs, inputs), arrays, strict=True):
        assert content.dtype == declared.dtype
        assert content.shape == declared.shape
    np.testing.assert_allclose(
        layout.decoded(arrays, outputs, inputs), tensor.decode().astype(np.float64),
        rtol=1e-6, atol=1e-6 * float(np.abs(tensor.decode()).max(initial=0)),
    )  # fmt: skip
    return layout


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize(
    "granularity",
    [PerTensor(), PerChannel(0), PerGroup(16), PerGroup(48), PerGroup(64), PerBlock(32),
     PerBlock(192)],
    ids=str,
)  # fmt: skip
def test_decoded_is_the_tensor(bits: int, granularity: Granularity) -> None:
    tensor = coded(bits, (37, 96), granularity)
    check(tensor)
    offsets = np.random.default_rng(0).standard_normal(granularity.scale_shape((37, 96)))
    assert check(with_offsets(tensor, offsets)).offsets


@pytest.mark.parametrize("shape", [(1, 1), (33, 7), (64, 100)])
def test_shapes_that_divide_nothing(shape: tuple[int, int]) -> None:
    check(coded(3, shape, PerChannel(0)))


@pytest.mark.parametrize("bits", [1, 3])
def test_signs_take_exactly_their_bits(bits: int) -> None:
    tensor = coded(bits, (64, 256), PerGroup(64))
    signs, _, scales = BinaryCoded.of(tensor).pack(tensor)
    assert signs.nbytes * 8 == 64 * 256 * bits
    assert scales.nbytes * 8 == 64 * 256 // 64 * 16 * bits


def test_scales_of_any_magnitude_stay_float16() -> None:
    tensor = coded(2, (32, 64), PerGroup(32))
    values = tensor.scales.values().astype(np.float64) * 2.0**-80
    tiny = CompressedTensor.from_codes(
        tensor.codes(), tensor.number_format, tensor.granularity, store_scales(values)
    )
    assert check(tiny).scale == "float16"
    assert check(coded(2, (32, 64), PerGroup(32), "float32")).scale == "float32"


def test_a_weight_of_zeros_is_zero() -> None:
    tensor = compress(
        np.zeros((32, 64), np.float32), parse_format("bcq2"), granularity=PerGroup(32)
    )
    layout = BinaryCoded.of(tensor)
    np.testing.assert_array_equal(layout.decoded(layout.pack(tensor), 32, 64), 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scales_that_are_no_numbers_are_refused(bad: float) -> None:
    tensor = coded(2, (8, 32), PerChannel(0))
    values = tensor.scales.values().copy()
    values[3, 1] = bad
    stored = StoredScales("float32", tensor.scales.shape, {"scales": values})
    broken = CompressedTensor.from_codes(
        tensor.codes(), tensor.number_format, tensor.granularity, stored
    )
    with pytest.raises(FewbitsError, match="not finite") as error:
        BinaryCoded.of(broken)
    assert error.value.code == "not-a-number"
    offsets = np.zeros(8)
    offsets[0] = bad
    with pytest.raises(FewbitsError, match="not finite"):
        BinaryCoded.of(with_offsets(tensor, offsets))


@pytest.mark.parametrize(
    ("name", "granularity", "words"),
    [
        ("int4", PerChannel(0), "no binary coding"),
        ("bcq2", PerChannel(1), "per input"),
        ("bcq2", PerGroup(20), "multiple of 16"),
        ("bcq2", PerBlock(80), "inside rows"),
    ],
    ids=str,
)
def test_refusals_are_sentences(name: str, granularity: Granularity, words: str) -> None:
    array = np.random.default_rng(0).standard_normal((16, 128)).astype(np.float32)
    tensor = compress(array, parse_format(name), granularity=granularity)
    with pytest.raises(FewbitsError) as error:
        BinaryCoded.of(tensor)
    assert error.value.code == "no-layout"
    reasons = (words, "no factor")
    assert any(reason in str(error.value) for reason in reasons)


def test_another_layout_is_refused() -> None:
    tensor = coded(2, (32, 64), PerGroup(32))
    layout = BinaryCoded.of(tensor)
    for other in (dataclasses.replace(layout, group=64), dataclasses.replace(layout, bits=3)):
        with pytest.raises(FewbitsError, match="layout"):
            other.pack(tensor)
