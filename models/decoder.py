"""A small decoder-only transformer, and the same as ONNX.

The graph is written node by node, not traced: layers keep readable names, batch and sequence length
stay symbolic, and nothing but plain operators of opset 20 is in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

OPSET = 20
INPUT_NAME, OUTPUT_NAME = "tokens", "logits"
_MASKED = -1e9


@dataclass(frozen=True)
class Size:
    """One member of the family.

    Attributes:
        name: also the name of its file.
        width: of the residual stream; the MLP is four times as wide.
        depth: blocks.
        heads: divide the width.
    """

    name: str
    width: int
    depth: int
    heads: int

    @property
    def body(self) -> int:
        """Weights of the blocks' matrices: what a sweep compresses."""
        return 12 * self.width**2 * self.depth


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads = size.heads
        for name in ("query", "key", "value", "out"):
            setattr(self, name, nn.Linear(size.width, size.width, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, T, width] to the same."""
        n, t, width = x.shape
        query, key, value = (
            layer(x).view(n, t, self.heads, -1).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(n, t, width))


class Block(nn.Module):
    """Pre-norm attention and GELU MLP."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.norm_attention, self.norm_mlp = nn.LayerNorm(size.width), nn.LayerNorm(size.width)
        self.attention = Attention(size)
        self.up = nn.Linear(size.width, 4 * size.width, bias=False)
        self.down = nn.Linear(4 * size.width, size.width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, T, width] to the same."""
        x = x + self.attention(self.norm_attention(x))
        return x + self.down(nn.functional.gelu(self.up(self.norm_mlp(x))))


class Decoder(nn.Module):
    """Tokens [N, T] to the logits [N, T, vocabulary] of the next ones, T up to `context`."""

    def __init__(self, size: Size, vocabulary: int, context: int) -> None:
        super().__init__()
        self.size, self.context = size, context
        self.embedding = nn.Embedding(vocabulary, size.width)
        self.positions = nn.Parameter(torch.zeros(context, size.width))
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.width)
        self.head = nn.Linear(size.width, vocabulary, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                # What adds to the residual stream starts smaller the more of it there is (GPT-2).
                residual = name.endswith(("attention.out.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / (2 * size.depth) ** 0.5 if residual else 0.02)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits [N, T, vocabulary]."""
        x = self.embedding(tokens) + self.positions[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def to_onnx(network: Decoder) -> onnx.ModelProto:
    """The network with inputs `tokens` [N, T] int64 and outputs `logits` [N, T, vocabulary]."""
    return _Writer(network).model()


class _Writer:
    """Nodes and initializers as they grow."""

    def __init__(self, network: Decoder) -> None:
        self.network = network
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}

    def constant(self, name: str, value: np.ndarray | torch.Tensor) -> str:
        array = value.detach().numpy() if isinstance(value, torch.Tensor) else value
        self.constants.setdefault(name, np.ascontiguousarray(array))
        return name

    def add(self, operator: str, name: str, *inputs: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name, **attributes))
        return name

    def linear(self, name: str, x: str, layer: nn.Module) -> str:
        weight = layer.weight.T  # type: ignore[union-attr]
        return self.add("MatMul", name, x, self.constant(f"{name}.weight", weight))

    def norm(self, name: str, x: str, layer: nn.Module) -> str:
        weight = self.constant(f"{name}.weight", layer.weight)  # type: ignore[arg-type]
        bias = self.constant(f"{name}.bias", layer.bias)  # type: ignore[arg-type]
        return self.add("LayerNormalization", name, x, weight, bias, axis=-1, epsilon=layer.eps)

    def start(self) -> tuple[str, str]:
        """Embedded tokens, and which of them each may see, bool [T, T]."""
        network, zero = self.network, self.constant("zero", np.array([0]))
        length = self.add("Shape", "length", INPUT_NAME, start=1, end=2)
        table = self.constant("positions.weight", network.positions)
        positions = self.add("Slice", "positions", table, zero, length, zero)
        words = self.constant("embedding.weight", network.embedding.weight)
        words = self.add("Gather", "embedding", words, INPUT_NAME)
        past = np.tril(np.ones((network.context, network.context), bool))
        zeros, axes = self.constant("zeros", np.array([0, 0])), np.array([0, 1])
        lengths = self.add("Concat", "lengths", length, length, axis=0)
        mask = self.constant("mask.table", past)
        mask = self.add("Slice", "mask", mask, zeros, lengths, self.constant("axes", axes))
        return self.add("Add", "embedded", words, positions), mask

    def attention(self, name: str, x: str, mask: str, layer: Attention) -> str:
        width = self.network.size.width
        split = self.constant("split", np.array([0, 0, layer.heads, width // layer.heads]))
        heads = {}
        for part, order in (
            ("query", [0, 2, 1, 3]),
            ("key", [0, 2, 3, 1]),
            ("value", [0, 2, 1, 3]),
        ):
            flat = self.linear(f"{name}.{part}", x, getattr(layer, part))
            apart = self.add("Reshape", f"{flat}.split", flat, split)
            heads[part] = self.add("Transpose", f"{flat}.heads", apart, perm=order)
        scale = np.array((width // layer.heads) ** -0.5, np.float32)
        scores = self.add("MatMul", f"{name}.scores", heads["query"], heads["key"])
        scores = self.add("Mul", f"{name}.scaled", scores, self.constant("scale", scale))
        masked = self.constant("masked", np.array(_MASKED, np.float32))
        scores = self.add("Where", f"{name}.masked", mask, scores, masked)
        weights = self.add("Softmax", f"{name}.softmax", scores, axis=-1)
        mixed = self.add("MatMul", f"{name}.mixed", weights, heads["value"])
        mixed = self.add("Transpose", f"{name}.together", mixed, perm=[0, 2, 1, 3])
        joined = self.constant("joined", np.array([0, 0, width]))
        return self.linear(
            f"{name}.out", self.add("Reshape", f"{name}.joined", mixed, joined), layer.out
        )

    def model(self) -> onnx.ModelProto:
        x, mask = self.start()
        for index, block in enumerate(self.network.blocks):
            assert isinstance(block, Block)
            name = f"block{index}"
            inner = self.norm(f"{name}.norm_attention", x, block.norm_attention)
            inner = self.attention(f"{name}.attention", inner, mask, block.attention)
            x = self.add("Add", f"{name}.attended", x, inner)
            inner = self.norm(f"{name}.norm_mlp", x, block.norm_mlp)
            inner = self.linear(f"{name}.up", inner, block.up)
            inner = self.add("Gelu", f"{name}.gelu", inner)
            inner = self.linear(f"{name}.down", inner, block.down)
            x = self.add("Add", f"{name}.result", x, inner)
        logits = self.linear("head", self.norm("norm", x, self.network.norm), self.network.head)
        self.nodes[-1].output[0] = OUTPUT_NAME
        assert logits == self.nodes[-1].name
        vocabulary = self.network.head.out_features
        graph = helper.make_graph(
            self.nodes,
            self.network.size.name,
            [helper.make_tensor_value_info(INPUT_NAME, TensorProto.INT64, ["N", "T"])],
            [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["N", "T", vocabulary])],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        imports = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(
            graph, opset_imports=imports, ir_version=9, producer_name="fewbits"
        )
        onnx.checker.check_model(model, full_check=True)
        return model
