"""Random small graphs through the whole compiler, to C that runs on this machine.

Every graph must either compile, agree with the oracle exactly and with onnxruntime closely, or be
refused with a `FewbitsError`. Any other exception, crash or difference is a finding.

    python benchmarks/fuzz_graphs.py --count 1000
    python benchmarks/fuzz_graphs.py --seed 17 --recipe int8        (one graph, in detail)
    python benchmarks/fuzz_graphs.py --count 50 --sanitize          (with ASan and UBSan)
    python benchmarks/fuzz_graphs.py --count 50 --target cortex-m4  (in the emulator)
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import importlib.util
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
from fewbits.compiler import driver
from fewbits.compiler.artifact import Artifact, Port
from fewbits.compiler.description import describe, ports
from fewbits.compiler.driver import Compilation
from fewbits.compiler.execution import encode_batch, runner_of
from fewbits.compiler.options import Options
from fewbits.compiler.verify import Oracle, same
from fewbits.errors import FewbitsError
from fewbits.targets.mcu.host import HostRunner
from fewbits.targets.mcu.product import McuProduct
from fewbits.targets.mcu.target import get_target
from fewbits.targets.mcu.toolchain import build, system_compiler

SAMPLES = 24
#: Float results may differ from onnxruntime's by this, relative to the largest output.
FLOAT_TOLERANCE = 1e-4
#: What counts as an int8 result gone wrong: more than this many steps of the output for every
#: layer, and more than twice the quantized model's own distance from float.
STEPS_A_LAYER = 4.0
LARGEST_NOISE = 0.5


def _graphs() -> ModuleType:
    path = Path(__file__).resolve().parent.parent / "models" / "random_graphs.py"
    spec = importlib.util.spec_from_file_location("random_graphs", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


graphs = _graphs()


@dataclasses.dataclass(frozen=True)
class Finding:
    """What came of one graph: ``ok``, ``refused`` (with the error's code) or something bad."""

    seed: int
    recipe: str
    kind: str
    detail: str = ""

    @property
    def good(self) -> bool:
        """Whether this is what fewbits promises."""
        return self.kind in ("ok", "refused")


@dataclasses.dataclass
class Case:
    """A compiled graph with inputs and the outputs that are expected."""

    seed: int
    recipe: str
    model: onnx.ModelProto
    state: Compilation
    folder: Path
    inputs: list[Port]
    outputs: list[Port]
    samples: dict[str, np.ndarray]
    codes: list[np.ndarray]
    expected: list[np.ndarray]


def prepare(seed: int, recipe: str, folder: Path, target: str = "c") -> Case | Finding:
    """Compile the graph of a seed and print its C project."""
    model = graphs.random_model(seed)
    samples = graphs.random_samples(model, SAMPLES, seed)
    name = f"m{seed}_{recipe}"
    options = Options(target=target, recipe=recipe, to="lower", name=name)
    try:
        state = driver.compile(model.SerializeToString(), None, options, samples)
        assert isinstance(state, Compilation) and isinstance(state.product, McuProduct)
        inputs, outputs = ports(state)
        few = {key: array[:4] for key, array in samples.items()}
        codes = encode_batch(few, inputs)
        expected = Oracle(state.product.module)(codes)
        folder = folder / name
        folder.mkdir(parents=True)
        state.product.emit(folder, (codes, expected), {})
    except FewbitsError as error:
        return Finding(seed, recipe, "refused", f"{error.code}: {error.message}")
    except Exception:
        return Finding(seed, recipe, "exception", traceback.format_exc())
    return Case(seed, recipe, model, state, folder, inputs, outputs, few, codes, expected)


def build_all(cases: Sequence[Case], folder: Path) -> tuple[list[tuple[Case, Path]], list[Finding]]:
    """One library for all cases; where that fails, one for each."""
    try:
        library = _build(cases, folder / f"batch{cases[0].seed}.so")
        return [(case, library) for case in cases], []
    except FewbitsError as error:
        if len(cases) == 1:
            case = cases[0]
            return [], [Finding(case.seed, case.recipe, "does not build", error.message)]
    built, findings = [], []
    for case in cases:
        more, bad = build_all([case], case.folder)
        built += more
        findings += bad
    return built, findings


def _build(cases: Sequence[Case], out: Path) -> Path:
    sources = [s for c in cases for s in (*c.folder.glob("fewbits_*.c"), c.folder / "weights.c")]
    return build(sources, get_target("c"), out, shared=True, extra=("-ffp-contract=off",)).elf


def check(case: Case, library: Path) -> Finding:
    """Run the samples and compare with the oracle and with onnxruntime."""

    def finding(kind: str, detail: str = "") -> Finding:
        return Finding(case.seed, case.recipe, kind, detail)

    got: list[list[np.ndarray]] = []
    try:
        with HostRunner(library) as runner:
            for index in range(len(case.codes[0])):
                got.append(_run(case, runner, index))
    except FewbitsError as error:
        return finding("crash", str(error))
    for index, outputs in enumerate(got):
        for port, output, wanted in zip(case.outputs, outputs, case.expected, strict=True):
            if not same(output, wanted[index]):
                off = np.abs(output.astype(float) - wanted[index]).max()
                return finding("not exact", f"{port.name!r} by {off:g} on sample {index}")
    return finding(*_distance(case))


def emulate(case: Case) -> Finding:
    """The same for a microcontroller: built on its own and run in the emulator, strictly."""
    assert case.state.product is not None
    manifest = describe(case.state, case.inputs, case.outputs)
    try:
        case.state.product.build(case.folder, manifest["layers"])
        runner = runner_of(Artifact(case.folder, manifest), strict=True)
        runs = [runner.run([a[i] for a in case.codes]) for i in range(len(case.codes[0]))]
    except FewbitsError as error:
        kind = "refused" if error.code == "out-of-memory" else "crash"
        return Finding(case.seed, case.recipe, kind, f"{error.code}: {error}")
    for index, run in enumerate(runs):
        for port, output, wanted in zip(case.outputs, run.outputs, case.expected, strict=True):
            if not same(output, wanted[index]):
                off = np.abs(output.astype(float) - wanted[index]).max()
                detail = f"{port.name!r} by {off:g} on sample {index}"
                return Finding(case.seed, case.recipe, "not exact", detail)
    return Finding(case.seed, case.recipe, *_distance(case))


def _run(case: Case, runner: HostRunner, index: int) -> list[np.ndarray]:
    assert isinstance(case.state.product, McuProduct)
    firmware = case.state.product.firmware
    interface, plan = firmware.interface, firmware.plan
    pointers = [runner.place(array[index]) for array in case.codes]
    sizes = [int(np.prod(p.shape)) * np.dtype(p.dtype).itemsize for p in case.outputs]
    results = [runner.allocate(size) for size in sizes]
    arena = runner.place(np.full(max(plan.arena_bytes, 16), 0xA5, np.uint8))
    status = runner.call(f"{interface.model}_run", *pointers, *results, arena)
    if status:
        raise FewbitsError("run-failed", f"the run function returned {status}")
    outputs = [
        np.frombuffer(runner.read(address, size), port.dtype).reshape(port.shape)
        for address, size, port in zip(results, sizes, case.outputs, strict=True)
    ]
    runner.release()
    return outputs


def _distance(case: Case) -> tuple[str, str]:
    """Whether the results are close enough to onnxruntime's."""
    wanted = onnxruntime_outputs(case.model, case.samples)
    layers = len(case.model.graph.node)
    for port, codes, want in zip(case.outputs, case.expected, wanted, strict=True):
        got = port.to_real(codes).reshape(want.shape).astype(np.float64)
        error = float(np.abs(got - want).max())
        if case.recipe == "float":
            bound = FLOAT_TOLERANCE * (1.0 + float(np.abs(want).max()))
        else:
            step = port.scale or float(np.abs(want).max()) / 127
            reach = float(want.max() - want.min())
            bound = STEPS_A_LAYER * layers * step + LARGEST_NOISE * reach
        if not error <= bound:
            return "far from float", f"{port.name!r}: error {error:.4g}, bound {bound:.4g}"
    return "ok", ""


def onnxruntime_outputs(model: onnx.ModelProto, samples: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Outputs with a first axis that counts samples; the batch axis of 1 is kept."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    count = len(next(iter(samples.values())))
    rows = [
        session.run(None, {key: array[index][None] for key, array in samples.items()})
        for index in range(count)
    ]
    return [np.stack(parts) for parts in zip(*rows, strict=True)]


def sanitized(case: Case, compiler: str) -> Finding:
    """The project's own self-test, built with the address and undefined behaviour sanitizers."""
    sources = [*case.folder.glob("fewbits_*.c"), *(case.folder / n for n in _SELF_TEST)]
    try:
        program = build(
            sources, get_target("c"), case.folder / "selftest", include=[case.folder],
            optimize="-O1", compiler=compiler, sanitize=("address", "undefined"),
            extra=("-ffp-contract=off",),
        ).elf  # fmt: skip
    except FewbitsError as error:
        return Finding(case.seed, case.recipe, "does not build", error.message)
    done = subprocess.run([program], capture_output=True, text=True, errors="replace")
    if done.returncode:
        return Finding(case.seed, case.recipe, "sanitizer", (done.stdout + done.stderr)[-3000:])
    return Finding(case.seed, case.recipe, "ok")


_SELF_TEST = ("weights.c", "golden.c", "main.c")


def campaign(
    seeds: Iterable[int],
    recipes: Sequence[str],
    folder: Path,
    *,
    batch: int = 20,
    compiler: str | None = None,
    target: str = "c",
) -> Iterable[Finding]:
    """Findings for all seeds and recipes, `batch` projects per compiler call.

    With a `compiler` every project's self-test runs under its sanitizers as well. Targets other
    than ``c`` run in the emulator.
    """
    waiting: list[Case] = []

    def flush() -> Iterable[Finding]:
        if not waiting:
            return
        built, findings = build_all(waiting, folder)
        yield from findings
        for case, library in built:
            found = check(case, library)
            yield sanitized(case, compiler) if compiler and found.good else found
        waiting.clear()

    for seed in seeds:
        for recipe in recipes:
            case = prepare(seed, recipe, folder, target)
            if isinstance(case, Finding):
                yield case
                continue
            if target != "c":
                yield emulate(case)
                continue
            waiting.append(case)
            if len(waiting) >= batch:
                yield from flush()
    yield from flush()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, help="only this graph")
    parser.add_argument("--recipe", action="append", choices=["int8", "float"])
    parser.add_argument("--target", default="c")
    parser.add_argument("--sanitize", action="store_true")
    parser.add_argument("--keep", type=Path, help="folder for the projects")
    arguments = parser.parse_args()
    recipes = arguments.recipe or ["int8", "float"]
    seeds = range(arguments.first, arguments.first + arguments.count)
    if arguments.seed is not None:
        seeds = range(arguments.seed, arguments.seed + 1)
        print(onnx.printer.to_text(graphs.random_model(arguments.seed).graph))
    compiler = system_compiler() if arguments.sanitize else None
    started = time.monotonic()
    counts: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        for found in campaign(seeds, recipes, folder, compiler=compiler, target=arguments.target):
            label = found.kind
            if found.kind == "refused":
                label += " " + found.detail.partition(":")[0]
            counts[label] += 1
            if not found.good or arguments.seed is not None:
                print(f"seed {found.seed} {found.recipe}: {found.kind}\n{found.detail}", flush=True)
            elif found.kind == "refused":
                print(f"seed {found.seed} {found.recipe}: {found.detail}", flush=True)
    print(f"{sum(counts.values())} compilations in {time.monotonic() - started:.0f} s")
    for label, number in counts.most_common():
        print(f"{number:6} {label}")


if __name__ == "__main__":
    main()
