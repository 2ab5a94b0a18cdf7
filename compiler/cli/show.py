"""How the verbs' results look in a terminal, and the small steps that only the CLI takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import FewbitsError
from ..artifact import Artifact, open_artifact
from . import show_library
from .output import console, messages, print_json, print_table, visible

if TYPE_CHECKING:
    from ..driver import Compilation
    from ..encodings import Encodings
    from ..inspection import Inspection
    from ..progress import Progress
    from ..quantized import Quantized
    from ..sensitivity import Sensitivity

LAYER_TEXT = frozenset({"layer", "operator", "note", "weights as", "kernel"})

#: Columns of a terminal from which on the layers' table is shown whole.
WIDE = 110


def compiled(result: Artifact | Compilation, as_json: bool) -> None:
    """The table after `compile` and for `report`."""
    if not isinstance(result, Artifact):
        _unfinished(result, as_json)
        return
    manifest = result.manifest
    if as_json:
        print_json({"folder": str(result.folder), **manifest})
        return
    wide = console.width >= WIDE
    layers, figures, content = _KINDS[result.kind]
    names, rows = layers(manifest, wide)
    print_table(
        f"{manifest['model']['name']} on {manifest['board'] or manifest['target']}, "
        f"recipe {manifest['recipe']['name']}",
        names,
        ((_short(row[0], 44 if wide else 22), *row[1:]) for row in rows),
        text=LAYER_TEXT,
    )
    console.print()
    print_table(None, ["what", "figure"], [*figures(manifest), *_agreement(manifest)])
    for note in marks(manifest):
        console.print(f"[yellow]![/] {visible(note)}")
    console.print(f"\n{visible(str(result.folder))}: {content}, manifest.json, report.html")


def _firmware_rows(manifest: Mapping[str, Any], wide: bool) -> tuple[list[str], list[Any]]:
    """Columns and rows of the layers' table; the report has every column."""
    total = manifest["instructions_per_inference"]
    names = ["layer", "operator", "MACs", "instr.", "per MAC", "%", "flash B", "RAM B", "SNR dB"]
    rows = [
        (
            layer["name"],
            layer["operator"],
            layer["macs"] or None,
            layer["instructions"],
            _ratio(layer["instructions"], layer["macs"], "{:.2f}"),
            _ratio(layer["instructions"], total, "{:.1%}"),
            layer["flash_bytes"],
            layer["live_bytes"],
            None if layer["snr_db"] is None else f"{layer['snr_db']:.1f}",
        )
        for layer in manifest["layers"]
    ]
    shown = [i for i, name in enumerate(names) if wide or name not in ("MACs", "per MAC")]
    return [names[i] for i in shown], [tuple(row[i] for i in shown) for row in rows]


