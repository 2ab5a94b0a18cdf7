"""External data: weights in files beside the model.

The path comes from the model, which may come from anybody. It must stay inside the model's
folder, also after links are followed, and everything is checked before it is read.

Small models have their weights read into them, and are whole then. The weights of large ones
(protobuf ends at 2 GB) stay in their files, and are mapped into memory from there: nothing of them
takes room before it is used, and the system may drop it again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath

import numpy as np
import onnx

from ...errors import FewbitsError
from .tensors import byte_size

#: Models with more external data than this keep their weights in the files.
MAPPED_BYTES = 2**28

#: Smaller tensors are read in any case: some are shapes, which ONNX's own tools have to see.
_SMALL = 2**12


def read_into(model: onnx.ModelProto, folder: Path | None) -> dict[str, np.ndarray]:
    """Replace references to external data by the data, or map the files.

    Args:
        model: changed in place.
        folder: the model's folder, resolved; None when the model does not come from a file.

    Returns:
        By name, the initializers that are mapped; in the model they remain references.

    Raises:
        FewbitsError: ``missing-external-data``, ``escaping-external-data``,
            ``invalid-external-data``.
    """
    external = [t for t in tensors_of(model) if t.data_location == onnx.TensorProto.EXTERNAL]
    sizes = [byte_size(tensor) for tensor in external]
    weights = {tensor.name for tensor in model.graph.initializer}
    mapped: dict[str, np.ndarray] = {}
    for tensor, size in zip(external, sizes, strict=True):
        where = f"tensor {tensor.name!r}"
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if not location:
            raise FewbitsError("invalid-external-data", "no location is given", where=where)
        if folder is None:
            raise FewbitsError(
                "missing-external-data",
                f"its data are in a file {location!r}, but the model was not read from a file",
                where=where,
                hint="give the path of the .onnx file",
            )
        path = _inside(folder, location, where)
        offset = _checked_offset(path, entries, size, where)
        large = sum(sizes) > MAPPED_BYTES and size > _SMALL
        if large and tensor.name in weights and _bytewise(tensor):
            mapped[tensor.name] = _map(path, offset, tensor, where)
            continue
        tensor.raw_data = _read(path, offset, size, where)
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]
    return mapped


def _bytewise(tensor: onnx.TensorProto) -> bool:
    """Whether the elements are whole bytes."""
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return byte_size(tensor) == math.prod(tensor.dims) * dtype.itemsize


def tensors_of(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor in the model: initializers and attributes, in functions and subgraphs too."""
    yield from _tensors_of_graph(model.graph)
    for function in model.functions:
        yield from _tensors_of_nodes(function.node)


def _tensors_of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    yield from _tensors_of_nodes(graph.node)


def _tensors_of_nodes(nodes: object) -> Iterator[onnx.TensorProto]:
    for node in nodes:  # type: ignore[attr-defined]
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from _tensors_of_graph(attribute.g)
            for graph in attribute.graphs:
                yield from _tensors_of_graph(graph)


def _inside(folder: Path, location: str, where: str) -> Path:
    """The file, if it lies in the folder."""
    windows = PureWindowsPath(location)
    parts = {*Path(location).parts, *windows.parts}
    escapes = Path(location).is_absolute() or bool(windows.anchor) or ".." in parts
    if not escapes and "\0" not in location:
        path = (folder / location).resolve()
        if path.is_relative_to(folder):
            if not path.is_file():
                raise FewbitsError(
                    "missing-external-data",
                    f"there is no file {location!r} beside the model",
                    where=where,
                    hint="copy the model together with its data files",
                )
            return path
    raise FewbitsError(
        "escaping-external-data",
        f"its data would be read from {location!r}, outside of the model's folder",
        where=where,
        hint="put the data file beside the model (a copy, not a link) and name it without folders",
    )


def _checked_offset(path: Path, entries: dict[str, str], expected: int, where: str) -> int:
    """Where the tensor's bytes begin, if all of them are there."""
    try:
        size = path.stat().st_size
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", str(expected)))
    except (ValueError, OSError) as error:
        raise FewbitsError("invalid-external-data", str(error), where=where) from error
    if length != expected or offset < 0 or offset + length > size:
        raise FewbitsError(
            "invalid-external-data",
            f"bytes {offset} to {offset + length} of {path.name!r} ({size:,} bytes) "
            f"for a tensor of {expected:,} bytes",
            where=where,
            hint="the data file may be truncated, or belong to another version of the model",
        )
    return offset


def _read(path: Path, offset: int, length: int, where: str) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(length)
    except OSError as error:
        raise FewbitsError("invalid-external-data", str(error), where=where) from error


def _map(path: Path, offset: int, tensor: onnx.TensorProto, where: str) -> np.ndarray:
    """The tensor's values in the file itself; what is written to them stays in memory."""
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    try:
        data = np.memmap(path, np.uint8, "c", offset, (byte_size(tensor),))
    except OSError as error:
        raise FewbitsError("invalid-external-data", str(error), where=where) from error
    return data.view(dtype).reshape(tuple(tensor.dims))
