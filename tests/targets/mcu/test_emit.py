"""The generated C project: its text, its strictness, and that it computes what it should.

The programs here run on the toy kernels in ``toy/``, so nothing but the generator is under test.
"""

from __future__ import annotations

import ctypes
import dataclasses
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile
from fewbits.targets.mcu import ctext
from fewbits.targets.mcu.emit import constant_bytes, emit
from fewbits.targets.mcu.memory import plan
from fewbits.targets.mcu.program import Buffer, Constant, KernelCall, Program, Scratch
from fewbits.targets.mcu.target import get_target
from hypothesis import given, settings
from hypothesis import strategies as st

TOY = Path(__file__).parent / "toy"
ZIG = [sys.executable, "-m", "ziglang", "cc"]
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wconversion"]
STRICT += ["-Wshadow", "-Wstrict-prototypes", "-Wmissing-prototypes", "-Wcast-qual"]
HOST = get_target("c")


def native() -> list[str]:
    """A C compiler that starts quickly where there is one, else zig."""
    found = shutil.which("gcc") or shutil.which("clang")
    return [found] if found else ZIG


def run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def write(files: dict[str, str | bytes], folder: Path) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


def int8(name: str, *shape: int) -> Buffer:
    return Buffer(name, shape, "int8", scale=0.125, zero_point=-3)


def dense(
    layer: str, x: Buffer, y: Buffer, weights: np.ndarray, bias: np.ndarray, shift: int = 4
) -> KernelCall:
    outputs, inputs = weights.shape
    constants = Constant("weights", weights), Constant("bias", bias)
    return KernelCall(
        layer=layer,
        operator="dense",
        function="toy_dense",
        header="toy_dense.h",
        arguments=(x, y, *constants, Scratch(), inputs, outputs, shift),
        inputs=(x,),
        outputs=(y,),
        scratch=4 * outputs,
        overlap=(0,),
        macs=weights.size,
    )


def add(layer: str, a: Buffer, b: Buffer, y: Buffer, offset: int = 0) -> KernelCall:
    return KernelCall(
        layer=layer,
        operator="add",
        function="toy_add",
        header="toy_pointwise.h",
        arguments=(a, b, y, y.bytes, offset),
        inputs=(a, b),
        outputs=(y,),
        overlap=(0, 0),
    )


