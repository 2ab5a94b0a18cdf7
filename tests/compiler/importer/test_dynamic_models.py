"""The real models with batch and length left open agree with onnxruntime at several sizes."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from fewbits.compiler.importer import import_onnx
from fewbits.ops.evaluate import Evaluator
from fewbits.passes.canonicalize import canonicalize
from fewbits.passes.rewrite import Rewriter, operator_of
from tvm import relax

SHARED = Path(__file__).resolve().parents[3].parent / "shared"
MODELS = SHARED / "models"
pytestmark = pytest.mark.skipif(not MODELS.is_dir(), reason="the real models are not here")

PAIRS = [(1, 1), (3, 17)]
#: Model to the sizes at which it runs.
SIZES = {
    "all_minilm_l6_v2_prunedvocab_fp32": [{"N": n, "T": t} for n, t in PAIRS],
    "llama_stories260k_fp32": [{"N": n, "T": t} for n, t in PAIRS],
    "llama_stories260k_step_fp32": [{"N": n, "P": p} for n, p in PAIRS],
    "capsnet_mnist_fp32": [{"N": 1}, {"N": 3}],
    "mlperf_ad01_fp32": [{"N": 1}, {"N": 3}],
    "mlperf_ic01_resnet8_fp32": [{"N": 1}, {"N": 3}],
    "mlperf_kws_dscnn_fp32": [{"N": 1}, {"N": 3}],
    "mlperf_vww_96_fp32": [{"N": 1}, {"N": 3}],
}


def feeds_of(imported, sizes):
    random = np.random.default_rng(0)
    feeds = {}
    for info in imported.inputs:
        shape = [sizes.get(extent, extent) for extent in info.shape]
        if info.name == "pos":
            values = np.full(shape, sizes["P"])
        elif "mask" in info.name:
            # Sentences of different lengths, none empty.
            values = np.arange(shape[1]) <= shape[1] * np.linspace(0.3, 1, shape[0])[:, None]
        elif "int" in info.dtype:
            values = random.integers(1, 200, shape)
        else:
            values = random.normal(size=shape)
        feeds[info.name] = values.astype(info.dtype)
    return feeds


@pytest.mark.parametrize("name", SIZES)
def test_agrees_with_onnxruntime_at_every_size(name):
    imported = import_onnx(MODELS / f"{name}.onnx", dynamic=True)
    relax.analysis.well_formed(imported.module)
    canonical = canonicalize(imported.module)
    relax.analysis.well_formed(canonical)
    session = onnxruntime.InferenceSession(
        imported.onnx_model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for sizes in SIZES[name]:
        feeds = feeds_of(imported, sizes)
        expected = session.run(None, feeds)
        tensors = {key: torch.from_numpy(value) for key, value in feeds.items()}
        for module in (imported.module, canonical):
            results = Evaluator(module)(tensors)
            for found, wanted in zip(results.values(), expected, strict=True):
                assert found.shape == wanted.shape
                assert np.abs(found.numpy() - wanted).max() < 1e-5 * max(1, np.abs(wanted).max())


@pytest.mark.parametrize("name", ["llama_stories260k_fp32", "mlperf_kws_dscnn_fp32"])
def test_a_batch_of_samples_equals_one_sample_at_a_time(name):
    path = MODELS / f"{name}.onnx"
    sizes = {"N": 3, "T": 9}
    imported = import_onnx(path, dynamic=True)
    feeds = feeds_of(imported, sizes)
    [together] = Evaluator(canonicalize(imported.module)).batched(feeds, chunk=3)
    bound = import_onnx(path, bind={"T": 9} if "T" in imported.inputs[0].shape else {})
    [apart] = Evaluator(canonicalize(bound.module)).batched(feeds, chunk=3)
    for found, wanted in zip(together.values(), apart.values(), strict=True):
        scale = max(1.0, float(wanted.abs().max()))
        torch.testing.assert_close(found, wanted[:, 0], rtol=1e-4, atol=1e-5 * scale)


def operators(name):
    module = canonicalize(import_onnx(MODELS / f"{name}.onnx", dynamic=True).module)
    found = [operator_of(value) for _, value in Rewriter(module).bindings]
    return {operator: found.count(operator) for operator in set(found)}


def test_the_layers_of_a_sentence_encoder_are_recognized():
    found = operators("all_minilm_l6_v2_prunedvocab_fp32")
    assert (found["relax.nn.layer_norm"], found["relax.nn.gelu"]) == (13, 6)
    assert (found["relax.nn.softmax"], found["relax.matmul"]) == (6, 48)
    assert "relax.erf" not in found


def test_the_layers_of_a_language_model_are_recognized():
    found = operators("llama_stories260k_fp32")
    assert (found["relax.nn.rms_norm"], found["relax.nn.silu"]) == (11, 5)
    assert (found["relax.nn.softmax"], found["relax.matmul"]) == (5, 46)
    assert "relax.mean" not in found
