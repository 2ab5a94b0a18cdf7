"""Layers with weights are found, selected and replaced, whatever spells the product."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from fewbits.compiler.importer import import_onnx
from fewbits.errors import FewbitsError
from fewbits.formats.compress import compress
from fewbits.formats.granularity import PerChannel
from fewbits.formats.parse import parse_format
from fewbits.ops.compressed.activations import fake_quantize_call
from fewbits.ops.evaluate import Evaluator
from fewbits.passes.layers import Replacement, find_layers, replace_layers, select_layers
from onnx import parser

MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
g (int64[1,5] ids, float[1,3,6,6] image) => (float[1,5,4] y, float[1,5,4] z, float[1,8,4,4] c)
<float[10,6] table, float[6,4] wy, float[6,4] wz, float[8,3,3,3] wc>
{
  e = Gather(table, ids)
  y = MatMul(e, wy)
  z = MatMul(e, wz)
  c = Conv(image, wc)
}
"""


@pytest.fixture
def module() -> Any:
    model = parser.parse_model(MODEL)
    rng = np.random.default_rng(0)
    from onnx import numpy_helper

    for value in list(model.graph.value_info):
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        array = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, value.name))
    del model.graph.value_info[:]
    return import_onnx(model).module


def inputs() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "ids": torch.randint(0, 10, (1, 5), generator=generator),
        "image": torch.randn(1, 3, 6, 6, generator=generator),
    }


def test_every_kind_is_found_with_output_channels_first(module: Any) -> None:
    found = {layer.name: (layer.kind, layer.shape) for layer in find_layers(module)}
    assert found == {
        "e": ("embedding", (10, 6)),
        "y": ("linear", (4, 6)),
        "z": ("linear", (4, 6)),
        "c": ("convolution", (8, 3, 3, 3)),
    }
    assert all(layer.weight.shape == layer.shape for layer in find_layers(module))


def test_replacing_by_the_same_changes_nothing(module: Any) -> None:
    same = replace_layers(module, lambda layer: Replacement(layer.weight))
    before, after = Evaluator(module)(inputs()), Evaluator(same)(inputs())
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=0)


def test_compressed_layers_compute_with_decoded_weights_and_are_found_again(module: Any) -> None:
    def shrink(layer: Any) -> Replacement:
        tensor = compress(layer.weight, parse_format("int4"), granularity=PerChannel(0))
        return Replacement(tensor)

    small = replace_layers(module, shrink)
    layers = find_layers(small)
    assert [layer.name for layer in layers] == ["e", "y", "z", "c"]
    assert all(layer.tensor is not None for layer in layers)
    decoded = {layer.name: layer.weight for layer in layers}
    again = replace_layers(module, lambda layer: Replacement(decoded[layer.name]))
    small_values, float_values = Evaluator(small)(inputs()), Evaluator(again)(inputs())
    for name, value in float_values.items():
        torch.testing.assert_close(small_values[name], value, rtol=0, atol=1e-6)


def test_layers_that_read_the_same_share_their_quantized_input(module: Any) -> None:
    def eight(x: Any) -> Any:
        return fake_quantize_call(x, parse_format("int8"))

    def quantize(layer: Any) -> Replacement | None:
        return Replacement(layer.weight, eight) if layer.kind == "linear" else None

    text = replace_layers(module, quantize).script(show_meta=False)
    assert text.count("fewbits.fake_quantize") == 1


def test_selection_by_name_wildcard_expression_operator_and_kind(module: Any) -> None:
    layers = find_layers(module)

    def names(targets: list[str], ignore: list[str]) -> list[str]:
        return [layer.name for layer in select_layers(layers, targets, ignore)]

    assert names([], []) == ["e", "y", "z", "c"]
    assert names(["linear"], ["z"]) == ["y"]
    assert names(["re:[yc]"], []) == ["y", "c"]
    assert names(["matmul", "take"], []) == ["e", "y", "z"]
    with pytest.raises(FewbitsError, match="matches no layer"):
        names(["yy"], [])
