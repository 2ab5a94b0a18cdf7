"""The table of layers: what each weight is stored as, in how many bits, and what computes it."""

from __future__ import annotations

from typing import Any

from tvm import ir, relax

from ...formats.plain import PlainTensor
from ...ops.compressed.weights import is_decode, tensor_of
from ...passes.rewrite import Rewriter, operator_of

#: Operators that hand a weight on as it is.
PASSING = frozenset({"relax.permute_dims", "relax.astype", "relax.reshape", "relax.dequantize"})


def weight_bits(module: ir.IRModule) -> tuple[int, int]:
    """Exact bits of all constants: values, and metadata (scales, zero points, places)."""
    codes = metadata = 0
    for _, value in Rewriter(module).bindings:
        if not isinstance(value, relax.Call):
            continue
        if is_decode(value):
            tensor = tensor_of(value)
            codes, metadata = codes + tensor.code_bits, metadata + tensor.metadata_bits
            continue
        codes += sum(8 * _nbytes(a) for a in value.args if isinstance(a, ir.GenericConst))
    return codes, metadata


def _nbytes(constant: Any) -> int:
    return int(constant.value.numpy().nbytes)


def layer_rows(module: ir.IRModule, chosen: ir.IRModule) -> list[dict[str, Any]]:
    """A row for every operator that has a weight of more than one axis.

    Args:
        module: in compressed form, QDQ form or integers.
        chosen: the same with kernels chosen.
    """
    kernels = _kernels(chosen)
    weights: dict[Any, dict[str, Any]] = {}
    rows = []
    for var, value in Rewriter(module).bindings:
        if not isinstance(value, relax.Call):
            continue
        found = _weight(value, weights)
        operator = operator_of(value)
        if found is None:
            continue
        if is_decode(value) or operator in PASSING:
            weights[var] = found
            continue
        assert operator is not None
        short = operator.removeprefix("relax.").removeprefix("nn.").removeprefix("fewbits.")
        rows.append(
            {
                "name": var.name,
                "operator": short,
                **found,
                "kernel": kernels.get(var.name, "generated loops"),
                "snr_db": None,
                "note": None,
            }
        )
    return rows


def _weight(call: relax.Call, known: dict[Any, dict[str, Any]]) -> dict[str, Any] | None:
    """Format, number of values and exact bits of a call's weight."""
    if is_decode(call):
        tensor = tensor_of(call)
        if isinstance(tensor, PlainTensor):
            words = [tensor.dtype]
        else:
            words = [tensor.number_format.name, str(tensor.granularity)]
        if tensor.sparsity.name != "dense":
            words.append(tensor.sparsity.name)
        return {
            "format": ", ".join(words),
            "weights": tensor.size,
            "bits": tensor.total_bits,
            "code_bits": tensor.code_bits,
        }
    for argument in call.args:
        if isinstance(argument, ir.GenericConst) and len(argument.value.shape) > 1:
            array = argument.value
            bits = 8 * _nbytes(argument)
            values = 1
            for size in array.shape:
                values *= int(size)
            return {"format": str(array.dtype), "weights": values, "bits": bits, "code_bits": bits}
        if isinstance(argument, relax.Var) and argument in known:
            return known[argument]
    return None


def _kernels(module: ir.IRModule) -> dict[str, str]:
    """The kernel of each layer that has one, by the layer's name."""
    notes = module["main"].attrs.get("kernels") or {}
    return {str(layer): str(kernel) for layer, kernel in notes.items()}
