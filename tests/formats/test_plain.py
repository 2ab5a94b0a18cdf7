"""Pruned floats: what is stored, read back, and weighed."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from fewbits.errors import FewbitsError
from fewbits.formats.plain import PlainTensor, plain_dtype
from fewbits.formats.sparsity import Bitmap, Dense, NofM, Rows
from fewbits.formats.storage import load_extra, load_tensors, save_tensors

ARRAY = np.array([[1.5, 0, 0, -2], [0, 0.25, 3, 0]], np.float32)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("sparsity", [Dense(), Bitmap(), Rows(), NofM(2, 4)])
def test_values_places_and_bits(dtype: str, sparsity: object, tmp_path: Path) -> None:
    tensor = PlainTensor.from_array(ARRAY, dtype, sparsity)  # type: ignore[arg-type]
    np.testing.assert_array_equal(tensor.decode(), ARRAY)
    width = 8 * plain_dtype(dtype).itemsize
    kept = 8 if isinstance(sparsity, Dense) else 4
    places = {"dense": 0, "bitmap": 8, "rows": 4 * 16 + 2 * 32, "2:4": 4 * 2}
    assert tensor.code_bits == width * kept
    assert tensor.total_bits == width * kept + places[tensor.sparsity.name]
    save_tensors(tmp_path / "w.safetensors", {"w": tensor}, {"facts": "loss 3"})
    back = load_tensors(tmp_path / "w.safetensors")["w"]
    assert isinstance(back, PlainTensor) and back.dtype == dtype
    np.testing.assert_array_equal(back.decode(), ARRAY)
    assert back.total_bits == tensor.total_bits
    assert load_extra(tmp_path / "w.safetensors") == {"facts": "loss 3"}


def test_values_round_to_their_type_and_the_mask_decides() -> None:
    array = np.array([[1 / 3, 5, 7, 9]], np.float32)
    mask = np.array([[True, False, False, True]])
    tensor = PlainTensor.from_array(array, "bfloat16", NofM(2, 4), mask)
    third = float(np.float32(1 / 3).astype(ml_dtypes.bfloat16))
    np.testing.assert_array_equal(tensor.decode(), np.array([[third, 0, 0, 9]], np.float32))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(FewbitsError, match="exceeds float16"):
        PlainTensor.from_array([1e6], "float16")
    with pytest.raises(FewbitsError, match="NaN"):
        PlainTensor.from_array([np.nan])
    with pytest.raises(FewbitsError, match="do not fill"):
        PlainTensor("float32", (3,), Dense(), np.zeros(2, np.float32))
    with pytest.raises(FewbitsError, match="vector of float16"):
        PlainTensor("float16", (2,), Dense(), np.zeros(2, np.float32))
    with pytest.raises(FewbitsError, match="not stored as"):
        plain_dtype("float8")
