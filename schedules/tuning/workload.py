"""What a kernel computes, as text: the same for the same kernel in any model, layer or process.

Names of models, layers and buffers are left out; sizes, types, formats and what follows a product
are in. Dimensions that are known only at run time are there by name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tvm_ffi
from tvm import ir, tirx

from ...ops.symbolic import spell
from ..stages.program import substitute

if TYPE_CHECKING:
    from ..cpu.product import Epilogue, Operand, Product

#: Fields of generators that tuning varies.
TILE = "tile"
_LEADING = "leading"


@dataclasses.dataclass(frozen=True)
class Workload:
    """What is computed.

    Attributes:
        kind: ``product`` for products of float32, else the generator's name.
        facts: JSON text of everything else that decides what is computed.
    """

    kind: str
    facts: str

    @classmethod
    def of(cls, kind: str, facts: Mapping[str, Any]) -> Workload:
        """A workload; the facts' order does not matter."""
        return cls(kind, json.dumps(facts, sort_keys=True, separators=(",", ":")))

    @property
    def key(self) -> str:
        """20 hexadecimal digits, equal for equal workloads."""
        return hashlib.sha256(f"{self.kind} {self.facts}".encode()).hexdigest()[:20]

    @property
    def title(self) -> str:
        """The sizes for people: ``int8_linear 384x1536``."""
        facts = json.loads(self.facts)
        if self.kind == "product":
            sides = ("outer", "rows", "summed", "columns")
            parts = [" * ".join(facts[side]) for side in sides if facts[side]]
            return f"product {' x '.join(parts)}"
        sizes = [*facts.get(_LEADING, []), facts.get("length", "?"), facts.get("outputs", "?")]
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", self.kind).lower()
        return f"{name} {' x '.join(map(str, sizes))}"


def kernel_workload(kernel: Any, leading: Sequence[Any]) -> Workload:
    """The workload of a generator of a few-bit kernel.

    Args:
        kernel: a frozen dataclass; its `tile` is no part of what is computed.
        leading: the sizes before the last of its result, in place of the generator's own, which
            have no names where they are known only at run time.
    """
    facts = {
        field.name: _plain(getattr(kernel, field.name))
        for field in dataclasses.fields(kernel)
        if field.name != TILE
    }
    if _LEADING in facts:
        facts[_LEADING] = [spell(size) for size in leading]
    return Workload.of(type(kernel).__name__, facts)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"is": type(value).__name__, **fields}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, np.ndarray):
        return hashlib.sha256(value.tobytes()).hexdigest()[:20]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"a workload cannot hold {type(value).__name__}")


def product_workload(product: Product, after: Epilogue | None, packed: bool) -> Workload:
    """The workload of a product of float32.

    Args:
        product: the sum.
        after: what follows element by element.
        packed: whether the right operand is packed at compile time.
    """
    sides = {
        "outer": product.outer,
        "rows": product.rows,
        "columns": product.columns,
        "summed": product.summed,
    }
    names = {
        axis.var: tirx.Var(f"{side[0]}{number}", "int64")
        for side, axes in sides.items()
        for number, axis in enumerate(axes)
    }

    def place(operand: Operand) -> list[str]:
        return [str(substitute(part, names)) for part in (operand.place, operand.along)]

    facts: dict[str, Any] = {
        side: [spell(axis.extent) for axis in axes] for side, axes in sides.items()
    }
    facts |= {"left": place(product.left), "right": place(product.right), "packed": packed}
    if after is not None:
        stage = after.stage
        mine = {
            axis.var: tirx.const(0, "int64") if source is None else names[source.var]
            for axis, source in zip(stage.spatial, after.places, strict=True)
        }
        value = substitute(stage.value, mine)
        facts["after"] = str(_anonymous(value))
    return Workload.of("product", facts)


def _anonymous(value: Any) -> Any:
    """The expression with numbered buffers."""
    numbered: dict[Any, Any] = {}

    def load(node: Any) -> Any:
        if node.source not in numbered:
            shape, dtype = node.source.ty.shape, node.source.ty.dtype
            name = f"b{len(numbered)}"
            numbered[node.source] = tirx.decl_buffer(list(shape), str(dtype), name=name)
        return tirx.BufferLoad(numbered[node.source], list(node.indices))

    return tvm_ffi.structural_map(value, [(ir.TensorLoad, load)])
