"""Few-bit tensors decoded at run time equal `decode`, whatever they are stored as."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from fewbits.formats.compress import compress
from fewbits.formats.granularity import parse_granularity
from fewbits.formats.parse import parse_format
from fewbits.formats.plain import PlainTensor
from fewbits.formats.sparsity import parse_sparsity
from fewbits.ops.compressed.activations import fake_quantize_call, outlier_columns_call
from fewbits.ops.compressed.weights import decode_call
from fewbits.ops.evaluate import Evaluator
from tvm import ir, relax, tirx

STORAGES = ("float32", "float16", "bfloat16", "e8m0", "double")


def weight(shape=(6, 24), seed=0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def check(tensors, run) -> None:
    """All in one module, which is compiled once."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            calls = [builder.emit(relax.op.add(x, decode_call(t))) for t in tensors]
            output = builder.emit_output(relax.Tuple(calls))
        builder.emit_func_output(output)
    function = builder.get()["main"].with_attrs({"input_names": ["x"], "output_names": []})
    results = run(ir.IRModule({"main": function}), np.zeros((), np.float32))
    for tensor, got in zip(tensors, results, strict=True):
        want = tensor.decode()
        np.testing.assert_allclose(got, want, rtol=3e-7, atol=1e-38)
        assert ((got == 0) == (want == 0)).all()


def test_formats(run):
    names = ["int4-narrow", "int3", "uint5", "nf4", "fp8_e4m3fn", "fp6_e3m2", "flint4", "int8"]
    check(
        [
            compress(np.abs(weight()) if name.startswith("u") else weight(), parse_format(name))
            for name in names
        ],
        run,
    )  # fmt: skip


def test_granularities(run):
    texts = [
        "tensor", "channel{axis=0}", "channel{axis=1}", "group{size=8,axis=-1}",
        "group{size=5,axis=0}", "block{size=7}", "token",
    ]  # fmt: skip
    kinds = map(parse_granularity, texts)
    tensors = [compress(weight(), parse_format("int4"), granularity=kind) for kind in kinds]
    check(tensors, run)


def test_storages_of_scales(run):
    kind = parse_granularity("group{size=4,axis=-1}")
    tensors = [
        compress(weight((16, 80)), parse_format("nf4"), granularity=kind, scale_storage=storage)
        for storage in STORAGES
    ]
    check(tensors, run)


@pytest.mark.parametrize("shape", [(6, 24), (2, 3, 5, 8)])
def test_sparsities(shape, run):
    keep = np.zeros(shape, bool)
    keep.reshape(-1)[::8] = True
    kind = parse_granularity("channel{axis=0}")
    tensors = [
        compress(
            weight(shape), parse_format("int3"), granularity=kind, mask=keep,
            sparsity=parse_sparsity(sparsity),
        )
        for sparsity in ("2:4", "1:8", "bitmap", "rows", "4x1")
    ]  # fmt: skip
    check(tensors, run)


def test_floats(run):
    x = weight()
    x[:, 1::2] = 0
    check(
        [
            PlainTensor.from_array(x, dtype, parse_sparsity(sparsity))
            for dtype in ("float32", "float16", "bfloat16")
            for sparsity in ("dense", "2:4", "bitmap", "rows", "4x1")
        ],
        run,
    )  # fmt: skip


def test_zero_points_and_binary_coding(run):
    kind = parse_granularity("group{size=8,axis=-1}")
    affine = compress(weight() + 1, parse_format("uint3"), method="affine", granularity=kind)
    binary = [
        compress(weight(), parse_format(f"bcq{bits}"), granularity=kind) for bits in (1, 2, 3)
    ]
    offsets = weight((6, 3), seed=1)
    check([affine, *binary, dataclasses.replace(binary[1], offsets=offsets)], run)


@pytest.mark.parametrize("name", ["int8-narrow", "int4", "fp8_e4m3fn", "fp8_e5m2", "nf4"])
@pytest.mark.parametrize("granularity", ["tensor", "token", "static"])
def test_fake_quantize(name, granularity, module_of, run):
    x = relax.Var("x", relax.TensorType((tirx.Var("N", "int64"), 3, 16), "float32"))
    scale = relax.const(np.float32(0.125)) if granularity == "static" else None
    call = fake_quantize_call(
        x, parse_format(name), "tensor" if scale is not None else granularity, scale
    )
    module = module_of([x], call)
    array = 4 * weight((2, 3, 16))
    array[1, 2] = 0
    (got,) = run(module, array)
    want = Evaluator(module)({"x": torch.from_numpy(array)})["y"].numpy()
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(("threshold", "capacity"), [(2.0, 16), (2.0, 1), (0.0, 16), (9.0, 16)])
def test_outlier_columns(threshold, capacity, module_of, run):
    x = relax.Var("x", relax.TensorType((tirx.Var("N", "int64"), 16), "float32"))
    call = outlier_columns_call(x, threshold, capacity)
    module = module_of([x], call)
    array = weight((5, 16))
    (got,) = run(module, array)
    want = Evaluator(module)({"x": torch.from_numpy(array)})["y"].numpy()
    np.testing.assert_array_equal(got, want)
