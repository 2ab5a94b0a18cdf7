"""Step two: what was built is checked, then timed beside its peers. Needs no fewbits, no compiler.

In the emulated GPU everything is checked and nothing is timed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .build import PLAN
from .cases import BITSANDBYTES, Case, Graph, Product, from_plan
from .values import Arguments, arguments, disagreement, drawn

Run = Callable[[], Any]


@dataclasses.dataclass
class Row:
    """What is known of a case.

    Attributes:
        case: which.
        kernel: which of fewbits' kernels, or why there is none.
        wrong: why the result is wrong; None where it is right; ``not run`` where there was none.
        milliseconds: by contender, ours under ``fewbits``; empty where nothing was timed.
        bytes: that are read and written at least.
        ours: runs it again; only until it was timed, as it holds its arrays.
    """

    case: Case
    kernel: str
    wrong: str | None = None
    milliseconds: dict[str, float] = dataclasses.field(default_factory=dict)
    bytes: int = 0
    ours: Run | None = None

    def share(self, against: str, ceilings: dict[str, float]) -> float | None:
        """Ours against a peer: its time over ours, or the share of the copy bandwidth."""
        ours = self.milliseconds.get("fewbits")
        if ours is None:
            return None
        if against == "copy":
            return self.bytes / ours * 1e3 / ceilings["copy"] if "copy" in ceilings else None
        theirs = self.milliseconds.get(against)
        return None if theirs is None else theirs / ours


@dataclasses.dataclass
class Report:
    """A whole run.

    Attributes:
        plan: what was built.
        card, driver: of the GPU; ``emulated`` where there is none.
        ceilings: measured: ``copy`` (bytes/s), ``bf16``, ``b1`` (operations/s).
        rows: one a case.
        missing: peers that were not measured.
        versions: of what ran.
    """

    plan: dict[str, Any]
    card: str
    driver: str
    ceilings: dict[str, float]
    rows: list[Row]
    missing: list[str]
    versions: dict[str, str]


def run(
    folder: Path, say: Callable[[str], None], *, emulated: bool = False, rounds: int = 30,
    groups: list[str] | None = None,
) -> Report:  # fmt: skip
    """Check and time everything in a folder of `build`.

    Args:
        folder: with the plan.
        say: gets a line for each case.
        emulated: the process has an emulated GPU; nothing is timed.
        rounds: timed calls of each contender.
        groups: the table's groups that are wanted; None for all.
    """
    plan = json.loads((folder / PLAN).read_text("utf-8"))
    import tvm

    device = tvm.cuda(0)
    if not device.exist:
        raise SystemExit("no GPU: --emulate checks the kernels on an emulated one")
    report = Report(plan, "emulated", "none", {}, [], [], versions(emulated))
    if not emulated:
        _describe(report, device, folder)
    for entry in plan["cases"]:
        if groups is not None and entry["group"] not in groups:
            continue
        row = _row(entry, folder, device, emulated)
        report.rows.append(row)
        if row.ours is not None and not emulated:
            _time(row, row.ours, report, rounds)
            row.ours = None
        say(f"{row.case.title}: {row.wrong or 'right'}")
    return report


def _describe(report: Report, device: Any, folder: Path) -> None:
    import torch

    from .clock import ceilings, milliseconds
    from .peers import missing

    report.card = torch.cuda.get_device_name(0)
    report.driver = _driver_version()
    report.missing = missing()
    report.ceilings = ceilings()
    rate = report.plan["rates"]["b1"]
    out = _tensor(np.zeros(rate["results"], np.int32), device)
    function = load(folder / rate["library"])[rate["function"]]
    time = milliseconds({"b1": lambda: function(out)}, rounds=10)["b1"]
    report.ceilings["b1"] = rate["operations"] / time * 1e3


def _time(row: Row, ours: Run, report: Report, rounds: int) -> None:
    """Beside its peers; one that fails is missing, with its reason."""
    from .clock import milliseconds
    from .peers import peers

    contenders: dict[str, Run] = {"fewbits": ours}
    for name, peer in peers(row.case).items():
        try:
            peer()
        except RuntimeError as error:
            line = str(error).strip().splitlines()[0]
            report.missing.append(f"{name} for {row.case.title}: {line}")
        else:
            contenders[name] = peer
    row.milliseconds = milliseconds(contenders, rounds)


def _row(entry: dict[str, Any], folder: Path, device: Any, emulated: bool) -> Row:
    """A case, checked; right ones keep what runs them."""
    case = from_plan({k: v for k, v in entry.items() if k in FIELDS})
    if "missing" in entry:
        return Row(case, entry["missing"], "not run")
    row = Row(case, entry["kernel"])
    if isinstance(case, Product):
        given = arguments(case, entry, folder)
        row.bytes = given.bytes
        ours, result = launch(entry, folder, device, given)
        row.wrong = disagreement(case, given, result, "cpu" if emulated else "cuda")
    else:
        ours, row.wrong = _graph(case, entry, folder, device)
    row.ours = ours if row.wrong is None else None
    return row


FIELDS = (
    "type", "group", "weight", "rows", "outputs", "inputs", "block", "bars", "kind", "recipe",
    "sizes", "shapes", "template",
)  # fmt: skip


def launch(
    entry: dict[str, Any], folder: Path, device: Any, given: Arguments
) -> tuple[Run, np.ndarray]:
    """What launches a product's kernel again, and the result of a first time."""
    function = load(folder / entry["library"])[entry["function"]]
    tensors = [_tensor(array, device) for array in given.all()]
    function(*tensors)
    device.sync()
    return lambda: function(*tensors), tensors[-1].numpy()


