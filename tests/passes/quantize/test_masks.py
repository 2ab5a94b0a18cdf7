"""Attention masks and embeddings survive quantization."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fewbits.compiler.importer import import_onnx
from fewbits.ops.evaluate import Evaluator
from fewbits.passes.base import PassContext
from fewbits.passes.calibration import Calibration
from fewbits.passes.canonicalize import canonicalize
from fewbits.passes.quantize.masks import masked_values
from fewbits.passes.quantize.quantize import Quantize
from fewbits.passes.rewrite import Rewriter, as_array, operator_of
from fewbits.targets.mcu.integer import to_integer
from onnx import helper, numpy_helper

RNG = np.random.default_rng(17)
node = helper.make_node


def module_of(nodes, constants, inputs, out):
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(name, *of) for name, of in inputs.items()],
        [helper.make_tensor_value_info("y", 1, out)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return canonicalize(import_onnx(model).module)


def quantized(module, samples, observer):
    context = PassContext(calibration=Calibration(lambda: [samples], "test"))
    return to_integer(Quantize(activation_observer=observer).apply(module, context))


@pytest.mark.parametrize("observer", ["minmax", "mse"])
@pytest.mark.parametrize("depth", [-1e9, -65504.0])
def test_masked_softmax(observer, depth):
    nodes = [
        node("Sub", ["one", "keep"], ["drop"], "drop"),
        node("Mul", ["drop", "depth"], ["mask"], "mask"),
        node("MatMul", ["q", "k"], ["scores"], "scores"),
        node("Add", ["scores", "mask"], ["sum"], "sum"),
        node("Softmax", ["sum"], ["y"], "softmax"),
    ]
    constants = {"one": np.float32(1), "depth": np.float32(depth)}
    inputs = {"q": (1, [1, 4, 8]), "k": (1, [1, 8, 6]), "keep": (1, [1, 1, 6])}
    module = module_of(nodes, constants, inputs, [1, 4, 6])
    assert {"sum", "mask", "scores"} <= masked_values(module)
    samples = {
        "q": RNG.standard_normal((32, 1, 4, 8)).astype("float32"),
        "k": RNG.standard_normal((32, 1, 8, 6)).astype("float32"),
        "keep": (RNG.random((32, 1, 1, 6)) < 0.6).astype("float32"),
    }
    samples["keep"][..., 0] = 1
    integer = quantized(module, samples, observer)
    codes = {
        name: np.clip(np.rint(samples[name] / np.float32(s)) + z, -128, 127).astype("int8")
        for name, (s, z) in zip(samples, integer.interface.inputs, strict=True)
    }
    [found] = [next(iter(v.values())) for v in Evaluator(integer.module).batched(codes)]
    [wanted] = [next(iter(v.values())) for v in Evaluator(module).batched(samples)]
    [(scale, zero)] = integer.interface.outputs
    shares = (found.float() - zero) * scale
    assert (shares - wanted).abs().max() < 0.1
    dropped = torch.from_numpy(samples["keep"] == 0).reshape(32, 1, 1, 6).expand(32, 1, 4, 6)
    assert (shares.reshape(32, 1, 4, 6)[dropped] == 0).all()


def test_embeddings_are_stored_in_int8():
    table = RNG.standard_normal((50, 8)).astype("float32")
    nodes = [
        node("Gather", ["table", "ids"], ["e"], "embedding"),
        node("MatMul", ["e", "w"], ["y"], "dense"),
    ]
    weights = RNG.standard_normal((8, 3)).astype("float32")
    module = module_of(
        nodes, {"table": table, "w": weights}, {"ids": (7, [1, 5])}, [1, 5, 3]
    )  # fmt: skip
    samples = {"ids": RNG.integers(0, 50, (40, 1, 5))}
    integer = quantized(module, samples, "minmax")
    [take] = [
        value
        for _, value in Rewriter(integer.module).bindings
        if operator_of(value) == "relax.take"
    ]
    assert as_array(take.args[0]).dtype == np.int8
    [found] = [next(iter(v.values())) for v in Evaluator(integer.module).batched(samples)]
    [wanted] = [next(iter(v.values())) for v in Evaluator(module).batched(samples)]
    [(scale, zero)] = integer.interface.outputs
    assert ((found.float() - zero) * scale - wanted).abs().max() < 3 * scale
