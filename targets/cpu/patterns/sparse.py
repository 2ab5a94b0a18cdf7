"""Products with weights of which only some values are stored (spec 6, 15, 19)."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax

from ....formats.binary import BinaryCoding
from ....formats.packing import pack
from ....formats.plain import PlainTensor, StoredTensor
from ....formats.sparsity import Bitmap, NofM, Rows
from ....ops.symbolic import simplified
from ....passes.layers import Layer
from ....passes.rewrite import constant
from ....schedules.cpu.intrinsics_lookup import Lookup
from ....schedules.cpu.intrinsics_tiles import choose_tile
from ....schedules.cpu.sparse_groups import SparseGroups, reaches
from ....schedules.cpu.sparse_rows import RowBlocks, SparseRows, row_block
from ....schedules.cpu.weight_only_layout import pack_streams
from ...vm.calls import tensor_type
from .chains import Chain
from .selection import Selection, count, known, leading
from .weight_only import compressed_weight, group_along_rows, plain_weight


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
    selection.notes[layer.name] = f"sparse {tensor.sparsity} {_name(tensor)}"
    inputs = [
        selection.rewriter.map(layer.input),
        *(constant(array) for array in (words, packed_places, *rest)),
    ]
    return selection.emit_layer(kernel, inputs, chain, outputs, layer.name)


def sparse_rows_linear(selection: Selection, layer: Layer, chain: Chain) -> relax.Var | None:
    """The layer with a kernel that visits the stored values of each row of the weight.

    None for what is not stored one by one, and for zero points, binary coding and scales of fewer
    than 16 bits.
    """
    tensor = layer.tensor
    if tensor is None or len(tensor.shape) != 2 or not isinstance(tensor.sparsity, Bitmap | Rows):
        return None
    outputs, length = tensor.shape
    mask = tensor.mask()
    stored = int(mask.sum())
    if not 0 < stored < 1 << 31:
        return None
    found = _values(tensor, mask)
    if found is None:
        return None
    values, fields, rest = found
    starts = np.concatenate([[0], np.cumsum(mask.sum(axis=1))]).astype(np.int32)
    if isinstance(tensor.sparsity, Bitmap):
        padded = np.pad(mask, ((0, 0), (0, -length % 32)))
        places = np.packbits(padded, axis=1, bitorder="little").view("<i4")
        fields["places"] = "bitmap"
    else:
        places = tensor.places["columns"]
        fields["places"] = str(places.dtype)
    sizes = leading(layer.call)
    rows = count(sizes)
    lanes = selection.machine.lanes
    block = row_block(lanes, rows if isinstance(rows, int) else None)
    kernel = SparseRows(
        lanes, known(sizes), length, outputs, stored, block, epilogue=chain.epilogue, **fields
    )
    selection.notes[layer.name] = f"sparse {tensor.sparsity} {_name(tensor)}"
    x = _blocks(selection, selection.rewriter.map(layer.input), length, block, layer.name)
    arrays = [constant(array) for array in (values, places, starts, *rest)]
    return selection.emit_layer(kernel, [x, *arrays], chain, outputs, layer.name)


def _name(tensor: StoredTensor) -> str:
    return tensor.dtype if isinstance(tensor, PlainTensor) else tensor.number_format.name


def _blocks(selection: Selection, x: relax.Expr, length: int, block: int, name: str) -> relax.Expr:
    """x with its rows side by side; made once for all layers that read it."""
    key = (x, block)
    if key not in selection.quantized:
        sizes = leading(x)
        rows = count(sizes)
        blocks = simplified((rows + (block - 1)) // block)
        result = tensor_type((blocks, length, block), "float32")
        made = selection.emit(RowBlocks(known(sizes), length, block), [x], [result], name)
        selection.quantized[key] = (made, None)
    return selection.quantized[key][0]


def _values(
    tensor: StoredTensor, mask: np.ndarray
) -> tuple[np.ndarray, dict[str, Any], list[np.ndarray]] | None:
    """The stored values, how the kernel reads them, and the table and scales that this takes."""
    if isinstance(tensor, PlainTensor):
        if tensor.dtype == "bfloat16":
            return None
        return tensor.values, {"dtype": tensor.dtype}, []
    group = group_along_rows(tensor.granularity, tensor.shape)
    storage, number_format = tensor.scales.storage, tensor.number_format
    plain = storage in ("float32", "float16") and tensor.zero_points is None
    if group is None or not plain or isinstance(number_format, BinaryCoding):
        return None
    outputs, length = tensor.shape
    scales = tensor.scales.arrays["scales"].reshape(-1)
    scales = np.ascontiguousarray(
        np.broadcast_to(scales.reshape(-1, -(-length // group)), (outputs, -(-length // group)))
    )
    packed = pack(tensor.codes()[mask], number_format.bits)
    words = np.pad(packed, (0, -packed.size % 4)).view("<i4")
    fields = {"dtype": "code", "bits": number_format.bits, "group": group, "scale": storage}
    return words, fields, [number_format.values().astype(np.float32), scales]
