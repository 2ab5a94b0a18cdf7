"""GPTQ and SparseGPT against closed forms, plain rounding and each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fewbits.formats.compress import compress
from fewbits.formats.granularity import (
    Granularity,
    PerBlock,
    PerChannel,
    PerGroup,
    PerTensor,
    PerToken,
)
from fewbits.formats.parse import parse_format
from fewbits.formats.sparsity import Bitmap, Dense, NofM, Rows
from fewbits.passes.solvers import Hessian, SolverOptions, solve
from fewbits.passes.solvers.solution import layer_loss

FORMATS = (
    "int4", "int3-narrow", "nf4", "fp4_e2m1", "fp8_e4m3fn", "fp8_e4m3fnuz", "flint4", "bcq3",
    "dynamic4", "pot4",
)  # fmt: skip
GRANULARITIES: tuple[Granularity, ...] = (
    PerTensor(), PerChannel(0), PerChannel(1), PerGroup(16), PerGroup(10), PerGroup(8, 0),
    PerBlock(16), PerBlock(100), PerToken(),
)  # fmt: skip


def layer(rows: int = 24, columns: int = 48, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight and the Hessian of correlated inputs of unequal size."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(columns, columns, generator=generator) / columns**0.5
    mix *= torch.linspace(0.3, 2, columns)
    x = torch.randn(4 * columns, columns, generator=generator, dtype=torch.float64) @ mix.double()
    hessian = Hessian(columns, dtype=torch.float64)
    hessian.add(x)
    return torch.randn(rows, columns, generator=generator) * 0.1, hessian.value


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("granularity", GRANULARITIES, ids=str)
def test_with_an_identity_hessian_gptq_is_rounding_to_nearest(name, granularity):
    weight, _ = layer()
    number_format = parse_format(name)
    options = SolverOptions("gptq", number_format, granularity, "float16", scale_method="absmax")
    found = solve(weight, torch.eye(48), options).tensor
    expected = compress(
        weight.numpy(), number_format, granularity=granularity, scale_storage="float16"
    )
    assert found is not None
    np.testing.assert_array_equal(found.scales.values(), expected.scales.values())
    np.testing.assert_array_equal(found.codes(), expected.codes())


@pytest.mark.parametrize("granularity", GRANULARITIES, ids=str)
@pytest.mark.parametrize("bits", ("int4", "uint4"))
def test_with_an_identity_hessian_affine_gptq_is_affine_rounding(bits, granularity):
    weight, _ = layer()
    weight += 0.05
    options = SolverOptions(
        "gptq", parse_format(bits), granularity, symmetric=False, scale_method="absmax"
    )
    found = solve(weight, torch.eye(48), options).tensor
    expected = compress(
        weight.numpy(), parse_format(bits), granularity=granularity, method="affine"
    )
    assert found is not None
    np.testing.assert_array_equal(found.zero_points, expected.zero_points)
    np.testing.assert_array_equal(found.codes(), expected.codes())


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("granularity", (PerChannel(0), PerGroup(16)), ids=str)
def test_gptq_beats_rounding_with_the_same_kind_of_scales(name, granularity):
    for seed in range(3):
        weight, hessian = layer(seed=seed)
        nearest = solve(weight, hessian, SolverOptions("rtn", parse_format(name), granularity))
        options = SolverOptions("gptq", parse_format(name), granularity, scale_method="absmax")
        assert solve(weight, hessian, options).loss < nearest.loss


@pytest.mark.parametrize("storage", ("float32", "float16", "bfloat16", "e8m0", "double"))
@pytest.mark.parametrize("symmetric", (True, False))
def test_the_weight_is_what_the_tensor_decodes_to(storage, symmetric):
    weight, hessian = layer()
    for solver, sparsity in (("gptq", None), ("sparsegpt", 0.4), ("sparsegpt", NofM(2, 4))):
        options = SolverOptions(
            solver, parse_format("int4"), PerGroup(16), storage, symmetric, sparsity
        )
        found = solve(weight, hessian, options)
        assert found.tensor is not None
        np.testing.assert_array_equal(found.tensor.decode(), found.weight.numpy())
        assert found.loss == pytest.approx(layer_loss(weight, found.weight, hessian))
        assert 0 < found.loss < layer_loss(weight, torch.zeros_like(weight), hessian)


@pytest.mark.parametrize(
    ("granularity", "sparsity"),
    [
        (PerChannel(0), None), (PerGroup(16), None), (PerGroup(20), None),
        (PerGroup(16), NofM(2, 4)), (PerGroup(10), NofM(1, 3)), (PerChannel(0), NofM(3, 8)),
    ],
    ids=str,
)  # fmt: skip
def test_blocks_change_nothing(granularity, sparsity):
    """Errors that wait for the end of a block are counted where a group or pattern looks ahead."""
    weight, hessian = layer()
    solver = "gptq" if sparsity is None else "sparsegpt"
    found = []
    for block in (1, 7, 16, 128):
        options = SolverOptions(
            solver, parse_format("int4"), granularity, sparsity=sparsity, block_columns=block
        )
        found.append(solve(weight, hessian, options).weight)
    for other in found[1:]:
        # A rounding error may move a single weight to its other neighbour.
        assert int(((found[0] - other).abs() > 1e-6).sum()) <= 2


def test_pruning_one_weight_is_the_closed_form_of_obs():
    """Spec 6: w - w_p / Hinv_pp * Hinv[:, p] for the p of least w_p^2 / Hinv_pp."""
    for seed in range(5):
        weight, hessian = layer(1, 12, seed)
        # The sequential solver spreads to later columns only, so the first must be the one.
        inverse = torch.linalg.inv(hessian)
        weight[0, 0] = 1e-3
        options = SolverOptions("sparsegpt", sparsity=1 / 12, damping=0.0)
        found = solve(weight, hessian, options).weight[0].double()
        start = weight[0].double()
        expected = start - start[0] / inverse[0, 0] * inverse[:, 0]
        expected[0] = 0
        np.testing.assert_allclose(found, expected, atol=1e-5 * float(start.abs().max()))
        gain = layer_loss(weight, found[None].float(), hessian)
        assert gain == pytest.approx(float(start[0] ** 2 / inverse[0, 0] / 2), rel=1e-4)


@pytest.mark.parametrize("name", (None, "int4", "nf4"))
@pytest.mark.parametrize("sparsity", (0.0, 0.3, 0.5, 0.77, NofM(2, 4), NofM(4, 8), NofM(1, 3)))
def test_sparsity_is_exact(name, sparsity):
    weight, hessian = layer()
    number_format = name and parse_format(name)
    for solver in ("sparsegpt", "magnitude", "wanda"):
        found = solve(weight, hessian, SolverOptions(solver, number_format, sparsity=sparsity))
        assert found.mask is not None and not found.weight[~found.mask].any()
        if isinstance(sparsity, NofM):
            kept = found.mask.reshape(-1, sparsity.m).sum(dim=1)
            assert (kept == sparsity.n).all()
        elif solver == "wanda":
            assert ((~found.mask).sum(dim=1) == round(sparsity * 48)).all()
        else:
            assert int((~found.mask).sum()) == round(sparsity * weight.numel())
        assert (found.tensor is None) == (name is None)


@pytest.mark.parametrize("sparsity", (0.5, NofM(2, 4)))
def test_sparsegpt_beats_magnitude(sparsity):
    for seed in range(5):
        weight, hessian = layer(seed=seed)
        losses = [
            solve(weight, hessian, SolverOptions(solver, sparsity=sparsity)).loss
            for solver in ("sparsegpt", "magnitude")
        ]
        assert losses[0] < losses[1]


def test_pruning_without_rounding_leaves_a_least_squares_fit_alone():
    """With all of a matrix's columns in one block and no zeros, nothing changes."""
    weight, hessian = layer()
    found = solve(weight, hessian, SolverOptions("sparsegpt", sparsity=0.0))
    assert torch.equal(found.weight, weight)


