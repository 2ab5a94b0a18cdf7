"""The kernels' table as data: what is multiplied, how large, and what it has to reach.

A product is one kernel, called directly. A graph is a small model, compiled as models are, for what
takes several kernels or is no product. Tiny sizes are for smoke runs in the emulated GPU.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

#: The instructions that a format's products are made of decide how results are checked.
Check = Literal["exact", "bound"]


@dataclasses.dataclass(frozen=True)
class Bar:
    """What a contender's time is compared with.

    Attributes:
        against: a peer's name in `peers.py`, or ``copy`` for a share of the copy bandwidth.
        least: the ratio that is wanted: the peer's time over ours, or the share.
        moonshot: the ratio that would be outstanding.
    """

    against: str
    least: float
    moonshot: float | None = None


@dataclasses.dataclass(frozen=True)
class Product:
    """``y[M, N] = x[M, K] · w[N, K]ᵀ`` with its scales, result in float16.

    Attributes:
        group: of the table: ``int8``, ``fp8``, ``few-bit``, ``few-bit-many``.
        weight: ``int8``, ``float8_e4m3fn``, ``float8_e5m2``, or a number format's name.
        rows, outputs, inputs: M, N, K.
        block: inputs that share a scale; None for one scale an output.
        bars: what is wanted.
        template: whose kernel is built; None for the cost model's choice.
    """

    group: str
    weight: str
    rows: int
    outputs: int
    inputs: int
    block: int | None = None
    bars: tuple[Bar, ...] = ()
    template: str | None = None

    @property
    def activation(self) -> str:
        """dtype of x."""
        eight = self.weight == "int8" or self.weight.startswith("float8")
        return self.weight if eight and self.block is None else "float16"

    @property
    def title(self) -> str:
        """``int4 g128, 16 x 4096 x 4096``: M, N, K."""
        block = f" g{self.block}" if self.block else ""
        template = f", {self.template}" if self.template else ""
        return f"{self.weight}{block}, {self.rows} x {self.outputs} x {self.inputs}{template}"

    @property
    def check(self) -> Check:
        """Integers must be equal; floats lie within a bound of float64."""
        return "exact" if self.activation == "int8" else "bound"


@dataclasses.dataclass(frozen=True)
class Graph:
    """A small model through the whole road.

    Attributes:
        group: of the table.
        kind: of `models.py`.
        recipe: that it is compiled with.
        sizes: of its model, by name.
        shapes: of its inputs when it is timed.
        bars: what is wanted.
    """

    group: str
    kind: str
    recipe: str
    sizes: dict[str, int]
    shapes: tuple[tuple[int, ...], ...]
    bars: tuple[Bar, ...] = ()

    @property
    def title(self) -> str:
        """``llm-int8, 4096 x 4096 by 4096``."""
        inputs = ", ".join(" x ".join(map(str, shape)) for shape in dict.fromkeys(self.shapes))
        return f"{self.kind} {self.recipe}, {inputs}"


Case = Product | Graph

#: Formats of the matrix-vector table: integers of 3 to 8 bits, and other levels.
FEW_BIT = ("int3", "int4", "int5", "int6", "int8", "nf4", "flint4", "fp4_e2m1", "fp6_e3m2")

_INT8 = (Bar("cuBLASLt int8", 0.9, 1.05), Bar("bf16", 1.3))
_FP8 = (Bar("cuBLASLt fp8", 0.9, 1.0),)
_COPY = (Bar("copy", 0.6, 0.85),)
_MANY = (Bar("bf16", 0.85, 1.0),)
#: Published for Llama-3.1-8B on an H100, batch 1: bf16 takes .0244 s a token, int8 with outliers
#: split .0817. Theirs, not measured here.
BITSANDBYTES = 0.0244 / 0.0817


def cases(tiny: bool = False) -> list[Case]:
    """The table's rows, in its order.

    Args:
        tiny: sizes for the emulated GPU.
    """
    return _tiny() if tiny else [*_products(), *_graphs()]


def _products() -> list[Case]:
    found: list[Case] = []
    for rows in (1024, 4096, 8192):
        found.append(Product("int8", "int8", rows, 8192, 8192, None, _INT8))
    for weight in ("float8_e4m3fn", "float8_e5m2"):
        found.append(Product("fp8", weight, 8192, 8192, 16384, None, _FP8))
    for side in (4096, 8192):
        for weight in FEW_BIT:
            for rows in (1, 4, 16):
                found.append(Product("few-bit", weight, rows, side, side, 128, _COPY))
    for weight in ("int4", "nf4", "int8"):
        found.append(Product("few-bit-many", weight, 4096, 8192, 8192, 128, _MANY))
    return found


def _graphs() -> list[Case]:
    layer = (Bar("torch bf16", 1.0, 1.4), Bar("torch bf16", 3 * BITSANDBYTES))
    fused = (Bar("torch fp16", 1.0),)
    heads = tuple([(8, 16, 512, 64)] * 3)
    layers: list[Case] = [
        Graph("outliers", "linear", "llm-int8", {"inputs": 4096, "outputs": 4096},
              ((rows, 4096),), layer)
        for rows in (1024, 4096)
    ]  # fmt: skip
    return [
        *layers,
        Graph("fused", "attention", "float", {"heads": 16, "size": 64}, heads, fused),
        Graph("fused", "norm-linear", "w8a8", {"inputs": 2048, "outputs": 2048},
              ((8192, 2048),), fused),
        Graph("fused", "linear-gelu", "w8a8", {"inputs": 1024, "outputs": 4096},
              ((8192, 1024),), fused),
        Graph("fused", "softmax", "float", {"columns": 4096}, ((8192, 4096),), fused),
    ]  # fmt: skip


def _tiny() -> list[Case]:
    return [
        Product("int8", "int8", 48, 64, 64, None, _INT8),
        Product("fp8", "float8_e4m3fn", 32, 64, 64, None, _FP8),
        Product("few-bit", "int4", 2, 64, 128, 64, _COPY),
        Product("few-bit", "fp6_e3m2", 1, 64, 128, 64, _COPY),
        Graph("outliers", "linear", "llm-int8", {"inputs": 32, "outputs": 16}, ((6, 32),)),
        Graph("fused", "softmax", "float", {"columns": 40}, ((5, 40),)),
    ]


def check_cases() -> list[Case]:
    """Small products for every template and every way to decode, and the tiny graphs.

    Templates that an architecture does not have are missing in its plan.
    """
    dense = (
        ("wgmma", ((1, 64, 64), (130, 192, 256), (256, 256, 512))),
        ("mma", ((1, 64, 64), (130, 192, 256))),
        ("simt", ((17, 40, 72), (5, 33, 50))),
    )
    found: list[Case] = [
        Product("check", weight, *shape, template=template)
        for weight in ("int8", "float8_e4m3fn", "float8_e5m2")
        for template, shapes in dense
        for shape in shapes
    ]
    decoding = (("matvec", (1, 5)), ("skinny", (5, 16)), ("decode-wgmma", (70,)),
                ("decode-mma", (70,)))  # fmt: skip
    found += [
        Product("check", weight, rows, 64, 192, 64, template=template)
        for weight in FEW_BIT
        for template, several in decoding
        for rows in several
    ]
    return found + [case for case in _tiny() if isinstance(case, Graph)]


def as_plan(case: Case) -> dict[str, Any]:
    """A case for a plan's file."""
    return {"type": type(case).__name__.lower(), "title": case.title, **dataclasses.asdict(case)}


def from_plan(entry: dict[str, Any]) -> Case:
    """A case out of a plan's file."""
    fields = {k: v for k, v in entry.items() if k not in ("type", "title")}
    fields["bars"] = tuple(Bar(**bar) for bar in fields["bars"])
    if entry["type"] == "product":
        return Product(**fields)
    fields["shapes"] = tuple(tuple(shape) for shape in fields["shapes"])
    return Graph(**fields)
