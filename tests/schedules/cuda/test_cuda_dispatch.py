"""Which kernel a product gets for how many rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fewbits.errors import FewbitsError
from fewbits.schedules.cuda import dispatch as dispatching
from fewbits.schedules.cuda.architecture import SM_80, Architecture
from fewbits.schedules.cuda.dispatch import Choice, dispatch
from fewbits.schedules.cuda.epilogue import plain
from fewbits.schedules.cuda.problem import Linear
from fewbits.schedules.cuda.template import Kernel
from fewbits.schedules.cuda.weight_format import Dense


class _Tiles:
    """Tiles of 16 or 128 rows: whole tiles are computed, and each starts at a cost."""

    name = "tiles"

    def __init__(self, start: float) -> None:
        self.start = start

    def refusal(self, problem: Linear, architecture: Architecture) -> str | None:
        return "too odd" if problem.inputs % 2 else None

    def space(self, problem: Linear, architecture: Architecture) -> Iterator[int]:
        yield from (16, 128)

    def rule(self, problem: Linear, architecture: Architecture, rows: int) -> int:
        return 16 if rows <= 64 else 128

    def seconds(self, problem: Linear, architecture: Architecture, rows: int, sizes: int) -> float:
        tiles = -(-rows // sizes)
        return tiles * (self.start + sizes)

    def build(self, problem: Linear, architecture: Architecture, sizes: int, name: str) -> Kernel:
        return Kernel(name, None, architecture, "tirx")


def _problem(inputs: int = 64) -> Linear:
    return Linear(inputs, 32, "float16", Dense("float16"), plain("float32", "float16"))


@pytest.fixture
def templates(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    found: list[Any] = [_Tiles(16.0)]

    def suitable(problem: Linear, architecture: Architecture) -> list[Any]:
        return [t for t in found if t.refusal(problem, architecture) is None]

    monkeypatch.setattr(dispatching, "suitable", suitable)
    return found


def test_few_and_many_rows_get_kernels_of_their_own(templates: list[Any]) -> None:
    made = dispatch(_problem(), SM_80, "product")
    assert made.labels == ("tiles 16", "tiles 128")
    assert made.buckets == ((64, 0), (None, 1))
    assert [kernel.name for kernel in made.kernels] == ["product_sm_80_k0", "product_sm_80_k1"]
    text = made.host.script()
    assert "m <= T.int64(64)" in text
    assert text.index("product_sm_80_k0") < text.index("product_sm_80_k1")


def test_a_kernel_that_is_nearly_as_fast_is_shared(templates: list[Any]) -> None:
    templates[0].start = 10_000.0  # what counts is the number of tiles
    made = dispatch(_problem(), SM_80, "product")
    assert made.labels == ("tiles 128",)
    assert made.buckets == ((None, 0),)


def test_a_known_number_of_rows_needs_one_kernel(templates: list[Any]) -> None:
    made = dispatch(_problem(), SM_80, "product", rows=7)
    assert made.labels == ("tiles 16",)


def test_records_come_before_rules(templates: list[Any]) -> None:
    class Recorded:
        def choose(self, problem: Any, architecture: Any, rows: int, options: Any) -> Choice | None:
            return Choice(options[0], 128, 1e-9) if rows <= 4 else None

    made = dispatch(_problem(), SM_80, "product", chooser=Recorded())
    assert made.labels[made.buckets[0][1]] == "tiles 128"
    assert made.buckets[0][0] == 4


def test_what_no_template_takes_is_refused_with_reasons() -> None:
    problem = Linear(3, 4, "int4", Dense("int4"), plain("int32", "int32"))
    with pytest.raises(FewbitsError) as error:
        dispatch(problem, SM_80, "product")
    assert error.value.code == "no-kernel"
    assert "simt" in str(error.value)
