"""Candidates: the rule's first, all of them possible, none twice."""

from __future__ import annotations

import dataclasses

import pytest
from fewbits.schedules.tuning.choices import Site
from fewbits.schedules.tuning.space import candidates, fits
from tuning_fakes import only_site, product_module
from tvm import tirx


@pytest.fixture(scope="module")
def site() -> Site:
    return only_site(product_module(tirx.Var("N", "int64"), 64, 100))


@pytest.mark.parametrize("size", [1, 5, 100, 5000])
def test_candidates_fit_and_start_with_the_rule(site: Site, size: int) -> None:
    found = candidates(site, [{"N": size}], 1000)
    assert found[0] == site.rule
    assert len(set(found)) == len(found) > 4
    assert all(fits(site, sizes) for sizes in found)
    assert found == candidates(site, [{"N": size}], 1000)
    assert found[:3] == candidates(site, [{"N": size}], 3)


def test_more_registers_allow_more(site: Site) -> None:
    large = dataclasses.replace(site, registers=32)
    few, many = (len(candidates(one, [{"N": 64}], 1000)) for one in (site, large))
    assert few < many


def test_blocks_are_tried_only_where_they_make_a_difference(site: Site) -> None:
    short, long = (candidates(site, [{"N": n}], 1000) for n in (16, 5000))
    assert len({sizes[:2] for sizes in short}) == len(short)
    assert len({sizes[:2] for sizes in long}) < len(long)


@pytest.mark.parametrize(
    "sizes", [(0, 1, 0), (40, 1, 40), (8, 3, 8), (4, 2, 6), (4, 2), (1, 7, 1), (-1, 1, 1)]
)
def test_impossible_sizes(site: Site, sizes: tuple[int, ...]) -> None:
    assert not fits(site, sizes)
