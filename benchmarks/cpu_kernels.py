"""Few-bit CPU kernels against onnxruntime's, layer by layer: time, GOPS and GB/s of weights.

Each row is one layer, alone in a library as fewbits compiles it for this machine, and the same
layer in an onnxruntime session with as many threads. All contenders take turns, and the smallest
of many times counts. ``python benchmarks/cpu_kernels.py [--threads 1] [--repeat 200]``.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

#: Rows of x, K, N.
SHAPES = {
    "MiniLM q, k, v, o": (128, 384, 384),
    "MiniLM ffn 1": (128, 384, 1536),
    "MiniLM ffn 2": (128, 1536, 384),
    "4096, one token": (1, 4096, 4096),
}
FORMATS = ("int8", "w4-int4", "w4-nf4", "w3-int3", "w8-fp8", "w16", "2:4-float16", "2:4-int8")
Run = Callable[[], Any]


def fewbits_run(name: str, x: np.ndarray, w: np.ndarray) -> tuple[Run, int, str]:
    """The layer in a fewbits format, its stored bytes, and its kernel."""
    import tvm
    from fewbits.formats.parse import parse_format
    from fewbits.ops.compressed.activations import fake_quantize_call
    from fewbits.ops.compressed.weights import decode_call
    from fewbits.passes.rewrite import assemble
    from fewbits.targets.cpu.pipeline import choose_kernels, lower_to_tir, make_executable
    from tvm import relax
    from tvm.target import codegen

    op: Any = relax.op
    tensor = compressed(name, w)
    kind: Any = relax.TensorType
    parameter = relax.Var("x", kind(x.shape, "float32"))
    bindings: list[tuple[relax.Var, Any]] = []

    def bind(value: Any) -> relax.Var:
        normal = relax.BlockBuilder().normalize(value)
        bindings.append((relax.DataflowVar(f"v{len(bindings)}", normal.ty), normal))
        return bindings[-1][0]

    source = parameter
    if name == "int8":
        source = bind(fake_quantize_call(parameter, parse_format("int8"), "token"))
    result = bind(op.matmul(source, bind(op.permute_dims(bind(decode_call(tensor))))))
    names = {"input_names": ["x"], "output_names": ["y"]}
    module = assemble([parameter], bindings, result, names)
    target = tvm.target.Target({"kind": "llvm", "mcpu": str(codegen.llvm_get_system_cpu())})
    chosen = choose_kernels(module, target)
    executable = make_executable(lower_to_tir(chosen, target), target)
    machine = relax.VirtualMachine(executable, tvm.cpu())
    main = machine["main"]
    given = tvm.runtime.tensor(x, tvm.cpu())
    notes = [str(kernel) for kernel in chosen["main"].attrs["kernels"].values()]
    return lambda: main(given), tensor.total_bits // 8, notes[0] if notes else "none"


def compressed(name: str, w: np.ndarray) -> Any:
    """The weight as the format stores it."""
    from fewbits.formats.compress import compress
    from fewbits.formats.granularity import PerChannel, PerGroup
    from fewbits.formats.parse import parse_format
    from fewbits.formats.plain import PlainTensor
    from fewbits.formats.sparsity import parse_sparsity

    if name == "w16":
        return PlainTensor.from_array(w, "float16")
    if name == "int8":
        return compress(w, parse_format("int8-narrow"), granularity=PerChannel(0))
    if name.startswith("2:4"):
        groups = np.abs(w).reshape(-1, 4)
        mask = (groups.argsort(1).argsort(1) >= 2).reshape(w.shape)
        sparsity = parse_sparsity("2:4")
        if name == "2:4-float16":
            return PlainTensor.from_array(w, "float16", sparsity, mask)
        return compress(
            w, parse_format("int8-narrow"), granularity=PerChannel(0), sparsity=sparsity, mask=mask
        )
    number_format = parse_format({"w8-fp8": "fp8_e4m3fn"}.get(name, name.split("-")[1]))
    return compress(w, number_format, granularity=PerGroup(64), scale_storage="float16")


def onnx_run(kind: str, x: np.ndarray, w: np.ndarray, threads: int) -> Run:
    """The layer in onnxruntime: ``float``, ``int8`` (dynamic) or ``w4`` (MatMulNBits)."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    k, n = w.shape[1], w.shape[0]
    columns = np.ascontiguousarray(w.T)
    if kind == "float":
        nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
        weights = {"w": columns}
    elif kind == "int8":
        scale = np.abs(w).max(axis=1) / np.float32(127)
        codes = np.rint(columns / scale).astype(np.int8)
        nodes = [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "sx", "zx"]),
            helper.make_node("MatMulInteger", ["q", "w", "zx"], ["a"]),
            helper.make_node("Cast", ["a"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["sx", "sw"], ["s"]),
            helper.make_node("Mul", ["f", "s"], ["y"]),
        ]
        weights = {"w": codes, "sw": scale.astype(np.float32)}
    else:
        blocks = w.reshape(n, k // 64, 64)
        scale = (np.abs(blocks).max(axis=2) / 7).astype(np.float32)
        codes = (np.rint(blocks / scale[..., None]) + 8).astype(np.uint8)
        pairs = codes.reshape(n, k // 64, 32, 2)
        packed = pairs[..., 0] | (pairs[..., 1] << 4)
        nodes = [
            helper.make_node(
                "MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft",
                K=k, N=n, bits=4, block_size=64, accuracy_level=4,
            )
        ]  # fmt: skip
        weights = {"w": packed, "s": scale}
    graph = helper.make_graph(
        nodes, "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (x.shape[0], n))],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=9)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return lambda: session.run(None, {"x": x})


def smallest(runs: dict[str, Run], repeat: int) -> dict[str, float]:
    """Seconds of each contender, the least of `repeat` turns."""
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(repeat):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - begin)
    return best


def main() -> None:
    """Print a table per shape."""
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1, help="of fewbits and of onnxruntime")
    parser.add_argument("--repeat", type=int, default=200, help="turns of each contender")
    parser.add_argument("--formats", nargs="*", default=list(FORMATS), help=", ".join(FORMATS))
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES), help=", ".join(SHAPES))
    arguments = parser.parse_args()
    os.environ["TVM_NUM_THREADS"] = str(arguments.threads)
    console = Console()
    for title in arguments.shapes:
        rows, k, n = SHAPES[title]
        rng = np.random.default_rng(0)
        x = rng.normal(size=(rows, k)).astype(np.float32)
        w = rng.normal(size=(n, k)).astype(np.float32)
        runs: dict[str, Run] = {}
        sizes: dict[str, int] = {"ort float": 4 * k * n, "ort int8": k * n, "ort w4": k * n // 2}
        kernels: dict[str, str] = {}
        for name in arguments.formats:
            runs[name], sizes[name], kernels[name] = fewbits_run(name, x, w)
        for kind in ("float", "int8", "w4"):
            runs[f"ort {kind}"] = onnx_run(kind, x, w, arguments.threads)
        best = smallest(runs, arguments.repeat)
        table = Table(title=f"{title}: {rows} x {k} x {n}, {arguments.threads} threads")
        for column in ("layer", "kernel", "us", "GOPS", "GB/s", "of ort float", "of ort int8"):
            table.add_column(column, justify="left" if column in ("layer", "kernel") else "right")
        for name, seconds in best.items():
            table.add_row(
                name, kernels.get(name, ""), f"{seconds * 1e6:.0f}",
                f"{2 * rows * k * n / seconds / 1e9:.0f}", f"{sizes[name] / seconds / 1e9:.1f}",
                f"{seconds / best['ort float']:.2f}", f"{seconds / best['ort int8']:.2f}",
            )  # fmt: skip
        console.print(table)


if __name__ == "__main__":
    main()
