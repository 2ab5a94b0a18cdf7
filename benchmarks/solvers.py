"""Losses and times of the solvers on the linear layers of real networks.

    python benchmarks/solvers.py [--task minilm] [--set int4] [--layers 6] [--threads 2]

The loss of a layer is its squared output error, averaged over calibration vectors, as a share of
its squared output. Inputs of the layers are those of the float model. A table of means (geometric)
over the layers, of how often a solver is the best, and of the processor seconds that all layers
took; with ``--each`` also a line per layer. Models and data are in ``../shared`` and not part of
this repository.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import torch
from fewbits.formats.granularity import PerChannel, PerGroup
from fewbits.formats.parse import parse_format
from fewbits.formats.sparsity import NofM
from fewbits.passes.solvers import Hessian, SolverOptions, solve
from fewbits.passes.solvers.solution import layer_loss
from onnx import numpy_helper

SHARED = Path(__file__).resolve().parents[2] / "shared"
Layer = tuple[str, torch.Tensor, Hessian]


def _quantizing(name: str, group: int | None) -> dict[str, SolverOptions]:
    number_format = parse_format(name)
    granularity = PerGroup(group) if group else PerChannel()

    def of(solver: str, **more: object) -> SolverOptions:
        return SolverOptions(solver, number_format, granularity, "float16", **more)  # type: ignore[arg-type]

    return {
        "rtn": of("rtn"),
        "mse": of("mse"),
        "gptq absmax": of("gptq", scale_method="absmax"),
        "gptq": of("gptq"),
        "gptq act": of("gptq", activation_order=True),
        "descent": of("descent"),
        "obq": of("obq"),
    }


def _pruning(sparsity: float | NofM, name: str | None = None) -> dict[str, SolverOptions]:
    number_format = parse_format(name) if name else None
    return {
        solver: SolverOptions(solver, number_format, sparsity=sparsity)  # type: ignore[arg-type]
        for solver in ("magnitude", "wanda", "sparsegpt", "obs")
    }


#: What is compared with what, by name.
SETS: dict[str, dict[str, SolverOptions]] = {
    "int4": _quantizing("int4", None),
    "int4-g64": _quantizing("int4", 64),
    "int3-g64": _quantizing("int3", 64),
    "nf4-g64": _quantizing("nf4", 64),
    "bcq3-g64": _quantizing("bcq3", 64),
    "sparse50": _pruning(0.5),
    "2:4": _pruning(NofM(2, 4)),
    "2:4-int8": _pruning(NofM(2, 4), "int8"),
    "sparse50-int4": _pruning(0.5, "int4"),
}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Help)
    parser.add_argument("--task", default="minilm", help="minilm or stories260k")
    parser.add_argument("--set", nargs="+", default=["int4-g64", "sparse50"], choices=SETS)
    parser.add_argument("--solvers", nargs="+", help="only these lines of the table")
    parser.add_argument("--layers", type=int, help="only so many, evenly spread")
    parser.add_argument("--samples", type=int, default=128, help="sequences to calibrate with")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--each", action="store_true", help="a line per layer as well")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    began = time.perf_counter()
    layers = list(collect(arguments.task, arguments.samples))
    if arguments.layers:
        chosen = np.linspace(0, len(layers) - 1, arguments.layers).round().astype(int)
        layers = [layers[i] for i in chosen]
    print(f"{len(layers)} layers of {arguments.task}, Hessians of {layers[0][2].samples} vectors "
          f"in {time.perf_counter() - began:.1f} s")  # fmt: skip
    for name in arguments.set:
        options = SETS[name]
        if arguments.solvers:
            options = {k: v for k, v in options.items() if k in arguments.solvers}
        _table(name, options, layers, arguments.each)


def collect(task_name: str, samples: int) -> Iterator[Layer]:
    """Name, weight and Hessian of every product with a constant matrix of at least 64 inputs."""
    task = _realdata().load(task_name)
    model = onnx.load(task.model)
    constants = {t.name: t for t in model.graph.initializer}
    found: list[tuple[str, str, torch.Tensor]] = []
    for node in model.graph.node:
        if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in constants:
            continue
        matrix = torch.from_numpy(numpy_helper.to_array(constants[node.input[1]]).copy()).float()
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        weight = matrix if transposed else matrix.T.contiguous()
        if weight.shape[1] >= 64 and weight.shape[0] >= 64:
            found.append((node.name or node.output[0], node.input[0], weight))
    seen = {source: Hessian(weight.shape[1]) for _, source, weight in found}
    for source in seen:
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(source))
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    for start in range(0, samples, 16):
        feeds = {k: v[start : min(start + 16, samples)] for k, v in task.calibration.items()}
        if not len(next(iter(feeds.values()))):
            break
        for source, values in zip(seen, session.run(list(seen), feeds), strict=True):
            vectors = values
            if "attention_mask" in feeds:
                vectors = values[feeds["attention_mask"].astype(bool)]
            seen[source].add(torch.from_numpy(vectors))
    for name, source, weight in found:
        yield name, weight, seen[source]


def _table(
    name: str, options: dict[str, SolverOptions], layers: Sequence[Layer], each: bool
) -> None:
    losses, seconds = np.zeros((len(layers), len(options))), np.zeros(len(options))
    for row, (layer, weight, hessian) in enumerate(layers):
        whole = layer_loss(weight, torch.zeros_like(weight), hessian.value)
        for column, option in enumerate(options.values()):
            began = time.process_time()
            losses[row, column] = solve(weight, hessian, option).loss / whole
            seconds[column] += time.process_time() - began
        if each:
            shown = "  ".join(f"{k} {v:.5f}" for k, v in zip(options, losses[row], strict=True))
            print(f"{layer[-48:]:48s} {weight.shape[0]:5d}x{weight.shape[1]:<5d} {shown}")
    best = np.bincount(losses.argmin(axis=1), minlength=len(options))
    means = np.exp(np.log(np.maximum(losses, 1e-30)).mean(axis=0))
    print(f"\n{name}\n{'solver':14s} {'mean loss':>10s} {'best':>5s} {'CPU s':>8s}")
    for column, solver in enumerate(options):
        print(f"{solver:14s} {means[column]:10.5f} {best[column]:5d} {seconds[column]:8.1f}")


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """The module's text as it is, and defaults."""


def _realdata() -> ModuleType:
    specification = importlib.util.spec_from_file_location("realdata", SHARED / "realdata.py")
    if specification is None or specification.loader is None or not SHARED.is_dir():
        sys.exit(f"there are no models and data in {SHARED}")
    module = importlib.util.module_from_spec(specification)
    sys.modules["realdata"] = module  # its dataclasses look their module up
    specification.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
