"""Read a model from a file, from bytes, or from a ModelProto, and say what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError, Message

from ...errors import FewbitsError
from . import external

#: protobuf cannot parse more than this in one message.
_LARGEST_FILE = 2**31 - 1

#: ModelProto's fields: number to wire type.
_FIELDS = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}


def load(
    source: str | Path | onnx.ModelProto | bytes,
) -> tuple[onnx.ModelProto, str, dict[str, np.ndarray]]:
    """The model, a name for it, and the weights that stay in files. `source` is not changed.

    Raises:
        FewbitsError: ``file-not-found``, ``unreadable-file``, ``model-too-large``, ``not-onnx``,
            ``truncated-model``, and the errors of `external.read_into`.
    """
    if isinstance(source, onnx.ModelProto):
        model = onnx.ModelProto()
        model.CopyFrom(source)
        return model, "model", external.read_into(model, None)
    if isinstance(source, bytes):
        model = parse(source, "the model")
        return model, "model", external.read_into(model, None)
    path = Path(source)
    model = parse(_read(path), str(path))
    return model, path.stem, external.read_into(model, path.resolve().parent)


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise FewbitsError(
            "file-not-found", f"there is no file {str(path)!r}", hint="check the model's path"
        )
    try:
        size = path.stat().st_size
        if size > _LARGEST_FILE:
            raise FewbitsError(
                "model-too-large",
                f"{str(path)!r} has {size:,} bytes; protobuf ends at {_LARGEST_FILE:,}",
                hint="save weights as external data: onnx.save(..., save_as_external_data=True)",
            )
        return path.read_bytes()
    except OSError as error:
        raise FewbitsError("unreadable-file", f"cannot read {str(path)!r}: {error}") from error


def parse(data: bytes, where: str) -> onnx.ModelProto:
    """The bytes as a ModelProto.

    Raises:
        FewbitsError: ``truncated-model`` where the bytes are a model's beginning, ``not-onnx``.
    """
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        if _is_truncated(data):
            raise FewbitsError(
                "truncated-model",
                "the file ends in the middle of the model",
                where=where,
                hint="it may not have been copied or downloaded completely",
            ) from error
        raise _not_onnx(where) from error
    if not model.HasField("graph"):
        raise _not_onnx(where)
    _check_text(model, where)
    return model


def _check_text(message: Message, where: str) -> None:
    """Names must be text. protobuf hands out bytes where they are not UTF-8."""
    for field, value in message.ListFields():
        values: Any = [value] if isinstance(value, (str, bytes, Message)) else value
        if field.type == field.TYPE_STRING and any(isinstance(item, bytes) for item in values):
            raise FewbitsError(
                "not-onnx", f"a {field.name} in the model is not UTF-8 text", where=where
            )
        if field.type == field.TYPE_MESSAGE:
            for item in values:
                _check_text(item, where)


def _not_onnx(where: str) -> FewbitsError:
    return FewbitsError(
        "not-onnx",
        "this is not an ONNX model",
        where=where,
        hint="expected a file as torch.onnx.export or tf2onnx write it",
    )


def _is_truncated(data: bytes) -> bool:
    """Whether the bytes are whole ModelProto fields and then one that is cut off."""
    position, fields = 0, 0
    while position < len(data):
        tag, position = _varint(data, position)
        if tag is None:
            return fields > 0
        if _FIELDS.get(tag >> 3) != tag & 7:
            return False
        value, position = _varint(data, position)
        if value is None:
            return True
        if tag & 7 == 2:
            position += value
        fields += 1
    return position > len(data)


def _varint(data: bytes, position: int) -> tuple[int | None, int]:
    """A variable-length integer and where it ends; None where the data end first."""
    value = 0
    for index in range(10):
        if position + index >= len(data):
            return None, len(data)
        byte = data[position + index]
        value |= (byte & 127) << (7 * index)
        if byte < 128:
            return value, position + index + 1
    return value, position + 10
