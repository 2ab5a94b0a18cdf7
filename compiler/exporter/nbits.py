"""Products with integer weights in groups as onnxruntime's ``MatMulNBits``.

It is what onnxruntime has its own few-bit kernels for; the file then is no plain ONNX any more, so
it is written only where somebody asks for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from onnx import TensorProto
from tvm import relax

from ...errors import FewbitsError
from ...formats.compressed import CompressedTensor
from ...formats.granularity import PerGroup
from ...formats.matmul_nbits import MatMulNBits, to_matmul_nbits
from ...formats.sparsity import Dense
from ...ops.compressed.weights import is_decode, tensor_of
from .graph import Node, dtype_of

DOMAIN = "com.microsoft"
#: Computes in float32, as DequantizeLinear and MatMul do; others round activations to int8.
_FLOAT32 = 1
#: Elements of a block at least.
_SMALLEST = 16


@dataclasses.dataclass(frozen=True)
class ProductOfBits:
    """``matmul(x, permute_dims(decode))`` as one node.

    Attributes:
        anchor: variable of the product.
        call: its call.
        weight: the operator's inputs and attributes.
    """

    anchor: relax.Var
    call: Any
    weight: MatMulNBits

    def name(self, names: object) -> str:
        """The product's own name."""
        del names
        return self.anchor.name

    def dependencies(self) -> list[relax.Expr]:
        """Expressions that must have ONNX values before this node."""
        return [self.call.args[0]]

    def export(self, node: Node) -> None:
        """Add the node."""
        weight = self.weight
        inputs = [
            node[0],
            node.raw(TensorProto.UINT8, weight.weight.shape, weight.weight.tobytes(), "codes"),
            node.constant(weight.scales, "scales", "float32"),
        ]
        if weight.zero_points is not None:
            zeros = weight.zero_points.reshape(-1)
            inputs.append(node.raw(TensorProto.UINT8, zeros.shape, zeros.tobytes(), "zero_points"))
        node.done(
            "MatMulNBits", *inputs, domain=DOMAIN, N=weight.n, K=weight.k, bits=weight.bits,
            block_size=weight.block_size, accuracy_level=_FLOAT32,
        )  # fmt: skip


def find_products(calls: Mapping[relax.Var, Any]) -> dict[relax.Var, ProductOfBits]:
    """The products that the operator can hold, by their variable."""
    found = {}
    for var, call in calls.items():
        if call.op.name != "relax.matmul" or dtype_of(call.args[0].ty) != "float32":
            continue
        transposed = calls.get(call.args[1]) if isinstance(call.args[1], relax.Var) else None
        if transposed is None or transposed.op.name != "relax.permute_dims":
            continue
        decode = calls.get(transposed.args[0])
        if decode is None or not is_decode(decode):
            continue
        tensor = tensor_of(decode)
        if not isinstance(tensor, CompressedTensor) or len(tensor.shape) != 2:
            continue
        try:
            found[var] = ProductOfBits(var, call, to_matmul_nbits(_short_blocks(tensor)))
        except FewbitsError as error:
            if error.code != "no-onnx-layout":
                raise
    return found


def _short_blocks(tensor: CompressedTensor) -> CompressedTensor:
    """Groups longer than a row as blocks that are not: the operator fills blocks up."""
    granularity = tensor.granularity
    if not isinstance(granularity, PerGroup) or not isinstance(tensor.sparsity, Dense):
        return tensor
    size = granularity.size
    while size > _SMALLEST and size // 2 >= tensor.shape[1]:
        size //= 2
    if size == granularity.size:
        return tensor
    return CompressedTensor.from_codes(
        tensor.codes(),
        tensor.number_format,
        PerGroup(size, granularity.axis),
        tensor.scales,
        zero_points=tensor.zero_points,
    )
