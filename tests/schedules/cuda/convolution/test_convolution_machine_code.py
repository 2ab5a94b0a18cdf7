"""What the compiler makes of convolutions: tensor cores, byte products, nothing spilled."""

from __future__ import annotations

import pytest
from fewbits.schedules.cuda.architecture import ARCHITECTURES
from fewbits.schedules.cuda.convolution import Convolution, convolution_template
from fewbits.schedules.cuda.epilogue import Epilogue, scaled
from fewbits.targets.cuda import machine_code, testing
from fewbits.targets.cuda.patterns.integers import requantize

pytestmark = pytest.mark.skipif(
    testing.no_compiler() is not None, reason=str(testing.no_compiler())
)
INTEGERS = requantize(0, -128, 127)
HALVES = scaled("float16", row=False, accumulator="float32")


def layer(
    channels: int, outputs: int, window: int, stride: int, groups: int, size: int | None, dtype: str
) -> Convolution:
    """A layer as image networks have them."""
    around = window // 2
    epilogue: Epilogue = INTEGERS if dtype == "int8" else HALVES
    return Convolution(
        channels, outputs, (window, window), (stride, stride), (around,) * 4, (1, 1), groups,
        (size, size), dtype, 3 if dtype == "int8" else 0, epilogue,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("architecture", "problem", "rows", "instruction"),
    [
        ("sm_90a", layer(64, 64, 3, 1, 1, 56, "int8"), 32 * 56 * 56, "IMMA"),
        ("sm_80", layer(256, 256, 3, 1, 1, 14, "int8"), 14 * 14, "IMMA"),
        ("sm_90a", layer(4, 64, 7, 2, 1, 224, "int8"), 112 * 112, "IMMA"),
        ("sm_80", layer(128, 128, 3, 2, 1, None, "float16"), 32 * 28 * 28, "HMMA"),
        ("sm_90a", layer(4, 64, 7, 2, 1, 224, "float16"), 112 * 112, "HMMA"),
        ("sm_80", layer(128, 128, 3, 1, 4, 28, "float16"), 28 * 28 * 8, "HMMA"),
        ("sm_90a", layer(96, 96, 3, 1, 96, 56, "int8"), 56 * 56, "IDP"),
        ("sm_80", layer(96, 96, 5, 2, 96, 56, "float16"), 28 * 28 * 8, "FFMA"),
    ],
    ids=lambda value: str(getattr(value, "key", value))[:40],
)
def test_the_rules_kernels(
    architecture: str, problem: Convolution, rows: int, instruction: str
) -> None:
    found = ARCHITECTURES[architecture]
    template = convolution_template(problem, found)
    assert template is not None
    sizes = template.rule(problem, found, rows)
    code = machine_code.report(template.build(problem, found, sizes, "convolution"))
    assert (code.spill, code.stack) == (0, 0)
    assert any(name.startswith(instruction) for name in code.instructions)
    if instruction in ("IMMA", "HMMA"):
        assert any(name.startswith("LDGSTS") for name in code.instructions)
