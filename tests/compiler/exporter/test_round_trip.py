"""ONNX → Relax → ONNX on real networks: onnxruntime computes what it computed before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from fewbits.compiler.exporter import export_onnx
from fewbits.compiler.importer import import_onnx

MODELS = Path(__file__).resolve().parents[4] / "shared" / "models"
RNG = np.random.default_rng(1)

pytestmark = pytest.mark.skipif(not MODELS.is_dir(), reason="the shared models are not here")

#: Sizes of the symbolic dimensions.
BIND = {
    "mlperf_kws_dscnn_fp32": {},
    "mlperf_vww_96_fp32": {},
    "mlperf_ic01_resnet8_fp32": {},
    "mlperf_ad01_fp32": {},
    "capsnet_mnist_fp32": {},
    "llama_stories260k_fp32": {"T": 12},
    "llama_stories260k_step_fp32": {"P": 7},
    "all_minilm_l6_v2_prunedvocab_fp32": {"T": 12},
}


def values(info):
    """Inputs that every model understands: small numbers, tokens, all-ones masks."""
    if "mask" in info.name:
        return np.ones(info.shape, info.dtype)
    if info.dtype.startswith("int"):
        return RNG.integers(0, 7, info.shape).astype(info.dtype)
    return RNG.random(info.shape).astype(info.dtype)


@pytest.mark.parametrize("opset", [17, 21])
@pytest.mark.parametrize("name", BIND)
def test_round_trip(name, opset):
    imported = import_onnx(MODELS / f"{name}.onnx", bind=BIND[name])
    exported = export_onnx(imported.module, name=imported.name, opset=opset)
    onnx.checker.check_model(exported, full_check=True)
    assert exported.graph.name == imported.name
    inputs = {info.name: values(info) for info in imported.inputs}
    before = onnxruntime.InferenceSession(imported.onnx_model.SerializeToString())
    after = onnxruntime.InferenceSession(exported.SerializeToString())
    assert [o.name for o in after.get_outputs()] == [o.name for o in before.get_outputs()]
    for expected, result in zip(before.run(None, inputs), after.run(None, inputs), strict=True):
        assert result.shape == expected.shape
        scale = max(1.0, float(np.abs(expected).max()))
        assert np.abs(result - expected).max() <= 2e-5 * scale


def test_the_exported_model_is_no_larger():
    source = MODELS / "mlperf_kws_dscnn_fp32.onnx"
    assert len(export_onnx(import_onnx(source).module).SerializeToString()) <= len(
        source.read_bytes()
    )
