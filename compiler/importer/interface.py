"""The model's inputs and outputs: which there are, and their static shapes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx

from ...errors import FewbitsError, nearest

if TYPE_CHECKING:
    from tvm import ir


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """An input or output: its exact ONNX name, static shape and dtype as numpy spells it."""

    name: str
    shape: tuple[int, ...]
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


def make_static(
    model: onnx.ModelProto,
    bind: Mapping[str, int],
    shapes: Mapping[str, Sequence[int]],
    notes: list[str],
) -> list[TensorInfo]:
    """Give every input a static shape, in the model too. Adds to `notes`.

    Raises:
        FewbitsError: ``unbound-dimension``, ``unknown-dimension``, ``unknown-input``,
            ``unknown-rank``, ``invalid-shape``.
    """
    result = []
    used: set[str] = set()
    batches: list[str] = []
    for value in model.graph.input:
        tensor = value.type.tensor_type
        dims = list(tensor.shape.dim)
        extents = []
        for axis, dim in enumerate(dims):
            if dim.HasField("dim_value"):
                extents.append(dim.dim_value)
            elif dim.dim_param in bind:
                extents.append(bind[dim.dim_param])
                used.add(dim.dim_param)
            elif axis == 0:
                extents.append(1)
                batches.append(f"{value.name!r}")
            else:
                raise FewbitsError("unbound-dimension", f"dimension {dim.dim_param!r} of input {value.name!r} has no size", hint=f"--bind {dim.dim_param}=128")
        if value.name in shapes:
            extents = list(shapes[value.name])
        for dim, extent in zip(dims, extents, strict=True):
            dim.dim_value = extent
        dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        result.append(TensorInfo(value.name, tuple(extents), dtype))
    if batches:
        notes.append(f"batch dimension of {', '.join(batches)} set to 1")
    return result


def outputs_of(module: ir.IRModule) -> tuple[TensorInfo, ...]:
    """The module's outputs, from its types."""
    from tvm import relax

    function = module["main"]
    type_ = function.ret_ty
    fields = type_.fields if isinstance(type_, relax.TupleType) else [type_]
    return tuple(
        TensorInfo(
            str(name), tuple(int(extent) for extent in field.shape.values), str(field.dtype.dtype)
        )
        for name, field in zip(function.attrs["output_names"], fields, strict=True)
    )
