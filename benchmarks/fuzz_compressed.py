"""Random layers in random few-bit forms through the whole road to a library for this CPU.

Formats, granularities, sparsities, scales, activations and shapes are drawn at random: odd and tiny
sizes, groups that do not divide, one row and many, a batch that is known or symbolic. Each must
agree with the oracle or be refused with a `FewbitsError`.

    python -m benchmarks.fuzz_compressed --count 200
    python -m benchmarks.fuzz_compressed --seed 17           (one, in detail)
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import time
import traceback
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx
from fewbits.compiler import driver
from fewbits.compiler.driver import Compilation
from fewbits.compiler.options import Options
from fewbits.compiler.recipe import Recipe
from fewbits.errors import FewbitsError
from fewbits.targets.cpu.product import CpuProduct
from fewbits.targets.vm.layers import layer_rows
from onnx import TensorProto, helper, numpy_helper

from . import isolated
from .fuzz_cpu import against_oracle
from .fuzz_graphs import Finding

FORMATS = (
    "int2", "int3", "int4", "int4-narrow", "int5", "int6", "int7", "int8", "int8-narrow",
    "fp8_e4m3fn", "fp8_e5m2", "fp8_e3m4", "fp6_e3m2", "fp6_e2m3", "fp4_e2m1", "nf4", "af4",
    "quantile3", "dynamic4", "dynamic8", "flint4", "pot4", "log8x16", "bcq2", "bcq3", "ant4",
)  # fmt: skip
SIZES = (1, 2, 3, 5, 7, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 100, 127, 128, 129, 200, 257)
ROWS = (1, 1, 2, 3, 7, 16, 33)


@dataclasses.dataclass(frozen=True)
class Draw:
    """One layer and what becomes of it."""

    model: onnx.ModelProto
    passes: tuple[Any, ...]
    data: dict[str, np.ndarray]
    text: str


class _Random:
    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def pick(self, options: Sequence[Any]) -> Any:
        return options[int(self._random.integers(len(options)))]

    def normal(self, *shape: int) -> np.ndarray:
        return self._random.standard_normal(shape).astype(np.float32)


def draw(seed: int, rows: Sequence[int] = ROWS) -> Draw:
    """The layer, recipe and inputs of a seed; `rows` are how many a product may have."""
    random = _Random(seed)
    kind = random.pick(["dense", "dense", "dense", "dense", "gemm", "conv", "conv1d", "embedding"])
    model, data, sizes = _layer(random, kind, rows)
    passes, words = _passes(random, kind)
    return Draw(model, ("canonicalize", *passes), data, f"{kind} {sizes} {words}")


def _layer(
    random: _Random, kind: str, numbers: Sequence[int]
) -> tuple[onnx.ModelProto, dict[str, np.ndarray], str]:
    k, n, rows = random.pick(SIZES), random.pick(SIZES), random.pick(numbers)
    batch = random.pick(["N", 1])
    samples = 3
    constants: dict[str, np.ndarray] = {}
    dtype = TensorProto.FLOAT
    if kind == "embedding":
        constants["w"] = random.normal(n, k)
        shape: list[Any] = [batch, rows]
        nodes = [helper.make_node("Gather", ["w", "x"], ["y"], "embed")]
        data = np.abs(random.normal(samples, rows) * 100).astype(np.int64) % n
        dtype = TensorProto.INT64
    elif kind in ("conv", "conv1d"):
        group = random.pick([1, 1, 2, 3])
        k, n = group * random.pick([1, 2, 5, 8, 16]), group * random.pick([1, 3, 8, 17])
        axes = 2 if kind == "conv" else 1
        kernel = [random.pick([1, 1, 3]) for _ in range(axes)]
        constants["w"] = random.normal(n, k // group, *kernel)
        spatial = [random.pick([3, 5, 8]) for _ in range(axes)]
        shape = [batch, k, *spatial]
        nodes = [helper.make_node("Conv", ["x", "w"], ["y"], "conv", group=group)]
        data = random.normal(samples, *shape[1:])
    else:
        constants["w"] = random.normal(k, n)
        middle = [rows] if kind == "dense" and random.pick([True, False]) else []
        shape = [batch, *middle, k]
        nodes = [helper.make_node("MatMul", ["x", "w"], ["h"], "dense")]
        if kind == "gemm":
            constants["b"] = random.normal(n)
            nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["h"], "dense")]
        nodes.append(helper.make_node(random.pick(["Relu", "Tanh", "Identity"]), ["h"], ["y"]))
        data = random.normal(samples, *middle, k)
    graph = helper.make_graph(
        nodes, "layer",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model, {"x": data}, f"{shape} weight {list(constants['w'].shape)}"


def _passes(random: _Random, kind: str) -> tuple[list[Any], str]:
    if kind in ("dense", "gemm") and random.pick([True] + 6 * [False]):
        options = {
            "mode": random.pick(["static", "dynamic"]),
            "threshold": random.pick([0.0, 1.0, 2.0, 3.0]),
            "capacity": random.pick([1, 4, 64]),
        }
        return [{"split_outliers": options}], f"split_outliers {options}"
    if random.pick([True] + 6 * [False]):
        options = {
            "sparsity": random.pick([0.3, 0.5, 0.9, "2:4", "1:4", "4:8"]),
            "storage": random.pick(["float16", "float32", "bfloat16"]),
        }
        return [{"prune": options}], f"prune {options}"
    strategy = random.pick(["tensor", "channel", "group", "group", "group", "block"])
    weights = {
        "format": random.pick(FORMATS),
        "strategy": strategy,
        "scale_storage": random.pick(["float32", "float16", "bfloat16"]),
    }
    if str(weights["format"]).startswith("int"):
        weights["symmetric"] = random.pick([True, False])
    if random.pick([True, False, False]):
        weights["sparsity"] = random.pick([0.5, "2:4"])
        weights["solver"] = random.pick(["magnitude", "wanda", "sparsegpt"])
    if strategy in ("group", "block"):
        weights["group_size"] = random.pick([8, 16, 32, 64, 100, 128])
    passes: list[Any] = [{"quantize_weights": weights}]
    if random.pick([True, False, False]):
        activations = {
            "format": random.pick(["int8-narrow", "int8", "fp8_e4m3fn", "int4"]),
            "strategy": random.pick(["token", "tensor"]),
        }
        passes.append({"quantize_activations": activations})
    return passes, str(passes)


def run(seed: int) -> Finding:
    """What comes of a seed."""
    made = draw(seed)
    options = Options(target="cpu", recipe=Recipe(name="fuzz", passes=made.passes), to="lower")
    finding = partial(Finding, seed)
    try:
        state = driver.compile(made.model.SerializeToString(), None, options, made.data)
        assert isinstance(state, Compilation) and isinstance(state.product, CpuProduct)
        rows = layer_rows(state.product.module, state.product.chosen)
        kernel = ", ".join(str(row["kernel"]) for row in rows)
        return finding(f"{made.text} -> {kernel}", *against_oracle(state, made.data))
    except FewbitsError as error:
        return finding(made.text, "refused", f"{error.code}: {error.message}")
    except Exception:
        return finding(made.text, "exception", traceback.format_exc())


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, help="only this layer")
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + arguments.count)
    if arguments.seed is not None:
        seeds = range(arguments.seed, arguments.seed + 1)
    started = time.monotonic()
    counts: collections.Counter[str] = collections.Counter()

    def crashed(seed: int, reason: str) -> Finding:
        return Finding(seed, draw(seed).text, "crash", reason)

    kernels: collections.Counter[str] = collections.Counter()
    for found in isolated.each(run, seeds, crashed):
        label = found.kind
        if found.kind == "refused":
            label += " " + found.detail.partition(":")[0]
        counts[label] += 1
        kernels.update(found.recipe.partition(" -> ")[2].split(", "))
        if found.kind != "ok" or arguments.seed is not None:
            print(f"seed {found.seed}: {found.kind}: {found.recipe}: {found.detail}", flush=True)
    print(f"{sum(counts.values())} compilations in {time.monotonic() - started:.0f} s")
    for label, number in [*counts.most_common(), *kernels.most_common()]:
        print(f"{number:6} {label}")


if __name__ == "__main__":
    main()
