"""Products with weights of which only some values are stored (spec 6, 15, 19)."""

from __future__ import annotations

import numpy as np
from tvm import relax

from ....formats.plain import PlainTensor
from ....formats.sparsity import NofM
from ....passes.layers import Layer
from ....passes.rewrite import constant
from ....schedules.cpu.intrinsics_lookup import Lookup
from ....schedules.cpu.intrinsics_tiles import choose_tile
from ....schedules.cpu.sparse_groups import SparseGroups, reaches
from ....schedules.cpu.weight_only_layout import pack_streams
from .chains import Chain
from .selection import Selection, known, leading
from .weight_only import compressed_weight, plain_weight


def sparse_groups_linear(selection: Selection, layer: Layer, chain: Chain) -> relax.Var | None:
    """The layer with a kernel that multiplies only by the stored n of every m values.

    None for other sparsities, for groups that a register does not hold, and for scales that change
    within them.
    """
    tensor = layer.tensor
    if tensor is None or len(tensor.shape) != 2 or not isinstance(tensor.sparsity, NofM):
        return None
    outputs, length = tensor.shape
    n, m = tensor.sparsity.n, tensor.sparsity.m
    lanes = selection.machine.lanes
    lookup = Lookup.of(selection.target, lanes)
    if not reaches(lookup.kind, m):
        return None
    mask = tensor.mask()
    if isinstance(tensor, PlainTensor):
        packed = plain_weight(tensor, tensor.values.reshape(outputs, -1), selection)
    else:
        packed = compressed_weight(tensor, tensor.codes()[mask].reshape(outputs, -1), selection)
    if packed is None or packed[2] % m:
        return None
    decoder, scales, group, (words, *rest) = packed
    places = (np.nonzero(mask.reshape(-1, m))[1].astype(np.uint8)).reshape(outputs, -1)
    kernel = SparseGroups(
        lookup.kind, lanes, known(leading(layer.call)), length, outputs, n, m, group // m * n,
        decoder, scales, chain.epilogue,
        choose_tile(selection.machine.registers, -(-outputs // lanes)),
    )  # fmt: skip
    packed_places = pack_streams(places, (m - 1).bit_length(), lanes)
    name = tensor.dtype if isinstance(tensor, PlainTensor) else tensor.number_format.name
    selection.notes[layer.name] = f"sparse {tensor.sparsity} {name}"
    inputs = [
        selection.rewriter.map(layer.input),
        *(constant(array) for array in (words, packed_places, *rest)),
    ]
    return selection.emit_layer(kernel, inputs, chain, outputs, layer.name)
