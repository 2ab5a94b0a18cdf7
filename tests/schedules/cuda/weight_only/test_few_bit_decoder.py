"""Decoders give the level of every code, in every place of a chunk."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from fewbits.schedules.cuda.intrinsics.decode import Computed, Number, numbers
from fewbits.schedules.cuda.weight_only.decoder import Decoder
from fewbits.schedules.cuda.weight_only.few_bit import FewBit
from fewbits.schedules.cuda.weight_only.planes import LANES, pack_plane

NAMES = [
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in range(2, 9)),
    "fp8_e4m3fn", "fp8_e5m2", "fp8_e3m4", "fp8_e1m6", "ufp8_e4m4", "ufp8_e1m7", "fp7_e3m3",
    "fp6_e3m2", "fp6_e2m3", "fp5_e2m2", "fp4_e2m1", "fp4_e3m0", "fp3_e1m1", "fp3_e2m0", "fp2_e1m0",
    "fp8_e5m2-finite", "fp6_e5m0", "nf4", "af4", "flint3", "flint4", "flint5", "pot4", "pot6",
    "log8x16", "dynamic4", "dynamic8", "quantile2", "quantile3", "quantile7",
]  # fmt: skip


def decoded(layout: FewBit, dtype: Number, codes: np.ndarray, zeros=None) -> np.ndarray:
    """[16, 64] through the decoder, lane by lane, by PTX's table of the A fragment."""
    lane = [
        [pack_plane(plane, codes).reshape(-1, LANES, plane.vector)[w // plane.vector, :, w % 4]
         for w in range(plane.words)]
        for plane in layout.planes
    ]  # fmt: skip
    decoder = Decoder(layout, dtype)
    chunk = decoder.chunk(Computed(decoder.table()), lane)
    result = np.zeros((16, 64))
    for tile in range(4):
        for register, words in enumerate(chunk.tile(tile, zeros)):
            for second in range(2):
                for number in range(LANES):
                    row = number // 4 + 8 * (register % 2)
                    column = 16 * tile + 2 * (number % 4) + second + 8 * (register // 2)
                    result[row, column] = numbers(words, dtype)[number, second]
    return result


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_every_code_in_every_place(name: str, dtype: Number) -> None:
    layout = FewBit(name)
    levels = layout.levels()[0]
    finite = np.flatnonzero(np.isfinite(levels)).astype(np.uint8)
    if dtype == "bfloat16":
        levels = levels.astype(ml_dtypes.bfloat16).astype(np.float64)
    count = finite.size
    for start in range(0, count, 8):
        codes = finite[np.resize(np.arange(start, start + 1024) % count, (16, 64))]
        np.testing.assert_array_equal(decoded(layout, dtype, codes), levels[codes])
        if count < 256:
            codes = codes.T.reshape(16, 64)
            np.testing.assert_array_equal(decoded(layout, dtype, codes), levels[codes])
        if start >= 32:
            break


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("bits", range(2, 9))
def test_zero_points_are_subtracted_exactly(bits: int, dtype: Number) -> None:
    layout = FewBit(f"uint{bits}", zero_points=True)
    count = 1 << bits
    codes = np.resize(np.arange(1024) % count, (16, 64)).astype(np.uint8)
    kind = np.float16 if dtype == "float16" else ml_dtypes.bfloat16
    for first, second in ((0, count - 1), (count // 2, 1)):
        if bits == 8 and dtype == "bfloat16":
            zeros: list = [float(first), float(second)]
        else:
            zeros = [np.uint32(np.array([z, z], kind).view(np.uint32)[0]) for z in (first, second)]
        expected = codes.astype(np.float64)
        expected[:8] -= first
        expected[8:] -= second
        np.testing.assert_array_equal(decoded(layout, dtype, codes, zeros), expected)
