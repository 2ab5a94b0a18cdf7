"""Products of bit planes against integers, on a GPU or the emulated one."""

from __future__ import annotations

import itertools
from typing import Literal

import numpy as np
import pytest
from fewbits.schedules.cuda.architecture import ARCHITECTURES, Architecture
from fewbits.schedules.cuda.binary import (
    BinaryProduct,
    Encoding,
    PackRows,
    Sizes,
    Window,
    binary_product,
    pack_rows,
    rule,
    space,
    words,
)
from fewbits.schedules.cuda.binary.encoding import Kind
from fewbits.schedules.cuda.epilogue import Epilogue, Operand, plain, scaled
from fewbits.targets.cuda import testing
from fewbits.targets.cuda.compile import compile_kernels
from fewbits.targets.cuda.machine_code import report_module
from fewbits.targets.cuda.toolchain import disassembler
from tvm import tirx
from tvm.ir import prim

U2, S3, ODD1 = Encoding(2, "unsigned"), Encoding(3, "signed"), Encoding(1, "odd")
KINDS: tuple[Kind, ...] = ("unsigned", "signed", "odd")


def draw(generator: np.random.Generator, encoding: Encoding, shape: tuple[int, ...]) -> np.ndarray:
    return encoding.integers(generator.integers(0, 1 << encoding.bits, shape))


def run(
    problem: BinaryProduct,
    architecture: Architecture,
    rows: int,
    sizes: Sizes | None = None,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """What the kernel gives, and what integers give."""
    generator = np.random.default_rng(seed)
    x = draw(generator, problem.x, (rows, problem.inputs))
    w = draw(generator, problem.w, (problem.outputs, problem.inputs))
    assert problem.refusal() is None
    sizes = sizes or rule(problem, architecture, rows)
    kernel = binary_product(problem, architecture, sizes, "binary")
    poison = np.full((rows, problem.outputs), -(2**31), np.int32)
    given = [problem.x.pack(x), *problem.pack_weight(w)]
    (result,) = testing.run_kernel(kernel, *given, poison)
    return result, x @ w.T


def exact(result: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("gpu", list(ARCHITECTURES), indirect=True)
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 1, 1), (37, 130, 45), (70, 700, 100)])
def test_any_extents(gpu: testing.Gpu, rows: int, inputs: int, outputs: int) -> None:
    problem = BinaryProduct(inputs, outputs, U2, ODD1, plain("int32", "int32"))
    exact(*run(problem, gpu.architecture, rows))


@pytest.mark.parametrize(("x", "w"), list(itertools.product(KINDS, KINDS)))
def test_any_pair_of_encodings(gpu: testing.Gpu, x: Kind, w: Kind) -> None:
    problem = BinaryProduct(
        200, 33, Encoding(2, x), Encoding(1 if w == "odd" else 3, w), plain("int32", "int32")
    )
    exact(*run(problem, gpu.architecture, 17))


@pytest.mark.parametrize(("q", "p"), [(1, 1), (1, 8), (4, 4), (8, 1), (8, 8), (5, 3)])
def test_any_number_of_planes(gpu: testing.Gpu, q: int, p: int) -> None:
    problem = BinaryProduct(
        300, 40, Encoding(q, "signed"), Encoding(p, "signed"), plain("int32", "int32")
    )
    exact(*run(problem, gpu.architecture, 20))


