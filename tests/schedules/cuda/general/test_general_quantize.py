"""A norm and the quantization of its result are one kernel, whoever else reads the result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from fewbits.schedules.cuda.quantize import QuantizeRows
from tvm import ir, relax

R = relax.op
#: TVM's expressions are built by calls that its annotations do not cover.
_relax: Any = relax


def quantized(emit: Any, x: Any, rest: list[Any], scales: str, columns: int) -> Any:
    """x [n, columns] as codes and, where they are found at run time, scales [n]."""
    size = x.ty.shape.values[0]
    leading = int(size) if isinstance(size, ir.prim.IntImm) else None
    kernel = QuantizeRows(
        (leading,), columns, str(x.ty.dtype), "int8", None, -127.0, 127.0, 127.0, scales, bool(rest)
    )  # type: ignore[arg-type]
    function: Any = kernel.build().without_attr("global_symbol")
    variable: ir.GlobalVar = emit.__self__.add_func(function, "quantize")
    rows = x.ty.shape.values[0]
    types = [relax.TensorType((rows, columns), "int8"), relax.TensorType((rows,), "float32")]
    both = emit(_relax.call_tir(variable, _relax.Tuple([x, *rest]), types))
    return [emit(relax.TupleGetItem(both, place)) for place in range(2)]


@pytest.mark.parametrize("norm", ["layer_norm", "rms_norm"])
@pytest.mark.parametrize("smoothed", [False, True])
@pytest.mark.parametrize("columns", [64, 384, 4097])
def test_norm_and_quantization_are_one_kernel(
    scheduled: Any, norm: str, smoothed: bool, columns: int
) -> None:
    def write(emit: Any, x: Any, gain: Any, shift: Any, *factors: Any) -> Any:
        wide = emit(R.astype(x, "float32"))
        if norm == "layer_norm":
            made = emit(R.nn.layer_norm(wide, gain, shift, axes=[-1]))
        else:
            made = emit(R.nn.rms_norm(wide, gain, axes=[-1], epsilon=1e-5))
        half = emit(R.astype(made, "float16"))
        codes, scales = quantized(emit, half, list(factors), "token", columns)
        return _relax.Tuple([half, codes, scales])

    vectors = 3 if smoothed else 2
    built = scheduled(
        write,
        ("n", columns),
        *([(columns,)] * vectors),
        dtypes=["float16", *["float32"] * vectors],
    )
    assert built.launches == 1
    rng = np.random.default_rng(1)
    x = rng.standard_normal((5, columns)).astype(np.float16)
    gain, shift, factors = (rng.uniform(0.5, 2.0, columns).astype(np.float32) for _ in range(3))
    given = [gain, shift, *([factors] if smoothed else [])]
    half, codes, scales = built(x, *given)
    wide = torch.tensor(x.astype(np.float32))
    if norm == "layer_norm":
        want = torch.nn.functional.layer_norm(
            wide, (columns,), torch.tensor(gain), torch.tensor(shift)
        )
    else:
        want = torch.nn.functional.rms_norm(wide, (columns,), torch.tensor(gain), 1e-5)
    np.testing.assert_allclose(half, want.numpy(), rtol=2e-3, atol=2e-3)
    # Codes and scales are those of the stored halves, to the bit.
    scaled = half.astype(np.float32) * (factors if smoothed else np.float32(1))
    largest = np.abs(scaled).max(axis=1)
    np.testing.assert_array_equal(scales, largest / np.float32(127))
    quotients = scaled / scales[:, None]
    np.testing.assert_array_equal(codes, np.clip(np.rint(quotients), -127, 127))


def test_codes_read_alone_leave_no_halves(scheduled: Any) -> None:
    """Results that nobody reads are not written: the kernel has codes and scales only."""

    def write(emit: Any, x: Any, gain: Any) -> Any:
        made = emit(R.nn.rms_norm(x, gain, axes=[-1], epsilon=1e-5))
        return _relax.Tuple(quantized(emit, made, [], "token", 96))

    built = scheduled(write, ("n", 96), (96,))
    assert built.launches == 1
    (function,) = built.kernels.values()
    assert len(function.params) == 4


@pytest.mark.parametrize("rows", ["n", 4, 1, "6 * n"])
def test_rows_are_known_or_computed(scheduled: Any, rows: str | int) -> None:
    """TVM does not join functions whose rows are an expression: those stay kernels of their own."""

    def write(emit: Any, x: Any) -> Any:
        if rows == "6 * n":
            x = emit(R.reshape(x, (x.ty.shape.values[0] * 6, 16)))
        gain = relax.const(np.ones(16, np.float32))
        made = emit(R.nn.rms_norm(emit(R.nn.relu(x)), gain, -1, epsilon=1e-5))
        return _relax.Tuple(quantized(emit, made, [], "token", 16))

    built = scheduled(write, ("n", 96) if rows == "6 * n" else (rows, 16))
    if rows != "6 * n":
        assert built.launches == 1
    x = np.random.default_rng(3).standard_normal((4, 96 if rows == "6 * n" else 16))
    x = x.astype(np.float32)[: rows if isinstance(rows, int) else None]
    codes, scales = built(x)
    wide = torch.relu(torch.tensor(x.reshape(-1, 16)))
    want = torch.nn.functional.rms_norm(wide, (16,), eps=1e-5).numpy()
    np.testing.assert_allclose(scales, np.abs(want).max(1) / 127, rtol=1e-5)
    assert np.abs(codes * scales[:, None] - want).max() <= 0.51 * scales.max()
