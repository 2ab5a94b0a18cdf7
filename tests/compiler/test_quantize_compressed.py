"""`fewbits quantize` with few-bit recipes: the file computes what the module means, at any size.

Weight-only recipes must equal the evaluator up to rounding. Where activations are rounded at run
time, a difference in the last bit may take a value over a rounding boundary, and all layers behind
it see another value; there the file must be as near as the recipe's own error.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from fewbits.compiler.driver import Compilation, compress
from fewbits.compiler.exporter import export_onnx, stored_tensors
from fewbits.compiler.importer import import_onnx
from fewbits.compiler.options import Options
from fewbits.compiler.quantized import quantize_model
from fewbits.errors import FewbitsError
from fewbits.formats.compressed import CompressedTensor
from fewbits.formats.storage import load_extra, load_tensors
from fewbits.ops.evaluate import Evaluator
from onnx import numpy_helper, parser

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
WEIGHTS = ("w4-g128", "nf4-b64", "w4-g64-gptq")
ROUNDED = ("w8a8", "fp8", "llm-int8", "sparse24-int8")

#: Shapes computed from symbolic sizes in every way: reshape, expand, range, slice, concat.
MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
g (int64[N,T] ids, float[N,T,32] x) => (float[N,T,64] y, float[N,F] flat)
<float[20,32] table, float[32,64] w1, float[64,64] w2, float[64,64] w3, int64[1] zero = {0},
 int64[1] one = {1}, int64[2] heads = {4, 8}, int64[1] width = {32}, int64[1] minus = {-1},
 int64[1] two = {2}, int64 zero_ = {0}, int64 one_ = {1}>
{
  e = Gather<axis=0>(table, ids)
  a = Add(e, x)
  shape = Shape(a)
  n = Slice(shape, zero, one)
  t = Slice(shape, one, two)
  split = Concat<axis=0>(n, t, heads)
  r = Reshape(a, split)
  p = Transpose<perm=[0,2,1,3]>(r)
  q = Transpose<perm=[0,2,1,3]>(p)
  joined = Concat<axis=0>(n, t, width)
  m = Reshape(q, joined)
  ts = Squeeze(t, zero)
  positions = Range(zero_, ts, one_)
  column = Reshape(positions, heads_column)
  c = Cast<to=1>(column)
  b = Add(m, c)
  h = MatMul(b, w1)
  g1 = Relu(h)
  k = MatMul(g1, w2)
  y = MatMul(k, w3)
  size = Mul(t, sixty)
  both = Concat<axis=0>(n, size)
  flat = Reshape(y, both)
}
"""


def small_model() -> bytes:
    text = MODEL.replace("int64[1] zero = {0},", "int64[1] zero = {0}, int64[1] sixty = {64},")
    text = text.replace("int64[2] heads", "int64[3] heads_column = {1, -1, 1}, int64[2] heads")
    model = parser.parse_model(text)
    rng = np.random.default_rng(0)
    for value in list(model.graph.value_info):
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        array = rng.normal(size=shape).astype(np.float32) / 4
        model.graph.initializer.append(numpy_helper.from_array(array, value.name))
    del model.graph.value_info[:]
    return model.SerializeToString()


