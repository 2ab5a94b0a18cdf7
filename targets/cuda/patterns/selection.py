"""A module on its way to kernels: the bindings emitted so far, and the functions they call."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tvm import relax
from tvm.ir import prim

from ....ops.symbolic import Extent, extents_of, simplified
from ....passes.rewrite import Rewriter, as_array, constant
from ....schedules.cuda.architecture import Architecture
from ....schedules.cuda.attention import (
    Attention,
    attention_caller,
    attention_kernel,
    combine_parts,
)
from ....schedules.cuda.attention.sizes import Sizes as AttentionSizes
from ....schedules.cuda.binary import Binary
from ....schedules.cuda.convolution import Convolve
from ....schedules.cuda.dispatch import Chooser, Dispatch, digest, dispatch
from ....schedules.cuda.epilogue import Epilogue, converted, stored_as, then
from ....schedules.cuda.outliers import (
    OutlierProduct,
    list_columns,
    outlier_caller,
    outlier_product,
)
from ....schedules.cuda.problem import Linear
from ....schedules.cuda.quantize import QuantizeRows
from ....schedules.cuda.template import Kernel
from ....schedules.cuda.weight_format import WeightFormat
from ...vm.calls import Calls, tensor_type
from .followers import Followers

#: TVM's expressions and types are built by calls that its annotations do not cover.
_relax: Any = relax


@dataclasses.dataclass(frozen=True, eq=False)
class LayerProduct:
    """A layer's product, as its kernel is asked for.

    Attributes:
        problem: the product.
        rows: of x: a number, or an expression of the model's open sizes.
        layer: the layer's name.
        arrays: of the weight, where they are known.
    """

    problem: Linear
    rows: Extent
    layer: str
    arrays: tuple[np.ndarray, ...] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Operands:
    """What a product's kernel gets besides the weight.

    Attributes:
        x: activations [M, K], new expression.
        extra: operands of `meaning`, new expressions in its order.
        meaning: from the sum to the product's float32 value.
    """

    x: relax.Expr
    extra: tuple[relax.Expr, ...]
    meaning: Epilogue


class Selection(Calls):
    """What rules need to put a kernel in.

    Attributes:
        architecture: what is compiled for.
        dtype: ``float16``, ``bfloat16`` or ``float32``: of activations between kernels.
        chooser: decides about kernels before the cost models do; None: nobody.
        quantized: codes and scales of values that were quantized already.
        dispatches: of the products, by their key.
        products: each layer's product, in order: what tuning tunes.
        convolutions: likewise.
        binaries: likewise, products of bit planes.
        made: old variables whose values kernels compute; what led to them may have vanished.
    """

    def __init__(
        self,
        rewriter: Rewriter,
        architecture: Architecture,
        dtype: str,
        chooser: Chooser | None = None,
    ) -> None:
        super().__init__(rewriter)
        self.architecture = architecture
        self.dtype = dtype
        self.chooser = chooser
        self.quantized: dict[tuple[Any, ...], tuple[relax.Expr, relax.Expr | None]] = {}
        self.made: set[relax.Var] = set()
        self.dispatches: dict[str, Dispatch] = {}
        self.products: list[LayerProduct] = []
        self.convolutions: dict[str, Convolve] = {}
        self.binaries: dict[str, Binary] = {}
        self._special: dict[str, tuple[Kernel, Any]] = {}
        self._lists: dict[relax.Expr, tuple[relax.Expr, ...]] = {}

    @property
    def kernels(self) -> list[Kernel]:
        """All kernels that host functions launch."""
        choices = [
            *self.dispatches.values(), *self.convolutions.values(), *self.binaries.values()
        ]  # fmt: skip
        kernels = [kernel for choice in choices for kernel in choice.kernels]
        return kernels + [kernel for kernel, _ in self._special.values()]

    def call(
        self, key: Any, function: Any, inputs: Sequence[relax.Expr], results: Sequence[Any],
        name: str,
    ) -> relax.Var:  # fmt: skip
        """Call a PrimFunc, added once per key; several `results` (types) make a tuple."""
        if key not in self.functions:
            title = self.unique(str(function.attrs["global_symbol"]))
            function = function.with_attr("global_symbol", title)
            # A builder gives the variable the function's type, which calls need.
            variable = _relax.BlockBuilder().add_func(function, title)
            self.functions[key] = (variable, function)
        variable, _ = self.functions[key]
        types = list(results) if len(results) > 1 else results[0]
        call = _relax.call_tir(variable, _relax.Tuple(list(inputs)), types)
        return self.rewriter.emit(call, name)

    def matrix(self, value: relax.Expr, dtype: str, name: str) -> relax.Expr:
        """A new expression [..., K] as [M, K] in a dtype."""
        sizes = extents_of(value)
        value = self.converted(value, dtype, name)
        return self._reshaped(value, (rows_of(sizes), sizes[-1]), name)

    def quantize(
        self, kernel: QuantizeRows, x: relax.Expr, rest: Sequence[relax.Expr], name: str
    ) -> tuple[relax.Expr, relax.Expr | None]:
        """Codes [M, K] and scales [M] or [1], from x [..., K]."""
        sizes = extents_of(x)
        rows = rows_of(sizes)
        codes = tensor_type(sizes, kernel.codes)
        given = [x, *rest]
        if kernel.scales == "static":
            only = self.call(kernel, kernel.build(), given, [codes], name)
            return self._reshaped(only, (rows, sizes[-1]), name), None
        scales = tensor_type(sizes[:-1] if kernel.scales == "token" else (1,), "float32")
        both = self.call(kernel, kernel.build(), given, [codes, scales], name)
        first, second = (
            self.rewriter.emit(relax.TupleGetItem(both, place), name) for place in range(2)
        )
        if kernel.scales == "token":
            second = self._reshaped(second, (rows,), name)
        return self._reshaped(first, (rows, sizes[-1]), name), second

    def _reshaped(self, value: relax.Expr, sizes: tuple[Extent, ...], name: str) -> relax.Expr:
        if len(extents_of(value)) == len(sizes):
            return value
        return self.rewriter.emit(_relax.op.reshape(value, sizes), name)

    def converted(self, value: relax.Expr, dtype: str, name: str) -> relax.Expr:
        """A new expression in a dtype."""
        if _dtype(value) == dtype:
            return value
        return self.rewriter.emit(_relax.op.astype(value, dtype), name)

    def linear(
        self,
        operands: Operands,
        weight: WeightFormat,
        arrays: Sequence[np.ndarray] | Sequence[relax.Expr],
        outputs: int,
        chain: Followers,
    ) -> relax.Var:
        """A product with what follows it, in the place of the chain's last variable.

        Args:
            operands: the activations, and what their sums mean.
            weight: its layout.
            arrays: its contents, as constants or new expressions.
            outputs: N.
            chain: the followers.
        """
        epilogue, extra = self.epilogue(operands, chain)
        names = str(chain.product.name), str(chain.last.name)
        y = self.product(operands.x, weight, arrays, outputs, epilogue, extra, names)
        return self.restored(y, chain, epilogue.dtype)

    def product(
        self,
        x: relax.Expr,
        weight: WeightFormat,
        arrays: Sequence[np.ndarray] | Sequence[relax.Expr],
        outputs: int,
        epilogue: Epilogue,
        extra: Sequence[relax.Expr],
        names: tuple[str, str],
    ) -> relax.Var:
        """A product [M, N] of x [M, K].

        Args:
            x: the activations, a new expression.
            weight: its layout.
            arrays: its contents, as constants or new expressions.
            outputs: N.
            epilogue: what becomes of the sums.
            extra: its operands, new expressions.
            names: of the layer, and of the result.
        """
        rows, inputs = extents_of(x)
        problem = Linear(int(inputs), outputs, str(_dtype(x)), weight, epilogue)
        known = tuple(array for array in arrays if isinstance(array, np.ndarray))
        whole = known if len(known) == len(arrays) else None
        self.products.append(LayerProduct(problem, rows, names[0], whole))
        chosen = self._dispatch(problem, rows)
        self.notes[names[0]] = ", ".join(dict.fromkeys(chosen.titles))
        given = [a if isinstance(a, relax.Expr) else constant(a) for a in arrays]
        result = tensor_type((rows, outputs), epilogue.dtype)
        return self.call(chosen.name, chosen.host, [x, *given, *extra], [result], names[1])

    def outliers(
        self, operands: Operands, mask: relax.Expr, weight: np.ndarray, chain: Followers
    ) -> relax.Var:
        """A product over the columns that a mask marks, with what follows it.

        Args:
            operands: the activations, and what their sums mean.
            mask: [K] float32, 1 for the columns to multiply; a new expression.
            weight: [N, K], of the activations' dtype or int8.
            chain: the followers.
        """
        name = str(chain.last.name)
        rows, inputs = extents_of(operands.x)
        places, count = self._listed(mask, int(inputs))
        epilogue, extra = self.epilogue(operands, chain)
        problem = OutlierProduct(
            int(inputs), weight.shape[0], _dtype(operands.x), str(weight.dtype), epilogue
        )
        if problem.key not in self._special:
            title = self.unique(f"outliers_{self.architecture.name}")
            kernel = outlier_product(problem, self.architecture, title)
            host = outlier_caller(problem, self.architecture, kernel)
            self._special[problem.key] = kernel, host
        self.notes[str(chain.product.name)] = f"outlier columns {problem.weight}"
        host = self._special[problem.key][1]
        given = [operands.x, places, count, constant(weight), *extra]
        result = tensor_type((rows, weight.shape[0]), epilogue.dtype)
        y = self.call(problem.key, host, given, [result], name)
        return self.restored(y, chain, epilogue.dtype)

    def _listed(self, mask: relax.Expr, columns: int) -> tuple[relax.Expr, relax.Expr]:
        """The marked columns' list and its length; each mask is listed once."""
        if mask not in self._lists:
            key = f"list {columns}"
            if key not in self._special:
                title = self.unique(f"list_columns_{self.architecture.name}")
                self._special[key] = list_columns(columns, self.architecture, title)
            types = [tensor_type((columns,), "int32"), tensor_type((1,), "int32")]
            both = self.call(key, self._special[key][1], [mask], types, "outliers")
            self._lists[mask] = tuple(
                self.rewriter.emit(relax.TupleGetItem(both, place), "outliers")
                for place in range(2)
            )
        places, count = self._lists[mask]
        return places, count

    def restored(self, y: relax.Expr, chain: Followers, dtype: str) -> relax.Var:
        """A kernel's result [M, N] with the shape and type of the chain's last variable."""
        name = str(chain.last.name)
        sizes = extents_of(chain.last)
        if len(sizes) != 2:
            y = self.rewriter.emit(_relax.op.reshape(y, sizes), name)
        if dtype != "float32":
            y = self.rewriter.emit(_relax.op.astype(y, "float32"), name)
        assert isinstance(y, relax.Var)
        return y

    def special(
        self, key: str, make: Callable[[str], tuple[Kernel, Any]], title: str
    ) -> tuple[Kernel, Any]:
        """A kernel of its own and the host function that launches it, made once per key.

        Args:
            key: text that equal kernels share.
            make: from a name to both.
            title: what the name begins with.
        """
        if key not in self._special:
            self._special[key] = make(self.unique(f"{title}_{self.architecture.name}"))
        return self._special[key]

    def attention(self, problem: Attention, sizes: AttentionSizes) -> tuple[Kernel, Any]:
        """The kernel of attention and the host function that launches it, made once."""
        key = f"{problem.key} {sizes}"
        if key not in self._special:
            name = self.unique(f"attention_{self.architecture.name}")
            kernel = attention_kernel(problem, self.architecture, sizes, name)
            host = attention_caller(problem, self.architecture, kernel, sizes.parts)
            self._special[key] = kernel, host
        return self._special[key]

    def combination(self, problem: Attention, parts: int) -> tuple[Kernel, Any]:
        """The kernel that adds up attention's parts, and its host function, made once."""
        # Nothing about keys matters any more.
        problem = dataclasses.replace(problem, mask=None, scale=1.0, shared=1)
        key = f"combine {parts} {problem.key}"
        if key not in self._special:
            name = self.unique(f"combine_{self.architecture.name}")
            self._special[key] = combine_parts(problem, parts, self.architecture, name)
        return self._special[key]

    def epilogue(self, operands: Operands, chain: Followers) -> tuple[Epilogue, list[relax.Expr]]:
        """From the sum to the chain's result as it is stored, and what that reads."""
        epilogue = then(operands.meaning, chain.epilogue)
        given = list(operands.extra)
        places = len(given)
        numbers: dict[Any, Any] = {}
        for place, value in enumerate(chain.operands, places):
            operand = epilogue.operands[place]
            if operand.extends == "one":
                number = float(as_array(value).reshape(()))
                numbers[operand.element] = prim.FloatImm("float32", number)
                given.append(value)
            elif operand.extends == "column":
                given.append(constant(np.ascontiguousarray(as_array(value).reshape(-1))))
            else:
                epilogue = stored_as(epilogue, place, self.dtype)
                given.append(self.matrix(self.rewriter.map(value), self.dtype, "residual"))
        epilogue, kept = _without(epilogue, numbers)
        given = [given[place] for place in kept]
        return converted(epilogue, self.dtype), given

    def _dispatch(self, problem: Linear, rows: Extent) -> Dispatch:
        key = problem.key
        known = int(rows) if isinstance(rows, int) else None
        label = f"{key} M={known}"
        if label not in self.dispatches:
            name = self.unique(f"linear_{digest(problem)}")
            self.dispatches[label] = dispatch(
                problem, self.architecture, name, rows=known, chooser=self.chooser
            )
        return self.dispatches[label]


def _without(epilogue: Epilogue, numbers: dict[Any, Any]) -> tuple[Epilogue, list[int]]:
    """Operands that are numbers put into the expression; which of the operands are left."""
    kept = [place for place, o in enumerate(epilogue.operands) if o.element not in numbers]
    elements = [numbers.get(o.element, o.element) for o in epilogue.operands]
    left = tuple(epilogue.operands[place] for place in kept)
    return Epilogue(epilogue.sum, epilogue.at(epilogue.sum, elements), left), kept


def rows_of(sizes: Sequence[Extent]) -> Extent:
    """The product of all sizes but the last."""
    total: Any = 1
    for size in sizes[:-1]:
        total = total * size
    return simplified(total)


def _dtype(value: Any) -> str:
    return str(value.ty.dtype)
