"""How a compiled library looks in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def rows(manifest: Mapping[str, Any], wide: bool) -> tuple[list[str], list[Any]]:
    """Columns and rows of the layers' table; narrow terminals get those that fit."""
    names = ["layer", "operator", "weights as", "weights", "bytes", "bits", "kernel", "SNR dB"]
    table = [
        (
            layer["name"],
            layer["operator"],
            layer["format"],
            layer["weights"],
            (layer["bits"] + 7) // 8,
            round(layer["bits"] / layer["weights"], 2) if layer["weights"] else None,
            layer["kernel"],
            None if layer["snr_db"] is None else f"{layer['snr_db']:.1f}",
        )
        for layer in manifest["layers"]
    ]
    shown = [i for i, n in enumerate(names) if wide or n not in ("weights", "kernel", "SNR dB")]
    return [names[i] for i in shown], [tuple(row[i] for i in shown) for row in table]


def figures(manifest: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The figures that matter most of a library for CPUs."""
    return [*_sizes(manifest), ("CPU", f"{manifest['machine']}, {manifest['mcpu']}")]


def gpu_figures(manifest: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The same for GPUs."""
    return [
        *_sizes(manifest),
        ("GPUs", ", ".join(manifest["architectures"])),
        ("floats between operators", manifest["float"]),
        *_tuned(manifest),
    ]


def _tuned(manifest: Mapping[str, Any]) -> list[tuple[str, Any]]:
    tuning = manifest["tuning"]
    found = f"{tuning['tuned']} of {tuning['kernels']}"
    return [("tuned products", found)] if tuning["tuned"] else []


def _sizes(manifest: Mapping[str, Any]) -> list[tuple[str, Any]]:
    bits = manifest["weight_bits"]
    whole = (bits["codes"] + bits["metadata"] + 7) // 8
    return [
        ("library", _bytes(manifest["library_bytes"])),
        ("  weights", _bytes(whole)),
        ("  of which scales and other metadata", _bytes((bits["metadata"] + 7) // 8)),
    ]


def _bytes(count: int | None) -> str | None:
    return None if count is None else f"{count:,} B"