def _firmware_figures(manifest: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The figures that matter most."""
    return [
        ("flash", _bytes(manifest["flash_bytes"])),
        ("  code", _bytes(manifest["text_bytes"])),
        ("  constants", _bytes(manifest["weights_bytes"])),
        ("RAM (arena with scratch)", _bytes(manifest["ram_bytes"])),
        ("stack", _bytes(manifest.get("stack_bytes"))),
        ("MACs", manifest["macs"]),
        ("instructions per inference", manifest["instructions_per_inference"]),
    ]


_KINDS = {
    "mcu": (_firmware_rows, _firmware_figures, "C project, bin/"),
    "cpu": (show_library.rows, show_library.figures, "model.so, examples/"),
    "cuda": (show_library.rows, show_library.gpu_figures, "model.so"),
}


def _agreement(manifest: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Accuracy, and agreement with the oracle."""
    rows: list[tuple[str, Any]] = []
    evaluation = manifest.get("evaluation")
    floats = any(port["dtype"].startswith("float") for port in manifest["outputs"])
    allowed = manifest.get("float_match") if floats else None
    oracle = f"within {allowed:g} of the oracle" if allowed else "exact against the oracle"
    if evaluation:
        rows += [
            ("score, compiled", evaluation["score"]),
            ("score, float (onnxruntime)", evaluation["float_score"]),
            ("SNR against float, dB", evaluation["snr_db"]),
            (oracle, f"{evaluation['exact']:,} of {evaluation['samples']:,}"),
        ]
    elif manifest.get("golden"):
        golden = manifest["golden"]["samples"]
        rows.append((oracle, f"{golden} of {golden} golden vectors"))
    return rows


def marks(manifest: Mapping[str, Any]) -> list[str]:
    """What a reader of the figures must know."""
    found = []
    calibration = manifest.get("calibration")
    if calibration and calibration["source"] == "random":
        found.append("calibrated on random data: the accuracy means nothing")
    if manifest.get("float_layers"):
        found.append(f"{len(manifest['float_layers'])} layers compute in floating point")
    found += [note for note in manifest.get("notes", []) if note.startswith("not run: ")]
    return found


def _unfinished(state: Compilation, as_json: bool) -> None:
    figures = state.product.plan() if state.product else {}
    if as_json:
        print_json(figures)
    else:
        print_table(None, ["what", "figure"], figures.items())
        console.print("nothing was written")


def _name_width() -> int:
    """Room for a layer's name beside five other columns."""
    return max(22, console.width - 58)


def _short(name: str, limit: int) -> str:
    """A layer's name with its end, which tells layers apart, in at most `limit` characters."""
    return name if len(name) <= limit else "…" + name[1 - limit :]


def _ratio(part: int | None, whole: int | None, form: str) -> str | None:
    return form.format(part / whole) if part and whole else None


def _bytes(count: int | None) -> str | None:
    return None if count is None else f"{count:,} B"


def verified(artifact: Artifact, data: Path, limit: int | None, listener: Progress) -> Artifact:
    """Evaluate an artifact, and keep the result in its manifest and report."""
    from ..driver import evaluate_and_keep

    evaluate_and_keep(artifact, data, limit, listener)
    return artifact


def evaluation(artifact: Artifact, as_json: bool) -> None:
    """The result of `verify`; a difference from the oracle is a failure."""
    found = artifact.manifest["evaluation"]
    if as_json:
        print_json(found)
    else:
        rows: list[tuple[str, Any]] = [
            ("samples", found["samples"]),
            ("exact against the oracle", found["exact"]),
            ("score, compiled", found["score"]),
            ("score, float (onnxruntime)", found["float_score"]),
            ("same class as float", found["agreement"]),
            ("SNR against float, dB", found["snr_db"]),
        ]
        if found["instructions"]:
            least, mean, most = found["instructions"]
            rows.append(
                ("instructions, least / mean / most", f"{least:,} / {mean:,.0f} / {most:,}")
            )
        print_table(None, ["what", "figure"], rows)
    if found["exact"] != found["samples"]:
        raise FewbitsError(
            "not-exact",
            f"{found['samples'] - found['exact']} samples differ from the oracle",
            hint="this is a defect of fewbits: please report it with the model",
        )


def run_folder(
    folder: Path, input_: Path, output: Path | None, raw: bool, listener: Progress
) -> tuple[dict[str, np.ndarray], list[int]]:
    """Run an artifact on a file of inputs and write a file of outputs."""
    from ..data import load_arrays, save_arrays
    from ..execution import run_artifact

    artifact = open_artifact(folder)
    arrays = load_arrays(input_)
    arrays.pop("labels", None)
    listener.phase("run")
    outputs, instructions = run_artifact(artifact, arrays, raw=raw, progress=listener)
    if output is not None:
        save_arrays(output, outputs)
    return outputs, instructions


def ran(
    outputs: Mapping[str, np.ndarray], instructions: list[int], output: Path | None, as_json: bool
) -> None:
    """The result of `run`."""
    mean = float(np.mean(instructions)) if instructions else None
    if as_json:
        shapes = {name: list(array.shape) for name, array in outputs.items()}
        print_json({"outputs": shapes, "instructions_per_inference": mean})
        return
    rows = []
    for name, array in outputs.items():
        flat = array.reshape(len(array), -1)
        rows.append((name, str(array.shape), str(array.dtype), int(flat[0].argmax())))
    print_table(None, ["name", "shape", "dtype", "largest of first"], rows)
    if mean is not None:
        console.print(f"{mean:,.0f} instructions per inference")
    if output is not None:
        console.print(f"outputs: {visible(str(output))}")


def quantized(found: Quantized, as_json: bool) -> None:
    """The result of `quantize`."""
    if as_json:
        print_json(found.as_dict())
        return
    rows: list[tuple[str, Any]] = [
        ("float model, bytes", found.float_bytes),
        ("written, bytes", found.bytes),
    ]
    if found.tensors is not None:
        rows.append(("tensors", found.tensors))
    if found.agreement is not None:
        snr = found.agreement.snr_db
        rows += [
            ("samples run in onnxruntime", found.agreement.samples),
            ("largest difference from the compressed model", found.agreement.largest_difference),
            ("SNR against the compressed model, dB", "equal" if snr is None else f"{snr:.1f}"),
        ]
    print_table(None, ["what", "figure"], rows)
    if found.calibration == "random":
        messages.print("[yellow]![/] calibrated on random data: the accuracy means nothing")
    console.print(visible(found.out) if found.out else "nothing was written")


def inspected(found: Inspection, as_json: bool) -> None:
    """The result of `inspect`."""
    if as_json:
        print_json(found.as_dict())
        return
    print_table(
        f"{found.name}, opset {found.opset}",
        ["", "name", "shape", "dtype"],
        [("in", p.name, str(p.shape), p.dtype) for p in found.inputs]
        + [("out", p.name, str(p.shape), p.dtype) for p in found.outputs],
        text=frozenset({"", "name", "shape", "dtype"}),
    )
    console.print()
    print_table(
        None,
        ["layer", "operator", "output", "MACs", "weights", "runs in"],
        (
            (_short(r.name, _name_width()), r.operator, str(r.shape), r.macs or None,
             r.weights or None, "integers" if r.reason is None else f"float: {r.reason}")
            for r in found.layers
        ),
        text=frozenset({"layer", "operator", "output", "runs in"}),
    )  # fmt: skip
    console.print()
    print_table(
        None,
        ["what", "figure"],
        [
            ("MACs", found.macs),
            ("weights", found.weights),
            ("MACs in integers", f"{found.integer_share:.1%}"),
        ],
    )
    for note in found.notes:
        console.print(f"[dim]{visible(note)}[/]")


def calibrated(found: Encodings, out: Path | None, as_json: bool) -> None:
    """The result of `calibrate`."""
    if as_json:
        print_json(found.as_dict())
        return
    print_table(
        f"{found.samples} samples from {found.source}",
        ["name", "low", "high", "scale", "zero point"],
        (
            (_short(e.name, _name_width()), e.low, e.high, e.scale, e.zero_point)
            for e in found.activations
        ),
    )
    if out is not None:
        console.print(f"\nencodings: {visible(str(out))}")


def ranked(ranking: Sensitivity, top: int, as_json: bool) -> None:
    """The result of `sensitivity`."""
    exclude = [entry.name for entry in ranking.entries[:top]]
    if as_json:
        print_json({**ranking.as_dict(), "exclude": exclude})
        return
    print_table(
        f"SNR of the output when everything is quantized: {ranking.all_db:.2f} dB",
        ["layer", "operator", "alone dB", "without it dB", "weights"],
        (
            (_short(e.name, _name_width()), e.operator, e.alone_db, e.without_db, e.weights or None)
            for e in ranking.entries
        ),
        text=LAYER_TEXT,
    )
    console.print("\nTo keep the most sensitive layers float:")
    quoted = " ".join(f"--keep-float {_shell(name)}" for name in exclude)
    console.print(f"  {visible(quoted)}", highlight=False, soft_wrap=True)
    console.print("or in a recipe:")
    names = ", ".join(f'"{_yaml(name)}"' for name in exclude)
    console.print(f"  - quantize: {{ignore: [{visible(names)}]}}", highlight=False, soft_wrap=True)


def _shell(name: str) -> str:
    import shlex

    return shlex.quote(name)


def _yaml(name: str) -> str:
    return name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
