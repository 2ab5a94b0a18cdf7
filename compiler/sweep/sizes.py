"""How many bits a module's weights take (spec 1), exactly, and where they are.

Embeddings and the head of a language model are a large share of small models and a small one of
large models, so budgets that mix them with the blocks compare unlike things: they are counted, and
stated apart.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from tvm import ir, relax

from ...ops.compressed.weights import is_decode, tensor_of
from ...passes.rewrite import Rewriter, operator_of, variables

#: Constants of these types are shapes, indices and masks, not parameters.
_STRUCTURE = frozenset({"bool", "int64", "uint64"})
#: Operators that multiply by, or look up in, an argument: which one.
_WEIGHT_ARGUMENT = {
    "relax.matmul": 1, "relax.nn.conv1d": 1, "relax.nn.conv2d": 1, "relax.take": 0,
}  # fmt: skip
#: Shared weights count where they occur first in this order.
_PARTS = ("embedding", "head", "body")


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Bits of the constants of a module.

    Attributes:
        total_bits: of everything.
        body_bits: of the matrices of layers that are neither embedding nor head.
        embedding_bits, head_bits: of those.
        rest_bits: of norms, biases and whatever is in no layer.
        code_bits, metadata_bits: of compressed weights: codes, and scales with the rest.
        body_weights: number of values in the body's matrices.
    """

    total_bits: int
    body_bits: int
    embedding_bits: int
    head_bits: int
    rest_bits: int
    code_bits: int
    metadata_bits: int
    body_weights: int


def measure_sizes(module: ir.IRModule, classes: int | None = None) -> Sizes:
    """Bits of a module, compressed or not.

    Args:
        module: after the recipe's passes.
        classes: of a classifier or language model; the product that makes that many outputs and
            that no other product follows is the head. None for a model without one.
    """
    return _Count(module).sizes(classes)


class _Count:
    """Follows the constants of a module to the products that they are weights of."""

    def __init__(self, module: ir.IRModule) -> None:
        self.rewriter = Rewriter(module)
        #: By variable: the constants and decoded tensors it follows from; None for run-time values.
        self.leaves: dict[relax.Var, frozenset[Any] | None] = {}
        self.bits: dict[Any, tuple[int, int]] = {}
        for var, value in self.rewriter.bindings:
            self.leaves[var] = self._follow(value)

    def _follow(self, expression: Any) -> frozenset[Any] | None:
        """The leaves of an expression, None as soon as one is a run-time value."""
        if isinstance(expression, relax.Var):
            return self.leaves.get(expression)
        if isinstance(expression, ir.GenericConst):
            array = np.dtype(_storage(str(expression.ty.dtype)))
            count = math.prod(int(size) for size in expression.ty.shape.values)
            structure = str(expression.ty.dtype) in _STRUCTURE
            self.bits[expression] = (0 if structure else count * array.itemsize * 8, 0)
            return frozenset((expression,))
        if is_decode(expression):
            tensor = tensor_of(expression)
            self.bits[expression] = (tensor.code_bits, tensor.metadata_bits)
            return frozenset((expression,))
        if isinstance(expression, relax.TupleGetItem):
            return self._follow(expression.tuple_value)
        operands: Any = ()
        if isinstance(expression, relax.Tuple):
            operands = expression.fields
        elif isinstance(expression, relax.Call):
            operands = expression.args
        found = [self._follow(operand) for operand in operands]
        known = [leaves for leaves in found if leaves is not None]
        return frozenset().union(*known) if len(known) == len(found) else None

    def sizes(self, classes: int | None) -> Sizes:
        parts: dict[str, set[Any]] = {"embedding": set(), "head": set(), "body": set()}
        body = 0
        for weight, part in self._products(classes):
            fresh = (self._follow(weight) or frozenset()).difference(*parts.values())
            parts[part] |= fresh
            if part == "body" and fresh:
                body += math.prod(int(size) for size in weight.ty.shape.values)
        in_products = frozenset[Any]().union(*parts.values())
        rest = self.bits.keys() - in_products
        tensors = [leaf for leaf in self.bits if is_decode(leaf)]
        totals = {
            part: sum(sum(self.bits[leaf]) for leaf in found) for part, found in parts.items()
        }
        rest_bits = sum(sum(self.bits[leaf]) for leaf in rest)
        return Sizes(
            total_bits=sum(totals.values()) + rest_bits,
            body_bits=totals["body"],
            embedding_bits=totals["embedding"],
            head_bits=totals["head"],
            rest_bits=rest_bits,
            code_bits=sum(self.bits[tensor][0] for tensor in tensors),
            metadata_bits=sum(self.bits[tensor][1] for tensor in tensors),
            body_weights=body,
        )

    def _products(self, classes: int | None) -> Iterator[tuple[Any, str]]:
        """Weight and part of every product with a weight, heads and embeddings first."""
        found = []
        for var, value in self.rewriter.bindings:
            place = _WEIGHT_ARGUMENT.get(operator_of(value) or "")
            if place is None or not isinstance(value, relax.Call):
                continue
            weight: Any = value.args[place]
            if self._follow(weight) is not None and self.leaves[var] is None and _is_matrix(weight):
                found.append((var, weight, "embedding" if place == 0 else "body"))
        followed = self._followed({var for var, _, _ in found})
        for index, (var, weight, part) in enumerate(found):
            outputs: Any = var.ty
            last = outputs.shape.values[-1]
            if part == "body" and var not in followed and classes is not None and last == classes:
                found[index] = (var, weight, "head")
        order = list(_PARTS)
        for _, weight, part in sorted(found, key=lambda entry: order.index(entry[2])):
            yield weight, part

    def _followed(self, products: set[relax.Var]) -> set[relax.Var]:
        """Those products from whose results another product follows."""
        before: dict[relax.Var, frozenset[relax.Var]] = {}
        followed: set[relax.Var] = set()
        for var, value in self.rewriter.bindings:
            used = [before.get(v, frozenset()) for v in variables(value)]
            reaching = frozenset[relax.Var]().union(*used)
            if var in products:
                followed |= reaching
                reaching |= {var}
            before[var] = reaching
        return followed


def _is_matrix(weight: Any) -> bool:
    return len(weight.ty.shape.values) >= 2


def _storage(dtype: str) -> str:
    """What numpy calls a type of the same size; it lacks 8-bit floats and bfloat16."""
    if dtype.startswith("float8"):
        return "uint8"
    return "uint16" if dtype == "bfloat16" else dtype