@pytest.mark.parametrize(
    "sizes",
    [
        Sizes(16, 32, 32, 1, 1, 2), Sizes(32, 64, 64, 1, 2, 3), Sizes(64, 128, 128, 2, 2, 2),
        Sizes(128, 128, 64, 4, 2, 4),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("x", "w"), [(U2, ODD1), (S3, Encoding(3, "odd"))])
def test_any_tile(gpu: testing.Gpu, x: Encoding, w: Encoding, sizes: Sizes) -> None:
    problem = BinaryProduct(900, 140, x, w, plain("int32", "int32"))
    exact(*run(problem, gpu.architecture, 150, sizes))


@pytest.mark.parametrize("gpu", list(ARCHITECTURES), indirect=True)
@pytest.mark.parametrize("outputs", [3, 64, 150])
def test_planes_stay_packed(gpu: testing.Gpu, outputs: int) -> None:
    """The result is rounded, clipped, and packed as the next product reads it."""
    output = Encoding(3, "signed")
    total, scale = tirx.Var("sum", "int32"), Operand.of("column", "float32", "scale")
    value = tirx.nearbyint(tirx.Cast("float32", total) * scale.element)
    limits = [prim.FloatImm("float32", float(n)) for n in (output.maximum, output.minimum)]
    value = tirx.Cast("int32", tirx.max(tirx.min(value, limits[0]), limits[1]))
    problem = BinaryProduct(260, outputs, U2, S3, Epilogue(total, value, (scale,)), output)
    generator = np.random.default_rng(outputs)
    x = draw(generator, U2, (21, 260))
    w = draw(generator, S3, (outputs, 260))
    scales = generator.uniform(0.02, 0.2, outputs).astype(np.float32)
    kernel = binary_product(problem, gpu.architecture, rule(problem, gpu.architecture, 21), "pack")
    poison = np.full((21, 3, words(outputs)), 0xDEADBEEF, np.uint32)
    (result,) = testing.run_kernel(kernel, U2.pack(x), *problem.pack_weight(w), scales, poison)
    expected = np.clip(np.rint((x @ w.T).astype(np.float32) * scales), -4, 3)
    np.testing.assert_array_equal(result, output.pack(expected))


@pytest.mark.parametrize(
    "window",
    [
        Window((5, 7), (3, 3), (1, 1), (1, 1, 1, 1)),
        Window((6, 5), (2, 3), (2, 1), (0, 2, 1, 0), (1, 2)),
        Window((4, 4), (1, 1), (2, 2)),
    ],
)
@pytest.mark.parametrize("channels", [12, 130])
def test_patches_of_packed_images(gpu: testing.Gpu, window: Window, channels: int) -> None:
    problem = BinaryProduct(channels, 20, U2, ODD1, plain("int32", "int32"), window=window)
    generator = np.random.default_rng(channels)
    x = draw(generator, U2, (3, *window.size, channels))
    w = draw(generator, ODD1, (20, *window.kernel, channels))
    kernel = binary_product(problem, gpu.architecture, rule(problem, gpu.architecture, 50), "conv")
    height, width = window.output
    poison = np.zeros((3 * height * width, 20), np.int32)
    (result,) = testing.run_kernel(kernel, U2.pack(x), *problem.pack_weight(w), poison)
    exact(result, convolved(x, w, window).reshape(-1, 20))


def convolved(x: np.ndarray, w: np.ndarray, window: Window) -> np.ndarray:
    top, left, bottom, right = window.padding
    padded = np.pad(x, [(0, 0), (top, bottom), (left, right), (0, 0)])
    height, width = window.output
    result = np.zeros((len(x), height, width, len(w)), np.int64)
    for r, s in itertools.product(range(window.kernel[0]), range(window.kernel[1])):
        down, across = r * window.dilation[0], s * window.dilation[1]
        part = padded[:, down :: window.strides[0], across :: window.strides[1]]
        result += part[:, :height, :width] @ w[:, r, s].T
    return result


def test_what_has_no_zero_is_not_padded() -> None:
    window = Window((4, 4), (3, 3), (1, 1), (1, 1, 1, 1))
    problem = BinaryProduct(8, 8, ODD1, ODD1, plain("int32", "int32"), window=window)
    assert "no zero" in str(problem.refusal())


def test_sums_that_exceed_int32_are_refused() -> None:
    wide = Encoding(8, "unsigned")
    problem = BinaryProduct(1 << 16, 8, wide, wide, plain("int32", "int32"))
    assert "int32" in str(problem.refusal())


@pytest.mark.parametrize("encoding", [Encoding(b, k) for b in (1, 3, 8) for k in KINDS])
def test_packed_planes_mean_their_integers(encoding: Encoding) -> None:
    values = encoding.integers(np.arange(1 << encoding.bits))
    assert (values.min(), values.max()) == (encoding.minimum, encoding.maximum)
    drawn = np.random.default_rng(1).choice(values, (2, 3, 131))
    planes = encoding.pack(drawn)
    assert planes.shape == (2, 3, encoding.bits, words(131))
    np.testing.assert_array_equal(encoding.unpack(planes, 131), drawn)
    with pytest.raises(ValueError, match="not all"):
        encoding.pack(np.array([encoding.maximum + 1]))


@pytest.mark.parametrize("scales", ["static", "token"])
@pytest.mark.parametrize("source", ["float16", "float32"])
@pytest.mark.parametrize("encoding", [U2, S3, Encoding(8, "signed")])
def test_rows_are_rounded_and_packed(
    gpu: testing.Gpu, encoding: Encoding, source: str, scales: Literal["static", "token"]
) -> None:
    problem = PackRows(
        70, source, encoding, encoding.minimum, encoding.maximum, encoding.maximum, scales
    )
    x = np.random.default_rng(3).standard_normal((7, 70)).astype(source)
    x[2] = 0
    kernel, _ = pack_rows(problem, gpu.architecture, "pack_rows")
    planes = np.full((7, encoding.bits, words(70)), 0xDEADBEEF, np.uint32)
    value = x.astype(np.float32)
    if scales == "static":
        scale = np.full(1, 0.4, np.float32)
        (found,) = testing.run_kernel(kernel, x, scale, planes)
        by_row = np.broadcast_to(scale, (7,))
    else:
        found, by_row = testing.run_kernel(kernel, x, planes, np.zeros(7, np.float32), outputs=2)
        wanted = np.abs(value).max(1) / np.float32(encoding.maximum)
        np.testing.assert_array_equal(by_row, np.maximum(wanted, np.float32(2.0**-126)))
    expected = np.clip(np.rint(value / by_row[:, None]), encoding.minimum, encoding.maximum)
    np.testing.assert_array_equal(found, encoding.pack(expected))


def test_machine_code_is_binary_products_without_spills() -> None:
    reason = testing.no_compiler()
    if reason is not None or disassembler("cuobjdump") is None or disassembler("nvdisasm") is None:
        pytest.skip(reason or "no disassembler")
    pairs = [(U2, ODD1), (Encoding(1, "odd"), ODD1), (U2, Encoding(2, "signed"))]
    window = Window((16, 16), (3, 3), (1, 1), (1, 1, 1, 1))
    for architecture in ARCHITECTURES.values():
        kernels = []
        for place, (x, w) in enumerate(pairs):
            problem = BinaryProduct(1024, 1000, x, w, scaled("float16"))
            made = list(space(problem, architecture))
            for number, sizes in enumerate((made[0], made[len(made) // 2], made[-1])):
                name = f"binary_{place}_{number}"
                kernels.append(binary_product(problem, architecture, sizes, name))
        problem = BinaryProduct(256, 256, U2, ODD1, scaled("float16"), window=window)
        sizes = rule(problem, architecture, 4096)
        kernels.append(binary_product(problem, architecture, sizes, "binary_window"))
        wide = Encoding(8, "signed")
        problem = BinaryProduct(512, 512, wide, wide, scaled("float16"))
        sizes = rule(problem, architecture, 256)
        kernels.append(binary_product(problem, architecture, sizes, "binary_wide"))
        (module,) = compile_kernels(kernels)
        codes = report_module(module, architecture)
        for kernel in kernels:
            code = codes[f"{kernel.name}_kernel"]
            assert code.count("BMMA") > 0, kernel.name
            assert not any(".XOR" in name for name in code.instructions if "BMMA" in name)
            assert (code.spill, code.stack) == (0, 0), (kernel.name, architecture.name)