class Residual:
    """Two dense layers around a reshape and an addition of both; the biases are equal."""

    def __init__(
        self,
        model: str = "residual",
        names: tuple[str, ...] = ("input", "dense1", "flat", "dense2", "add"),
    ) -> None:
        generator = np.random.default_rng(7)
        self.weights = generator.integers(-127, 128, (8, 12)).astype(np.int8)
        self.square = generator.integers(-127, 128, (8, 8)).astype(np.int8)
        self.bias = generator.integers(-900, 900, 8).astype(np.int32)
        x, h, flat, g, y = names
        b0, b1, b2, b3, b4 = int8(x, 3, 4), int8(h, 2, 4), int8(flat, 8), int8(g, 8), int8(y, 8)
        calls = (
            dense(h, b0, b1, self.weights, self.bias),
            dense(g, b2, b3, self.square, self.bias.copy()),
            add(y, b2, b3, b4, offset=-2),
        )
        self.program = Program(model, (b0,), (b4,), calls, {flat: b1})

    def meaning(self, x: np.ndarray) -> np.ndarray:
        def layer(v: np.ndarray, weights: np.ndarray) -> np.ndarray:
            sums = weights.astype(np.int32) @ v.astype(np.int32) + self.bias
            return np.clip(sums >> 4, -128, 127)

        h = layer(x.reshape(-1), self.weights)
        return np.clip(h + layer(h, self.square) - 2, -128, 127).astype(np.int8)

    def samples(self, count: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        x = np.random.default_rng(3).integers(-128, 128, (count, 3, 4)).astype(np.int8)
        return [x], [np.stack([self.meaning(one) for one in x])]

    def files(self, target: str = "c", samples: int = 3) -> dict[str, str | bytes]:
        return emit(
            self.program,
            plan(self.program),
            get_target(target),
            golden=self.samples(samples) if samples else None,
            info={"recipe": "int8"},
            kernels=TOY,
        )


def several() -> Program:
    """Two inputs, three outputs of three types, a float, and a function generated for one call."""
    a, b = int8("a", 5), Buffer("b", (5,), "int8")
    total, real = Buffer("total", (5,), "int8"), Buffer("real", (5,), "float32")
    count, copy = Buffer("count", (), "int64"), Buffer("a", (5,), "int8", 0.125, -3)
    assert copy == a
    source = (
        '#include "toy_types.h"\n'
        "static void generated_count(const int8_t *x, int64_t *y) {\n"
        "    *y = 0;\n"
        "    for (int32_t i = 0; i < 5; ++i) {\n"
        "        *y += toy_clamp(x[i]);\n"
        "    }\n"
        "}\n"
    )
    return Program(
        "several",
        (a, b),
        (real, total, count),
        (
            add("sum", a, b, total),
            KernelCall(
                "float island", "scale", "toy_scale", "toy_pointwise.h",
                (total, real, 5, 0.1), (total,), (real,), note="computes in float",
            ),
            KernelCall(
                "count", "reduce", "generated_count", None,
                (total, count), (total,), (count,), source=source,
            ),
        ),
    )  # fmt: skip


# The text.


def test_text_is_as_reviewed(golden: Callable[[str, str], None]) -> None:
    files = Residual().files()
    for name in ("fewbits_residual.h", "fewbits_residual.c", "weights.c", "golden.c", "README.md"):
        golden(f"residual_{name}", str(files[name]))


def test_text_of_several_inputs_is_as_reviewed(golden: Callable[[str, str], None]) -> None:
    program = several()
    files = emit(program, plan(program), HOST, kernels=TOY)
    for name in ("fewbits_several.h", "fewbits_several.c", "generated.h"):
        golden(f"several_{name}", str(files[name]))


def test_build_files_are_as_reviewed(golden: Callable[[str, str], None]) -> None:
    files = Residual().files("cortex-m0plus")
    for name in ("Makefile", "CMakeLists.txt", "main.c"):
        golden(f"cortex-m0plus_{name}", str(files[name]))


def test_text_is_the_same_every_time() -> None:
    assert Residual().files() == Residual().files()


def test_only_the_kernels_in_use_are_copied_with_what_they_include() -> None:
    model = Residual()
    only_add = dataclasses.replace(
        model.program,
        inputs=model.program.calls[2].inputs,
        calls=model.program.calls[2:],
        aliases={},
    )
    files = emit(only_add, plan(only_add), HOST, kernels=TOY)
    kernels = {name for name in files if name.startswith("kernels/")}
    assert kernels == {"kernels/toy_pointwise.h", "kernels/toy_types.h"}


def test_equal_constants_are_stored_once() -> None:
    model = Residual()
    assert str(model.files()["weights.c"]).count("bias") == 1
    assert constant_bytes(model.program) == 96 + 64 + 32


def test_integer_models_are_free_of_floating_point() -> None:
    files = Residual().files()
    library = "".join(str(files[n]) for n in ("fewbits_residual.c", "weights.c", "weights.h"))
    assert not re.search(r"\b(float|double)\b|\d\.\d", library)


def test_lines_fit_a_screen() -> None:
    for name, text in Residual().files().items():
        if name.endswith((".c", ".h")) and not name.startswith("kernels/"):
            assert max(map(len, str(text).splitlines())) <= 100, name


def test_board_memory_is_in_the_linker_script() -> None:
    assert "runtime/memory.ld" in Residual().files("cortex-m4")
    assert not any(name.startswith("runtime/") for name in Residual().files("c"))


def test_missing_kernel_header_is_an_error(tmp_path: Path) -> None:
    program = Residual().program
    with pytest.raises(ValueError, match=r"no kernel header 'toy_"):
        emit(program, plan(program), HOST, kernels=tmp_path)


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        (np.zeros((2, 12), np.int8), np.zeros((3, 8), np.int8)),
        (np.zeros((2, 12), np.float32), np.zeros((2, 8), np.int8)),
        (np.zeros(13, np.int8), np.zeros(8, np.int8)),
        (np.zeros(0, np.int8), np.zeros(0, np.int8)),
    ],
)
def test_golden_samples_must_fit_the_interface(inputs: np.ndarray, outputs: np.ndarray) -> None:
    program = Residual().program
    with pytest.raises(ValueError, match="golden"):
        emit(program, plan(program), HOST, golden=([inputs], [outputs]), kernels=TOY)


