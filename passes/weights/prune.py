"""The `prune` pass: weights become zero, what is kept stays float."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from tvm import ir

from ...errors import FewbitsError, nearest
from ...formats.plain import PlainType
from ..base import Pass, PassContext, register_pass
from ..layers import Layer
from ..solvers.options import PRUNING, SolverOptions
from .engine import Task, compress_layers
from .options import check_overrides, read_sparsity
from .selection import layers_to_compress, select_overridden


@register_pass
@dataclasses.dataclass(frozen=True)
class Prune(Pass):
    """Zeros in the weights of matrix products and convolutions.

    Attributes:
        sparsity: share of zeros (``0.5``) or a pattern (``"2:4"``: 2 of 4 are kept).
        solver: ``sparsegpt``, ``obs``, ``wanda`` or ``magnitude``, see docs/compression.md.
        storage: of the kept values: ``float32``, ``float16``, ``bfloat16``.
        damping: added to the Hessian's diagonal, as a share of its mean.
        compensate: aim at the float model's outputs: a layer also makes up for what pruning did to
            its inputs. Needs data with every solver.
        embeddings: tables that are looked up in, too; with solver ``magnitude``.
        targets: the layers to prune; all if empty.
        ignore: layers that stay as they are.
        overrides: for the layers that an entry selects, another `sparsity`, `solver`, `storage`,
            `damping` or `compensate`. Later entries win.
    """

    name: ClassVar[str] = "prune"

    sparsity: float | str = 0.5
    solver: Literal["sparsegpt", "obs", "wanda", "magnitude"] = "sparsegpt"
    storage: PlainType = "float32"
    damping: float = 0.01
    compensate: bool = False
    embeddings: bool = False
    targets: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    overrides: Mapping[str, Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        if self.solver not in PRUNING:
            raise FewbitsError(
                "unknown-option",
                f"{self.solver} does not prune",
                hint=nearest(self.solver, PRUNING),
            )
        self._solver_options()

    def apply(self, module: ir.IRModule, context: PassContext) -> ir.IRModule:
        """The module with pruned weights; a note says what became of each layer.

        Raises:
            FewbitsError: ``no-calibration``; ``unknown-layer``, ``unknown-option``;
                ``bad-sparsity`` where a pattern does not fit a layer.
        """
        layers = layers_to_compress(module, self, self.name)
        chosen: dict[str, Prune] = {layer.name: self for layer in layers}
        for layer, pattern, changes in select_overridden(layers, self.overrides, self.name):
            chosen[layer.name] = check_overrides(chosen[layer.name], changes, pattern, _PER_LAYER)
        tasks = [chosen[layer.name]._task(layer) for layer in layers]
        return compress_layers(self.name, module, tasks, context)

    def _task(self, layer: Layer) -> Task:
        return Task(layer, (self._solver_options(),), self.storage, self.compensate)

    def _solver_options(self) -> SolverOptions:
        sparsity = read_sparsity(self.sparsity)
        return SolverOptions(self.solver, sparsity=sparsity, damping=self.damping)


_PER_LAYER = ("sparsity", "solver", "storage", "damping", "compensate")
