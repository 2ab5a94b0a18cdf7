"""``report.html`` (one file, nothing loaded from elsewhere) and ``report.json``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2

from ...targets.catalogue import get_target
from ..files import write_file
from . import plots

_TEMPLATES = Path(__file__).parent.parent / "templates"


def write_report(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the report of a manifest into its folder, replacing an older one."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["thousands"] = _thousands
    environment.filters["decimal"] = _decimal
    kind = get_target(manifest["target"]).kind
    template, values = _KINDS[kind]
    text = environment.get_template(template).render(
        manifest=manifest,
        evaluation=manifest.get("evaluation"),
        snr=plots.snr_plot(manifest["layers"]),
        warnings=_warnings(manifest),
        **values(manifest),
    )
    write_file(folder / "report.html", text)
    data = {key: value for key, value in manifest.items() if key != "files"}
    write_file(folder / "report.json", json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def _firmware(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What only firmware's report shows."""
    layers = manifest["layers"]
    rows = [{**layer, **_shares(layer, manifest)} for layer in layers]
    return {
        "layers": rows,
        "largest_share": max((row["share"] or 0.0 for row in rows), default=0.0) or 1.0,
        "instructions": plots.instructions_plot(layers),
        "memory": plots.memory_plot(layers, manifest["ram_bytes"]) if layers else None,
        "flash": plots.flash_plot(layers),
        "integer_macs": _integer_share(manifest),
    }


def _library(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What only a library's report shows."""
    layers, bits = manifest["layers"], manifest["weight_bits"]
    count = sum(layer["weights"] for layer in layers)
    allowed = manifest["float_match"]
    integers = all(port["dtype"].startswith("int") for port in manifest["outputs"])
    return {
        "layers": layers,
        "sizes": plots.sizes_plot(layers),
        "weight_bytes": (bits["codes"] + bits["metadata"] + 7) // 8,
        "weight_count": count,
        "bits_per_weight": _over(sum(layer["bits"] for layer in layers), count),
        "code_bits_per_weight": _over(sum(layer["code_bits"] for layer in layers), count),
        "match": "outputs equal, bit for bit" if integers else f"outputs within {allowed:g}",
    }


def _over(part: int, whole: int) -> float | None:
    return part / whole if whole else None


_KINDS: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], dict[str, Any]]]] = {
    "mcu": ("firmware.html.j2", _firmware),
    "cpu": ("library.html.j2", _library),
    "cuda": ("library.html.j2", _library),
}


def _shares(layer: Mapping[str, Any], manifest: Mapping[str, Any]) -> dict[str, Any]:
    total = manifest["instructions_per_inference"]
    count, macs = layer["instructions"], layer["macs"]
    return {
        "share": 100.0 * count / total if count and total else None,
        "per_mac": count / macs if count and macs else None,
    }


def _warnings(manifest: Mapping[str, Any]) -> list[str]:
    found = []
    calibration = manifest["calibration"]
    if calibration and calibration["source"] == "random":
        found.append(
            "Calibrated on random data: sizes and counts are real, the accuracy means nothing."
        )
    if manifest.get("float_layers"):
        names = ", ".join(manifest["float_layers"][:8])
        found.append(f"Layers that compute in floating point: {names}.")
    found += [f"{n[0].upper()}{n[1:]}." for n in manifest["notes"] if n.startswith("not run: ")]
    return found


def _integer_share(manifest: Mapping[str, Any]) -> float:
    floats = set(manifest["float_layers"])
    total = manifest["macs"]
    inside = sum(layer["macs"] for layer in manifest["layers"] if layer["name"] not in floats)
    return 100.0 * inside / total if total else 100.0


def _thousands(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _decimal(value: float | None, places: int = 2) -> str:
    return "–" if value is None else f"{value:.{places}f}"
