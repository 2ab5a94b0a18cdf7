"""Which kernels are tried, and with what."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fewbits.schedules.cuda.architecture import SM_80, SM_90A, Architecture
from fewbits.schedules.cuda.dispatch import choose
from fewbits.schedules.cuda.epilogue import Epilogue, plain, scaled
from fewbits.schedules.cuda.problem import Linear
from fewbits.schedules.cuda.templates import suitable
from fewbits.schedules.cuda.tuning.arguments import arguments, has_recipe, tolerance
from fewbits.schedules.cuda.tuning.candidates import candidates
from fewbits.schedules.cuda.tuning.measuring import contents
from fewbits.schedules.cuda.weight_format import Dense
from fewbits.schedules.cuda.weight_only.few_bit import FewBit

INT8 = Linear(256, 192, "int8", Dense("int8"), scaled("float16"))
HALF = Linear(512, 256, "float16", Dense("float16"), plain("float32", "float16"))
INT4 = Linear(256, 192, "float16", FewBit("int4", 64), plain("float32", "float16"))
PRODUCTS = pytest.mark.parametrize("problem", [INT8, HALF, INT4], ids=["int8", "half", "int4"])
MACHINES = pytest.mark.parametrize("architecture", [SM_80, SM_90A], ids=lambda a: a.name)


def labels(problem: Linear, architecture: Architecture, limit: int, seed: int = 0) -> list[str]:
    options = suitable(problem, architecture)
    return [c.label for c in candidates(problem, architecture, 64, options, limit, seed)]


@PRODUCTS
@MACHINES
def test_the_first_is_what_a_compilation_would_use(
    problem: Linear, architecture: Architecture
) -> None:
    found = labels(problem, architecture, 16)
    assert found[0] == choose(problem, architecture, 64, suitable(problem, architecture)).label
    assert len(set(found)) == len(found) == 16
    assert labels(problem, architecture, 1) == found[:1]


@PRODUCTS
@MACHINES
def test_every_template_gets_a_try(problem: Linear, architecture: Architecture) -> None:
    tried = {label.split()[0] for label in labels(problem, architecture, 12)}
    assert tried == {template.name for template in suitable(problem, architecture)}


def test_equal_seeds_give_equal_candidates_and_others_differ_in_a_share() -> None:
    first, again, other = (labels(HALF, SM_90A, 20, seed) for seed in (0, 0, 1))
    assert first == again != other
    assert 3 <= len(set(other) - set(first)) <= 5


def test_small_spaces_are_tried_whole() -> None:
    odd = Linear(63, 5, "int8", Dense("int8"), plain("int32", "int32"))  # only simt takes it
    (template,) = suitable(odd, SM_80)
    assert len(labels(odd, SM_80, 100)) == len(list(template.space(odd, SM_80)))


def test_favourites_are_no_near_copies_of_each_other() -> None:
    found = candidates(HALF, SM_90A, 4096, suitable(HALF, SM_90A), 13)
    tiles = {(c.template.name, c.sizes.rows, c.sizes.columns) for c in found[:10]}
    assert len(tiles) >= 4


@PRODUCTS
def test_arguments_are_a_kernels_parameters(problem: Linear) -> None:
    made = arguments(problem, 5)
    kernel = suitable(problem, SM_80)[0]
    sizes = kernel.rule(problem, SM_80, 5)
    function = kernel.build(problem, SM_80, sizes, "candidate").function
    assert len(made) == len(function.params)
    arrays = [contents.array(one, np.random.default_rng(0)) for one in made]
    for argument, array in zip(made, arrays, strict=True):
        assert array.shape == argument.shape and array.dtype == contents.dtype_of(argument.dtype)
    again = [contents.array(one, np.random.default_rng(0)) for one in made]
    assert all(a.tobytes() == b.tobytes() for a, b in zip(arrays, again, strict=True))


@pytest.mark.parametrize("name", ["int4", "uint4", "nf4", "fp4_e2m1", "fp8_e4m3fn", "fp8_e5m2"])
@pytest.mark.parametrize("group", [None, 64])
def test_made_up_few_bit_weights_are_numbers_of_a_usual_size(name: str, group: int | None) -> None:
    layout = FewBit(name, group, zero_points=name == "uint4")
    problem = Linear(128, 64, "float16", layout, plain("float32", "float16"))
    random = np.random.default_rng(0)
    arrays = [contents.array(one, random) for one in arguments(problem, 1)[1:-1]]
    values = layout.decoded(arrays, 64, 128)
    assert np.isfinite(values).all() and len(np.unique(values)) > 8
    # Sums of 100000 terms stay within float16.
    assert 1e-3 < np.abs(values).std() * 1e5**0.5 < 6e4 and np.abs(values).max() < 3


def test_scales_bring_sums_to_about_one() -> None:
    x, w, row, column, _ = (
        contents.array(one, np.random.default_rng(0)).astype(np.float64)
        for one in arguments(INT8, 33)
    )
    result = (x @ w.T) * row[:, None] * column
    assert 0.3 < result.std() < 3


def test_integers_are_exact_and_floats_are_not() -> None:
    def of(activation: str, epilogue: Epilogue) -> float:
        return tolerance(Linear(64, 64, activation, Dense(activation), epilogue))

    assert of("int8", plain("int32", "int32")) == 0.0
    assert of("int8", plain("int32", "int8")) == 0.0
    assert 0 < of("int8", plain("int32", "float32")) < of("float16", plain("float32", "float32"))
    assert of("float16", plain("float32", "float16")) < of("float16", plain("float32", "bfloat16"))


def test_other_layouts_need_their_arrays(tmp_path: Path) -> None:
    assert has_recipe(INT4) and has_recipe(INT8)
    weight = np.random.default_rng(1).normal(size=(4, 8)).astype(np.float32)
    (tmp_path / "w.bin").write_bytes(weight.tobytes())
    one = contents.Argument((4, 8), "float32", {"kind": "file", "name": "../w.bin"})
    found = contents.array(one, np.random.default_rng(0), tmp_path)
    assert (found == weight).all()
    with pytest.raises(ValueError):
        contents.array(
            contents.Argument((4, 9), "float32", one.fill), np.random.default_rng(0), tmp_path
        )


@pytest.mark.parametrize("dtype", ["int8", "int32", "float16", "bfloat16", "float8_e4m3fn"])
def test_distances(dtype: str) -> None:
    kind = contents.dtype_of(dtype)
    expected = np.arange(-8, 8).reshape(4, 4).astype(kind)
    assert contents.distance(expected, expected.copy()) == 0.0
    other = expected.copy()
    other[3, 3] = 5
    assert contents.distance(expected, other) == 2 / 8


def test_distances_of_what_is_no_number() -> None:
    nan, inf = np.nan, np.inf
    assert contents.distance(np.array([nan, inf, 1]), np.array([nan, inf, 1])) == 0
    assert contents.distance(np.array([1.0, 1]), np.array([nan, 1])) == inf
    assert contents.distance(np.array([nan, 1]), np.array([1.0, 1])) == inf
    assert contents.distance(np.array([inf, 1]), np.array([-inf, 1])) == inf
