"""From a compressed module to a TVM executable for GPUs: the whole road, one list a stage.

The graph is made for each architecture on its own, as its kernels of products are its own. What
comes out equal for several architectures is there once: loops, and whole graphs. So is machine code
of loops, in a fat binary for all architectures; weights of equal content are one constant.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tvm
import tvm_ffi
from tvm import ir, relax
from tvm.relax import transform

from ...schedules.cuda.architecture import Architecture
from ...schedules.cuda.dispatch import Chooser
from ...schedules.cuda.general import fuse_views, schedule_module
from ...schedules.cuda.template import Kernel
from ..vm.half import refuse_bfloat16, widen_half
from ..vm.legalize import LEGALIZATIONS
from ..vm.limits import check_sizes
from ..vm.names import Plain, plain_names
from ..vm.shape_functions import order_stores
from .compile import compile_kernels, compiling
from .graphs import allow_graphs
from .half import in_half
from .hosts import prepare_hosts
from .layout import channels_last
from .patterns import LayerProduct, select_kernels
from .placement import check_placement

Step = Callable[[ir.IRModule], ir.IRModule]


@dataclasses.dataclass(frozen=True, eq=False)
class Chosen:
    """A module with kernels chosen for one architecture, before the rest becomes loops.

    Attributes:
        architecture: which.
        module: the graph; ``kernels`` of ``main`` says what each layer got.
        kernels: what its host functions call by name.
        products: of the layers, in order.
    """

    architecture: Architecture
    module: ir.IRModule
    kernels: tuple[Kernel, ...]
    products: tuple[LayerProduct, ...] = ()


def choose_kernels(
    module: ir.IRModule, architecture: Architecture, dtype: str, chooser: Chooser | None = None
) -> Chosen:
    """Layers become calls of kernels; what floats are left between operators are `dtype`.

    Args:
        module: in compressed form, or in integers.
        architecture: whose instructions there are.
        dtype: of stored activations: ``float16``, ``bfloat16`` or ``float32``.
        chooser: knows better than the cost models; None: nobody.

    Raises:
        FewbitsError: ``no-kernel``; ``half-overflow`` for weights that are out of its range;
            ``unsupported-dtype`` for tensors of bfloat16 in the model.
    """
    with architecture.tvm_target():
        refuse_bfloat16(module)
        module = transform.DecomposeOpsForInference()(widen_half(module))
        if dtype != "float32":  # tensor cores' types
            module = channels_last(module)
        selected = select_kernels(module, architecture, dtype, chooser)
        module = in_half(selected.module, dtype)
        return Chosen(architecture, module, selected.kernels, selected.products)


def lower_to_tir(chosen: Chosen) -> Plain:
    """Every operator becomes loops; neighbours share them; the loops get threads.

    Constants stay arguments and nothing is folded: folding would expand weights.

    Raises:
        FewbitsError: ``no-kernel`` for what would need the host's processor.
    """
    plain = plain_names(chosen.module)
    kernels = {kernel.name for kernel in chosen.kernels}
    loops: list[Step] = [
        lambda m: prepare_hosts(m, kernels),
        transform.LegalizeOps(LEGALIZATIONS),
        transform.AnnotateTIROpPattern(),
        fuse_views,
        transform.FuseOps(),
        transform.FuseTIR(),
        transform.DeadCodeElimination(),
    ]
    module = plain.module
    with chosen.architecture.tvm_target():
        for step in loops:
            module = step(module)
        check_placement(module, plain.layers)
        module = schedule_module(module, chosen.architecture)
    return Plain(module, plain.layers, plain.dimensions)


def make_executable(
    lowered: Mapping[str, Plain],
    kernels: Sequence[Kernel],
    architectures: Sequence[Architecture],
) -> tvm.runtime.Executable:
    """Memory is planned, the graphs become byte code, the loops machine code.

    Args:
        lowered: graphs by the name that their function gets.
        kernels: of products; what several graphs share is compiled once.
        architectures: that loops are compiled for.

    Raises:
        FewbitsError: ``compiler-missing``, ``compiler-failed``.
    """
    to_calls: list[ir.transform.Pass] = [
        transform.RewriteDataflowReshape(),
        transform.ToNonDataflow(),
        transform.RemovePurityChecking(),
        transform.CallTIRRewrite(),
    ]
    to_byte_code: list[ir.transform.Pass] = [
        transform.StaticPlanBlockMemory(),
        transform.RewriteCUDAGraph(),
        transform.LowerAllocTensor(),
        transform.KillAfterLastUse(),
        transform.LowerRuntimeBuiltin(),
        transform.ComputePrimValue(),
        transform.VMShapeLower(),
        order_stores(),
        transform.AttachGlobalSymbol(),
    ]
    external = compile_kernels(kernels)
    with (
        compiling(*architectures) as target,
        tvm.transform.PassContext(opt_level=3, config={"relax.backend.use_cuda_graph": True}),
    ):
        graphs = {}
        for name, plain in lowered.items():
            module = ir.transform.Sequential(to_calls)(plain.module)
            graphs[name] = allow_graphs(check_sizes(module, plain.dimensions))
        whole = ir.transform.Sequential(to_byte_code)(merged(graphs))
        if external:
            whole = whole.with_attr("external_mods", external)
        return relax.build(whole, target=target, relax_pipeline=ir.transform.Sequential([]))


def merged(modules: Mapping[str, ir.IRModule]) -> ir.IRModule:
    """Modules as one: each ``main`` under its name, other functions once for all that have them."""
    functions: dict[str, Any] = {}
    graphs: dict[str, Any] = {}
    for name, module in modules.items():
        swaps: dict[ir.GlobalVar, ir.GlobalVar] = {}
        for variable, function in module.functions_items():
            if variable.name_hint == "main":
                continue
            title = _place(functions, variable.name_hint, function)
            swaps[variable] = functions[title][0]
        main = module["main"]
        graphs[name] = _with_callees(main, swaps).with_attr("global_symbol", name)
    result = ir.IRModule({variable: function for variable, function in functions.values()})
    for name, graph in graphs.items():
        result[name] = graph
    return result


def _place(functions: dict[str, Any], name: str, function: Any) -> str:
    """Where a function is kept: with one that is equal, or under a name of its own."""
    plain = function.without_attr("global_symbol")
    title, count = name, 1
    while title in functions:
        if tvm_ffi.structural_equal(functions[title][1].without_attr("global_symbol"), plain):
            return title
        count += 1
        title = f"{name}_{count}"
    variable = relax.BlockBuilder().add_func(plain, title)
    if "global_symbol" in function.attrs:
        plain = plain.with_attr("global_symbol", title)
    functions[title] = (variable, plain)
    return title


def _with_callees(function: Any, swaps: Mapping[ir.GlobalVar, ir.GlobalVar]) -> Any:
    """A Relax function that calls others."""

    @relax.expr_functor.mutator
    class Callees(relax.PyExprMutator):
        def visit_global_var_(self, op: ir.GlobalVar) -> ir.GlobalVar:  # type: ignore[override]
            return swaps.get(op, op)

    return Callees().visit_expr(function)
