"""Read a model from a file, bytes or a ModelProto."""

from __future__ import annotations
from pathlib import Path
import onnx


def load(source):
    if isinstance(source, onnx.ModelProto):
        m = onnx.ModelProto()
        m.CopyFrom(source)
        return m
    if isinstance(source, bytes):
        return onnx.load_model_from_string(source)
    return onnx.load(source)
