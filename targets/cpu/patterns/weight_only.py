"""Products of float activations and few-bit weights (spec 1, 3, 5, 8, 9, 13)."""

from __future__ import annotations

import numpy as np
from tvm import relax

from ....formats.base import NumberFormat
from ....formats.binary import BinaryCoding
from ....formats.compressed import CompressedTensor
from ....formats.dynamic import DynamicTree
from ....formats.floating import Float
from ....formats.granularity import Granularity, PerBlock, PerChannel, PerGroup, PerTensor
from ....formats.integer import Integer
from ....formats.plain import PlainTensor
from ....formats.sparsity import Dense
from ....passes.layers import Layer
from ....passes.rewrite import constant
from ....schedules.cpu.intrinsics_lookup import Lookup
from ....schedules.cpu.intrinsics_tiles import choose_tile
from ....schedules.cpu.weight_only_decode import (
    CodeDecoder,
    Decoder,
    FloatDecoder,
    PlaneDecoder,
)
from ....schedules.cpu.weight_only_layout import into_panels, pack_planes, pack_streams
from ....schedules.cpu.weight_only_linear import WeightOnlyLinear
from ....schedules.cpu.weight_only_lookup import can_look_up
from ....schedules.cpu.weight_only_scales import GroupScales
from .chains import Chain
from .selection import Selection, known, leading

#: The format of doubly quantized scales.
_TREE = DynamicTree(8)


