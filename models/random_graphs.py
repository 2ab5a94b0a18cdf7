"""Random small ONNX graphs: everything a fuzzer of the whole compiler needs, from one seed.

Shapes are odd, graphs branch and join again, weights are shared, names are hostile. All operators
are smooth enough that eight bits tell something (no division by computed values, no logarithms).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
HOSTILE = (
    "x", "a\"b", "it's", "line\nbreak", "*/", "/* c", "int", "return", "größe", "模型", "a.b/c:d",
    "%s%n", "\\n", "0", "_", "a b", "??/", "#define x", "💥", "main", "arena", "fb_layer_0",
)  # fmt: skip
MOST_ELEMENTS = 1500


class GraphBuilder:
    """Grows a graph node by node; every value has a static shape with batch 1."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.inputs: dict[str, tuple[int, ...]] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.used: set[str] = set()
        self.count = 0

    # -- small choices ----------------------------------------------------------------------

    def integer(self, low: int, high: int) -> int:
        """Between both, inclusive."""
        return int(self.random.integers(low, high + 1))

    def pick(self, options: Sequence[Any]) -> Any:
        """One of them."""
        return options[self.integer(0, len(options) - 1)]

    def chance(self, share: float = 0.5) -> bool:
        """True in that share of cases."""
        return bool(self.random.random() < share)

    def name(self) -> str:
        """A new name, often one that C or a shell would choke on."""
        self.count += 1
        stem = self.pick(HOSTILE) if self.chance(0.6) else "value"
        return f"{stem}{self.count}"

    def weight(self, shape: tuple[int, ...], gain: float | None = None) -> str:
        """An initializer; an existing one of that shape now and then."""
        same = [key for key, array in self.weights.items() if array.shape == shape]
        if same and gain is None and self.chance(0.3):
            return self.pick(same)
        gain = 1.0 / np.sqrt(max(np.prod(shape[1:]), 1)) if gain is None else gain
        array = (self.random.standard_normal(shape) * gain).astype(np.float32)
        if array.ndim > 1 and self.chance(0.15):
            array[0] = 0.0  # a dead channel
        if array.ndim > 1 and self.chance(0.15):
            array[-1] *= np.float32(1e-6)  # a faint one
        return self.initializer(array)

    def initializer(self, array: np.ndarray) -> str:
        """Any constant."""
        name = self.name()
        self.weights[name] = array
        return name

    def values(self, *ranks: int) -> list[str]:
        """Values of these ranks, the later ones likelier."""
        found = [name for name, shape in self.shapes.items() if len(shape) in ranks]
        return found + found[-2:] * 2

    def node(self, operator: str, inputs: list[str], shape: tuple[int, ...], **attrs: Any) -> str:
        """Append a node with one output."""
        output = self.name()
        label = "" if self.chance(0.2) else self.name()
        self.nodes.append(helper.make_node(operator, inputs, [output], name=label, **attrs))
        self.shapes[output] = shape
        self.used.update(inputs)
        return output

    # -- operators --------------------------------------------------------------------------

    def convolution(self) -> None:
        """1-D or 2-D, any groups, strides, dilations and paddings."""
        x = self.pick(self.values(3, 4))
        channels, size = self.shapes[x][1], self.shapes[x][2:]
        groups = self.pick([g for g in (1, 1, 2, 3, channels) if channels % g == 0])
        outputs = groups * self.integer(1, 3 if groups > 1 else 9)
        kernel = [self.integer(1, min(4, s)) for s in size]
        strides = [self.integer(1, 3) for _ in size]
        dilations = [self.integer(1, 2) if self.chance(0.2) else 1 for _ in size]
        reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
        attrs: dict[str, object] = {"strides": strides, "dilations": dilations, "group": groups}
        if self.chance(0.2) and dilations == [1] * len(size):
            attrs["auto_pad"] = self.pick(["SAME_UPPER", "SAME_LOWER"])
            out = [-(-s // t) for s, t in zip(size, strides, strict=True)]
        else:
            before = [self.integer(0, r - 1) for r in reach]
            after = [self.integer(0, r - 1) for r in reach]
            attrs["pads"] = before + after
            padded = [s + b + a for s, b, a in zip(size, before, after, strict=True)]
            if any(p < r for p, r in zip(padded, reach, strict=True)):
                return
            out = [(p - r) // t + 1 for p, r, t in zip(padded, reach, strides, strict=True)]
        inputs = [x, self.weight((outputs, channels // groups, *kernel))]
        if self.chance(0.7):
            inputs.append(self.weight((outputs,), 0.3))
        y = self.node("Conv", inputs, (1, outputs, *out), **attrs)
        if self.chance(0.4):
            self.activation(y)

    def pooling(self) -> None:
        """Max and average, with padding and ceil mode."""
        x = self.pick(self.values(4))
        _, channels, *size = self.shapes[x]
        kernel = [self.integer(1, min(3, s)) for s in size]
        strides = [self.integer(1, 2) for _ in size]
        before = [self.integer(0, k // 2) for k in kernel]
        after = [self.integer(0, b) for b in before]
        ceil = self.chance(0.3)
        out = []
        for s, k, t, b, a in zip(size, kernel, strides, before, after, strict=True):
            room = s + b + a - k
            steps = -(-room // t) if ceil else room // t
            if ceil and steps * t >= s + b:
                steps -= 1
            out.append(steps + 1)
        attrs = dict(kernel_shape=kernel, strides=strides, pads=before + after, ceil_mode=int(ceil))
        if self.chance():
            self.node("MaxPool", [x], (1, channels, *out), **attrs)
        else:
            attrs["count_include_pad"] = self.integer(0, 1)
            self.node("AveragePool", [x], (1, channels, *out), **attrs)

    def global_pooling(self) -> None:
        """GlobalAveragePool or GlobalMaxPool."""
        x = self.pick(self.values(4))
        operator = self.pick(["GlobalAveragePool", "GlobalAveragePool", "GlobalMaxPool"])
        self.node(operator, [x], (*self.shapes[x][:2], 1, 1))

    def mean(self) -> None:
        """ReduceMean over neighbouring axes."""
        x = self.pick(self.values(2, 3, 4))
        shape = self.shapes[x]
        first = self.integer(1, len(shape) - 1)
        axes = list(range(first, self.integer(first, len(shape) - 1) + 1))
        keep = self.chance()
        out = tuple(1 if i in axes else d for i, d in enumerate(shape) if keep or i not in axes)
        if len(out) < 2:
            return
        self.node("ReduceMean", [x], out, axes=axes, keepdims=int(keep))

    def normalization(self) -> None:
        """BatchNormalization or LayerNormalization."""
        x = self.pick(self.values(2, 3, 4))
        shape = self.shapes[x]
        if self.chance() and len(shape) > 2:
            channels = shape[1]
            inputs = [x, self.weight((channels,), 1.0), self.weight((channels,), 0.5)]
            inputs.append(self.weight((channels,), 0.5))
            spread = np.abs(self.random.standard_normal(channels)).astype(np.float32) + 0.5
            self.node("BatchNormalization", [*inputs, self.initializer(spread)], shape)
        elif shape[-1] > 2:
            inputs = [x, self.weight((shape[-1],), 1.0), self.weight((shape[-1],), 0.5)]
            self.node("LayerNormalization", inputs, shape, axis=-1, epsilon=0.5)

    def activation(self, x: str | None = None) -> None:
        """A function of one element."""
        x = x or self.pick(self.values(2, 3, 4))
        shape = self.shapes[x]
        operator = self.pick(
            ["Relu", "Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish",
             "Elu", "Abs", "Neg", "PRelu", "Gelu", "Silu", "Softplus", "Erf"]
        )  # fmt: skip
        if operator == "Clip":
            low, high = sorted(float(v) for v in self.random.normal(size=2) * 2)
            bounds = [self.initializer(np.array(v, np.float32)) for v in (low, high)]
            self.node("Clip", [x, *bounds], shape)
        elif operator == "PRelu":
            slope = (shape[1], *[1] * (len(shape) - 2)) if len(shape) > 2 else (shape[-1],)
            self.node("PRelu", [x, self.weight(slope, 0.3)], shape)
        elif operator == "Silu":
            self.node("Mul", [x, self.node("Sigmoid", [x], shape)], shape)
        elif operator == "Gelu":
            scaled = self.node("Div", [x, self.initializer(np.float32(np.sqrt(2)))], shape)
            erf = self.node("Erf", [scaled], shape)
            one = self.node("Add", [erf, self.initializer(np.float32(1))], shape)
            product = self.node("Mul", [x, one], shape)
            self.node("Mul", [product, self.initializer(np.float32(0.5))], shape)
        else:
            self.node(operator, [x], shape)

    def softmax(self) -> None:
        """Along any axis."""
        x = self.pick(self.values(2, 3, 4))
        shape = self.shapes[x]
        self.node("Softmax", [x], shape, axis=self.integer(1, len(shape) - 1))

    def arithmetic(self) -> None:
        """Two values, or a value and a constant that broadcasts."""
        x = self.pick(self.values(2, 3, 4))
        shape = self.shapes[x]
        operator = self.pick(["Add", "Add", "Sub", "Mul", "Max", "Min"])
        partners = [name for name, other in self.shapes.items() if _broadcasts(other, shape)]
        if self.chance(0.7) and partners:
            other = self.pick(partners)
        else:
            keep = self.pick(["scalar", "channel", "last", "all"])
            small = {
                "scalar": (),
                "channel": (shape[1], *[1] * (len(shape) - 2)),
                "last": shape[-1:],
                "all": shape,
            }[keep]
            other = self.weight(small, 0.7)
        pair = [x, other] if self.chance(0.7) else [other, x]
        self.node(operator, pair, shape)

    def gemm(self) -> None:
        """Gemm on a matrix, MatMul with constant weights on anything."""
        x = self.pick(self.values(2, 3))
        shape = self.shapes[x]
        units = self.integer(1, 12)
        if len(shape) == 2 and self.chance():
            if self.chance():
                inputs, attrs = [x, self.weight((units, shape[1]))], {"transB": 1}
            else:
                inputs, attrs = [x, self.weight((shape[1], units), 0.3)], {}
            if self.chance():
                inputs.append(self.weight((units,), 0.3))
            self.node("Gemm", inputs, (shape[0], units), **attrs)
        else:
            y = self.node("MatMul", [x, self.weight((shape[-1], units), 0.3)], (*shape[:-1], units))
            if self.chance():
                self.node("Add", [y, self.weight((units,), 0.3)], (*shape[:-1], units))

    def product(self) -> None:
        """A matrix product of two run-time values: a value with its own transpose."""
        x = self.pick(self.values(3, 4))
        shape = self.shapes[x]
        axes = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
        flipped = (*shape[:-2], shape[-1], shape[-2])
        if shape[-2] ** 2 > MOST_ELEMENTS:
            return
        turned = self.node("Transpose", [x], flipped, perm=axes)
        self.node("MatMul", [x, turned], (*shape[:-2], shape[-2], shape[-2]))

    def transpose(self) -> None:
        """Any permutation that leaves the batch in front."""
        x = self.pick(self.values(3, 4))
        shape = self.shapes[x]
        axes = [0, *(1 + self.random.permutation(len(shape) - 1)).tolist()]
        self.node("Transpose", [x], tuple(shape[a] for a in axes), perm=axes)

    def reshape(self) -> None:
        """Flatten, or three axes out of a matrix, or an axis more or less."""
        x = self.pick(self.values(2, 3, 4))
        shape = self.shapes[x]
        if len(shape) > 2 and self.chance(0.6):
            self.node("Flatten", [x], (1, int(np.prod(shape))))
            return
        count = int(np.prod(shape))
        divisors = [d for d in range(1, count + 1) if count % d == 0 and d < 20]
        rows = self.pick(divisors)
        new = (1, rows, count // rows)
        if self.chance() and len(divisors) > 1:
            more = self.pick([d for d in divisors if (count // rows) % d == 0])
            new = (1, rows, more, count // rows // more)
        self.node("Reshape", [x, self.initializer(np.array(new, np.int64))], new)

    def concat(self) -> None:
        """Two or three values along any axis but the first."""
        x = self.pick(self.values(2, 3, 4))
        shape = self.shapes[x]
        axis = self.integer(1, len(shape) - 1)
        fits = [
            name
            for name, other in self.shapes.items()
            if len(other) == len(shape)
            and all(a == b for i, (a, b) in enumerate(zip(other, shape, strict=True)) if i != axis)
        ]
        parts = [x, *(self.pick(fits) for _ in range(self.integer(1, 2)))]
        total = sum(self.shapes[p][axis] for p in parts)
        if self.chance(0.15):
            extra = tuple(2 if i == axis else d for i, d in enumerate(shape))
            parts.append(self.weight(extra, 3.0))
            total += 2
        out = tuple(total if i == axis else d for i, d in enumerate(shape))
        self.node("Concat", parts, out, axis=axis)

    def split(self) -> None:
        """Into two uneven pieces."""
        x = self.pick(self.values(2, 3, 4))
        shape = self.shapes[x]
        axis = self.integer(1, len(shape) - 1)
        if shape[axis] < 2:
            return
        first = self.integer(1, shape[axis] - 1)
        sizes = [first, shape[axis] - first]
        outputs = [self.name(), self.name()]
        lengths = self.initializer(np.array(sizes, np.int64))
        self.nodes.append(
            helper.make_node("Split", [x, lengths], outputs, name=self.name(), axis=axis)
        )
        for output, size in zip(outputs, sizes, strict=True):
            self.shapes[output] = tuple(size if i == axis else d for i, d in enumerate(shape))
        self.used.add(x)

    def slice(self) -> None:
        """With a step, now and then backwards."""
        x = self.pick(self.values(2, 3, 4))
        shape = self.shapes[x]
        axis = self.integer(1, len(shape) - 1)
        start, step = self.integer(0, shape[axis] - 1), self.integer(1, 2)
        end = self.integer(start + 1, shape[axis])
        size = -(-(end - start) // step)
        if self.chance(0.2):
            start, end, step, size = shape[axis] - 1, -1000, -1, shape[axis]
        lists = [self.initializer(np.array([v], np.int64)) for v in (start, end, axis, step)]
        out = tuple(size if i == axis else d for i, d in enumerate(shape))
        self.node("Slice", [x, *lists], out)

    def gather(self) -> None:
        """Chosen rows, some of them twice."""
        x = self.pick(self.values(2, 3, 4))
        shape = self.shapes[x]
        axis = self.integer(1, len(shape) - 1)
        chosen = self.random.integers(0, shape[axis], self.integer(1, 4))
        out = tuple(len(chosen) if i == axis else d for i, d in enumerate(shape))
        self.node("Gather", [x, self.initializer(chosen.astype(np.int64))], out, axis=axis)

    def pad(self) -> None:
        """With zeros, another number, or the edge."""
        x = self.pick(self.values(2, 3, 4))
        shape = self.shapes[x]
        before = [0, *(self.integer(0, 2) for _ in shape[1:])]
        after = [0, *(self.integer(0, 2) for _ in shape[1:])]
        out = tuple(b + d + a for b, d, a in zip(before, shape, after, strict=True))
        inputs = [x, self.initializer(np.array(before + after, np.int64))]
        mode = self.pick(["constant", "constant", "edge"])
        if mode == "constant" and self.chance():
            inputs.append(self.initializer(np.array(self.pick([0.0, 0.5, -2.0]), np.float32)))
        self.node("Pad", inputs, out, mode=mode)

    def resize(self) -> None:
        """Nearest, by whole factors."""
        x = self.pick(self.values(4))
        shape = self.shapes[x]
        factors = (self.integer(1, 2), self.integer(1, 3))
        out = (*shape[:2], shape[2] * factors[0], shape[3] * factors[1])
        scales = self.initializer(np.array([1, 1, *factors], np.float32))
        self.node(
            "Resize", [x, "", scales], out, mode="nearest",
            coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        )  # fmt: skip

    def residual(self) -> None:
        """x + f(x) with a convolution that keeps the size."""
        x = self.pick(self.values(4))
        channels = self.shapes[x][1]
        weight = self.weight((channels, channels, 3, 3))
        y = self.node("Conv", [x, weight], self.shapes[x], pads=[1, 1, 1, 1])
        y = self.node("Add", [x, y], self.shapes[x])
        if self.chance():
            self.node("Relu", [y], self.shapes[x])

    def squeeze(self) -> None:
        """An axis of size 1 goes, or comes."""
        x = self.pick(self.values(2, 3))
        shape = self.shapes[x]
        axis = self.integer(1, len(shape))
        axes = self.initializer(np.array([axis], np.int64))
        self.node("Unsqueeze", [x, axes], (*shape[:axis], 1, *shape[axis:]))

    # -- the whole --------------------------------------------------------------------------

    def build(self) -> onnx.ModelProto:
        """Two to eight steps from one to three inputs."""
        for _ in range(self.pick([1, 1, 1, 2, 3])):
            rank = self.pick([2, 3, 4, 4])
            shape = (1, *(self.integer(1, 7 if rank == 4 else 11) for _ in range(rank - 1)))
            name = self.name()
            self.inputs[name] = self.shapes[name] = shape
        steps: list[Callable[[], None]] = [
            self.convolution, self.convolution, self.convolution, self.pooling,
            self.global_pooling, self.mean, self.normalization, self.activation, self.activation,
            self.softmax, self.arithmetic, self.arithmetic, self.gemm, self.gemm, self.product,
            self.transpose, self.reshape, self.concat, self.split, self.slice, self.gather,
            self.pad, self.resize, self.residual, self.squeeze,
        ]  # fmt: skip
        needs = {
            "convolution": (3, 4), "pooling": (4,), "global_pooling": (4,), "gemm": (2, 3),
            "product": (3, 4), "transpose": (3, 4), "resize": (4,), "residual": (4,),
            "squeeze": (2, 3),
        }  # fmt: skip
        wanted, tries = self.integer(2, 8), 0
        while len(self.nodes) < wanted and tries < 50:
            tries += 1
            step = self.pick(steps)
            if not self.values(*needs.get(step.__name__, (2, 3, 4))):
                continue
            kept = (len(self.nodes), dict(self.shapes), set(self.used))
            step()
            if any(np.prod(shape) > MOST_ELEMENTS for shape in self.shapes.values()):
                del self.nodes[kept[0] :]
                self.shapes, self.used = kept[1], kept[2]
        return self._model()

    def _model(self) -> onnx.ModelProto:
        outputs = [n for n in self.shapes if n not in self.used and n not in self.inputs]
        if self.chance(0.2):  # an inner value as well
            inner = [n for n in self.shapes if n in self.used and n not in self.inputs]
            outputs += [self.pick(inner)] if inner else []
        needed = {name for node in self.nodes for name in node.input}
        graph = helper.make_graph(
            self.nodes,
            self.pick(HOSTILE),
            [_info(name, shape) for name, shape in self.inputs.items()],
            [_info(name, self.shapes[name]) for name in outputs],
            [numpy_helper.from_array(a, n) for n, a in self.weights.items() if n in needed],
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9
        )


def _info(name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _broadcasts(small: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    if len(small) > len(shape):
        return False
    padded = (1,) * (len(shape) - len(small)) + small
    return all(a in (1, b) for a, b in zip(padded, shape, strict=True))


def random_model(seed: int) -> onnx.ModelProto:
    """The model of a seed; always valid ONNX with at least one node and one output."""
    for attempt in range(100):
        model = GraphBuilder(seed * 1000 + attempt).build()
        if not model.graph.node or not model.graph.output:
            continue
        try:
            onnx.checker.check_model(model, full_check=True)
        except onnx.shape_inference.InferenceError:
            continue  # onnx and onnxruntime disagree about a last, partial pooling window
        return model
    raise AssertionError("no model in a hundred attempts")


def random_samples(model: onnx.ModelProto, count: int, seed: int) -> dict[str, np.ndarray]:
    """Standard normal samples for every input, first axis = samples."""
    generator = np.random.default_rng(seed)
    samples = {}
    for info in model.graph.input:
        shape = [d.dim_value for d in info.type.tensor_type.shape.dim][1:]
        samples[info.name] = generator.standard_normal((count, *shape)).astype(np.float32)
    return samples
