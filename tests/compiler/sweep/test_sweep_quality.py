"""Metrics against closed forms, and the sizes of modules against bits counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from fewbits.compiler.importer import import_onnx
from fewbits.compiler.sweep.quality import choose_metric, measure
from fewbits.compiler.sweep.sizes import measure_sizes
from fewbits.errors import FewbitsError
from fewbits.passes.base import PassContext, make_pass
from onnx import TensorProto, helper, numpy_helper


def test_nats_of_logits_and_of_probabilities() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(6, 5, 7))
    labels = random.integers(0, 7, (6, 5))
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    picked = np.take_along_axis(probabilities, labels[..., None], -1)
    for outputs in (logits, probabilities):
        found = measure([(outputs, logits, labels)])
        assert found.nats == pytest.approx(-np.log(picked).mean(), rel=1e-9)
        assert found.accuracy == pytest.approx((logits.argmax(-1) == labels).mean())
        assert found.agreement == 1.0
    assert measure([(logits, logits, labels)]).sqnr_db is None


def test_chunks_add_up() -> None:
    random = np.random.default_rng(1)
    got, wanted = random.normal(size=(2, 10, 4))
    labels = random.integers(0, 4, 10)
    whole = measure([(got, wanted, labels)])
    parts = measure([(got[a:b], wanted[a:b], labels[a:b]) for a, b in ((0, 3), (3, 4), (4, 10))])
    assert parts.samples == whole.samples == 10
    for name in ("nats", "accuracy", "cosine", "sqnr_db", "agreement"):
        assert parts.of(name) == pytest.approx(whole.of(name))
    noise = ((got - wanted) ** 2).sum()
    assert whole.sqnr_db == pytest.approx(10 * np.log10((wanted**2).sum() / noise))
    lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(wanted, axis=1)
    assert whole.cosine == pytest.approx(((got * wanted).sum(1) / lengths).mean())


def test_labels_that_are_no_classes_are_not_measured() -> None:
    outputs = np.ones((3, 2))
    for labels in (
        None,
        np.zeros(3),
        np.array([0, 1, 2]),
        np.array([0, -1, 1]),
        np.zeros((3, 2), int),
    ):
        found = measure([(outputs, outputs, labels)])
        assert found.nats is None and found.accuracy is None and found.cosine == pytest.approx(1.0)
        assert choose_metric("auto", found, labels) == "cosine"
        with pytest.raises(FewbitsError) as caught:
            choose_metric("nats", found, labels)
        assert caught.value.code == "no-labels"


def test_metric_follows_the_labels() -> None:
    one = np.zeros((3, 2), np.int64)
    sequences = measure([(np.ones((3, 2, 4)), np.ones((3, 2, 4)), one)])
    assert choose_metric("auto", sequences, one) == "nats"
    classes = measure([(np.ones((3, 4)), np.ones((3, 4)), one[:, 0])])
    assert choose_metric("auto", classes, one[:, 0]) == "accuracy"
    assert choose_metric("sqnr_db", classes, None) == "sqnr_db"


def test_broken_outputs_are_refused() -> None:
    good = np.ones((2, 3))
    with pytest.raises(FewbitsError) as caught:
        measure([(np.full((2, 3), np.nan), good, None)])
    assert caught.value.code == "not-finite"
    with pytest.raises(FewbitsError) as caught:
        measure([])
    assert caught.value.code == "empty-data"


def _language_model():
    """ids [1, 6] → embedding [10, 16] → body [16, 12] → body [12, 16] → head [16, 10]."""
    random = np.random.default_rng(0)
    shapes = {"table": (10, 16), "a": (16, 12), "b": (12, 16), "h": (16, 10), "scale": (16,)}
    weights = {k: random.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"], "embedding"),
        helper.make_node("Mul", ["e", "scale"], ["s"], "scaled"),
        helper.make_node("MatMul", ["s", "a"], ["x"], "first"),
        helper.make_node("Relu", ["x"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "b"], ["y"], "second"),
        helper.make_node("MatMul", ["y", "h"], ["logits"], "head"),
    ]
    graph = helper.make_graph(
        nodes, "lm",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [1, 6])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 6, 10])],
        [numpy_helper.from_array(v, k) for k, v in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return import_onnx(model).module


def test_float_bits_are_counted_where_they_are() -> None:
    sizes = measure_sizes(_language_model(), classes=10)
    assert sizes.body_bits == 32 * 2 * 16 * 12 and sizes.body_weights == 2 * 16 * 12
    assert sizes.embedding_bits == 32 * 160 and sizes.head_bits == 32 * 160
    assert sizes.rest_bits == 32 * 16
    assert sizes.total_bits == 32 * (2 * 192 + 2 * 160 + 16)
    assert sizes.code_bits == sizes.metadata_bits == 0
    # Without classes there is no head.
    assert measure_sizes(_language_model()).body_bits == 32 * (2 * 192 + 160)


def test_compressed_bits_are_exact() -> None:
    context = PassContext()
    pass_ = make_pass("quantize_weights{format=int4; strategy=block; group_size=64; ignore=[head]}")
    sizes = measure_sizes(pass_.apply(_language_model(), context), classes=10)
    assert sizes.body_bits == 2 * (192 * 4 + 3 * 16)
    assert (sizes.code_bits, sizes.metadata_bits) == (2 * 192 * 4, 2 * 3 * 16)
    assert sizes.head_bits == sizes.embedding_bits == 32 * 160
    assert sizes.rest_bits == 32 * 16
    half = make_pass("half_weights", {"embeddings": True}).apply(
        pass_.apply(_language_model(), context), context
    )
    sizes = measure_sizes(half, classes=10)
    assert sizes.body_bits == 2 * (192 * 4 + 3 * 16)
    assert sizes.head_bits == sizes.embedding_bits == 16 * 160
