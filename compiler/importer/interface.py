"""The model's inputs and outputs: which there are, and their shapes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from ...errors import FewbitsError, nearest
from ...ops.symbolic import simplified, spell
from .limits import RUNTIME_DTYPES, check_extents

if TYPE_CHECKING:
    from tvm import ir


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """An input or output.

    Attributes:
        name: its exact ONNX name.
        shape: sizes; a symbolic dimension is there by name, what is computed from such as text
            (``"P + 1"``).
        dtype: as numpy spells it.
    """

    name: str
    shape: tuple[Any, ...]
    dtype: str


def freeze(model: onnx.ModelProto, constants: Mapping[str, np.ndarray]) -> None:
    """Turn inputs into initializers, and drop initializers from the list of inputs.

    Raises:
        FewbitsError: ``unknown-input`` for a name that is no input.
    """
    graph = model.graph
    names = [value.name for value in graph.input]
    for name, array in constants.items():
        if name not in names:
            raise FewbitsError(
                "unknown-input", f"the model has no input {name!r}", hint=nearest(name, names)
            )
        graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    fixed = {tensor.name for tensor in graph.initializer}
    remaining = [value for value in graph.input if value.name not in fixed]
    del graph.input[:]
    graph.input.extend(remaining)


def bind_shapes(
    model: onnx.ModelProto,
    bind: Mapping[str, int],
    shapes: Mapping[str, Sequence[int]],
    notes: list[str],
    dynamic: bool = False,
) -> list[TensorInfo]:
    """Give every input a shape, in the model too. Adds to `notes`.

    A symbolic dimension has one size wherever it occurs. One that is some input's first dimension
    is the batch, and is 1 unless bound. With `dynamic`, symbolic dimensions that are not bound stay
    what they are; those without a name get one.

    Raises:
        FewbitsError: ``unbound-dimension``, ``unknown-dimension``, ``unknown-input``,
            ``unknown-rank``, ``invalid-shape``, ``unsupported-dtype``.
    """
    inputs = list(model.graph.input)
    for value in inputs:
        kind = value.type.WhichOneof("value")
        if kind != "tensor_type":
            raise FewbitsError(
                "unsupported-dtype",
                f"input {value.name!r} is not a tensor but {kind or 'has no type'}",
                where=f"input {value.name!r}",
            )
    tensors = {value.name: value.type.tensor_type for value in inputs}
    _check_names(tensors, bind, shapes)
    sizes = dict(bind)
    for tensor in tensors.values():
        first = tensor.shape.dim[0].dim_param if tensor.shape.dim else ""
        if first and first not in sizes and not dynamic:
            sizes[first] = 1
            notes.append(f"batch dimension {first!r} set to 1; bind it to change that")
    result = []
    for name, tensor in tensors.items():
        extents: list[Any] = []
        if name in shapes:
            extents.extend(shapes[name])
        elif dynamic:
            extents.extend(_open_extents(name, tensor, sizes, notes))
        else:
            extents.extend(_extents(name, tensor, sizes, notes))
        if len(extents) != len(tensor.shape.dim):
            raise FewbitsError(
                "invalid-shape",
                f"the shape {extents} given for input {name!r} should have "
                f"{len(tensor.shape.dim)} dimensions",
            )
        for dim, extent in zip(tensor.shape.dim, extents, strict=True):
            if dim.HasField("dim_value") and dim.dim_value not in (extent, 0):
                raise FewbitsError(
                    "invalid-shape",
                    f"the shape {extents} given for input {name!r} "
                    f"contradicts the model's {dim.dim_value}",
                )
            if isinstance(extent, str):
                dim.dim_param = extent
            else:
                dim.dim_value = extent
        dtype = dtype_name(tensor.elem_type, f"input {name!r}")
        check_extents([e for e in extents if isinstance(e, int)], dtype, f"input {name!r}")
        result.append(TensorInfo(name, tuple(extents), dtype))
    return result


def _check_names(
    tensors: Mapping[str, onnx.TypeProto.Tensor],
    bind: Mapping[str, int],
    shapes: Mapping[str, Sequence[int]],
) -> None:
    """Every name the user gives must exist, and every size be positive."""
    for name in shapes:
        if name not in tensors:
            raise FewbitsError(
                "unknown-input", f"the model has no input {name!r}", hint=nearest(name, tensors)
            )
    symbols = {dim.dim_param for t in tensors.values() for dim in t.shape.dim} - {""}
    for name, size in bind.items():
        if name not in symbols:
            raise FewbitsError(
                "unknown-dimension",
                f"the model has no symbolic dimension {name!r}",
                hint=nearest(name, symbols) if symbols else "every dimension has a size already",
            )
        if size < 1:
            raise FewbitsError("invalid-shape", f"dimension {name!r} cannot have size {size}")


def _open_extents(
    name: str, tensor: onnx.TypeProto.Tensor, sizes: Mapping[str, int], notes: list[str]
) -> list[int | str]:
    """Sizes, and names of the dimensions that have none."""
    _check_rank(name, tensor)
    extents: list[int | str] = []
    for axis, dim in enumerate(tensor.shape.dim):
        if dim.HasField("dim_value"):
            extents.append(dim.dim_value)
        elif dim.dim_param:
            extents.append(sizes.get(dim.dim_param, dim.dim_param))
        else:
            extents.append(f"{name}_{axis}")
            notes.append(f"dimension {axis} of input {name!r} has no name; it is {extents[-1]!r}")
    return extents


def _check_rank(name: str, tensor: onnx.TypeProto.Tensor) -> None:
    if not tensor.HasField("shape"):
        raise FewbitsError(
            "unknown-rank",
            f"input {name!r} has no shape, not even a number of dimensions",
            hint="export the model with input shapes",
        )


def _extents(
    name: str, tensor: onnx.TypeProto.Tensor, sizes: Mapping[str, int], notes: list[str]
) -> list[int]:
    _check_rank(name, tensor)
    extents = []
    for axis, dim in enumerate(tensor.shape.dim):
        if dim.HasField("dim_value"):
            extents.append(dim.dim_value)
        elif dim.dim_param in sizes:
            extents.append(sizes[dim.dim_param])
        elif axis == 0:
            extents.append(1)
            notes.append(f"batch dimension of input {name!r} set to 1")
        elif dim.dim_param:
            raise FewbitsError(
                "unbound-dimension",
                f"symbolic dimension {dim.dim_param!r} of input {name!r} has no size",
                where=f"input {name!r}",
                hint=f"give it one: --bind {dim.dim_param}=128",
            )
        else:
            raise FewbitsError(
                "unbound-dimension",
                f"dimension {axis} of input {name!r} has neither a size nor a name",
                where=f"input {name!r}",
                hint="give the whole shape of this input: --shape NAME=1,3,224,224",
            )
    return extents


def dtype_name(code: int, where: str) -> str:
    """An ONNX element type as numpy spells it.

    Raises:
        FewbitsError: ``unsupported-dtype`` for what no run-time value can have.
    """
    try:
        dtype = str(onnx.helper.tensor_dtype_to_np_dtype(code))
    except KeyError:
        dtype = f"number {code}"
    if dtype not in RUNTIME_DTYPES:
        names = onnx.TensorProto.DataType
        known = code in names.values()
        raise FewbitsError(
            "unsupported-dtype",
            f"{where} has element type {names.Name(code).lower() if known else code}",
            where=where,
            hint="supported: " + ", ".join(sorted(RUNTIME_DTYPES)),
        )
    return dtype


def outputs_of(module: ir.IRModule) -> tuple[TensorInfo, ...]:
    """The module's outputs, from its types."""
    function: Any = module["main"]
    names = [str(name) for name in function.attrs["output_names"]]
    result: Any = function.ret_ty
    fields = [result] if len(names) == 1 else result.fields
    return tuple(
        TensorInfo(name, tuple(map(_outside, field.shape.values)), str(field.dtype.dtype))
        for name, field in zip(names, fields, strict=True)
    )


def _outside(extent: Any) -> int | str:
    """A size as the interface shows it."""
    size = simplified(extent)
    return size if isinstance(size, int) else spell(size)