def weight_only_linear(selection: Selection, layer: Layer, chain: Chain) -> relax.Var | None:
    """The layer with a kernel that decodes its weight as it multiplies.

    None for sparse weights and for groups that end inside of rows.
    """
    tensor = layer.tensor
    if tensor is None or len(tensor.shape) != 2 or not isinstance(tensor.sparsity, Dense):
        return None
    if isinstance(tensor, PlainTensor):
        packed = plain_weight(tensor, tensor.values.reshape(tensor.shape), selection)
    else:
        packed = compressed_weight(tensor, tensor.codes(), selection)
    if packed is None:
        return None
    decoder, scales, group, arrays = packed
    outputs, length = tensor.shape
    lanes = selection.machine.lanes
    kernel = WeightOnlyLinear(
        lanes, known(leading(layer.call)), length, outputs, group, decoder, scales,
        chain.epilogue, choose_tile(selection.machine.registers, -(-outputs // lanes)),
        _lookup(selection, decoder, length, group),
    )  # fmt: skip
    name = tensor.dtype if isinstance(tensor, PlainTensor) else tensor.number_format.name
    selection.notes[layer.name] = f"weight-only {name}"
    inputs = [selection.rewriter.map(layer.input), *(constant(array) for array in arrays)]
    return selection.emit_layer(kernel, inputs, chain, outputs, layer.name)


def _lookup(selection: Selection, decoder: Decoder, length: int, group: int) -> Lookup | None:
    """How few rows look binary planes up; None where they decode.

    That is where tables of 16 sums are looked up in registers by one or two instructions.
    """
    if not isinstance(decoder, PlaneDecoder) or not can_look_up(length, group):
        return None
    found = Lookup.of(selection.target, selection.machine.lanes)
    return found if found.kind in ("permute16", "permute8") else None


#: A decoder, the scales, the values that share one, and the arrays of all in the kernel's order.
Packed = tuple[Decoder, GroupScales, int, list[np.ndarray]]


def plain_weight(tensor: PlainTensor, values: np.ndarray, selection: Selection) -> Packed:
    """Stored floats ``[O, n]`` as kernels read them."""
    bits = values.view(np.uint16) if tensor.dtype == "bfloat16" else values
    stored = into_panels(bits, selection.machine.lanes)
    return FloatDecoder(tensor.dtype), GroupScales("none"), tensor.shape[1], [stored]


def compressed_weight(
    tensor: CompressedTensor, codes: np.ndarray, selection: Selection
) -> Packed | None:
    """Stored codes ``[O, n]`` as kernels read them; None where groups do not lie in rows."""
    group = group_along_rows(tensor.granularity, tensor.shape)
    if group is None:
        return None
    lanes = selection.machine.lanes
    number_format = tensor.number_format
    scales, more = _scales(tensor, lanes)
    if isinstance(number_format, BinaryCoding):
        planes = pack_planes(codes, number_format.bits, lanes)
        return PlaneDecoder(number_format.bits), scales, group, [planes, *more]
    decoder = decoder_of(number_format, Lookup.of(selection.target, lanes))
    arrays: list[np.ndarray] = [pack_streams(codes, number_format.bits, lanes)]
    if decoder.entries:
        assert decoder.lookup is not None
        arrays.append(decoder.lookup.table(number_format.values()))
    return decoder, scales, group, [*arrays, *more]


def group_along_rows(granularity: Granularity, shape: tuple[int, ...]) -> int | None:
    """Values of a row ``[O, K]`` that share a scale; None where groups do not lie in rows."""
    length = shape[1]
    if granularity in (PerTensor(), PerChannel(0)):
        return length
    if isinstance(granularity, PerGroup) and granularity.axis in (1, -1):
        return min(granularity.size, length)
    if isinstance(granularity, PerBlock) and length % granularity.size == 0:
        return granularity.size
    return None


def decoder_of(number_format: NumberFormat, lookup: Lookup) -> CodeDecoder:
    """The fewest instructions that turn a format's codes into float32."""
    bits = number_format.bits
    single = 5 if lookup.kind == "permute16" else 3
    if bits <= single and lookup.in_registers(bits):
        return CodeDecoder(bits, "table", lookup)
    if isinstance(number_format, Integer):
        return CodeDecoder(bits, "signed" if number_format.signed else "unsigned")
    if isinstance(number_format, Float):
        return _shifted(number_format) or CodeDecoder(bits, "table", lookup)
    return CodeDecoder(bits, "table", lookup)


def _shifted(number_format: Float) -> CodeDecoder | None:
    """Decoding by moving bits: exact for all finite codes, subnormal ones as well."""
    assert number_format.bias is not None
    exponent = 127 - number_format.bias
    if not -126 <= exponent <= 127:
        return None
    return CodeDecoder(
        number_format.bits, "float", None, exponent,
        number_format.mantissa_bits, number_format.signed,
    )  # fmt: skip


def _scales(tensor: CompressedTensor, lanes: int) -> tuple[GroupScales, list[np.ndarray]]:
    """Scales as kernels take them, and their arrays in that order."""
    stored, outputs = tensor.scales, tensor.shape[0]
    planes = tensor.number_format.bits if isinstance(tensor.number_format, BinaryCoding) else 1
    shared = isinstance(tensor.granularity, PerTensor) and planes == 1
    double = stored.storage == "double"
    main = stored.arrays["codes" if double else "scales"]
    if stored.storage == "bfloat16":
        main = main.view(np.uint16)

    def rows(array: np.ndarray, width: int) -> np.ndarray:
        return np.broadcast_to(array.reshape(-1, width), (outputs, width))

    groups = 1
    if not isinstance(tensor.granularity, PerTensor):
        groups = main.size // (outputs * planes) if outputs else 1
    arrays = [main.reshape(1) if shared else into_panels(rows(main, groups * planes), lanes)]
    blocks = 0
    if double:
        blocks = int(stored.arrays["block_scales"].size)
        arrays += [
            _TREE.values().astype(np.float32),
            stored.arrays["block_scales"].reshape(-1),
            stored.arrays["mean"].reshape(1),
        ]
    zero_bits, signed = 0, False
    if tensor.zero_points is not None:
        zero_bits, signed = tensor.number_format.bits, tensor.number_format.signed
        codes = tensor.zero_points.reshape(-1)
        if shared:
            arrays.append(codes.astype(np.int32))
        else:
            arrays.append(pack_streams(rows(codes, groups), zero_bits, lanes))
    if tensor.offsets is not None:
        arrays.append(into_panels(rows(tensor.offsets, groups), lanes))
    scales = GroupScales(
        stored.storage, groups, shared, planes, zero_bits, signed,
        tensor.offsets is not None, blocks,
    )  # fmt: skip
    return scales, arrays
