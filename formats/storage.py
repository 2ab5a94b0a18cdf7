"""Compressed tensors in a safetensors file, read back equal.

A tensor called ``w`` becomes arrays ``w/codes``, ``w/scales/...`` and so on; the file's own
metadata, one JSON text under ``fewbits``, holds what arrays cannot: formats, shapes, granularity.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..errors import FewbitsError
from .compressed import CompressedTensor
from .granularity import parse_granularity
from .packing import pack, unpack
from .parse import parse_format
from .plain import PLAIN_TYPES, PlainTensor, StoredTensor, plain_dtype
from .scales import StoredScales
from .sparsity import parse_sparsity

_VERSION = 1


def save_tensors(
    path: str | Path, tensors: Mapping[str, StoredTensor], extra: Mapping[str, str] | None = None
) -> None:
    """Write compressed tensors to one file; what was there is replaced when all is written.

    `extra` texts go into the file's metadata; `load_extra` reads them.
    """
    arrays: dict[str, np.ndarray] = {}
    described: dict[str, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        described[name], parts = take_apart(tensor)
        arrays |= {f"{name}/{key}": array for key, array in parts.items()}
    text = json.dumps({"version": _VERSION, "tensors": described})
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        save_file(arrays, temporary, metadata={**(extra or {}), "fewbits": text})
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def take_apart(tensor: StoredTensor) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What a tensor is made of: a description that JSON can hold, and plain arrays by name.

    `put_together` is the way back. Arrays have dtypes of numpy's own (bfloat16 as uint16).
    """
    if isinstance(tensor, PlainTensor):
        return _take_plain_apart(tensor)
    parts: dict[str, np.ndarray] = {"codes": tensor.packed}
    if tensor.zero_points is not None:
        parts["zero_points"] = pack(tensor.zero_points, tensor.number_format.bits)
    if tensor.offsets is not None:
        parts["offsets"] = tensor.offsets
    parts |= {f"places/{key}": array for key, array in tensor.places.items()}
    for key, array in tensor.scales.arrays.items():
        # numpy has no bfloat16 of its own.
        parts[f"scales/{key}"] = (
            array.view(np.uint16) if tensor.scales.storage == "bfloat16" else array
        )
    description = {
        "format": tensor.number_format.name,
        "shape": list(tensor.shape),
        "granularity": str(tensor.granularity),
        "sparsity": tensor.sparsity.name,
        "scales": {"storage": tensor.scales.storage, "shape": list(tensor.scales.shape)},
        "parts": sorted(parts),
    }
    return description, {key: np.ascontiguousarray(array) for key, array in parts.items()}


def _take_plain_apart(tensor: PlainTensor) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    values = tensor.values
    parts = {"values": values.view(np.uint16) if tensor.dtype == "bfloat16" else values}
    parts |= {f"places/{key}": array for key, array in tensor.places.items()}
    description = {
        "format": tensor.dtype,
        "shape": list(tensor.shape),
        "sparsity": tensor.sparsity.name,
        "parts": sorted(parts),
    }
    return description, {key: np.ascontiguousarray(array) for key, array in parts.items()}


def load_extra(path: str | Path) -> dict[str, str]:
    """The texts that `save_tensors` got as `extra`.

    Raises:
        FewbitsError: ``bad-file``.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            texts = dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise FewbitsError(
            "bad-file", f"not a file of compressed tensors: {error}", where=str(path)
        ) from error
    texts.pop("fewbits", None)
    return texts


def load_tensors(path: str | Path) -> dict[str, StoredTensor]:
    """Read what `save_tensors` wrote.

    Raises:
        FewbitsError: ``bad-file`` where it is no such file or its parts contradict each other.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get("fewbits")
            if text is None:
                raise FewbitsError("bad-file", "no compressed tensors in this file")
            header = json.loads(text)
            if header["version"] != _VERSION:
                raise FewbitsError("bad-file", f"unknown version {header['version']}")
            return {
                name: put_together(
                    description,
                    {part: file.get_tensor(f"{name}/{part}") for part in description["parts"]},
                )
                for name, description in header["tensors"].items()
            }
    except FewbitsError as error:
        raise FewbitsError("bad-file", error.message, where=str(path), hint=error.hint) from error
    except (OSError, SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise FewbitsError(
            "bad-file", f"not a file of compressed tensors: {error}", where=str(path)
        ) from error


def put_together(description: dict[str, Any], parts: dict[str, np.ndarray]) -> StoredTensor:
    """The tensor that `take_apart` took apart.

    Raises:
        FewbitsError: where the parts contradict the description.
    """
    if description["format"] in PLAIN_TYPES:
        return _put_plain_together(description, parts)
    number_format = parse_format(description["format"])
    granularity = parse_granularity(description["granularity"])
    shape = _shape(description["shape"])
    storage = description["scales"]["storage"]
    scale_arrays = {
        key.removeprefix("scales/"): array
        for key, array in parts.items()
        if key.startswith("scales/")
    }
    if storage == "bfloat16":
        import ml_dtypes

        scale_arrays = {k: v.view(ml_dtypes.bfloat16) for k, v in scale_arrays.items()}
    zero_points = None
    if "zero_points" in parts:
        zero_shape = granularity.scale_shape(shape)
        packed = parts["zero_points"]
        zero_points = unpack(packed, number_format.bits, math.prod(zero_shape)).reshape(zero_shape)
    tensor = CompressedTensor(
        number_format,
        shape,
        granularity,
        parse_sparsity(description["sparsity"]),
        parts["codes"],
        StoredScales(storage, _shape(description["scales"]["shape"]), scale_arrays),
        zero_points,
        parts.get("offsets"),
        _places(parts),
    )
    # Reads the places and counts the codes, so a damaged file fails here and not at first use.
    tensor.codes()
    return tensor


def _put_plain_together(description: dict[str, Any], parts: dict[str, np.ndarray]) -> PlainTensor:
    values, dtype = parts["values"], plain_dtype(description["format"])
    if description["format"] == "bfloat16":
        values = values.view(dtype)
    shape, sparsity = _shape(description["shape"]), parse_sparsity(description["sparsity"])
    return PlainTensor(description["format"], shape, sparsity, values, _places(parts))


def _places(parts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {k.removeprefix("places/"): v for k, v in parts.items() if k.startswith("places/")}


def _shape(sizes: object) -> tuple[int, ...]:
    if not isinstance(sizes, list) or not all(type(s) is int and s >= 0 for s in sizes):
        raise FewbitsError("bad-file", "a shape is not a list of sizes")
    return tuple(sizes)
