"""Step one, without a GPU: kernels and small models become libraries, with a plan of what they are.

Weights do not travel. Dense ones are drawn where they are measured. Few-bit ones are packed here
for a few outputs, whose tiles are repeated there: stored tiles of outputs lie one after the other.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .cases import Case, Graph, Product, as_plan
from .models import onnx_model

PLAN = "plan.json"
#: Outputs of which a packed weight travels.
PERIOD = 32


def build(
    cases: Sequence[Case], architecture: str, folder: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """Libraries and a plan for `run`.

    Args:
        cases: what is to be measured.
        architecture: ``sm_80``, ``sm_89`` or ``sm_90a``.
        folder: gets one library a case, packed weights, and the plan.
        say: gets a line for each case.

    Returns:
        The plan. Cases that no kernel covers, or that do not compile, are in it with the reason.
    """
    from fewbits import FewbitsError
    from fewbits.targets.cuda import toolchain

    folder.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    for place, case in enumerate(cases):
        start = time.perf_counter()
        entry = as_plan(case)
        same = next((known for known in entries if _same_model(entry, known)), None)
        try:
            if same is not None:
                entry = same | entry
            elif isinstance(case, Product):
                entry |= _product(case, architecture, folder, f"case{place}")
            else:
                entry |= _graph(case, architecture, folder, f"case{place}")
        except FewbitsError as error:
            entry["missing"] = f"{error.code}: {error}"
        entries.append(entry)
        label = entry.get("kernel") or entry.get("missing")
        say(f"{case.title}: {label} ({time.perf_counter() - start:.0f} s)")
    rates = _binary_rate(architecture, folder)
    plan = {
        "architecture": architecture,
        "nvcc": toolchain.find_nvcc().release,
        "versions": _versions(),
        "rates": rates,
        "cases": entries,
    }
    (folder / PLAN).write_text(json.dumps(plan, indent=1) + "\n", encoding="utf-8")
    return plan


def _same_model(entry: dict[str, Any], known: dict[str, Any]) -> bool:
    """Whether another row of the table times the same model with other sizes."""
    keys = ("type", "kind", "recipe", "sizes")
    return entry["type"] == "graph" and all(entry[k] == known.get(k) for k in keys)


def linear(case: Product) -> Any:
    """The case as a problem for templates, its result in float16."""
    from fewbits.schedules.cuda.epilogue import plain, scaled
    from fewbits.schedules.cuda.problem import Linear
    from fewbits.schedules.cuda.weight_format import Dense

    if case.block is None:
        accumulator = "int32" if case.activation == "int8" else "float32"
        epilogue = scaled("float16", accumulator=accumulator)
        return Linear(case.inputs, case.outputs, case.activation, Dense(case.weight), epilogue)
    from fewbits.schedules.cuda.weight_only import FewBit

    layout = FewBit.of(_compressed(case))
    return Linear(case.inputs, case.outputs, "float16", layout, plain("float32", "float16"))


def _product(case: Product, architecture: str, folder: Path, name: str) -> dict[str, Any]:
    problem = linear(case)
    kernel, label = _kernel(case, problem, architecture, name)
    export(kernel, folder / f"{name}.so")
    arrays = [
        {"name": a.name, "shape": list(a.shape), "dtype": a.dtype}
        for a in problem.weight.arrays(case.outputs, case.inputs)
    ]
    entry = {
        "library": f"{name}.so",
        "function": kernel.name,
        "kernel": label,
        "instruction": kernel.instruction,
        "arrays": arrays,
        "operands": [[o.extends, o.dtype] for o in problem.epilogue.operands],
    }
    if case.block is not None:
        entry["tile"] = _tile(case, problem, folder)
    return entry


def _kernel(case: Product, problem: Any, architecture: str, name: str) -> tuple[Any, str]:
    """The cost model's choice, or that of the template that the case names; and its label.

    Raises:
        FewbitsError: ``no-kernel``.
    """
    from fewbits import FewbitsError
    from fewbits.schedules.cuda.architecture import ARCHITECTURES
    from fewbits.schedules.cuda.dispatch import Choice, dispatch
    from fewbits.schedules.cuda.templates import suitable

    card = ARCHITECTURES[architecture]
    if case.template is None:
        found = dispatch(problem, card, name, rows=case.rows)
        return found.kernels[0], found.labels[0]
    for template in suitable(problem, card):
        if template.name == case.template:
            sizes = template.rule(problem, card, case.rows)
            if sizes is not None:
                kernel = template.build(problem, card, sizes, name)
                return kernel, Choice(template, sizes).label
    raise FewbitsError("no-kernel", f"{case.template} does not cover it on {architecture}")


def export(kernel: Any, path: Path) -> None:
    """One kernel as a library of its own, whose function has the kernel's name."""
    from fewbits.targets.cpu.target import this_machine
    from fewbits.targets.cuda.compile import compile_kernels
    from fewbits.targets.vm.link import link
    from tvm.runtime import Executable

    (module,) = compile_kernels([kernel])
    link(Executable(module), this_machine(), path)


