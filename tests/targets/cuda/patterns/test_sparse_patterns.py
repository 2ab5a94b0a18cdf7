"""Sparse weights get sparse kernels where their zeros allow it; whole models of such recipes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fewbits.compiler.api import compile as compile_model
from fewbits.errors import FewbitsError
from fewbits.formats.compressed import CompressedTensor
from fewbits.formats.granularity import PerChannel
from fewbits.formats.parse import parse_format
from fewbits.formats.plain import PlainTensor
from fewbits.formats.scales import store_scales
from fewbits.formats.sparsity import NofM, parse_sparsity
from fewbits.schedules.cuda.sparse import Sparse24
from fewbits.schedules.cuda.weight_format import Dense
from fewbits.targets.cuda import testing
from fewbits.targets.cuda.emulator import install
from fewbits.targets.cuda.patterns.quantized import _weight
from fewbits.targets.cuda.patterns.sparse import stored_layout
from onnx import TensorProto, helper, numpy_helper


def _plain(pattern: str, keep: int, group: int, inputs: int = 48) -> PlainTensor:
    rng = np.random.default_rng(keep)
    order = np.argsort(rng.random((24, inputs // group, group)), axis=2)
    mask = (order < keep).reshape(24, inputs)
    weight = rng.standard_normal((24, inputs)).astype(np.float32)
    return PlainTensor.from_array(weight, "float16", parse_sparsity(pattern), mask)


@pytest.mark.parametrize(
    ("tensor", "sparse"),
    [
        (_plain("2:4", 2, 4), True),
        (_plain("1:4", 1, 4), True),
        (_plain("1:2", 1, 2), True),
        (_plain("bitmap", 1, 8), True),
        (_plain("6:8", 6, 8), False),
        (_plain("3:4", 3, 4), False),
        (PlainTensor.from_array(np.eye(24, dtype=np.float32)), False),
    ],
    ids=lambda value: str(getattr(value, "sparsity", value)),
)
def test_what_fits_two_of_four_is_stored_so(tensor: PlainTensor, sparse: bool) -> None:
    weight = tensor.decode().astype(np.float16)
    layout = stored_layout(tensor, weight)
    assert layout == (Sparse24("float16") if sparse else Dense("float16"))
    packed = layout.pack(weight)
    np.testing.assert_array_equal(layout.decoded(packed, *weight.shape), weight)


def test_rows_of_odd_bytes_stay_dense() -> None:
    rng = np.random.default_rng(0)
    weight = np.where(rng.random((8, 6)) < 0.2, 1, 0).astype(np.int8)
    weight[:, 1:4] = 0
    tensor = PlainTensor.from_array(weight, sparsity=parse_sparsity("bitmap"))
    assert stored_layout(tensor, weight) == Dense("int8")


def _compressed(codes: np.ndarray, mask: np.ndarray, scale: float) -> CompressedTensor:
    levels, granularity = parse_format("int8"), PerChannel(0)
    scales = store_scales(np.full(granularity.scale_shape(codes.shape), scale), "float32")
    stored = levels.encode(codes.astype(np.float64))
    return CompressedTensor.from_codes(
        stored, levels, granularity, scales, sparsity=NofM(2, 4), mask=mask
    )


def test_int8_codes_are_zero_where_nothing_is_stored() -> None:
    rng = np.random.default_rng(1)
    codes = rng.integers(-127, 128, (12, 16))
    mask = (np.argsort(rng.random((12, 4, 4)), axis=2) < 2).reshape(12, 16)
    weight = _weight(_compressed(codes, mask, 0.5))
    assert weight is not None
    np.testing.assert_array_equal(weight, np.where(mask, codes, 0))


def test_scales_that_are_no_numbers_are_refused() -> None:
    codes, mask = np.ones((4, 4), int), np.tile([True, True, False, False], (4, 1))
    with pytest.raises(FewbitsError) as caught:
        _compressed(codes, mask, float("nan"))
    assert caught.value.code == "scale-overflow"


def _model() -> Any:
    rng = np.random.default_rng(5)
    weights = {
        "first": (rng.normal(size=(24, 32)) / 5).astype(np.float32),
        "bias": rng.normal(size=32).astype(np.float32),
        "second": (rng.normal(size=(32, 10)) / 5).astype(np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"], "one"),
        helper.make_node("Add", ["a", "bias"], ["b"], "bias"),
        helper.make_node("Relu", ["b"], ["c"], "relu"),
        helper.make_node("MatMul", ["c", "second"], ["y"], "two"),
    ]
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 24])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 10])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture(params=["sm_80", "sm_90a"])
def emulated(request: pytest.FixtureRequest) -> Iterator[str]:
    """The emulated GPU of an architecture, whatever the machine has."""
    reason = testing.unavailable(request.param)
    if reason is not None:
        pytest.skip(reason)
    install(request.param)
    yield request.param
    install("sm_90a")


@pytest.mark.parametrize("recipe", ["sparse24", "sparse24-int8"])
def test_whole_models_run_on_sparse_kernels(recipe: str, emulated: str, tmp_path: Path) -> None:
    target = f"cuda-{emulated.replace('_', '')}"
    artifact = compile_model(
        _model(), tmp_path / "mlp", target=target, recipe=recipe, calibration="random", tuning=None
    )
    manifest = artifact.manifest
    assert manifest["golden"]["samples"] == 4
    assert manifest["golden"]["difference"] <= (1e-2 if recipe == "sparse24" else 6e-2)
    kernels = {layer["name"]: layer["kernel"] for layer in manifest["layers"]}
    assert all(kernel.startswith("sparse-") for kernel in kernels.values()), kernels


@pytest.mark.parametrize("emulated", ["sm_80"], indirect=True)
def test_few_bits_and_sparsity_together(emulated: str, tmp_path: Path) -> None:
    recipe = tmp_path / "w4-sparse.yaml"
    recipe.write_text(
        "description: 2:4 sparse int4 weights\n"
        "passes:\n"
        "  - canonicalize\n"
        "  - quantize_weights:\n"
        "      {format: int4, strategy: channel, solver: sparsegpt, sparsity: '2:4'}\n"
    )
    artifact = compile_model(
        _model(), tmp_path / "mlp", target="cuda-sm80", recipe=str(recipe), calibration="random",
        tuning=None,
    )  # fmt: skip
    assert artifact.manifest["golden"]["difference"] <= 1e-2
    kernels = [layer["kernel"] for layer in artifact.manifest["layers"]]
    assert all(kernel.startswith("sparse-decode") for kernel in kernels), kernels
