"""What solvers do with little data, dead inputs, NaN and requests that make no sense."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fewbits.errors import FewbitsError
from fewbits.formats.compress import compress
from fewbits.formats.granularity import PerBlock, PerChannel, PerGroup, PerTensor, PerToken
from fewbits.formats.parse import parse_format
from fewbits.formats.sparsity import NofM
from fewbits.passes.solvers import Hessian, SolverOptions, solve
from fewbits.passes.solvers.factor import inverse_factor
from fewbits.passes.solvers.masks import project
from fewbits.passes.solvers.nearest import NearestLevel
from fewbits.passes.solvers.quantizer import scale_index
from hypothesis import given, settings
from hypothesis import strategies as st

INT4 = parse_format("int4")
#: One of each kind, as (options, solver with data).
SECOND_ORDER = [
    SolverOptions("gptq", INT4),
    SolverOptions("gptq", INT4, activation_order=True),
    SolverOptions("descent", INT4),
    SolverOptions("obq", INT4),
    SolverOptions("sparsegpt", sparsity=0.5),
    SolverOptions("sparsegpt", INT4, sparsity=NofM(2, 4)),
    SolverOptions("obs", sparsity=0.5),
    SolverOptions("obs", INT4, sparsity=NofM(2, 4)),
]


def matrix(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def moments(x: torch.Tensor) -> Hessian:
    hessian = Hessian(x.shape[1])
    hessian.add(x)
    return hessian


def name_of(options: SolverOptions) -> str:
    return f"{options.solver}-{options.number_format}-{options.sparsity}"


def test_the_hessian_streams():
    x = matrix(100, 12).double()
    whole, pieces = Hessian(12, dtype=torch.float64), Hessian(12, dtype=torch.float64)
    whole.add(x)
    for part in (x[:1], x[1:60].reshape(-1, 59, 12), x[60:]):
        pieces.add(part)
    assert pieces.samples == 100
    np.testing.assert_allclose(whole.value, 2 / 100 * x.T @ x, rtol=1e-12)
    np.testing.assert_allclose(pieces.value, whole.value, rtol=1e-12)
    np.testing.assert_allclose(pieces.column_norms, x.norm(dim=0), rtol=1e-12)
    np.testing.assert_allclose(pieces.absmean, x.abs().mean(dim=0), rtol=1e-12)


@pytest.mark.parametrize("bad", (torch.nan, torch.inf))
def test_the_hessian_refuses_nan_and_stays_as_it_was(bad):
    hessian = moments(matrix(5, 4))
    before = hessian.value
    with pytest.raises(FewbitsError, match="bad-hessian"):
        hessian.add(torch.full((2, 4), bad))
    with pytest.raises(FewbitsError, match="bad-hessian"):
        hessian.add(torch.zeros(2, 5))
    assert torch.equal(hessian.value, before) and hessian.samples == 5


@pytest.mark.parametrize("options", SECOND_ORDER, ids=name_of)
def test_too_little_data_is_damped_and_reported(options):
    weight, hessian = matrix(8, 32), moments(matrix(5, 32, 1))
    found = solve(weight, hessian, options)
    assert torch.isfinite(found.weight).all()
    assert any("5 calibration vectors for 32 inputs" in note for note in found.notes)
    assert any("singular" in note for note in found.notes)


@pytest.mark.parametrize("options", SECOND_ORDER, ids=name_of)
def test_dead_inputs_are_reported_and_harmless(options):
    x = matrix(200, 32, 1)
    x[:, [3, 4, 5, 17]] = 0
    weight = matrix(8, 32)
    found = solve(weight, moments(x), options)
    assert torch.isfinite(found.weight).all()
    assert any("4 of 32 inputs are 0" in note for note in found.notes)
    if found.mask is not None and not isinstance(options.sparsity, NofM):
        assert not found.mask[:, [3, 4, 5, 17]].any()  # they cost nothing
    if found.mask is None:
        # Nothing is known of them, so they are rounded to nearest.
        assert (found.weight[:, 3] - weight[:, 3]).abs().max() < weight.abs().max() / 8


@pytest.mark.parametrize("options", SECOND_ORDER, ids=name_of)
def test_inputs_that_are_all_zero(options):
    found = solve(matrix(4, 16), moments(torch.zeros(50, 16)), options)
    assert torch.isfinite(found.weight).all() and found.loss == 0


def test_a_factorization_that_fails_is_retried_and_reported():
    x = matrix(3, 16).double()
    singular = x.T @ x
    factor = inverse_factor(singular - 1e-9 * torch.eye(16), 0.0)
    assert factor.damping > 0
    assert any("did not factor with damping 0" in note for note in factor.notes)
    damped = singular + (factor.damping * singular.diagonal().mean() - 1e-9) * torch.eye(16)
    np.testing.assert_allclose(
        factor.inverse() @ damped, torch.eye(16, dtype=torch.float64), atol=1e-5
    )


def test_a_factor_in_another_order():
    x = matrix(100, 16).double()
    hessian, order = x.T @ x, torch.randperm(16)
    upper = inverse_factor(hessian, 0.0, order).upper
    assert torch.equal(upper, upper.triu())
    expected = torch.linalg.inv(hessian)[order][:, order]
    np.testing.assert_allclose(upper.T @ upper, expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(
    ("hessian", "reason"),
    [
        (-torch.ones(8, 8), "negative"),
        (torch.full((8, 8), torch.nan), "NaN"),
        (torch.eye(7), "shape"),
        (torch.eye(8) + 100 * torch.eye(8).roll(1, 0) + 100 * torch.eye(8).roll(1, 1), "positive"),
    ],
)
def test_what_is_no_hessian_is_refused(hessian, reason):
    with pytest.raises(FewbitsError, match=reason) as caught:
        solve(matrix(4, 8), hessian, SolverOptions("gptq", INT4))
    assert caught.value.code == "bad-hessian"


@pytest.mark.parametrize("bad", (torch.nan, torch.inf))
@pytest.mark.parametrize("options", [*SECOND_ORDER, SolverOptions("rtn", INT4)], ids=name_of)
def test_nan_in_weights_is_refused(bad, options):
    weight = matrix(4, 8)
    weight[1, 2] = bad
    with pytest.raises(FewbitsError, match="not-a-number"):
        solve(weight, torch.eye(8), options)


@pytest.mark.parametrize("options", [*SECOND_ORDER, SolverOptions("wanda", sparsity=0.5)])
def test_without_data(options):
    for nothing in (None, Hessian(8)):
        with pytest.raises(FewbitsError, match="calibration-needed"):
            solve(matrix(4, 8), nothing, options)


def test_weights_of_zeros_stay_zeros():
    for options in SECOND_ORDER:
        found = solve(torch.zeros(4, 16), moments(matrix(100, 16)), options)
        assert not found.weight.any() and found.loss == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"solver": "gtpq"}, {"solver": "gptq"}, {"solver": "sparsegpt"},
        {"solver": "gptq", "number_format": INT4, "sparsity": 0.5},
        {"solver": "rtn", "number_format": parse_format("nf4"), "symmetric": False},
        {"solver": "mse", "number_format": INT4, "scale_method": "absmax"},
        {"solver": "rtn", "number_format": INT4, "scale_method": "best"},
        {"solver": "rtn", "number_format": INT4, "damping": -1.0},
        {"solver": "rtn", "number_format": INT4, "block_columns": 0},
    ],
)  # fmt: skip
def test_options_that_make_no_sense(fields):
    with pytest.raises(FewbitsError, match="bad-solver"):
        SolverOptions(**fields)


def test_requests_that_do_not_fit_the_matrix():
    weight, hessian = matrix(4, 10), torch.eye(10)
    for solver in ("magnitude", "wanda", "sparsegpt", "obs"):
        with pytest.raises(FewbitsError, match="bad-sparsity"):
            solve(weight, hessian, SolverOptions(solver, sparsity=NofM(2, 4)))
    with pytest.raises(FewbitsError, match="bad-sparsity"):
        SolverOptions("obs", sparsity=1.0)
    for solver in ("rtn", "gptq"):
        with pytest.raises(FewbitsError, match="unsigned-format"):
            solve(weight, hessian, SolverOptions(solver, parse_format("uint4")))
    with pytest.raises(FewbitsError, match="overflow"):
        solve(weight, hessian, SolverOptions("gptq", parse_format("fp8_e4m3fn-overflow")))
    for shape in ((0, 10), (4, 0), (4,)):
        with pytest.raises(FewbitsError, match="empty-tensor"):
            solve(torch.zeros(shape), None, SolverOptions("rtn", INT4))


def test_options_are_hashable():
    assert len({SolverOptions("rtn", INT4), SolverOptions("rtn", INT4)}) == 1


@pytest.mark.parametrize(
    "granularity",
    [PerTensor(), PerChannel(0), PerChannel(1), PerChannel(-1), PerGroup(4), PerGroup(5, 1),
     PerGroup(2, 0), PerGroup(3, -2), PerBlock(5), PerBlock(100), PerToken()],
    ids=str,
)  # fmt: skip
def test_the_scale_index_is_that_of_the_rows(granularity):
    shape = (6, 14)
    count = int(np.prod(granularity.scale_shape(shape)))
    rows = granularity.rows(np.zeros(shape))
    ids = np.broadcast_to(np.arange(count)[:, None], rows.shape)
    expected = granularity.from_rows(np.ascontiguousarray(ids), shape)
    i, j = torch.arange(6)[:, None], torch.arange(14)
    np.testing.assert_array_equal(scale_index(granularity, shape, i, j), expected)


@pytest.mark.parametrize("name", (
    "int2", "int4", "int8-narrow", "uint4", "nf4", "af4", "dynamic8", "flint4", "uflint4", "pot5",
    "fp8_e4m3fn", "fp8_e5m2", "fp8_e4m3fnuz", "fp6_e3m2", "fp4_e2m1", "ufp8_e4m4", "quantile3",
))  # fmt: skip
def test_nearest_levels_are_those_of_encode(name):
    number_format = parse_format(name)
    levels = number_format.levels().astype(np.float32)
    middles = (levels[1:] + levels[:-1]) / 2
    near = [np.nextafter(middles, np.float32(s)) for s in (-np.inf, np.inf)]
    random = np.random.default_rng(0).normal(0, number_format.reach, 2000).astype(np.float32)
    x = np.concatenate([levels, middles, *near, 3 * levels, random, [0.0, -0.0]], dtype=np.float32)
    rounded = NearestLevel(number_format).round(torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(rounded, number_format.round(x))
    codes = number_format.encode(x)
    same = number_format.encode(rounded)
    if name.startswith(("int", "uint")):
        np.testing.assert_array_equal(same, codes)
    np.testing.assert_array_equal(number_format.decode(same), number_format.decode(codes))


@pytest.mark.parametrize("name", ("int4", "nf4", "bcq2"))
def test_round_to_nearest_is_compress(name):
    weight = matrix(6, 30)
    options = SolverOptions("rtn", parse_format(name), PerGroup(7), "float16")
    found = solve(weight, None, options)
    expected = compress(
        weight.numpy(), parse_format(name), granularity=PerGroup(7), scale_storage="float16"
    )
    np.testing.assert_array_equal(found.weight, expected.decode())


def test_searched_affine_scales_are_better():
    weight, hessian = matrix(8, 64) ** 3 + 1, torch.eye(64)
    for solver in ("rtn", "gptq"):
        losses = [
            solve(
                weight, hessian,
                SolverOptions(solver, INT4, PerGroup(32), symmetric=False, scale_method=method),
            ).loss
            for method in ("mse", "absmax")
        ]  # fmt: skip
        assert losses[0] < losses[1]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_patterns_and_shares_are_exact(data):
    """Any n:m and any share, with ties and zeros among the weights."""
    rows = data.draw(st.integers(1, 5), "rows")
    m = data.draw(st.integers(2, 9), "m")
    n = data.draw(st.integers(1, m - 1), "n")
    columns = m * data.draw(st.integers(1, 4), "groups")
    seed = data.draw(st.integers(0, 1000), "seed")
    weight = matrix(rows, columns, seed).mul(data.draw(st.sampled_from((1, 2, 100)))).round()
    hessian = moments(matrix(data.draw(st.sampled_from((3, 60))), columns, seed + 1))
    share = data.draw(st.floats(0, 0.99), "share")
    projected = project(weight, NofM(n, m)).reshape(-1, m)
    assert ((projected != 0).sum(dim=1) <= n).all()
    for solver in ("magnitude", "wanda", "sparsegpt", "obs"):
        found = solve(weight, hessian, SolverOptions(solver, sparsity=NofM(n, m)))
        assert found.mask is not None and not found.weight[~found.mask].any()
        assert (found.mask.reshape(-1, m).sum(dim=1) == n).all()
        found = solve(weight, hessian, SolverOptions(solver, INT4, sparsity=share))
        assert found.mask is not None and not found.weight[~found.mask].any()
        zeros = (
            rows * round(share * columns) if solver == "wanda" else round(share * rows * columns)
        )
        assert int((~found.mask).sum()) == zeros