def _compressed(case: Product) -> Any:
    """`PERIOD` outputs of a weight in the case's format."""
    from fewbits.formats.compress import compress
    from fewbits.formats.granularity import PerGroup
    from fewbits.formats.parse import parse_format

    assert case.block is not None
    values = np.random.default_rng(case.inputs).standard_normal((PERIOD, case.inputs))
    return compress(
        values.astype(np.float32), parse_format(case.weight), granularity=PerGroup(case.block),
        scale_storage="float16",
    )  # fmt: skip


def _tile(case: Product, problem: Any, folder: Path) -> dict[str, Any]:
    """The packed weight of `PERIOD` outputs, and in which pieces it repeats."""
    layout = problem.weight
    packed = layout.pack(_compressed(case))
    small = layout.arrays(PERIOD, case.inputs)
    segments = {}
    for array, content in zip(small, packed, strict=True):
        if array.name == "codes":
            sizes = [PERIOD * case.inputs * plane.width // 32 for plane in layout.planes]
        else:
            sizes = [content.size]
        segments[array.name] = sizes
    file = f"{case.weight}-g{case.block}-{case.inputs}.npz"
    contents = {array.name: content for array, content in zip(small, packed, strict=True)}
    decoded = layout.decoded(packed, PERIOD, case.inputs).astype(np.float32)
    np.savez_compressed(folder / file, decoded=decoded, **contents)
    return {"file": file, "period": PERIOD, "segments": segments}


def _graph(case: Graph, architecture: str, folder: Path, name: str) -> dict[str, Any]:
    import fewbits

    artifact = fewbits.compile(
        onnx_model(case.kind, case.sizes), folder / name, calibration="random",
        target=f"cuda-{architecture.replace('_', '')}", recipe=case.recipe, to="build",
        tuning=None, force=True,
    )  # fmt: skip
    manifest = artifact.manifest
    keep_what_runs(artifact)
    kernels = [layer["kernel"] for layer in manifest["layers"]]
    return {
        "artifact": name,
        "library": f"{name}/{manifest['library']}",
        "function": f"main_{architecture}",
        "tolerance": tolerance(case.recipe),
        "kernel": "; ".join(dict.fromkeys(map(str, kernels))) or "fused loops",
    }


def tolerance(recipe: str) -> float:
    """How far results may be from the oracle's, as a share of their length: that of models."""
    from fewbits.targets.cuda.product import FLOAT_MATCH, ROUNDED_MATCH

    rounds = recipe in ("w8a8", "w8a8-smooth", "fp8", "llm-int8")
    return (ROUNDED_MATCH if rounds else FLOAT_MATCH)["float16"]


def keep_what_runs(artifact: Any) -> None:
    """Remove everything of an artifact but library, manifest and golden samples."""
    for path in sorted(artifact.folder.rglob("*"), reverse=True):
        wanted = (artifact.manifest["library"], "manifest.json")
        if path.is_file() and path.name not in wanted and path.parent.name != "golden":
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _binary_rate(architecture: str, folder: Path) -> dict[str, Any]:
    from .binary_rate import binary_rate

    kernel, operations = binary_rate(architecture)
    export(kernel, folder / "b1.so")
    return {"b1": {"library": "b1.so", "function": kernel.name, **dataclasses.asdict(operations)}}


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("fewbits", "apache-tvm", "apache-tvm-ffi")}