# The C.


@pytest.fixture(scope="module")
def residual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(Residual().files(), tmp_path_factory.mktemp("residual"))


@pytest.fixture(scope="module")
def library(residual: Path) -> ctypes.CDLL:
    """The residual model as a shared library, with the convert header's functions exported."""
    (residual / "shim.c").write_text(
        '#include "fewbits_residual_convert.h"\n'
        "int8_t quantize(float x);\nfloat dequantize(int8_t x);\n"
        "int8_t quantize(float x) { return residual_quantize_input(x); }\n"
        "float dequantize(int8_t x) { return residual_dequantize_output(x); }\n"
    )
    sources = ["fewbits_residual.c", "weights.c", "shim.c"]
    command = [*native(), *STRICT, "-O1", "-shared", "-fPIC", *sources, "-o", "model.so"]
    run(command, residual)
    loaded = ctypes.CDLL(str(residual / "model.so"))
    loaded.quantize.argtypes, loaded.quantize.restype = [ctypes.c_float], ctypes.c_int8
    loaded.dequantize.argtypes, loaded.dequantize.restype = [ctypes.c_int8], ctypes.c_float
    return loaded


def aligned(count: int) -> np.ndarray:
    """Zeros whose address is a multiple of 8."""
    return np.zeros((count + 7) // 8, np.int64).view(np.int8)[:count]


def pointer(array: np.ndarray, offset: int = 0) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data + offset)


@pytest.mark.parametrize("compiler", ["gcc", "clang", "zig"])
@pytest.mark.parametrize("optimize", ["-O0", "-O2"])
def test_self_test_passes_under_strict_flags(
    compiler: str, optimize: str, residual: Path, tmp_path: Path
) -> None:
    command = ZIG if compiler == "zig" else [compiler]
    if compiler != "zig" and not shutil.which(compiler):
        pytest.skip(f"no {compiler}")
    sources = ["main.c", "golden.c", "fewbits_residual.c", "weights.c"]
    product = tmp_path / "selftest"
    run([*command, *STRICT, optimize, *sources, "-o", str(product)], residual)
    assert subprocess.run([product]).returncode == 0


def test_self_test_counts_wrong_samples(tmp_path: Path) -> None:
    model = Residual()
    (x,), (y,) = model.samples(4)
    y[1, 3] += 1
    y[2, 7] -= 1
    files = emit(model.program, plan(model.program), HOST, golden=([x], [y]), kernels=TOY)
    write(files, tmp_path)
    run([*native(), "main.c", "golden.c", "fewbits_residual.c", "weights.c", "-o", "t"], tmp_path)
    assert subprocess.run([tmp_path / "t"]).returncode == 2


@pytest.mark.skipif(not shutil.which("make"), reason="no make")
@pytest.mark.skipif(not shutil.which("cc"), reason="no cc")
def test_makefile_builds_and_runs(tmp_path: Path) -> None:
    write(Residual().files(), tmp_path)
    run(["make", "run"], tmp_path)
    assert (tmp_path / "libfewbits_residual.a").is_file()