def small_inputs(n: int, t: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(n * 100 + t)
    return {
        "ids": rng.integers(0, 20, (n, t)),
        "x": rng.normal(size=(n, t, 32)).astype(np.float32),
    }


@functools.cache
def compressed(name: str, recipe: str) -> Compilation:
    options = Options(recipe=recipe, target="cpu")
    if name == "small":
        return compress(small_model(), options, small_inputs(4, 9))
    if not SHARED.is_dir():
        pytest.skip("the shared models are not here")
    task = real_task(name)
    calibration = {key: value[:2, :16] for key, value in task.calibration.items()}
    return compress(str(task.model), options, calibration)


@functools.cache
def real_task(name: str) -> Any:
    specification = importlib.util.spec_from_file_location("realdata", SHARED / "realdata.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["realdata"] = module  # its dataclasses look their module up
    specification.loader.exec_module(module)
    return module.load(name)


def inputs_of(name: str, n: int, t: int) -> dict[str, np.ndarray]:
    if name == "small":
        return small_inputs(n, t)
    return {key: np.ascontiguousarray(v[:n, :t]) for key, v in real_task(name).inputs.items()}


def session_of(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    # By default onnxruntime rounds activations to int8 where it fuses weights of int8.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def evaluate(module: Any, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    values = Evaluator(module)({k: torch.from_numpy(v) for k, v in inputs.items()})
    return [value.numpy() for value in values.values()]


def snr(got: np.ndarray, want: np.ndarray) -> float:
    noise = float(np.square(got - want, dtype=np.float64).sum())
    return 10 * np.log10(float(np.square(want, dtype=np.float64).sum()) / noise) if noise else 200


SIZES = ((1, 7), (3, 12))


@pytest.mark.parametrize("name", ["small", "minilm", "stories260k"])
@pytest.mark.parametrize("recipe", [*WEIGHTS[:2], *ROUNDED[:3]])
def test_onnxruntime_computes_the_same_at_any_size(name: str, recipe: str) -> None:
    state = compressed(name, recipe)
    model = export_onnx(state.compressed)
    onnx.checker.check_model(model, full_check=True)
    session = session_of(model)
    for n, t in SIZES:
        inputs = inputs_of(name, n, t)
        for got, want, plain in zip(
            session.run(None, inputs),
            evaluate(state.compressed, inputs),
            evaluate(state.reference, inputs),
            strict=True,
        ):
            assert got.shape == want.shape
            if recipe in WEIGHTS:
                np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-5 * np.abs(want).max())
            else:
                assert snr(got, want) > min(60, snr(want, plain) - 3)


#: Not fp8: rounding to FP8 at run time is a Cast that the importer refuses.
@pytest.mark.parametrize("recipe", [*WEIGHTS, "w8a8", "llm-int8", "sparse24-int8"])
def test_reading_the_file_back_gives_the_same_values(recipe: str) -> None:
    state = compressed("small", recipe)
    again = import_onnx(export_onnx(state.compressed).SerializeToString(), dynamic=True).module
    for n, t in SIZES:
        inputs = small_inputs(n, t)
        pairs = zip(evaluate(again, inputs), evaluate(state.compressed, inputs), strict=True)
        for got, want in pairs:
            assert snr(got, want) > 100
    if recipe in ("w4-g128", "w4-g64-gptq", "w8a8"):
        kept = [t for t in stored_tensors(again).values() if isinstance(t, CompressedTensor)]
        meant = [
            t for t in stored_tensors(state.compressed).values() if isinstance(t, CompressedTensor)
        ]
        assert sum(t.total_bits for t in kept) <= 1.3 * sum(t.total_bits for t in meant)


def test_matmul_nbits_holds_groups_of_integers() -> None:
    state = compressed("small", "w4-g64-gptq")
    model = export_onnx(state.compressed, matmul_nbits=True)
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("MatMulNBits") == 3 and "MatMul" not in operators
    inputs = small_inputs(2, 5)
    pairs = zip(
        session_of(model).run(None, inputs), evaluate(state.compressed, inputs), strict=True
    )
    for got, want in pairs:
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    again = import_onnx(model.SerializeToString(), dynamic=True).module
    for got, want in zip(evaluate(again, inputs), evaluate(state.compressed, inputs), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("recipe", ["w3-bcq", "w4-g64-gptq", "sparsegpt50", "w8a8", "int8"])
def test_every_weight_goes_into_a_safetensors_file(tmp_path: Path, recipe: str) -> None:
    path, out = tmp_path / "m.onnx", tmp_path / "new" / "m.safetensors"
    path.write_bytes(small_model())
    bind = {"N": 1, "T": 9} if recipe == "int8" else {}
    found = quantize_model(path, out, Options(recipe=recipe, bind=bind), small_inputs(1, 9))
    tensors = load_tensors(out)
    assert found.tensors == len(tensors) and load_extra(out)["recipe"] == recipe
    model = onnx.load(path)
    floats = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    stored = [t for t in tensors.values() if t.shape in ((64, 32), (64, 64), (32, 64))]
    assert len(stored) >= 3
    for name in ("w1", "w2", "w3"):
        weight = floats[name]
        values = [value for t in stored for value in (t.decode(), t.decode().T)]
        nearest = max(snr(value, weight) for value in values if value.shape == weight.shape)
        # Half of the weights are zero in one of the recipes; another has three planes of bits.
        assert nearest > 2


def test_what_onnx_cannot_say_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(small_model())
    with pytest.raises(FewbitsError) as caught:
        quantize_model(path, tmp_path / "q.onnx", Options(recipe="w3-bcq"))
    assert caught.value.code == "unsupported-operator" and "safetensors" in str(caught.value.hint)
    assert "'h'" in caught.value.message or "h" in caught.value.message.split("at ")[1]
    with pytest.raises(FewbitsError, match="cannot write"):
        quantize_model(path, tmp_path / "q.bin", Options(recipe="w3-bcq"))
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_the_file_is_run_before_it_is_told(tmp_path: Path) -> None:
    path, out = tmp_path / "m.onnx", tmp_path / "q.onnx"
    path.write_bytes(small_model())
    found = quantize_model(path, out, Options(recipe="nf4-b64"))
    assert found.agreement is not None and found.agreement.samples == 4
    assert found.agreement.snr_db is None or found.agreement.snr_db > 100
    assert found.bytes == out.stat().st_size < found.float_bytes / 2
    [ids, _] = onnx.load(out).graph.input
    assert [d.dim_param for d in ids.type.tensor_type.shape.dim] == ["N", "T"]
