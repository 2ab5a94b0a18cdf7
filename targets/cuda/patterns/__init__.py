"""Layers of the compressed form (docs/architecture.md) become kernels of products.

This comes before activations become half floats (`half`): modules are float32 still, and around
each kernel stand the conversions of what it reads and writes, of which `half` removes the pairs.
A rule looks at one layer and either emits a kernel with the weight packed for it, or says no; the
first rule that takes a layer wins.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from tvm import ir, relax

from ....passes.layers import Layer, find_layers
from ....passes.rewrite import Rewriter, variables
from ....schedules.cuda.architecture import Architecture
from ....schedules.cuda.dispatch import Chooser
from ....schedules.cuda.template import Kernel
from ...vm.attention import find_attention
from .attention import emit_attention
from .binary import binary_convolution, binary_linear
from .binary_coded import binary_coded_linear
from .dense import decoded_linear, dense_linear, few_bit_linear
from .float_convolution import float_convolution, quantized_convolution
from .followers import Followers, Graph
from .half_weights import fold_half_weights
from .int8_attention import emit_int8_attention, find_int8_attention
from .integers import emit_integer_layer, find_integer_layers
from .outliers import outlier_linear
from .quantized import quantized_linear
from .selection import LayerProduct, Selection
from .sparse import sparse_linear
from .vector_sparse import vector_sparse_linear

Rule = Callable[[Selection, Layer, Followers], "relax.Var | None"]

#: By the kind of layer. Embeddings are no products.
RULES: dict[str, tuple[Rule, ...]] = {
    "linear": (
        binary_linear,
        vector_sparse_linear,
        quantized_linear,
        outlier_linear,
        sparse_linear,
        few_bit_linear,
        binary_coded_linear,
        dense_linear,
        decoded_linear,
    ),
    "convolution": (binary_convolution, quantized_convolution, float_convolution),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Selected:
    """A module whose layers call kernels.

    Attributes:
        module: the graph, with a host function per product and unscheduled PrimFuncs for
            quantization; the attribute ``kernels`` of ``main`` says what each layer got.
        kernels: what the host functions call by name, to be compiled and joined.
        products: of the layers, in order.
    """

    module: ir.IRModule
    kernels: tuple[Kernel, ...]
    products: tuple[LayerProduct, ...] = ()


def select_kernels(
    module: ir.IRModule,
    architecture: Architecture,
    dtype: str = "float16",
    chooser: Chooser | None = None,
) -> Selected:
    """Put kernels in.

    Args:
        module: in compressed form; symbolic sizes are kept.
        architecture: whose instructions there are.
        dtype: of the floats that products read and write: ``float16``, ``bfloat16``, ``float32``.
        chooser: decides about kernels before the cost models do; None: nobody.
    """
    module = fold_half_weights(module)
    rewriter = Rewriter(module)
    selection = Selection(rewriter, architecture, dtype, chooser)
    graph = Graph(rewriter.bindings, variables(rewriter.function.body.body))
    chains: dict[relax.Var, tuple[Layer, Followers]] = {}
    inner: set[relax.Var] = set()
    taken: set[relax.Var] = set()
    for layer in find_layers(module):
        if layer.kind in RULES:
            chain = graph.followers(layer.var, taken)
            chains[chain.last] = (layer, chain)
            inner.update(chain.inner)
            taken.update((*chain.inner, chain.last))
    integers = find_integer_layers(rewriter.bindings, graph)
    for integer in integers.values():
        inner.update(integer.inner)
    attention = find_attention(rewriter.bindings, graph)
    int8_attention = find_int8_attention(rewriter.bindings, graph)
    for var, value in rewriter.bindings:
        if var in inner:
            continue
        if var in attention:
            made = emit_attention(selection, attention[var])
            if made is not None:
                rewriter.replace(var, made)
                selection.made.add(var)
                continue
        if var in int8_attention:
            made = emit_int8_attention(selection, int8_attention[var])
            if made is not None:
                rewriter.replace(var, made)
                selection.made.add(var)
                continue
        if var in integers:
            made = emit_integer_layer(selection, integers[var])
            if made is not None:
                rewriter.replace(var, made)
                continue
            for skipped in integers[var].inner:
                rewriter.keep(skipped)
        if var in chains:
            made = _kernel(selection, *chains[var])
            if made is not None:
                rewriter.replace(var, made)
                selection.made.add(var)
                continue
            for skipped in chains[var][1].inner:
                rewriter.keep(skipped)
        rewriter.keep(var, value)
    return Selected(selection.finish(), tuple(selection.kernels), tuple(selection.products))


def _kernel(selection: Selection, layer: Layer, chain: Followers) -> relax.Var | None:
    for rule in RULES[layer.kind]:
        made = rule(selection, layer, chain)
        if made is not None:
            return made
    return None
