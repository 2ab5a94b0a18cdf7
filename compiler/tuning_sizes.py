"""For which sizes of a model's open dimensions kernels are tuned."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import FewbitsError
from .symbols import batch_of

if TYPE_CHECKING:
    from tvm import ir

#: The size of a symbolic dimension that nobody gave, the batch excepted, which is 1.
TYPICAL_SIZE = 128


def bindings_of(
    inputs: Sequence[Any], module: ir.IRModule, sizes: Mapping[str, Sequence[int]]
) -> list[dict[str, int]]:
    """All combinations of sizes of the model's symbolic dimensions.

    Args:
        inputs: the model's, with their shapes.
        module: knows how large dimensions get.
        sizes: those that were given, one or more for each name.

    Raises:
        FewbitsError: ``unknown-dimension``.
    """
    names = dict.fromkeys(s for port in inputs for s in port.shape if isinstance(s, str))
    for name in sizes:
        if name not in names:
            raise FewbitsError(
                "unknown-dimension",
                f"the model has no open dimension {name!r}",
                where="--bind",
                hint="it has " + (", ".join(names) or "none"),
            )
    main: Any = module["main"]
    bounds: Any = main.attrs.get("tir_var_upper_bound") or {}
    most = {str(name): int(size) for name, size in bounds.items()}
    batch = batch_of(inputs)
    values: dict[str, Sequence[int]] = {}
    for name in names:
        typical = 1 if name == batch else min(TYPICAL_SIZE, most.get(name, TYPICAL_SIZE))
        values[name] = sizes.get(name) or [typical]
        if max(values[name]) > most.get(name, max(values[name])):
            raise FewbitsError(
                "unknown-dimension",
                f"{name} = {max(values[name])}, but the model ends at {most[name]}",
                where="--bind",
                hint=f"at most {most[name]}",
            )
    return [
        dict(zip(values, choice, strict=True)) for choice in itertools.product(*values.values())
    ]
