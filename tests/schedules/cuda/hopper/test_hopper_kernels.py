"""The kernels compute what they should: every variant, on edges, with all kinds of epilogues."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fewbits.schedules.cuda.hopper.sizes import Sizes
from fewbits.targets.cuda.testing import Gpu

E4M3, E5M2 = "float8_e4m3fn", "float8_e5m2"

VARIANTS = [
    Sizes(128, 128, 3),
    Sizes(64, 64, 3),
    Sizes(256, 64, 2),
    Sizes(128, 64, 2, "pingpong"),
    Sizes(64, 128, 3, "pingpong", group=2),
    Sizes(128, 64, 3, cluster_rows=2),
    Sizes(64, 64, 3, "pingpong", cluster_columns=2),
    Sizes(128, 64, 4, split=2),
    Sizes(64, 64, 4, swap=True, split=4),
    Sizes(64, 8, 4, swap=True, split=2),
    Sizes(128, 256, 2),
]


@pytest.mark.parametrize("sizes", VARIANTS, ids=str)
def test_every_variant_is_exact(sizes: Sizes, case: Callable[..., Any], gpu: Gpu) -> None:
    case(130, 200, 528).check(sizes)


@pytest.mark.parametrize("m", [1, 63, 64, 65, 127, 300])
def test_any_number_of_rows(m: int, case: Callable[..., Any], gpu: Gpu) -> None:
    case(m, 128, 272).check(Sizes(128, 64, 3, "pingpong"))


@pytest.mark.parametrize("n", [8, 201, 264])
@pytest.mark.parametrize("sizes", [Sizes(64, 64, 3), Sizes(64, 16, 3, swap=True)], ids=str)
def test_any_number_of_columns(n: int, sizes: Sizes, case: Callable[..., Any], gpu: Gpu) -> None:
    case(40, n, 144).check(sizes)


@pytest.mark.parametrize("k", [16, 48, 64, 130 * 16])
def test_any_length_of_sums(k: int, case: Callable[..., Any], gpu: Gpu) -> None:
    case(66, 64, k).check(Sizes(64, 64, 3))


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_plain_sums(dtype: str, case: Callable[..., Any], gpu: Gpu) -> None:
    case(70, 96, 256, kind="plain", dtype=dtype).check(Sizes(64, 96, 3))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_scaled_sums(dtype: str, case: Callable[..., Any], gpu: Gpu) -> None:
    case(70, 136, 256, kind="scaled", dtype=dtype).check(Sizes(64, 128, 3))


def test_requantized_sums(case: Callable[..., Any], gpu: Gpu) -> None:
    case(70, 272, 256, kind="requantized", dtype="int8").check(Sizes(64, 256, 3, "pingpong"))


@pytest.mark.parametrize(
    "sizes", [Sizes(64, 64, 3), Sizes(64, 32, 3, swap=True), Sizes(128, 64, 4, split=2)], ids=str
)
@pytest.mark.parametrize("n", [72, 75])
def test_all_operands(n: int, sizes: Sizes, case: Callable[..., Any], gpu: Gpu) -> None:
    case(70, n, 256, kind="rich", dtype="float16").check(sizes)


@pytest.mark.parametrize(
    ("x", "weight"),
    [("float16", "float16"), ("bfloat16", "bfloat16"), (E4M3, E4M3), (E5M2, E4M3), (E4M3, E5M2)],
)
@pytest.mark.parametrize("swap", [False, True])
def test_floating_point(
    x: str, weight: str, swap: bool, case: Callable[..., Any], gpu: Gpu
) -> None:
    made = case(33, 72, 400, x, weight, kind="plain", dtype="float32")
    made.check(Sizes(64, 40, 3, swap=swap))


def test_promotion_only_adds_in_another_order(case: Callable[..., Any], gpu: Gpu) -> None:
    made = case(64, 64, 1024, E4M3, kind="plain", dtype="float32")
    results = [made.run(Sizes(64, 64, 3, promote=promote)) for promote in (True, False)]
    for result in results:
        error = np.abs(result.astype(np.float64) - made.expected)
        assert (error <= made.bound + 1e-6).all()


def test_split_sums_are_the_same_every_time(case: Callable[..., Any], gpu: Gpu) -> None:
    made = case(20, 64, 1024, "float16", kind="plain", dtype="float32")
    one, two = (made.run(Sizes(64, 24, 3, split=4, swap=True)) for _ in range(2))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("n", "sizes"),
    [(15 * 8, Sizes(64, 8, 2, "pingpong", group=4)), (7 * 64, Sizes(64, 64, 2, group=4))],
    ids=str,
)
def test_more_tiles_than_multiprocessors(
    n: int, sizes: Sizes, case: Callable[..., Any], gpu: Gpu
) -> None:
    # For 132 blocks: most make one or two, some more, in groups of four rows of tiles.
    case(20 * 64, n, 32).check(sizes)
