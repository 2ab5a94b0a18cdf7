"""Memory that importing and running a model of more than 2 GB of external data takes.

    python benchmarks/large_model.py --layers 10 --width 8192

Makes a chain of square matrix products (float32, one file of weights every three layers) in a
temporary folder. The files are sparse: a few columns of each matrix are written, the rest are holes
that read as zeros and take no room on the disk. Prints, after each step, how much memory the
process has of its own, and how much of mapped files is in memory.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper


def make(folder: Path, layers: int, width: int) -> Path:
    """The model's path; weight i is the identity times i + 1 in its first 64 rows."""
    size = 4 * width * width
    weights = []
    for layer in range(layers):
        location, place = f"weights{layer // 3}.bin", layer % 3
        with (folder / location).open("r+b" if place else "w+b") as file:
            file.truncate(size * (place + 1))
            for row in range(64):
                file.seek(size * place + 4 * (row * width + row))
                file.write(np.float32(layer + 1).tobytes())
        tensor = TensorProto(name=f"w{layer}", data_type=TensorProto.FLOAT, dims=[width, width])
        tensor.data_location = TensorProto.EXTERNAL
        entries = {"location": location, "offset": size * place, "length": size}
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))
        weights.append(tensor)
    values = ["x", *(f"h{layer}" for layer in range(1, layers)), "y"]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", [values[i], f"w{i}"], [values[i + 1]], f"layer{i}")
            for i in range(layers)
        ],
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", width))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("N", width))],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "large.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def memory() -> dict[str, float]:
    """Megabytes: of the process itself, and of files that it maps."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = {key: value for key, _, value in (line.partition(":") for line in lines)}
    return {key: int(fields[key].split()[0]) / 1e3 for key in ("RssAnon", "RssFile")}


def main() -> None:
    """Make, import and run the model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--width", type=int, default=8192)
    arguments = parser.parse_args()

    import torch
    from fewbits.compiler.importer import import_onnx
    from fewbits.ops.evaluate import Evaluator

    gigabytes = 4e-9 * arguments.layers * arguments.width**2
    print(
        f"{arguments.layers} weights of {arguments.width} x {arguments.width}: {gigabytes:.2f} GB"
    )

    def report(step: str) -> None:
        used = memory()
        print(f"{step:<10} own {used['RssAnon']:>7.0f} MB   files {used['RssFile']:>7.0f} MB")

    with tempfile.TemporaryDirectory() as name:
        path = make(Path(name), arguments.layers, arguments.width)
        report("start")
        imported = import_onnx(path, dynamic=True)
        report("imported")
        x = torch.ones(2, arguments.width)
        with torch.no_grad():
            [y] = Evaluator(imported.module)({"x": x}).values()
        report("run")
        expected = np.prod(np.arange(1, arguments.layers + 1, dtype=np.float64))
        np.testing.assert_allclose(y[:, :64].numpy(), expected, rtol=1e-5)
        assert not y[:, 64:].any()


if __name__ == "__main__":
    main()
