"""The two places where kernels get their sizes, as sites: generators, and products in loops."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import ir

from ...ops.symbolic import simplified, symbols
from .choices import Choices, Site, Sizes, Variant, tile_of, tile_sizes
from .workload import TILE, kernel_workload, product_workload

if TYPE_CHECKING:
    from ..cpu.function import Scheduled
    from ..cpu.machine import Machine
    from ..cpu.product import Epilogue, Product
    from ..cpu.tile import Tile


def choose_kernel(
    choices: Choices,
    machine: Machine,
    kernel: Any,
    inputs: Sequence[Any],
    results: Sequence[Any],
    layer: str,
) -> Any:
    """The generator of a few-bit kernel with the tile that was chosen.

    Args:
        choices: what decides.
        machine: the vector unit.
        kernel: a frozen dataclass; one without a field `tile` is left as it is.
        inputs: the expressions that it reads, constants and others.
        results: the types of what it writes, the last axis being the outputs.
        layer: the layer's name.
    """
    if not hasattr(kernel, TILE):
        return kernel
    shape = [simplified(size) for size in results[0].shape.values]
    rows: Any = 1
    for size in shape[:-1]:
        rows = rows * size

    def with_sizes(sizes: Sizes) -> Any:
        return dataclasses.replace(kernel, tile=tile_of(sizes, kernel.tile))

    def build(sizes: Sizes) -> Variant:
        arguments = (*(_argument(one) for one in inputs), *results)
        return Variant(with_sizes(sizes).build(), arguments, len(results), True)

    extents = {"rows": rows, "columns": shape[-1], "summed": getattr(kernel, "length", None)}
    weights = tuple(one for one in inputs if isinstance(one, ir.GenericConst))
    workload = kernel_workload(kernel, shape[:-1])
    site = Site(
        workload, tile_sizes(kernel.tile), extents, 1, layer, weights,
        machine.lanes, machine.registers, build,
    )  # fmt: skip
    chosen = choices.choose(site)
    return kernel if chosen == site.rule else with_sizes(chosen)


def _argument(expression: Any) -> Any:
    return expression.value.numpy() if isinstance(expression, ir.GenericConst) else expression.ty


@dataclasses.dataclass(frozen=True)
class ProductChoice:
    """Chooses the tiles of one function's products.

    Attributes:
        choices: what decides.
        function: the function, without loops for a machine yet.
        machine: the vector unit.
        constants: its parameters that are constants at every call.
        calls: all calls of it, at least one.
    """

    choices: Choices
    function: Any
    machine: Machine
    constants: frozenset[int]
    calls: Sequence[Any]

    def __call__(self, product: Product, after: Epilogue | None, packed: bool, tile: Tile) -> Tile:
        """The tile of a product whose rule gives `tile`."""
        workload = product_workload(product, after, packed)

        def build(sizes: Sizes) -> Variant:
            from ..cpu.function import schedule_function

            def forced(
                other: Product, other_after: Epilogue | None, other_packed: bool, rule: Tile
            ) -> Tile:
                same = product_workload(other, other_after, other_packed) == workload
                return tile_of(sizes, rule) if same else rule

            scheduled = schedule_function(self.function, self.machine, self.constants, forced)
            assert scheduled is not None
            return self._variant(scheduled)

        extents = {
            name: simplified(product.count(axes))
            for name, axes in (
                ("rows", product.rows), ("columns", product.columns), ("summed", product.summed)
            )
        }  # fmt: skip
        weights = tuple(
            one
            for call in self.calls
            for one in call.args[1].fields
            if isinstance(one, ir.GenericConst)
        )
        rule = tile_sizes(tile)
        site = Site(
            workload, rule, extents, len(self.calls), None, weights,
            self.machine.lanes, self.machine.registers, build,
        )  # fmt: skip
        chosen = self.choices.choose(site)
        return tile if chosen == site.rule else tile_of(chosen, tile)

    def _variant(self, scheduled: Scheduled) -> Variant:
        arguments = [_argument(field) for field in self.calls[0].args[1].fields]
        for position, packing in scheduled.packings.items():
            arguments[position] = packing.apply(arguments[position])
        types = list(self.calls[0].ty_args)
        results = types[0].fields if isinstance(types[0], ir.TupleType) else types
        return Variant(scheduled.function, (*arguments, *results), len(list(results)), False)


def dimensions(site: Site) -> set[str]:
    """The names of the symbolic dimensions that a site's kernel has."""
    variant = site.build(site.rule)
    types = [a for a in variant.arguments if not isinstance(a, np.ndarray)]
    return {symbol.name for symbol in symbols(size for t in types for size in t.shape.values)}
