"""Kernels are made of the instructions they are meant for, on processors that are not here."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import tvm
from fewbits.schedules.cpu.int8_linear import Int8Linear
from fewbits.schedules.cpu.int8_quantize import QuantizeRows
from fewbits.schedules.cpu.intrinsics import DotProduct
from fewbits.schedules.cpu.intrinsics_lookup import Lookup
from fewbits.schedules.cpu.machine import Machine
from fewbits.schedules.cpu.sparse_groups import SparseGroups
from fewbits.schedules.cpu.weight_only_decode import CodeDecoder, FloatDecoder
from fewbits.schedules.cpu.weight_only_layout import pack_streams, words_of
from fewbits.schedules.cpu.weight_only_linear import WeightOnlyLinear
from fewbits.schedules.cpu.weight_only_scales import GroupScales
from hypothesis import given
from hypothesis import strategies as st

ARM = {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mattr": ["+dotprod"]}
PLAIN_ARM = {"kind": "llvm", "mtriple": "aarch64-linux-gnu"}
VNNI = {"kind": "llvm", "mcpu": "x86-64-v4", "mattr": ["+avx512vnni"]}
AVX_VNNI = {"kind": "llvm", "mcpu": "alderlake"}
AVX512 = {"kind": "llvm", "mcpu": "x86-64-v4"}
AVX2 = {"kind": "llvm", "mcpu": "x86-64-v3"}


def assembly(kernel: Any, options: dict[str, Any]) -> str:
    target = tvm.target.Target(options)
    function = kernel.build().with_attr("global_symbol", "kernel")
    return tvm.tirx.build(tvm.IRModule({"kernel": function}), target=target).inspect_source("asm")


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (VNNI, r"vpdpbusd\s+%zmm"),
        (AVX_VNNI, r"vpdpbusd\s+%ymm"),
        (AVX512, r"vpmaddwd\s+%zmm"),
        (AVX2, r"vpmaddwd\s+%ymm"),
        (ARM, r"sdot\s+v\d+\.4s"),
        (PLAIN_ARM, r"smlal|mla\s+v\d+\.4s"),
    ],
)
def test_int8_products(options: dict[str, Any], wanted: str) -> None:
    dot = DotProduct.of(tvm.target.Target(options))
    correction = "int32" if dot.offset else None
    text = assembly(Int8Linear(dot, (None,), 64, 96, correction=correction), options)
    assert re.search(wanted, text)
    # It would saturate sums of two products.
    assert "vpmaddubsw" not in text
    rows = QuantizeRows(dot, (None,), 64, -128, 127, 128.0, "token")
    assert assembly(rows, options)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [(AVX512, r"vperm(ps|d)\s.*%zmm"), (AVX2, r"vperm(ps|d)\s.*%ymm"), (ARM, r"tbl\s+v\d+\.16b")],
)
def test_four_bit_codes_are_looked_up_in_registers(options: dict[str, Any], wanted: str) -> None:
    target = tvm.target.Target(options)
    lanes = Machine.of(target).lanes
    decoder = CodeDecoder(4, "table", Lookup.of(target, lanes))
    kernel = WeightOnlyLinear(lanes, (1,), 64, 96, 32, decoder, GroupScales("float16", 2))
    assert re.search(wanted, assembly(kernel, options))


@pytest.mark.parametrize(("options", "wanted"), [(AVX2, "vcvtph2ps"), (ARM, "fcvtl")])
def test_half_floats_are_widened(options: dict[str, Any], wanted: str) -> None:
    lanes = Machine.of(tvm.target.Target(options)).lanes
    decoder = FloatDecoder("float16")
    kernel = WeightOnlyLinear(lanes, (None,), 64, 96, 64, decoder, GroupScales("none"))
    assert wanted in assembly(kernel, options)


@pytest.mark.parametrize(("options", "wanted"), [(AVX512, r"vperm(ps|d|ilps)\s"), (ARM, r"tbl\s")])
def test_sparse_places_are_permutations(options: dict[str, Any], wanted: str) -> None:
    target = tvm.target.Target(options)
    lanes = Machine.of(target).lanes
    kind = Lookup.of(target, lanes).kind
    decoder, scales = FloatDecoder("float16"), GroupScales("none")
    kernel = SparseGroups(kind, lanes, (None,), 64, 96, 2, 4, 32, decoder, scales, tile=(4, 2))
    assert re.search(wanted, assembly(kernel, options))


@given(bits=st.integers(1, 8), length=st.integers(1, 70), outputs=st.integers(1, 20))
def test_streams_hold_every_code(bits: int, length: int, outputs: int) -> None:
    codes = np.random.default_rng(0).integers(0, 1 << bits, (outputs, length), dtype=np.uint8)
    words = pack_streams(codes, bits, 8)
    assert words.shape == (-(-outputs // 8), words_of(length, bits), 8)
    for output, row in enumerate(codes):
        stream = words[output // 8, :, output % 8].astype(np.uint32).tobytes()
        number = int.from_bytes(stream, "little")
        read = [number >> (bits * k) & ((1 << bits) - 1) for k in range(length)]
        assert read == row.tolist()


@given(
    outputs=st.integers(1, 20),
    length=st.integers(1, 20),
    kind=st.sampled_from(
        [
            DotProduct("llvm.x86.avx512.vpdpbusd.512", 16, 4, 128),
            DotProduct("llvm.x86.avx2.pmadd.wd", 8, 2),
            DotProduct(None, 4, 1),
        ]
    ),
)
def test_packed_weights_hold_every_weight(outputs: int, length: int, kind: DotProduct) -> None:
    weight = np.random.default_rng(1).integers(-128, 128, (outputs, length)).astype(np.int8)
    packed = kind.pack_weights(weight)
    bytes_ = packed.view(np.int8).reshape(packed.shape[0], packed.shape[1], kind.lanes, -1)
    rows = bytes_.transpose(0, 2, 1, 3).reshape(packed.shape[0] * kind.lanes, -1)
    np.testing.assert_array_equal(rows[:outputs, :length], weight)
    assert not rows[outputs:].any() and not rows[:, length:].any()
