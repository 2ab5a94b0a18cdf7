"""The figures that the README quotes: the MLPerf Tiny networks on every microcontroller target.

    python benchmarks/mlperf_tiny.py                       # everything, a few minutes
    python benchmarks/mlperf_tiny.py --tasks kws --targets cortex-m4 --samples 3
    python benchmarks/mlperf_tiny.py --markdown --json figures.json

Each network is compiled from its float ONNX file with recipe ``int8`` and its calibration set.
The target ``c`` runs the whole evaluation set on this machine: that is the accuracy, and every
sample is compared with the oracle. The other targets run `--samples` of them in the emulator,
compared with the oracle as well (``--all``: every sample), and their instructions are the largest
count seen. Networks and data are looked for in ``../shared`` and are not part of the repository.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import fewbits
import numpy as np
from fewbits.compiler.execution import encode_batch
from fewbits.compiler.reference import read_module
from fewbits.compiler.verify import Oracle
from rich.console import Console
from rich.table import Table

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"
TASKS = ("kws", "vww", "resnet8", "ad")
HOST = "c"
EMULATED = ("cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "rv32imc")

#: Accuracy (AD: area under the ROC curve) that int8 must keep.
SCORE_BAR = {"kws": 0.907, "vww": 0.823, "resnet8": 0.766, "ad": 0.893}
#: Largest arena with scratch, bytes.
RAM_BAR = {"kws": 16_300, "vww": 55_000, "resnet8": 50_000, "ad": 800}
#: Largest code, bytes.
TEXT_BAR = {("kws", "cortex-m4"): 20_000}
#: Instructions per inference of CMSIS-NN's best measured build of the same networks (muRISCV-NN's
#: on RISC-V). For VWW it computes the dead channels too; in proportion to the MACs that are left
#: it would take 0.517 of this.
PEER = {
    "cortex-m0plus": {"kws": 24_913_490, "vww": 74_312_141, "resnet8": 97_575_085, "ad": 1_758_677},
    "cortex-m3": {"kws": 10_540_467, "vww": 32_073_026, "resnet8": 41_755_080, "ad": 952_857},
    "cortex-m4": {"kws": 7_414_788, "vww": 23_420_303, "resnet8": 28_614_497, "ad": 570_211},
    "cortex-m7": {"kws": 7_725_260, "vww": 24_367_564, "resnet8": 29_617_416, "ad": 579_527},
    "cortex-m33": {"kws": 7_796_282, "vww": 24_532_213, "resnet8": 29_928_524, "ad": 579_490},
    "rv32imc": {"kws": 14_909_476, "vww": 44_718_387, "resnet8": 54_676_569, "ad": 1_337_535},
}

messages = Console(stderr=True)


@dataclasses.dataclass(frozen=True)
class Figures:
    """One network on one target.

    Attributes:
        samples: how many were run.
        exact: how many of them equal the oracle, bit for bit, in every output.
        score, float_score: the task's metric on the whole evaluation set; only on the host.
        instructions: the largest count per inference; None on the host.
        peer: what the count is compared with.
        ram_bytes, flash_bytes, text_bytes: arena with scratch; code and constants; code.
        compile_seconds: from ONNX to the verified binary.
    """

    task: str
    target: str
    samples: int
    exact: int
    score: float | None
    float_score: float | None
    instructions: int | None
    peer: int | None
    macs: int
    ram_bytes: int
    flash_bytes: int
    text_bytes: int
    compile_seconds: float


class Network:
    """A task with its samples as codes and what the oracle makes of them."""

    def __init__(self, name: str) -> None:
        from realdata import load  # pyright: ignore[reportMissingImports]

        self.name, self.task = name, load(name)
        self.codes: list[np.ndarray] = []
        self.expected: list[np.ndarray] = []
        self.samples = len(next(iter(self.task.inputs.values())))

    def float_score(self) -> float:
        """The float model's score, with onnxruntime."""
        import onnxruntime

        session = onnxruntime.InferenceSession(
            str(self.task.model), providers=["CPUExecutionProvider"]
        )
        outputs = [
            session.run(None, {key: a[i : i + 64] for key, a in self.task.inputs.items()})[0]
            for i in range(0, self.samples, 64)
        ]
        return self.task.score(np.concatenate(outputs))

    def ask_oracle(self, artifact: Any) -> None:
        """Codes of the evaluation set, and the oracle's outputs for them."""
        self.codes = encode_batch(self.task.inputs, artifact.inputs)
        self.expected = Oracle(read_module(artifact.folder, "integer"))(self.codes)


