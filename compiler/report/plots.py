"""The report's plots, as SVG text to put into the page."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

#: One colour per kind of operator, in a fixed order so that plots agree with each other.
COLOURS = {
    "conv2d": "#3568a8",
    "depthwise": "#5aa0c8",
    "dense": "#2f8f6b",
    "matmul": "#67b58f",
    "add": "#d08a2e",
    "multiply": "#e0ad5c",
    "average_pool2d": "#a3588f",
    "max_pool2d": "#c487b4",
    "softmax": "#b5483f",
}
OTHER = "#8a8f98"
_LABEL_LENGTH = 34


def instructions_plot(layers: Sequence[Mapping[str, Any]]) -> str | None:
    """Horizontal bars of instructions per layer; None where none were counted."""
    if not any(layer["instructions"] for layer in layers):
        return None
    return _bars(layers, "instructions", "instructions per inference")


def flash_plot(layers: Sequence[Mapping[str, Any]]) -> str | None:
    """Horizontal bars of constants per layer."""
    if not any(layer["flash_bytes"] for layer in layers):
        return None
    return _bars(layers, "flash_bytes", "bytes of constants in flash")


def sizes_plot(layers: Sequence[Mapping[str, Any]]) -> str | None:
    """Horizontal bars of bytes of weights per layer."""
    rows = [{**layer, "bytes": (layer["bits"] + 7) // 8} for layer in layers]
    return _bars(rows, "bytes", "bytes of weights") if rows else None


def snr_plot(layers: Sequence[Mapping[str, Any]]) -> str | None:
    """Signal to noise ratio of each layer's output against the float model."""
    if not any(layer["snr_db"] for layer in layers):
        return None
    return _bars(layers, "snr_db", "signal to noise ratio against float, dB")


def memory_plot(layers: Sequence[Mapping[str, Any]], arena: int) -> str:
    """Bytes of the arena in use while each layer runs."""
    figure, axes = _figure(2.8)
    positions = range(len(layers))
    scratch = [layer["scratch_bytes"] for layer in layers]
    buffers = [layer["live_bytes"] - s for layer, s in zip(layers, scratch, strict=True)]
    axes.bar(positions, buffers, color=COLOURS["conv2d"], width=0.8, label="buffers")
    axes.bar(positions, scratch, bottom=buffers, color=COLOURS["add"], width=0.8, label="scratch")
    axes.axhline(arena, color="#b5483f", linewidth=1, linestyle="--", label="arena")
    axes.set_ylabel("bytes")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("layer, in order of execution")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=3, fontsize=8)
    axes.set_xlim(-0.6, len(layers) - 0.4)
    return _svg(figure)


def _bars(layers: Sequence[Mapping[str, Any]], key: str, label: str) -> str:
    figure, axes = _figure(1.0 + 0.21 * len(layers))
    positions = range(len(layers))
    values = [layer[key] or 0 for layer in layers]
    colours = [COLOURS.get(layer["operator"], OTHER) for layer in layers]
    axes.barh(positions, values, color=colours, height=0.75)
    axes.set_yticks(positions, [_label(layer["name"]) for layer in layers], fontsize=7.5)
    axes.invert_yaxis()
    axes.set_ylim(len(layers) - 0.4, -0.6)
    axes.set_xlabel(label)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    largest = max(values) or 1
    for position, value in zip(positions, values, strict=True):
        if value:
            text = f"{value:,}" if isinstance(value, int) else f"{value:.1f}"
            axes.text(value + largest * 0.01, position, text, va="center", fontsize=7)
    axes.set_xlim(0, largest * 1.12)
    _legend(figure, layers)
    return _svg(figure)


def _legend(figure: Any, layers: Sequence[Mapping[str, Any]]) -> None:
    """What the colours mean, above the plot."""
    from matplotlib import patches

    present = {layer["operator"] for layer in layers}
    entries = [
        patches.Patch(color=colour, label=name)
        for name, colour in COLOURS.items()
        if name in present
    ]
    if present - COLOURS.keys():
        entries.append(patches.Patch(color=OTHER, label="other"))
    figure.legend(
        handles=entries, loc="outside upper right", ncols=len(entries), frameon=False, fontsize=7.5,
        handlelength=1.0, columnspacing=1.2,
    )  # fmt: skip


def _label(name: str) -> str:
    """A layer's name, made short and printable: matplotlib would read ``$`` as mathematics."""
    text = "".join(c if c.isprintable() and c != "$" else "?" for c in name)
    return text if len(text) <= _LABEL_LENGTH else "…" + text[-_LABEL_LENGTH + 1 :]


def _figure(height: float) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    pyplot.rcParams.update(
        {
            "font.family": "sans-serif",
            "font.size": 8.5,
            "svg.fonttype": "none",
            "svg.hashsalt": "fewbits",  # equal plots, equal bytes
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": "#9aa0a8",
            "text.parse_math": False,
        }
    )
    figure, axes = pyplot.subplots(figsize=(8.2, min(height, 60)), layout="constrained")
    return figure, axes


def _svg(figure: Any) -> str:
    from matplotlib import pyplot

    stream = io.StringIO()
    with warnings.catch_warnings():
        # Text stays text in the SVG: glyphs come from the browser's fonts, not from matplotlib's.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(stream, format="svg", metadata={"Date": None}, transparent=True)
    pyplot.close(figure)
    text = stream.getvalue()
    return text[text.index("<svg") :]
