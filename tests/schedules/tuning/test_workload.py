"""A workload's key: what it depends on, and what it does not."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

from fewbits.schedules.cpu.int8_linear import Int8Linear
from fewbits.schedules.cpu.intrinsics import DotProduct
from fewbits.schedules.cpu.intrinsics_epilogue import Epilogue
from fewbits.schedules.tuning.workload import Workload, kernel_workload
from tuning_fakes import only_site, product_module
from tvm import tirx

KERNEL = Int8Linear(DotProduct(None, 4, 1), (None,), 64, 48)


def test_names_and_weights_do_not_matter() -> None:
    one = only_site(product_module(32, 64, 48, name="one", after=True))
    other = only_site(product_module(32, 64, 48, name="b0 / r0 T", after=True, seed=1))
    assert one.workload == other.workload


def test_sizes_and_what_follows_matter() -> None:
    keys = {
        only_site(product_module(rows, summed, columns, after=after)).workload.key
        for rows, summed, columns, after in (
            (32, 64, 48, False), (32, 64, 48, True), (33, 64, 48, False), (32, 63, 48, False),
            (32, 64, 47, False),
        )
    }  # fmt: skip
    assert len(keys) == 5


def test_symbolic_dimensions_are_named() -> None:
    sites = [only_site(product_module(tirx.Var(name, "int64"), 64, 48)) for name in ("N", "N", "T")]
    assert sites[0].workload == sites[1].workload != sites[2].workload
    assert sites[0].workload.title == "product N x 64 x 48"


def test_a_kernels_tile_is_no_part_of_it_and_all_else_is() -> None:
    base = kernel_workload(KERNEL, [tirx.Var("N", "int64")])
    assert base == kernel_workload(
        dataclasses.replace(KERNEL, tile=(2, 2)), [tirx.Var("N", "int64")]
    )
    for change in (
        {"length": 65}, {"epilogue": Epilogue(bias=True)}, {"row_scale": "tensor"},
        {"dot": DotProduct(None, 8, 1)}, {"correction": "int16"},
    ):  # fmt: skip
        changed = dataclasses.replace(KERNEL, **change)
        assert kernel_workload(changed, [tirx.Var("N", "int64")]) != base
    assert kernel_workload(KERNEL, [7]) != base
    assert base.title == "int8_linear N x 64 x 48"


def test_keys_are_the_same_in_every_process() -> None:
    code = (
        "from fewbits.schedules.tuning.workload import Workload;"
        "print(Workload.of('product', {'b': [1, 'N'], 'a': None}).key)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == Workload.of("product", {"a": None, "b": [1, "N"]}).key
