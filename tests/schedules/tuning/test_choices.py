"""Records in compilations: used where they fit, else the rule; the loops are those asked for."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tvm
from fewbits.schedules.cpu import schedule_module
from fewbits.schedules.cpu.machine import Machine
from fewbits.schedules.cpu.tile import Tile
from fewbits.schedules.tuning.choices import Recorded, Sizes, tile_of, tile_sizes
from fewbits.schedules.tuning.sites import choose_kernel, dimensions
from fewbits.schedules.tuning.space import fits
from tuning_fakes import TARGET, Fixed, only_site, product_module
from tvm import relax, tirx


@dataclasses.dataclass(frozen=True)
class Kernel:
    leading: tuple[int | None, ...]
    tile: tuple[int, int] = (4, 2)
    length: int = 8

    def build(self) -> str:
        return f"function {self.tile}"


def chosen(choices: Fixed) -> Kernel:
    constant = relax.const(np.ones((8, 16), "float32"))
    result = relax.TensorType((tirx.Var("N", "int64"), 16), "float32")
    machine = Machine(8, 16)
    return choose_kernel(choices, machine, Kernel((None,)), [constant], [result], "l")


def test_generators_get_the_sizes_and_are_else_the_same() -> None:
    assert chosen(Fixed((3, 1))) == Kernel((None,), (3, 1))
    assert choose_kernel(Fixed((3, 1)), Machine(8, 16), "no tile", [], [], "l") == "no tile"


@pytest.mark.parametrize("sizes", [(3, 1), (13, 4, 13), (3, 2, 4), (0, 1, 0)])
def test_records_that_do_not_fit_are_not_used(sizes: Sizes) -> None:
    site = only_site(product_module(32, 64, 48))
    choices = Recorded({site.workload.key: sizes}, fits)
    assert choices.choose(site) == site.rule
    assert (choices.count, choices.tuned) == (1, [])


def test_recorded_sizes_change_the_loops_and_not_the_result() -> None:
    module = product_module(tirx.Var("N", "int64"), 64, 48, after=True)
    site = only_site(module)
    x = np.random.default_rng(0).normal(size=(37, 64)).astype("float32")
    results, texts = [], []
    for sizes in (site.rule, (3, 2, 9), (1, 1, 1), (5, 1, 10)):
        choices = Recorded({site.workload.key: sizes}, fits)
        scheduled = schedule_module(module, TARGET, choices)
        assert [one.workload for one in choices.tuned] == [site.workload]
        texts.append(scheduled.script())
        machine = relax.VirtualMachine(tvm.compile(scheduled, TARGET), tvm.cpu())
        results.append(machine["main"](tvm.runtime.tensor(x)).numpy())
    assert len(set(texts)) == 4
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], rtol=1e-5, atol=1e-5)


def test_sites_know_their_calls_weights_and_dimensions() -> None:
    site = only_site(product_module(tirx.Var("N", "int64"), 64, 48))
    assert (site.calls, [tuple(one.value.shape) for one in site.weights]) == (1, [(64, 48)])
    assert dimensions(site) == {"N"}
    assert dimensions(only_site(product_module(3, 64, 48))) == set()


@pytest.mark.parametrize("tile", [(8, 3), Tile(8, 3, 16)])
def test_tiles_of_both_kinds(tile: Tile | tuple[int, int]) -> None:
    assert tile_of(tile_sizes(tile), tile) == tile