def test_sparse_tensors_choose_their_storage():
    weight, hessian = layer()
    int4 = parse_format("int4")
    kinds = {0.5: Bitmap, 0.99: Rows, NofM(2, 4): NofM}
    for sparsity, kind in kinds.items():
        found = solve(weight, hessian, SolverOptions("magnitude", int4, sparsity=sparsity))
        assert found.tensor is not None and isinstance(found.tensor.sparsity, kind)
    for solver in ("magnitude", "sparsegpt"):
        options = SolverOptions(solver, int4, sparsity=0.5, sparsity_storage=Dense())
        found = solve(weight, hessian, options)
        assert found.tensor is not None and found.mask is not None
        assert not found.tensor.decode()[~found.mask.numpy()].any()


@pytest.mark.parametrize("granularity", (PerChannel(0), PerGroup(16), PerBlock(16)), ids=str)
def test_activation_order_only_reorders_the_work(granularity):
    """Permuting the inputs permutes the solution, when scales do not depend on neighbours."""
    weight, hessian = layer()
    options = SolverOptions("gptq", parse_format("int4"), granularity, activation_order=True)
    found = solve(weight, hessian, options)
    assert found.tensor is not None
    np.testing.assert_array_equal(found.tensor.decode(), found.weight.numpy())
    if isinstance(granularity, PerChannel):
        other = torch.randperm(48, generator=torch.Generator().manual_seed(1))
        moved = solve(weight[:, other], hessian[other][:, other], options)
        assert int((moved.weight != found.weight[:, other]).sum()) <= 2
    falling = hessian.diagonal().argsort(descending=True)
    plain = SolverOptions("gptq", parse_format("int4"), granularity)
    if isinstance(granularity, PerChannel):
        sorted_by_hand = solve(weight[:, falling], hessian[falling][:, falling], plain)
        assert int((sorted_by_hand.weight != found.weight[:, falling]).sum()) <= 2


def test_activation_order_keeps_n_of_m_neighbours():
    weight, hessian = layer()
    options = SolverOptions("sparsegpt", sparsity=NofM(2, 4), activation_order=True)
    found = solve(weight, hessian, options)
    assert found.mask is not None
    assert (found.mask.reshape(-1, 4).sum(dim=1) == 2).all()


def test_solving_twice_gives_the_same_bits():
    weight, hessian = layer()
    options = SolverOptions("sparsegpt", parse_format("int4"), PerGroup(16), sparsity=0.5)
    assert torch.equal(
        solve(weight, hessian, options).weight, solve(weight, hessian, options).weight
    )
