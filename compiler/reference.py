"""What later checks compare a product with: the float model, and modules that the oracle evaluates.

A module's JSON would hold every constant once more in base64. Here constants that are bytes of the
float model's weights are named, and other large ones lie in a file of bytes beside the JSON.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
from onnx import numpy_helper

from ..errors import FewbitsError

if TYPE_CHECKING:
    from tvm import ir

FOLDER = "reference"
FLOAT_MODEL = "model.onnx"

#: Constants with fewer bytes stay in the JSON.
_SMALL = 512
#: Of a tensor as TVM writes it: the dtype, shape and size of the data after a fixed beginning.
_BEFORE_RANK, _AFTER_RANK = 24, 16
_TENSOR = "ffi.Tensor"
_HINT = "compile the model again"


def write_reference(
    folder: Path, model: onnx.ModelProto | None, modules: dict[str, ir.IRModule]
) -> None:
    """Fill an artifact's folder ``reference``.

    Args:
        folder: the artifact's.
        model: the float model with all its weights in it; None to leave it out.
        modules: by name.
    """
    import tvm

    reference = folder / FOLDER
    reference.mkdir()
    known: dict[str, str] = {}
    if model is not None:
        (reference / FLOAT_MODEL).write_bytes(model.SerializeToString(deterministic=True))
        for tensor in model.graph.initializer:
            known.setdefault(_digest(numpy_helper.to_array(tensor).tobytes()), tensor.name)
    for name, module in modules.items():
        document = json.loads(tvm.ir.save_json(module))
        data = _take_out(document, known)
        text = json.dumps(document, separators=(",", ":"))
        (reference / f"{name}.json").write_text(text, "utf-8")
        if data:
            (reference / f"{name}.bin").write_bytes(b"".join(data))


def _take_out(document: dict[str, Any], known: dict[str, str]) -> list[bytes]:
    """Replace large constants by where they are; those that are nowhere else."""
    data: list[bytes] = []
    places: dict[str, int] = {}
    end = 0
    for node in document["nodes"]:
        if node["type"] != _TENSOR:
            continue
        raw = base64.b64decode(node["data"])
        header = _header_size(raw)
        body = raw[header:]
        if len(body) < _SMALL:
            continue
        node["data"] = {"header": base64.b64encode(raw[:header]).decode("ascii"), "size": len(body)}
        digest = _digest(body)
        if digest in known:
            node["data"]["initializer"] = known[digest]
            continue
        if digest not in places:
            places[digest], end = end, end + len(body)
            data.append(body)
        node["data"]["offset"] = places[digest]
    return data


def _header_size(raw: bytes) -> int:
    rank = int.from_bytes(raw[_BEFORE_RANK : _BEFORE_RANK + 4], "little")
    return _BEFORE_RANK + _AFTER_RANK + 8 * rank


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def reference_file(folder: Path, name: str) -> Path:
    """A file of an artifact's reference.

    Raises:
        FewbitsError: ``not-an-artifact`` when it is missing.
    """
    path = folder / FOLDER / name
    if not path.is_file():
        raise FewbitsError(
            "not-an-artifact", f"the artifact lacks {FOLDER}/{name}", where=str(folder), hint=_HINT
        )
    return path


def read_module(folder: Path, name: str) -> ir.IRModule:
    """A module of an artifact's reference.

    Raises:
        FewbitsError: ``not-an-artifact`` when it is missing or damaged.
    """
    import tvm

    from .. import ops  # noqa: F401  (registers the dialect before the module is read)
    from ..ops import integer  # noqa: F401

    path = reference_file(folder, f"{name}.json")
    try:
        document = json.loads(path.read_text("utf-8"))
        _put_back(document, folder, name)
        return tvm.ir.load_json(json.dumps(document))
    except (ValueError, TypeError, KeyError, IndexError, RuntimeError, OSError) as error:
        raise FewbitsError(
            "not-an-artifact",
            f"cannot read the reference: {str(error)[:200]}",
            where=str(path),
            hint=_HINT,
        ) from error


def _put_back(document: dict[str, Any], folder: Path, name: str) -> None:
    """Constants as TVM reads them."""
    nodes = [
        node
        for node in document["nodes"]
        if node["type"] == _TENSOR and isinstance(node["data"], dict)
    ]
    weights: dict[str, bytes] = {}
    if any("initializer" in node["data"] for node in nodes):
        weights = _initializers(reference_file(folder, FLOAT_MODEL))
    rest = b""
    if any("offset" in node["data"] for node in nodes):
        rest = reference_file(folder, f"{name}.bin").read_bytes()
    for node in nodes:
        entry = node["data"]
        if "initializer" in entry:
            body = weights[entry["initializer"]]
        else:
            body = rest[entry["offset"] : entry["offset"] + entry["size"]]
        if len(body) != entry["size"]:
            raise ValueError("a constant has another size")
        node["data"] = base64.b64encode(base64.b64decode(entry["header"]) + body).decode("ascii")


def _initializers(path: Path) -> dict[str, bytes]:
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path)
    except DecodeError as error:
        raise ValueError(f"{path.name} is damaged") from error
    return {t.name: numpy_helper.to_array(t).tobytes() for t in model.graph.initializer}
