"""The float models without recurrent cells agree with onnxruntime."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from fewbits.compiler.importer import import_onnx
from fewbits.errors import FewbitsError
from fewbits.ops.evaluate import Evaluator

SHARED = Path(__file__).resolve().parents[3].parent / "shared"
MODELS = SHARED / "models"
pytestmark = pytest.mark.skipif(not MODELS.is_dir(), reason="the real models are not here")

BIND = {
    "all_minilm_l6_v2_prunedvocab_fp32": {"T": 16},
    "capsnet_mnist_fp32": {},
    "llama_stories260k_fp32": {"T": 16},
    "llama_stories260k_step_fp32": {"P": 7},
    "mlperf_ad01_fp32": {},
    "mlperf_ic01_resnet8_fp32": {},
    "mlperf_kws_dscnn_fp32": {},
    "mlperf_vww_96_fp32": {},
}


def _feeds(imported):
    random = np.random.default_rng(0)
    feeds = {}
    for info in imported.inputs:
        if info.name == "pos":
            values = np.full(info.shape, 7)
        elif "mask" in info.name:
            values = np.arange(np.prod(info.shape)).reshape(info.shape) < 12
        elif "int" in info.dtype:
            values = random.integers(1, 200, info.shape)
        else:
            values = random.normal(size=info.shape)
        feeds[info.name] = values.astype(info.dtype)
    return feeds


@pytest.mark.parametrize("name", BIND)
def test_agrees_with_onnxruntime(name):
    imported = import_onnx(MODELS / f"{name}.onnx", bind=BIND[name])
    feeds = _feeds(imported)
    session = onnxruntime.InferenceSession(
        imported.onnx_model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = session.run(None, feeds)
    results = Evaluator(imported.module)({k: torch.from_numpy(v) for k, v in feeds.items()})
    assert [value.name for value in session.get_outputs()] == list(results)
    for actual, wanted in zip(results.values(), expected, strict=True):
        assert np.abs(actual.numpy() - wanted).max() < 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize("name", ["llama_stories260k_fp32", "all_minilm_l6_v2_prunedvocab_fp32"])
def test_no_shape_is_computed_at_run_time(name):
    module = import_onnx(MODELS / f"{name}.onnx", bind=BIND[name]).module
    integers = [
        binding.var.name
        for binding in module["main"].body.blocks[0].bindings
        if str(binding.value.ty.dtype.dtype) == "int64"
    ]
    assert not integers


@pytest.mark.parametrize("name", ["tflm_mnist_lstm_fp32", "armkws_lstm_s_fp32"])
def test_recurrent_operators_are_refused_by_name(name):
    with pytest.raises(FewbitsError, match=r"LSTM \(1: .*recurrent operators come later") as caught:
        import_onnx(MODELS / f"{name}.onnx")
    assert caught.value.code == "unsupported-operator"


def test_sequence_length_must_be_bound():
    with pytest.raises(FewbitsError) as caught:
        import_onnx(MODELS / "llama_stories260k_fp32.onnx")
    assert caught.value.code == "unbound-dimension"
    assert "'T'" in caught.value.message and "--bind T=128" in (caught.value.hint or "")
