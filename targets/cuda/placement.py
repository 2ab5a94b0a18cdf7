"""Nothing runs on the host but launches, choices of kernels, and bookkeeping of sizes.

TVM sends some operators to functions of its own that compute on the host, or in libraries that are
not there. An operator that ends so is refused, by name, before anything is built.
"""

from __future__ import annotations

from collections.abc import Mapping

from tvm import ir

from ...errors import FewbitsError
from ...passes.rewrite import Rewriter, is_tensor_call, operator_of

#: Calls between graph and functions, and views of memory that is there already.
_ALLOWED = frozenset(
    {
        "relax.call_tir", "relax.call_tir_inplace", "relax.memory.view",
        "relax.memory.ensure_zero_offset", "relax.shape_of", "relax.reshape",
        "relax.inspect.tensor_shape_i", "relax.shape_to_tensor", "relax.tensor_to_shape",
    }
)  # fmt: skip


def check_placement(module: ir.IRModule, layers: Mapping[str, str]) -> None:
    """Refuse what would compute elsewhere than on the GPU.

    Args:
        module: legalized: what has loops calls them.
        layers: what the user calls its variables.

    Raises:
        FewbitsError: ``no-kernel``, naming the operator.
    """
    for var, value in Rewriter(module).bindings:
        if not is_tensor_call(value) or isinstance(value.op, ir.GlobalVar):
            continue
        name = operator_of(value)
        if name not in _ALLOWED:
            raise _refused(str(name or value.op), layers.get(var.name, var.name))


def _refused(name: str, layer: str) -> FewbitsError:
    return FewbitsError(
        "no-kernel",
        f"GPUs have no kernel for {name.removeprefix('relax.')}",
        where=layer,
        hint="compile for a CPU: --target cpu",
    )
