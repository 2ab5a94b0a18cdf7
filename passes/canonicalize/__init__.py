"""One form for what exporters write in many: the passes that run before anything is compressed.

    module = canonicalize(module, PassContext())

The result computes the same, has the same interface, and contains no batch norm, no transposition
that could be cancelled, no dead channel and nothing twice.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from tvm import ir

from ..base import Pass, PassContext, register_pass
from .cancel_transposes import CancelTransposes
from .dead_channels import DeadChannels
from .fold_affine import FoldAffine
from .fold_constants import FoldConstants
from .merge_equal import MergeEqual
from .recognize import Recognize
from .simplify import Simplify

__all__ = [
    "CancelTransposes",
    "Canonicalize",
    "DeadChannels",
    "FoldAffine",
    "FoldConstants",
    "MergeEqual",
    "Recognize",
    "Simplify",
    "canonicalize",
]

#: In order; repeated until nothing changes.
PASSES: tuple[Pass, ...] = (
    FoldConstants(),
    Simplify(),
    MergeEqual(),
    Recognize(),
    CancelTransposes(),
    FoldAffine(),
    DeadChannels(),
)
#: Rounds after which the module is taken as it is; deep chains of one-step rules need several.
ROUNDS = 16


@register_pass
@dataclasses.dataclass(frozen=True)
class Canonicalize(Pass):
    """All of these passes, to a fixed point."""

    name: ClassVar[str] = "canonicalize"

    def apply(self, module: ir.IRModule, context: PassContext) -> ir.IRModule:
        """The canonical module; the same object if it was canonical."""
        for _ in range(ROUNDS):
            before = module
            for step in PASSES:
                module = step.apply(module, context)
            if module is before:
                break
        return module


def canonicalize(module: ir.IRModule, context: PassContext | None = None) -> ir.IRModule:
    """The canonical form of a float or QDQ module; notes go to `context`."""
    return Canonicalize().apply(module, context or PassContext())
