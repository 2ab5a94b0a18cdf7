"""Who kernels are compared with: torch and what it calls; libraries that are missing are named."""

# torch has no public names for quantized products.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

from .cases import Case, Graph, Product

Run = Callable[[], Any]

#: Compared with where they are installed: a package, and what of it is measured.
OPTIONAL = {"bitsandbytes": "int8 with outliers split (LLM.int8)"}
#: Never in one process with this project's TVM: they bring one of their own.
ELSEWHERE = ("tilelang", "bitblas")


def missing() -> list[str]:
    """Peers that are not measured in this run, with the reason."""
    found = [
        f"{name}: not installed ({what})"
        for name, what in OPTIONAL.items()
        if importlib.util.find_spec(name) is None
    ]
    found += [f"{name}: cannot share an environment with apache-tvm" for name in ELSEWHERE]
    return found


def peers(case: Case) -> dict[str, Run]:
    """Contenders of a case by name; each enqueues its work on torch's current stream."""
    return _product(case) if isinstance(case, Product) else _graph(case)


def _product(case: Product) -> dict[str, Run]:
    import torch

    m, n, k = case.rows, case.outputs, case.inputs
    a = torch.randn(m, k, device="cuda", dtype=torch.bfloat16)
    w = torch.randn(n, k, device="cuda", dtype=torch.bfloat16)
    found: dict[str, Run] = {"bf16": lambda: a @ w.t()}
    if case.group == "int8":
        qa, qw = (
            torch.randint(-127, 128, size, dtype=torch.int8, device="cuda")
            for size in ((m, k), (n, k))
        )
        found["cuBLASLt int8"] = lambda: torch._int_mm(qa, qw.t())
    if case.group == "fp8":
        # Tensor cores do not multiply e5m2 by e5m2 in cuBLASLt: the weight is e4m3 there.
        fa = a.to(getattr(torch, case.weight))
        fw = w.to(torch.float8_e4m3fn)
        row, column = (torch.rand(size, device="cuda") for size in ((m, 1), (1, n)))
        one = torch.ones((), device="cuda")
        if case.weight == "float8_e4m3fn":
            found["cuBLASLt fp8"] = lambda: torch._scaled_mm(
                fa, fw.t(), scale_a=row, scale_b=column, out_dtype=torch.bfloat16
            )
        else:
            found["cuBLASLt fp8"] = lambda: torch._scaled_mm(
                fa, fw.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16
            )
    return found


def _graph(case: Graph) -> dict[str, Run]:
    """The same layers, float32 in and out as a model's, in half floats inside."""
    import torch
    from torch.nn import functional

    inputs = [torch.randn(*shape, device="cuda") for shape in case.shapes]
    x, half = inputs[0], torch.bfloat16 if case.group == "outliers" else torch.float16
    name = f"torch {'bf16' if half is torch.bfloat16 else 'fp16'}"
    if case.kind == "attention":
        q, k, v = inputs
        return {
            name: lambda: functional.scaled_dot_product_attention(
                q.to(half), k.to(half), v.to(half)
            ).float()
        }
    if case.kind == "softmax":
        return {name: lambda: x.to(half).softmax(-1).float()}
    size = (case.sizes["outputs"], case.sizes["inputs"])
    w = torch.randn(*size, device="cuda", dtype=half)
    bias = torch.randn(size[0], device="cuda", dtype=half)
    if case.kind == "norm-linear":
        return {
            name: lambda: (
                functional.layer_norm(x, size[1:]).to(half) @ w.t()
            ).float()
        }  # fmt: skip
    if case.kind == "linear-gelu":
        return {name: lambda: functional.gelu(functional.linear(x.to(half), w, bias)).float()}
    found: dict[str, Run] = {name: lambda: functional.linear(x.to(half), w).float()}
    if importlib.util.find_spec("bitsandbytes") is not None:
        found["bitsandbytes"] = _bitsandbytes(x, w)
    return found


def _bitsandbytes(x: Any, w: Any) -> Run:
    import bitsandbytes  # pyright: ignore[reportMissingImports]
    import torch

    layer = bitsandbytes.nn.Linear8bitLt(
        w.shape[1], w.shape[0], bias=False, has_fp16_weights=False, threshold=6.0
    )
    layer.weight.data.copy_(w.float())
    layer = layer.to("cuda")
    return lambda: layer(x.to(torch.float16)).float()
