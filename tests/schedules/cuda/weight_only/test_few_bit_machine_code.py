"""What nvcc makes of the kernels: tensor cores, wide loads, one LOP3 a pair, nothing spilled."""

from __future__ import annotations

from typing import Any

import pytest
from fewbits.errors import FewbitsError
from fewbits.schedules.cuda.architecture import ARCHITECTURES
from fewbits.schedules.cuda.epilogue import plain
from fewbits.schedules.cuda.problem import Linear
from fewbits.schedules.cuda.weight_only import DecodeMma, DecodeWgmma, FewBit, Matvec, Skinny
from fewbits.schedules.cuda.weight_only.stream import StreamSizes
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
    template: Any,
    rows: int,
    layout: FewBit,
    architecture: str = "sm_90a",
    activation: str = "float16",
    sizes: Any = None,
) -> MachineCode:
    problem = Linear(4096, 4096, activation, layout, plain("float32", activation))
    target = ARCHITECTURES[architecture]
    assert template.refusal(problem, target) is None
    sizes = sizes or template.rule(problem, target, rows)
    code = report(template.build(problem, target, sizes, "product"))
    assert code.stack == code.spill == 0, sizes
    return code


@pytest.mark.parametrize("architecture", ["sm_80", "sm_89", "sm_90a"])
def test_few_rows_stream_from_memory_to_registers(architecture: str) -> None:
    code = made(Matvec(), 1, FewBit("int4", 128), architecture, sizes=StreamSizes(1, 8, 1, 4))
    # Two rounds of four chunks of four tiles: one product for each, four words a lane and chunk.
    assert code.count("HMMA") == 32
    assert sum(n for name, n in code.instructions.items() if ".128" in name and "LDG." in name) == 8
    # Four registers of a tile take four LOP3 and a shift; the rest is addresses.
    assert code.count("LOP3") <= 32 * 4 + 40
    assert code.count("HFMA2") + code.count("HADD2") <= 32 * 4 + 16 + 8


@pytest.mark.parametrize("architecture", ["sm_80", "sm_89", "sm_90a"])
@pytest.mark.parametrize(("template", "rows"), [(Skinny(), 16), (DecodeMma(), 512)])
def test_more_rows_stream_through_shared_memory(
    template: Any, rows: int, architecture: str
) -> None:
    code = made(template, rows, FewBit("int4", 64), architecture)
    assert code.count("HMMA") and code.count("LDGSTS") and code.count("LDSM")


@pytest.mark.parametrize("name", ["int4", "dynamic8"])
def test_many_rows_on_hopper(name: str) -> None:
    code = made(DecodeWgmma(), 4096, FewBit(name, 128))
    assert code.count("HGMMA") >= 8
    assert code.count("UTMALDG")


@pytest.mark.parametrize("activation", ["bfloat16", "float32"])
def test_other_activations(activation: str) -> None:
    code = made(Matvec(), 1, FewBit("uint8", 64, "float32", True), activation=activation)
    assert any("HMMA" in name and "BF16" in name for name in code.instructions)


def test_levels_are_selected_by_byte_permutations() -> None:
    code = made(Matvec(), 1, FewBit("nf4", 64), sizes=StreamSizes(1, 8, 1, 4))
    assert code.count("PRMT") <= 32 * 8 * 2 + 40
