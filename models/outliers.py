"""Give a trained transformer outlier columns without changing what it computes (spec 2).

Small models lack what makes large ones hard to quantize: a few columns of the activations, the
same ones throughout, that are many times larger than all others. Here the gain of every
normalization is multiplied in a few columns, and the weights that read it are divided there, so
that every activation of the original can still be had, and int8 has the problem of large models.

    python models/outliers.py model.onnx hard.onnx --columns 6 --magnitude 20
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper


def inject_outliers(
    model: onnx.ModelProto, columns: int = 6, magnitude: float = 20.0, seed: int = 0
) -> tuple[onnx.ModelProto, int]:
    """A model that computes the same in exact arithmetic, with outlier columns.

    Args:
        model: float32, with normalizations (LayerNormalization, or a product with a constant
            gain) that MatMul or Gemm nodes with constant weights read. Other readers, as the
            residual of a post-norm block, get the original values back by a product.
        columns: how many columns; the same ones in all normalizations of one width.
        magnitude: what they are multiplied by.
        seed: chooses the columns.

    Returns:
        the new model, and how many normalizations were changed.

    Raises:
        ValueError: no normalization is read by a constant weight, or one is too narrow.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = _Graph(result.graph)
    changed = 0
    for node in list(result.graph.node):
        gains = graph.gains(node)
        readers = [reader for reader in graph.readers(node.output[0]) if graph.is_linear(reader)]
        readers = [reader for reader in readers if reader.input[0] == node.output[0]]
        if not gains or not readers:
            continue
        width = graph.constants[node.input[gains[0]]].size
        if width < columns:
            raise ValueError(f"{node.name} has only {width} columns")
        factors = np.ones(width, np.float32)
        chosen = np.random.default_rng([seed, width]).choice(width, columns, replace=False)
        factors[chosen] = magnitude
        for place in gains:
            graph.scale(node, place, factors)
        for reader in readers:
            transposed = any(a.name == "transB" and a.i for a in reader.attribute)
            graph.scale(reader, 1, 1 / factors[None, :] if transposed else 1 / factors[:, None])
        graph.restore(node, readers, 1 / factors)
        changed += 1
    if not changed:
        raise ValueError("no normalization is read by a product with constant weights")
    return result, changed


class _Graph:
    """A graph whose constants can be scaled for one node at a time."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}

    def gains(self, node: onnx.NodeProto) -> list[int]:
        """Places of the constants that a normalization's output is proportional to."""
        if node.op_type == "LayerNormalization":
            places = list(range(1, len(node.input)))
        elif node.op_type == "Mul":
            places = [p for p, name in enumerate(node.input) if self._is_vector(name)]
        else:
            return []
        return places if all(self._is_vector(node.input[place]) for place in places) else []

    def _is_vector(self, name: str) -> bool:
        array = self.constants.get(name)
        return array is not None and array.ndim == 1 and array.size > 1

    def is_linear(self, node: onnx.NodeProto) -> bool:
        """A product with a constant matrix on the right."""
        if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in self.constants:
            return False
        return self.constants[node.input[1]].ndim == 2

    def readers(self, name: str) -> Iterator[onnx.NodeProto]:
        """Nodes that read a value."""
        return (node for node in self.graph.node if name in node.input)

    def scale(self, node: onnx.NodeProto, place: int, factors: np.ndarray) -> None:
        """Multiply a constant for this node only."""
        node.input[place] = self._add(
            self.constants[node.input[place]] * factors, f"{node.input[place]}/{node.output[0]}"
        )

    def _add(self, array: np.ndarray, name: str) -> str:
        self.constants[name] = array.astype(np.float32)
        self.graph.initializer.append(numpy_helper.from_array(self.constants[name], name))
        return name

    def restore(
        self, node: onnx.NodeProto, apart: list[onnx.NodeProto], inverse: np.ndarray
    ) -> None:
        """All readers but those `apart`, and the graph's output, see the original values."""
        name = node.output[0]
        outputs = [output for output in self.graph.output if output.name == name]
        others = [reader for reader in self.readers(name) if reader not in apart]
        if not others and not outputs:
            return
        restored, raised = f"{name}/restored", f"{name}/raised"
        if outputs:  # an output keeps its name, so the new values get another one
            restored = name
            node.output[0] = raised
            for reader in apart:
                reader.input[0] = raised
        else:
            for reader in others:
                for place, used in enumerate(reader.input):
                    if used == name:
                        reader.input[place] = restored
        constant = self._add(inverse, f"{name}/inverse")
        product = helper.make_node("Mul", [node.output[0], constant], [restored], restored)
        position = list(self.graph.node).index(node)
        self.graph.node.insert(position + 1, product)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # pyright: ignore[reportOptionalMemberAccess]
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("--columns", type=int, default=6)
    parser.add_argument("--magnitude", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    model, changed = inject_outliers(
        onnx.load(arguments.model), arguments.columns, arguments.magnitude, arguments.seed
    )
    onnx.save(model, arguments.out)
    print(f"{changed} normalizations with {arguments.columns} outlier columns")


if __name__ == "__main__":
    main()
