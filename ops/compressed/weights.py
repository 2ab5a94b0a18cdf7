"""``fewbits.decode``: a compressed tensor in a module, as constants and one operator."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from tvm import ir, relax

from ...errors import FewbitsError
from ...formats.plain import StoredTensor
from ...formats.storage import put_together, take_apart
from ..registry import define, make_call

_NAME = "fewbits.decode"


def decode_call(tensor: StoredTensor) -> relax.Call:
    """A call that stands for the tensor, float32; `tensor_of` reads the tensor back."""
    description, parts = take_apart(tensor)
    # relax.const of a 0-d array keeps its shape; empty parts are constants like any other.
    constants = [relax.const(parts[name], str(parts[name].dtype)) for name in description["parts"]]
    text = json.dumps(description, sort_keys=True)
    return make_call(_NAME, [relax.Tuple(constants)], description=text)


def is_decode(expression: Any) -> bool:
    """Whether this is a call of ``fewbits.decode``."""
    return (
        isinstance(expression, relax.Call)
        and isinstance(expression.op, ir.Op)
        and expression.op.name == _NAME  # pyright: ignore[reportAttributeAccessIssue]
    )


def tensor_of(call: relax.Call) -> StoredTensor:
    """The tensor that a call of ``fewbits.decode`` stands for.

    Raises:
        FewbitsError: ``internal`` where an argument is not constant.
    """
    fields = call.args[0].fields
    if not all(isinstance(field, ir.GenericConst) for field in fields):
        raise FewbitsError("internal", "fewbits.decode of something that is not constant")
    return _tensor(call, [field.value.numpy() for field in fields])


def _tensor(call: relax.Call, arrays: list[np.ndarray]) -> StoredTensor:
    description = json.loads(str(call.attrs["description"]))
    return put_together(description, dict(zip(description["parts"], arrays, strict=True)))


def _type(call: relax.Call) -> relax.TensorType:
    tensor_type: Any = relax.TensorType
    return tensor_type(tuple(json.loads(str(call.attrs["description"]))["shape"]), "float32")


@define(_NAME, "A compressed constant tensor as float32", _type)
def decode(call: relax.Call, parts: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """`StoredTensor.decode`: scales, zero points, offsets and sparsity applied."""
    del parts  # the constants of the call itself hold dtypes that torch has not
    return torch.from_numpy(tensor_of(call).decode())
