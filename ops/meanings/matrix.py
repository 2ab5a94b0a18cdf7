"""Matrix products."""

from __future__ import annotations

import torch

from ..registry import meaning
from .common import Call, is_integer, torch_dtype


@meaning("relax.matmul")
def matmul(call: Call, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Batched matrix product with broadcasting, as ``numpy.matmul``; integers exact in int64."""
    kind = torch_dtype(call.attrs.out_dtype) if call.attrs.out_dtype else a.dtype
    if is_integer(a):
        return torch.matmul(a.to(torch.int64), b.to(torch.int64)).to(kind)
    return torch.matmul(a, b).to(kind)


@meaning("relax.outer")
def outer(_call: Call, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The product of every element of a vector with every element of another."""
    return a[:, None] * b[None, :]


@meaning("relax.einsum")
def einsum(call: Call, operands: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Sum of products by subscripts such as ``"ij,jk->ik"``."""
    return torch.einsum(str(call.attrs.subscripts).replace(" ", ""), *operands)