def _graph(case: Graph, entry: dict[str, Any], folder: Path, device: Any) -> tuple[Run, str | None]:
    """What runs a model, and why it does not give what the oracle gave for its golden samples."""
    from tvm.runtime.vm import VirtualMachine

    main = VirtualMachine(load(folder / entry["library"]), device)[entry["function"]]
    golden = folder / entry["artifact"] / "golden"
    inputs = [np.load(golden / f"input_{place}.npy") for place in range(len(case.shapes))]
    want = np.load(golden / "output_0.npy").astype(np.float64)
    got = np.concatenate(
        [
            main(*(_tensor(array[i : i + 1], device) for array in inputs)).numpy()
            for i in range(len(want))
        ]
    )
    away = float(np.linalg.norm(got - want) / np.linalg.norm(want))
    wrong = None if away <= entry["tolerance"] else f"{away:.2g} of its length from the oracle"
    generator = np.random.default_rng(2)
    large = []
    for shape in case.shapes:
        x = drawn(generator, shape, "float32")
        if case.group == "outliers":
            x[:, :: max(1, shape[1] // 7)] *= 20
        large.append(_tensor(x, device))
    if not np.isfinite(main(*large).numpy()).all():
        wrong = "a result is no number"
    return lambda: main(*large), wrong


def load(path: Path) -> Any:
    """A library that `build` made."""
    import tvm

    return tvm.runtime.load_module(str(path.absolute()))


def _tensor(array: np.ndarray, device: Any) -> Any:
    import tvm

    return tvm.runtime.tensor(np.ascontiguousarray(array), device)


def _driver_version() -> str:
    """As NVIDIA's kernel module says."""
    try:
        words = Path("/proc/driver/nvidia/version").read_text("utf-8").splitlines()[0].split()
    except OSError:
        return "unknown"
    return next((word for word in words if word[:1].isdigit() and "." in word), "unknown")


def versions(emulated: bool) -> dict[str, str]:
    """Of Python, numpy, and torch with its CUDA."""
    import platform

    found = {"python": platform.python_version(), "numpy": np.__version__}
    if not emulated:
        import torch

        found |= {"torch": torch.__version__, "cuda": str(torch.version.cuda)}
    return found


def published() -> list[str]:
    """Figures of others that no one measured here, as they are quoted in the table's notes."""
    return [
        f"bitsandbytes, int8 with outliers split, Llama-3.1-8B on an H100, batch 1: "
        f"{BITSANDBYTES:.2f} of bf16's speed (theirs)",
        "TileLang, FP8 at 8192 x 8192 x 16384 on an H800: 1541 TFLOP/s (theirs)",
    ]
