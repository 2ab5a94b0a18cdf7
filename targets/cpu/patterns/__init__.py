"""Patterns of the compressed form (docs/architecture.md) that have a kernel.

A rule looks at one layer and either emits a kernel with the weight packed for it, or says no; the
first rule that takes a layer wins. What none takes stays as it is and is computed by the operators'
own definitions, slower and just as correct.
"""

from __future__ import annotations

from collections.abc import Callable

import tvm
from tvm import ir, relax

from ....passes.layers import Layer, find_layers
from ....passes.rewrite import Rewriter, variables
from ....schedules.tuning.choices import Choices
from ...vm.attention import find_attention
from .attention import emit_attention
from .chains import Chain, Chains
from .int8 import int8_linear
from .outliers import outlier_linear
from .selection import Selection
from .sparse import sparse_groups_linear, sparse_rows_linear
from .weight_only import weight_only_linear

Rule = Callable[[Selection, Layer, Chain], "relax.Var | None"]

RULES: tuple[Rule, ...] = (
    int8_linear,
    outlier_linear,
    weight_only_linear,
    sparse_groups_linear,
    sparse_rows_linear,
)


def select_kernels(
    module: ir.IRModule, target: tvm.target.Target, choices: Choices | None = None
) -> ir.IRModule:
    """The module with few-bit layers as calls of kernels made for the target.

    Args:
        module: in compressed form; symbolic sizes are kept.
        target: of kind ``llvm``; `mcpu` and `mattr` decide which instructions there are.
        choices: decides about the sizes of kernels; None: their rules.

    Returns:
        The module; the attribute ``kernels`` of ``main`` says which kernel each layer got.
    """
    rewriter = Rewriter(module)
    selection = Selection(rewriter, target, choices)
    readers = Chains(rewriter.bindings, variables(rewriter.function.body.body))
    chains: dict[relax.Var, tuple[Layer, Chain]] = {}
    inner: set[relax.Var] = set()
    taken: set[relax.Var] = set()
    for layer in find_layers(module):
        if layer.kind == "linear" and layer.tensor is not None:
            chain = readers.chain(layer.var, taken)
            chains[chain.last] = (layer, chain)
            inner.update(chain.inner)
            taken.update((*chain.inner, chain.last))
    attention = find_attention(rewriter.bindings, readers)
    for var, value in rewriter.bindings:
        if var in inner:
            continue
        if var in attention:
            made = emit_attention(selection, attention[var])
            if made is not None:
                rewriter.replace(var, made)
                continue
        if var in chains:
            made = _kernel(selection, *chains[var])
            if made is not None:
                rewriter.replace(var, made)
                continue
            for skipped in chains[var][1].inner:
                rewriter.keep(skipped)
        rewriter.keep(var, value)
    return selection.finish()


def _kernel(selection: Selection, layer: Layer, chain: Chain) -> relax.Var | None:
    for rule in RULES:
        made = rule(selection, layer, chain)
        if made is not None:
            return made
    return None
