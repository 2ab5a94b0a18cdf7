"""Floats are stored in half precision between operators, and computed with in float32.

Types of operators stay float32: around them stand conversions, which vanish into the kernels that
fusion makes. So patterns survive, and every sum, softmax and norm is one of float32. A value is one
of four things:

- *half*: the result of a product, or computed element by element from such. It is rounded where it
  is stored, and read through a conversion.
- *pending*: the same, read by one element-wise operator alone, which becomes part of its kernel.
  It is never stored and not rounded.
- *free*: small, or stored in few bits, or too coarse in half: means and variances, squares,
  exponentials, decoded weights, codes. It stays float32.
- *wide*: not computed by a layer at all: inputs, positions, masks made of the largest of numbers.
  It stays float32, and so does what is computed with it until the next product, softmax or norm.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any, Literal

import ml_dtypes
import numpy as np
from tvm import ir, relax

from ...passes.rewrite import Rewriter, as_array, constant, operator_of, variables
from .checks import overflow

Kind = Literal["half", "pending", "free", "wide"]

#: numpy's types of floats that are stored, by name.
HALVES: dict[str, Any] = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}

#: TVM's operators are functions that its annotations do not cover.
_op: Any = relax.op

#: Sums over a reduced axis, on tensor cores where there are kernels for it.
_PRODUCTS = frozenset(
    f"relax.{name}"
    for name in (
        "matmul", "nn.conv1d", "nn.conv2d", "nn.conv3d", "nn.conv1d_transpose",
        "nn.conv2d_transpose", "nn.conv3d_transpose",
    )
)  # fmt: skip
#: Moves values without changing them, so it moves halves.
_MOVING = frozenset(
    f"relax.{name}"
    for name in (
        "reshape", "permute_dims", "expand_dims", "squeeze", "concat", "split", "strided_slice",
        "dynamic_strided_slice", "take", "gather_elements", "gather_nd", "broadcast_to", "flip",
        "tile", "repeat", "flatten", "stack", "nn.relu", "nn.max_pool1d", "nn.max_pool2d",
        "nn.max_pool3d", "nn.pixel_shuffle", "tril", "triu", "scatter_elements", "scatter_nd",
        "index_tensor", "negative", "abs",
    )
)  # fmt: skip
#: What is done with weights before they are multiplied, and tables of embeddings.
_OF_WEIGHTS = frozenset({"relax.permute_dims", "relax.reshape", "relax.take"})
#: Their results are of the size of what a layer makes, whatever they read.
_ROWS = frozenset(
    f"relax.nn.{name}"
    for name in (
        "softmax", "log_softmax", "layer_norm", "rms_norm", "group_norm", "instance_norm",
        "attention", "attention_bias", "attention_var_len", "avg_pool1d", "avg_pool2d",
        "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
    )
)  # fmt: skip
#: Results that half has no room for, or too few digits: they are small, or read at once.
_FREE = frozenset(
    f"relax.{name}"
    for name in (
        "sum", "mean", "variance", "std", "prod", "cumsum", "cumprod", "max", "min", "exp",
        "power", "square", "sin", "cos", "tanh", "sigmoid", "erf", "quantize", "dequantize",
    )
) | {"fewbits.fake_quantize", "fewbits.outlier_columns", "fewbits.decode"}  # fmt: skip
#: Reads what it gets as it is: it becomes part of the kernel that quantizes.
_QUANTIZING = frozenset({"relax.quantize", "fewbits.fake_quantize", "fewbits.outlier_columns"})


@dataclasses.dataclass
class _Value:
    """What an old variable has become: `float32` or `half`, or both, as new expressions."""

    kind: Kind
    float32: Any = None
    half: Any = None


def in_half(module: ir.IRModule, dtype: str) -> ir.IRModule:
    """The module with float32 activations stored as `dtype`; its interface stays.

    Args:
        module: types are float32, but for what kernels read and write.
        dtype: ``float16``, ``bfloat16``, or ``float32`` to change nothing.

    Raises:
        FewbitsError: ``half-overflow`` for a constant of a product out of the range of `dtype`.
    """
    return module if dtype == "float32" else _Halves(module, dtype).run()


class _Halves:
    def __init__(self, module: ir.IRModule, dtype: str) -> None:
        self.dtype = dtype
        self.limit = float(ml_dtypes.finfo(HALVES[dtype]).max)
        self.rewriter = Rewriter(module)
        self.values: dict[relax.Var, _Value] = {}
        body = self.rewriter.function.body.body
        results = set(variables(body))
        self.readers: dict[relax.Var, list[Any]] = {var: [None] for var in results}
        for _, value in self.rewriter.bindings:
            for seen, times in Counter(variables(value)).items():
                self.readers.setdefault(seen, []).extend([value] * times)

    def run(self) -> ir.IRModule:
        rewriter = self.rewriter
        for var, value in rewriter.bindings:
            if not self._is_float32(var) or not isinstance(value, relax.Call):
                self._other(var, value)
                continue
            self._call(var, value, operator_of(value))
        body = rewriter.function.body.body
        fields = body.fields if isinstance(body, relax.Tuple) else [body]
        module = rewriter.finish([self._float32(field, "output") for field in fields])
        for variable, function in rewriter.module.functions_items():
            if variable.name_hint != "main":
                module.update_func(variable, function)
        return module

    def _other(self, var: relax.Var, value: Any) -> None:
        """Whatever is no float32 tensor of a call: it reads float32 as before."""
        if isinstance(value, relax.TupleGetItem) and self._is_float32(var):
            self.rewriter.keep(var)
            source = self.values.get(value.tuple_value)
            kind: Kind = "free" if source is None else source.kind
            new = self.rewriter.map(var)
            if str(new.ty.dtype) == self.dtype:
                self.values[var] = _Value(kind, half=new)
            else:
                self.values[var] = _Value(kind, new)
            return
        if operator_of(value) == "relax.astype" and str(var.ty.dtype) == self.dtype:
            self.rewriter.replace(var, self._half(value.args[0], var.name))
            return
        moved = self._moved_tuple(var, value)
        if not moved:
            self.rewriter.keep(var, self._reading_float32(value, var.name))

    def _call(self, var: relax.Var, call: Any, name: str | None) -> None:
        if name == "relax.astype":
            self._converted(var, call)
        elif name in _PRODUCTS:
            self._product(var, call)
        elif name in _MOVING and self._moves_halves(call):
            new = self.rewriter.emit(self._with(call, self._half_arguments(call, var)), var.name)
            self.values[var] = _Value("half", half=new)
        elif name is None or name == "relax.call_tir" or name.startswith("relax.call"):
            self._set(var, "free", self._with(call, self._float_arguments(call, var)))
        else:
            kind = self._kind(var, call, str(name))
            self._set(var, kind, self._with(call, self._float_arguments(call, var)))

    def _converted(self, var: relax.Var, call: Any) -> None:
        """A conversion to float32: of halves, it is what reading a stored value means."""
        source = call.args[0]
        if str(source.ty.dtype) == self.dtype and isinstance(source, relax.Var):
            self.values[var] = _Value("half", half=self.rewriter.map(source))
            return
        if isinstance(source, ir.GenericConst):  # a weight that is stored in half
            self._set(var, "free", call)
            return
        self._set(var, "wide", self._with(call, self._float_arguments(call, var)))

    def _product(self, var: relax.Var, call: Any) -> None:
        """Both sides from halves, in one operator that sums in float32 where types allow."""
        halves = [self._half(argument, var.name) for argument in call.args]
        made = self.rewriter.emit(_mixed(call, halves), var.name)
        kind: Kind = "pending" if self._only_reader_is_elementwise(var) else "half"
        self._store(var, kind, made)

    def _set(self, var: relax.Var, kind: Kind, value: Any) -> None:
        self._store(var, kind, self.rewriter.emit(value, var.name))

    def _store(self, var: relax.Var, kind: Kind, made: Any) -> None:
        if kind == "half":
            half = self.rewriter.emit(_op.astype(made, self.dtype), var.name)
            self.values[var] = _Value("half", half=half)
        else:
            self.values[var] = _Value(kind, made)
            self.rewriter.replace(var, made)

    def _kind(self, var: relax.Var, call: Any, name: str) -> Kind:
        """What the result of an operator is that computes in float32."""
        if name in _ROWS:
            return "half"
        if name in _FREE or (name == "relax.multiply" and call.args[0].same_as(call.args[1])):
            return "free"
        kinds = set(self._kinds(call))
        if "wide" in kinds or not kinds or any(self._is_extreme(a) for a in _flat(call.args)):
            return "wide"
        if kinds == {"free"}:
            return "free"
        if self._only_reader_is_elementwise(var):
            return "pending"
        return "half"

    def _kinds(self, call: Any) -> list[Kind]:
        """Of the float32 tensors that a call reads, constants left out."""
        found: list[Kind] = []
        for argument in _flat(call.args):
            if isinstance(argument, relax.Var) and self._is_float32(argument):
                value = self.values.get(argument)
                found.append("wide" if value is None else value.kind)
        return found

    def _moves_halves(self, call: Any) -> bool:
        """Whether all that is moved is half already, or a weight."""
        arguments = [a for a in _flat(call.args) if self._is_float32(a)]
        halves = [a for a in arguments if self._is_half(a)]
        constants = [a for a in arguments if isinstance(a, ir.GenericConst)]
        if len(halves) + len(constants) != len(arguments) or any(map(self._is_extreme, constants)):
            return False
        return bool(halves) or (bool(constants) and operator_of(call) in _OF_WEIGHTS)

    def _moved_tuple(self, var: relax.Var, value: Any) -> bool:
        """A split of halves gives a tuple of halves."""
        if operator_of(value) not in _MOVING or not self._moves_halves(value):
            return False
        made = self.rewriter.emit(self._with(value, self._half_arguments(value, var)), var.name)
        self.rewriter.replace(var, made)
        self.values[var] = _Value("half", half=made)
        return True

    def _only_reader_is_elementwise(self, var: relax.Var) -> bool:
        readers = self.readers.get(var, [])
        if len(readers) != 1 or readers[0] is None:
            return False
        name = operator_of(readers[0])
        if name in _QUANTIZING:
            return True
        if name is None or name in _PRODUCTS | _MOVING | _ROWS or name.startswith("relax.call"):
            return False
        return name not in _FREE and name != "relax.astype"

    def _is_half(self, argument: Any) -> bool:
        value = self.values.get(argument) if isinstance(argument, relax.Var) else None
        return value is not None and value.kind == "half"

    def _is_extreme(self, argument: Any) -> bool:
        """A constant that half has no number for."""
        if not isinstance(argument, ir.GenericConst) or not self._is_float32(argument):
            return False
        array = np.abs(as_array(argument))
        return bool(array.size) and not float(array.max()) <= self.limit

    def _half(self, argument: Any, name: str) -> Any:
        """The new expression of a value in half."""
        if isinstance(argument, ir.GenericConst):
            return self._half_constant(argument, name)
        value = self.values.get(argument)
        if value is None:
            value = self.values[argument] = _Value("wide", self.rewriter.map(argument))
        if value.half is None:
            value.half = self.rewriter.emit(_op.astype(value.float32, self.dtype), argument.name)
        return value.half

    def _half_constant(self, argument: Any, name: str) -> Any:
        array = as_array(argument)
        if array.dtype != np.float32:
            return argument
        if np.isfinite(array).all() and self._is_extreme(argument):
            raise overflow("a weight", name, float(np.abs(array).max()), self.dtype)
        return constant(array.astype(HALVES[self.dtype]))

    def _float32(self, argument: Any, name: str) -> Any:
        """The new expression of a value in float32; each reader has its own conversion."""
        if isinstance(argument, relax.Tuple):
            return relax.Tuple([self._float32(field, name) for field in argument.fields])
        value = self.values.get(argument) if isinstance(argument, relax.Var) else None
        if value is None or not self._is_float32(argument):
            return self.rewriter.map(argument)
        if value.kind == "half":
            return self.rewriter.emit(_op.astype(value.half, "float32"), argument.name)
        return value.float32

    def _float_arguments(self, call: Any, var: relax.Var) -> list[Any]:
        return [self._float32(argument, var.name) for argument in call.args]

    def _half_arguments(self, call: Any, var: relax.Var) -> list[Any]:
        def half(argument: Any) -> Any:
            if isinstance(argument, relax.Tuple):
                return relax.Tuple([half(field) for field in argument.fields])
            if self._is_float32(argument):
                return self._half(argument, var.name)
            return self.rewriter.map(argument)

        return [half(argument) for argument in call.args]

    def _reading_float32(self, value: Any, name: str) -> Any:
        if isinstance(value, relax.Call):
            return self._with(value, [self._float32(argument, name) for argument in value.args])
        if isinstance(value, relax.Tuple | relax.Var):
            return self._float32(value, name)
        return value

    @staticmethod
    def _with(call: Any, arguments: list[Any]) -> relax.Call:
        return relax.Call(call.op, arguments, call.attrs, call.ty_args)

    @staticmethod
    def _is_float32(expression: Any) -> bool:
        ty: Any = getattr(expression, "ty", None)
        return bool(isinstance(ty, relax.TensorType)) and str(ty.dtype) == "float32"


def _flat(arguments: Any) -> list[Any]:
    return [
        field
        for argument in arguments
        for field in (argument.fields if isinstance(argument, relax.Tuple) else [argument])
    ]


def _mixed(call: Any, arguments: list[Any]) -> Any:
    """The same product of halves, with float32 sums and a float32 result."""
    name = str(call.op.name)
    if name == "relax.matmul":
        return _op.matmul(*arguments, out_dtype="float32")
    fields = [field.name for field in type(call.attrs).__tvm_ffi_type_info__.fields]
    options = {field: getattr(call.attrs, field) for field in fields if field != "out_dtype"}
    make: Any = getattr(_op.nn, name.removeprefix("relax.nn."))
    return make(*arguments, **options, out_dtype="float32")
