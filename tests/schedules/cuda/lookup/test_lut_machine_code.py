"""What nvcc makes of look-ups: one permutation and one load each, nothing spilled."""

from __future__ import annotations

from typing import Any

import pytest
from fewbits.errors import FewbitsError
from fewbits.schedules.cuda.architecture import ARCHITECTURES
from fewbits.schedules.cuda.epilogue import plain
from fewbits.schedules.cuda.lookup import BinaryCoded, DecodeBinary, Lut
from fewbits.schedules.cuda.lookup.sizes import LutSizes
from fewbits.schedules.cuda.problem import Linear
from fewbits.targets.cuda.machine_code import MachineCode, report
from fewbits.targets.cuda.toolchain import disassembler, find_nvcc


@pytest.fixture(autouse=True)
def _compiler() -> None:
    try:
        find_nvcc()
    except FewbitsError as error:
        pytest.skip(str(error))
    if disassembler("nvdisasm") is None:
        pytest.skip("nvdisasm is not installed")


def made(
    template: Any, rows: int, layout: BinaryCoded, architecture: str, sizes: Any = None
) -> MachineCode:
    problem = Linear(4096, 4096, "float16", layout, plain("float32", "float16"))
    target = ARCHITECTURES[architecture]
    sizes = sizes or template.rule(problem, target, rows)
    code = report(template.build(problem, target, sizes, "product"))
    assert code.stack == code.spill == 0, sizes
    return code


@pytest.mark.parametrize("architecture", ["sm_80", "sm_89", "sm_90a"])
def test_a_look_up_is_a_permutation_and_a_load(architecture: str) -> None:
    code = made(Lut(), 1, BinaryCoded(3, 128), architecture, LutSizes(1, 2, 2, 8))
    # Eight vectors of four outputs, three planes, two tables; one more load for the results' sums.
    look_ups = 8 * 4 * 3 * 2
    assert look_ups <= code.count("LDS") <= look_ups + 4
    assert look_ups <= code.count("PRMT") <= look_ups + 24
    assert sum(n for name, n in code.instructions.items() if "LDG" in name and ".128" in name) == 24


@pytest.mark.parametrize(
    ("sizes", "bits"),
    [(LutSizes(4, 1, 2, 8), 3), (LutSizes(1, 4, 2, 16, split=4), 4)],
    ids=str,
)
def test_nothing_is_spilled(sizes: LutSizes, bits: int) -> None:
    code = made(Lut(), sizes.rows, BinaryCoded(bits, 64, "float32", True), "sm_90a", sizes)
    assert code.count("LDS")


@pytest.mark.parametrize(("rows", "architecture"), [(1, "sm_80"), (64, "sm_89"), (64, "sm_90a")])
def test_decoded_signs_meet_tensor_cores(rows: int, architecture: str) -> None:
    code = made(DecodeBinary(), rows, BinaryCoded(3, 64), architecture)
    assert code.count("HMMA") >= 16 and code.count("LDGSTS")