def measure(network: Network, target: str, samples: int | None, folder: Path) -> Figures:
    """Compile a network for a target and run it; the host's run comes first of all targets.

    Args:
        network: the task.
        target: the target's name.
        samples: how many to run, None for the whole evaluation set.
        folder: where the artifact is written.
    """
    start = time.perf_counter()
    artifact = fewbits.compile(
        network.task.model, folder, calibration=network.task.calibration, target=target
    )
    seconds = time.perf_counter() - start
    if not network.codes:
        network.ask_oracle(artifact)
    model = fewbits.load(folder)
    chosen = slice(None) if samples is None else slice(samples)
    given = {
        port.name: codes[chosen] for port, codes in zip(artifact.inputs, network.codes, strict=True)
    }
    got = model(raw=True, **given)
    count = len(next(iter(given.values())))
    equal = np.ones(count, bool)
    for port, want in zip(artifact.outputs, network.expected, strict=True):
        equal &= (got[port.name].reshape(count, -1) == want[:count].reshape(count, -1)).all(1)
    score = float_score = None
    if samples is None:
        first = artifact.outputs[0]
        score = network.task.score(first.to_real(got[first.name]))
        float_score = network.float_score() if target == HOST else None
    manifest = artifact.manifest
    return Figures(
        task=network.name,
        target=target,
        samples=count,
        exact=int(equal.sum()),
        score=score,
        float_score=float_score,
        instructions=max(model.instructions, default=None),
        peer=PEER.get(target, {}).get(network.name),
        macs=manifest["macs"],
        ram_bytes=manifest["ram_bytes"],
        flash_bytes=manifest["flash_bytes"],
        text_bytes=manifest["text_bytes"],
        compile_seconds=round(seconds, 1),
    )


Rows = list[Sequence[str]]


def score_table(figures: Sequence[Figures]) -> tuple[str, list[str], Rows]:
    """Accuracy and exactness of each network."""
    rows: Rows = []
    for one in (f for f in figures if f.target == HOST):
        everywhere = [f for f in figures if f.task == one.task]
        exact, samples = sum(f.exact for f in everywhere), sum(f.samples for f in everywhere)
        rows.append(
            (
                one.task,
                f"{one.float_score:.4f}",
                f"{one.score:.4f}",
                f"{SCORE_BAR[one.task]:.3f}",
                f"{one.samples:,}",
                f"{exact:,} of {samples:,}",
            )
        )
    columns = ["network", "float", "int8", "bar", "samples", "runs equal to the oracle"]
    return "Accuracy (ad: area under the ROC curve)", columns, rows


def instruction_table(figures: Sequence[Figures]) -> tuple[str, list[str], Rows]:
    """Instructions of each network on each emulated target, and the ratio to the peer's."""
    tasks = list(dict.fromkeys(f.task for f in figures))
    rows: Rows = []
    for target in dict.fromkeys(f.target for f in figures if f.target != HOST):
        found = {f.task: f for f in figures if f.target == target}
        row = [target]
        for task in tasks:
            one = found.get(task)
            row.append("–" if one is None else _against(one.instructions, one.peer))
        rows.append(row)
    return "Instructions per inference (and share of the peer's)", ["target", *tasks], rows


def size_table(figures: Sequence[Figures]) -> tuple[str, list[str], Rows]:
    """RAM, flash, code and compile time of each network on each target."""
    columns = ["network", "target", "MACs", "RAM B", "bar", "flash B", "code B", "compile s"]
    rows: Rows = [
        (
            f.task,
            f.target,
            f"{f.macs:,}",
            f"{f.ram_bytes:,}",
            f"{RAM_BAR[f.task]:,}",
            f"{f.flash_bytes:,}",
            f"{f.text_bytes:,}",
            f"{f.compile_seconds:.1f}",
        )
        for f in figures
    ]
    return "Memory and compile time", columns, rows