@pytest.mark.skipif(not shutil.which("gcc"), reason="no gcc")
def test_sanitizers_find_nothing(residual: Path, tmp_path: Path) -> None:
    sources = ["main.c", "golden.c", "fewbits_residual.c", "weights.c"]
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g"]
    product = tmp_path / "selftest"
    run(["gcc", "-std=c99", *flags, *sources, "-o", str(product)], residual)
    done = subprocess.run([product], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_separate_buffers_and_arena_offsets_give_the_same(library: ctypes.CDLL) -> None:
    model = Residual()
    placed = plan(model.program)
    (x,), (y,) = model.samples(20)
    for sample, expected in zip(x, y, strict=True):
        separate, out, arena = aligned(12), aligned(8), aligned(placed.arena_bytes)
        separate[:] = sample.reshape(-1)
        assert library.residual_run(pointer(separate), pointer(out), pointer(arena)) == 0
        assert out.tolist() == expected.tolist()
        assert separate.tolist() == sample.reshape(-1).tolist()
        source, result = placed.offsets["input"], placed.offsets["add"]
        arena[:] = 85
        arena[source : source + 12] = separate
        status = library.residual_run(
            pointer(arena, source), pointer(arena, result), pointer(arena)
        )
        assert status == 0
        assert arena[result : result + 8].tolist() == expected.tolist()


def test_bad_pointers_are_refused(library: ctypes.CDLL) -> None:
    x, y, arena = aligned(16), aligned(16), aligned(256)
    good = [pointer(x), pointer(y), pointer(arena)]
    assert library.residual_run(*good) == 0
    for position in range(3):
        missing, crooked = list(good), list(good)
        missing[position] = ctypes.c_void_p(None)
        crooked[position] = ctypes.c_void_p(
            (good[position].value or 0) + (4 if position == 2 else 2)
        )
        assert library.residual_run(*missing) == -1
        assert library.residual_run(*crooked) == -2


def test_quantize_rounds_to_even_and_saturates(library: ctypes.CDLL) -> None:
    values = np.concatenate(
        [
            np.arange(-400, 400, dtype=np.float32) / 16,
            np.random.default_rng(0).normal(0, 12, 500).astype(np.float32),
            np.array([1e30, -1e30, np.inf, -np.inf, -0.0], np.float32),
        ]
    )
    expected = np.clip(np.rint(values / np.float32(0.125)) - 3, -128, 127)
    assert [library.quantize(float(v)) for v in values] == expected.astype(int).tolist()
    assert library.quantize(float("nan")) == -128
    codes = range(-128, 128)
    assert [library.dequantize(c) for c in codes] == [(c + 3) * 0.125 for c in codes]


def test_several_inputs_types_and_generated_functions(tmp_path: Path) -> None:
    program = several()
    a, b = np.arange(10, dtype=np.int8).reshape(2, 5), np.full((2, 5), -100, np.int8)
    total = a + b
    real = total.astype(np.float32) * np.float32(0.1)
    count = total.sum(axis=1, dtype=np.int64)
    golden = ([a, b], [real, total, count])
    write(emit(program, plan(program), HOST, golden=golden, kernels=TOY), tmp_path)
    sources = ["main.c", "golden.c", "fewbits_several.c", "weights.c"]
    run([*native(), *STRICT, "-Wno-float-equal", *sources, "-o", "t"], tmp_path)
    assert subprocess.run([tmp_path / "t"]).returncode == 0


def test_header_can_be_used_from_cpp(residual: Path, tmp_path: Path) -> None:
    user = tmp_path / "user.cpp"
    user.write_text(
        '#include "fewbits_residual_convert.h"\n'
        "int use(void *arena) {\n"
        "    return residual_run(RESIDUAL_INPUT_IN(arena), RESIDUAL_OUTPUT_IN(arena), arena);\n"
        "}\n"
    )
    run([sys.executable, "-m", "ziglang", "c++", "-std=c++11", "-Wall", "-Wextra", "-Werror",
         f"-I{residual}", "-c", str(user), "-o", "user.o"], tmp_path)  # fmt: skip


@pytest.mark.parametrize("target", ["cortex-m0plus", "rv32imc"])
def test_library_has_no_state_and_needs_nothing(target: str, tmp_path: Path) -> None:
    write(Residual().files(target), tmp_path)
    flags = [*get_target(target).zig_flags, "-ffreestanding", "-O2", "-fno-sanitize=all"]
    flags += ["-fno-unwind-tables", "-fno-asynchronous-unwind-tables"]
    for name in ("fewbits_residual", "weights"):
        run([*ZIG, *flags, *STRICT, "-c", f"{name}.c", "-o", f"{name}.o"], tmp_path)
        with (tmp_path / f"{name}.o").open("rb") as file:
            elf = ELFFile(file)
            sizes = {s.name: s.data_size for s in elf.iter_sections()}
            symbols = [s for s in elf.get_section_by_name(".symtab").iter_symbols() if s.name]
        writable = [s for s in sizes if s.startswith((".data", ".bss", ".sdata", ".sbss"))]
        assert not any(sizes[s] for s in writable)
        undefined = {s.name for s in symbols if s["st_shndx"] == "SHN_UNDEF"}
        assert all(
            s.startswith(("residual_weights", "residual_bias", "mem", "__aeabi_mem"))
            for s in undefined
        )
        if name == "fewbits_residual":
            layers = {s.name for s in symbols if s.name.startswith("fb_layer_")}
            assert layers == {"fb_layer_0", "fb_layer_1", "fb_layer_2"}


HOSTILE = [
    "int", "", 'quote"', "new\nline", "*/ int evil; /*", "*\\\n/", "??/", "ünï🦊", "3x3", "%s",
    "x" * 10_000, "a b", "a_b", "a/b", "{{ 7 * 7 }}", "$(shell id)", "`id`",
]  # fmt: skip


@pytest.mark.parametrize("model", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_names_change_nothing(model: str, tmp_path: Path) -> None:
    names = tuple(dict.fromkeys([model, *HOSTILE]))[:5]
    hostile = Residual(model, names)
    files = hostile.files()
    for path, text in files.items():
        assert re.fullmatch(r"[A-Za-z0-9_./-]+", path)
        assert str(text).isascii() or path == "README.md"
    write(files, tmp_path)
    sources = ["main.c", "golden.c", "weights.c"]
    sources += [n for n in files if n.startswith("fewbits_") and n.endswith(".c")]
    run([*native(), *STRICT, *sources, "-o", "t"], tmp_path)
    assert subprocess.run([tmp_path / "t"]).returncode == 0


def test_equal_names_after_sanitizing_stay_apart(tmp_path: Path) -> None:
    a, b, y = int8("x y", 4), int8("x/y", 4), int8("x-y", 4)
    program = Program("same", (a, b), (y,), (add("add", a, b, y),))
    files = emit(program, plan(program), HOST, kernels=TOY)
    assert "const int8_t *in_x_y, const int8_t *in_x_y_2" in str(files["fewbits_same.h"])
    write(files, tmp_path)
    run([*native(), *STRICT, "-c", "fewbits_same.c"], tmp_path)


# Literals.


def test_numbers_are_exact(tmp_path: Path) -> None:
    floats = np.array(
        [0.0, -0.0, 1.0, -2.5, 0.1, 3.4028235e38, 1e-45, 1.17549435e-38, 2**24, np.inf, -np.inf],
        np.float32,
    )
    longs = np.array([0, 2**31, -(2**31), 2**63 - 1, -(2**63)], np.int64)
    words = np.array([0, -1, 2**31 - 1, -(2**31)], np.int32)
    text = "#include <stdint.h>\n"
    for name, array in (("floats", floats), ("longs", longs), ("words", words)):
        text += f"extern {ctext.array_declaration(name, array, 8)};\n"
        text += ctext.array_definition(name, array, 8)
    (tmp_path / "numbers.c").write_text(text)
    run([*native(), *STRICT, "-shared", "-fPIC", "numbers.c", "-o", "numbers.so"], tmp_path)
    library = ctypes.CDLL(str(tmp_path / "numbers.so"))
    for name, array in (("floats", floats), ("longs", longs), ("words", words)):
        stored = (ctypes.c_byte * array.nbytes).in_dll(library, name)
        assert bytes(stored) == array.tobytes(), name


@settings(max_examples=300)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_float_literals_read_back(value: float) -> None:
    text = ctext.single(value).removesuffix("f")
    parsed = float.fromhex(text) if "x" in text else float(text)
    assert np.float32(parsed).tobytes() == np.float32(value).tobytes()
    assert np.float32(ctext.decimal_single(value).removesuffix("f")) == np.float32(value)


def test_nan_and_rounding_to_single() -> None:
    assert "nan" in ctext.single(float("nan"))
    assert ctext.single(1e300) == "__builtin_inff()"
    assert ctext.single(0.1) == ctext.single(float(np.float32(0.1)))
