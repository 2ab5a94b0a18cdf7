"""Vector sparsity: whole vectors along the first axis are stored or are zero."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fewbits import FewbitsError
from fewbits.formats.compress import compress
from fewbits.formats.granularity import PerChannel
from fewbits.formats.parse import parse_format
from fewbits.formats.sparsity import parse_sparsity
from fewbits.formats.vectors import Vectors
from fewbits.passes.solvers.options import SolverOptions
from fewbits.passes.solvers.solve import solve
from hypothesis import given, settings
from hypothesis import strategies as st


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from([2, 4, 8]), st.integers(1, 20), st.integers(1, 30), st.floats(0, 1),
    st.integers(0, 99),
)  # fmt: skip
def test_a_mask_comes_back(length: int, rows: int, columns: int, share: float, seed: int) -> None:
    sparsity = Vectors(length)
    mask = sparsity.complete(np.random.default_rng(seed).random((rows, columns)) < share)
    for first in range(0, rows, length):
        block = mask[first : first + length]
        assert (block == block[:1]).all()
    arrays = sparsity.describe(mask)
    np.testing.assert_array_equal(sparsity.restore(arrays, mask.shape), mask)
    vectors = sum(int(mask[first].sum()) for first in range(0, rows, length))
    assert sparsity.metadata_bits(arrays, mask.shape) == 16 * vectors + 32 * -(-rows // length)


def test_names_are_read_back() -> None:
    for sparsity in (Vectors(2), Vectors(8), Vectors(4, 0.9), Vectors(8, 0.98)):
        assert parse_sparsity(sparsity.name) == sparsity
    for wrong in ("3x1", "8x1@1", "8x1@2.5", "8x2"):
        with pytest.raises(FewbitsError, match="bad-sparsity"):
            parse_sparsity(wrong)


def test_a_compressed_weight_has_zeros_in_vectors() -> None:
    generator = np.random.default_rng(2)
    weight = generator.standard_normal((20, 37)).astype(np.float32)
    mask = np.repeat(generator.random((3, 37)) < 0.3, 8, axis=0)[:20]
    tensor = compress(
        weight, parse_format("int8-narrow"), granularity=PerChannel(0), sparsity=Vectors(8),
        mask=mask, scale_storage="float32",
    )  # fmt: skip
    decoded = tensor.decode()
    assert not decoded[~mask].any()
    np.testing.assert_allclose(decoded[mask], weight[mask], atol=np.abs(weight).max() / 127)
    assert tensor.code_bits == 8 * mask.sum()


@pytest.mark.parametrize("rows", [16, 21])
def test_magnitude_keeps_the_largest_vectors(rows: int) -> None:
    weight = torch.from_numpy(np.random.default_rng(4).standard_normal((rows, 50)))
    solution = solve(weight, None, SolverOptions("magnitude", sparsity=Vectors(4, 0.8)))
    assert solution.mask is not None
    mask = solution.mask.numpy()
    worth = np.add.reduceat(weight.numpy() ** 2, np.arange(0, rows, 4), axis=0)
    kept = mask[::4]
    assert kept.sum() == kept.size - round(0.8 * kept.size)
    assert worth[kept].min() > worth[~kept].max()
    np.testing.assert_array_equal(np.repeat(kept, 4, axis=0)[:rows], mask)


def test_solvers_that_know_no_vectors_say_so() -> None:
    with pytest.raises(FewbitsError, match="does not prune vectors"):
        SolverOptions("sparsegpt", sparsity=Vectors(8, 0.5))