def misses(figures: Sequence[Figures]) -> list[str]:
    """Every figure that is worse than its bar, in words."""
    found = []
    for f in figures:
        place = f"{f.task} on {f.target}"
        if f.exact != f.samples:
            found.append(f"{place}: {f.samples - f.exact:,} of {f.samples:,} runs are not exact")
        if f.score is not None and f.score < SCORE_BAR[f.task]:
            found.append(f"{place}: score {f.score:.4f} < {SCORE_BAR[f.task]}")
        if f.peer is not None and f.instructions is not None and f.instructions > f.peer:
            found.append(f"{place}: {f.instructions:,} instructions > {f.peer:,}")
        if f.ram_bytes > RAM_BAR[f.task]:
            found.append(f"{place}: {f.ram_bytes:,} B RAM > {RAM_BAR[f.task]:,}")
        if f.text_bytes > TEXT_BAR.get((f.task, f.target), f.text_bytes):
            found.append(f"{place}: {f.text_bytes:,} B code > {TEXT_BAR[f.task, f.target]:,}")
    return found


def _against(count: int | None, peer: int | None) -> str:
    if count is None:
        return "–"
    text = f"{count / 1e6:.3f} M" if count < 10_000_000 else f"{count / 1e6:.2f} M"
    return f"{text} ({count / peer:.2f})" if peer else text


def _print(title: str, columns: Sequence[str], rows: Rows, markdown: bool) -> None:
    if markdown:
        print(f"**{title}**\n")
        print(f"| {' | '.join(columns)} |")
        print(f"|{'|'.join(['---', *['---:'] * (len(columns) - 1)])}|")
        for row in rows:
            print(f"| {' | '.join(row)} |")
        print()
        return
    table = Table(box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console() if sys.stdout.isatty() else Console(width=120)
    console.print(title, style="bold")
    console.print(table)
    console.print()


def run(
    tasks: Iterable[str], targets: Sequence[str], samples: int | None, folder: Path
) -> list[Figures]:
    """Measure every network on every target, the host first."""
    figures = []
    for name in tasks:
        network = Network(name)
        for target in dict.fromkeys([HOST, *targets]):
            wanted = None if target == HOST else samples
            one = measure(network, target, wanted, folder / f"{name}-{target}")
            count = "" if one.instructions is None else f", {one.instructions:,} instructions"
            messages.print(
                f"{name} on {target}: compiled in {one.compile_seconds} s, "
                f"{one.exact:,} of {one.samples:,} exact{count}"
            )
            figures.append(one)
    return figures


def main() -> int:
    """Measure and print; the exit status is 1 where a figure misses its bar."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--targets", nargs="+", default=EMULATED, choices=(HOST, *EMULATED))
    parser.add_argument("--samples", type=int, default=4, help="emulated samples a target")
    parser.add_argument("--all", action="store_true", help="emulate every sample")
    parser.add_argument("--markdown", action="store_true", help="tables for a README")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of realdata.py")
    arguments = parser.parse_args()
    if not (arguments.shared / "realdata.py").is_file():
        parser.error(f"no realdata.py in {arguments.shared}: networks and data do not ship")
    if arguments.samples < 1:
        parser.error("--samples must be at least 1")
    sys.path.insert(0, str(arguments.shared))
    samples = None if arguments.all else arguments.samples
    with tempfile.TemporaryDirectory(prefix="fewbits-") as folder:
        figures = run(arguments.tasks, arguments.targets, samples, Path(folder))
    for title, columns, rows in map(
        lambda table: table(figures), (score_table, instruction_table, size_table)
    ):
        _print(title, columns, rows, arguments.markdown)
    if arguments.json is not None:
        arguments.json.write_text(
            json.dumps([dataclasses.asdict(f) for f in figures], indent=2) + "\n", "utf-8"
        )
    missed = misses(figures)
    for line in missed:
        print(f"misses its bar: {line}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
