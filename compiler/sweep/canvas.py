"""What a sweep's plots are drawn on: figures without pyplot, axes of bits, colours, files."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from .fronts import loss_of

Row = Mapping[str, Any]
INK, SOFT, GRID = "#20242b", "#8a8f98", "#e6e8ec"
#: One colour per width, from few bits to many, readable on white and in print.
WIDTHS = {
    2: "#6b2c91", 3: "#b5316f", 4: "#e0641f", 5: "#c9a012", 6: "#5c9e31", 7: "#1f9a8a",
    8: "#2f6fb7", 16: "#7d8794", 32: "#20242b",
}  # fmt: skip
FAMILIES = ("#2f6fb7", "#e0641f", "#5c9e31", "#b5316f", "#1f9a8a", "#c9a012", "#6b2c91", "#7d8794")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def bits_axis(axes: Any, rows: Sequence[Row], cost: str) -> None:
    """A logarithmic axis to base 2 whose ticks are powers of two, in words."""
    low = min(row[cost] for row in rows) * 0.9
    high = max(row[cost] for row in rows) * 1.1
    axes.set_xscale("log", base=2)
    axes.set_xlim(low, high)
    ticks = [2**n for n in range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)]
    points = axes.get_position().width * axes.figure.get_figwidth() * 72
    step = max(1, math.ceil(len(ticks) * 42 / points))
    axes.set_xticks(ticks[::step], [_bits_text(tick) for tick in ticks[::step]])
    axes.set_xticks([], minor=True)


def _bits_text(bits: int) -> str:
    for size, unit in ((1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")):
        if bits >= size:
            return f"{bits // size} {unit}"
    return str(bits)


def clip_losses(axes: Any, rows: Sequence[Row]) -> None:
    """Leave out what is far worse than the float models: one collapse would flatten the rest."""
    values = sorted(loss_of(row) for row in rows)
    best = values[0]
    floats = [loss_of(row) for row in rows if row["recipe"] == "float32"]
    worst = max(floats, default=values[len(values) // 2])
    top = min(values[-1], worst + 0.6 * max(worst - best, 0.05 * abs(best), 1e-9))
    margin = 0.04 * (top - best) or 1e-6
    if rows[0]["quality"] == loss_of(rows[0]):
        axes.set_ylim(best - margin, top + margin)
    else:
        axes.set_ylim(-top - margin, -best + margin)


def legend(axes: Any, title: str | None, is_sorted: bool) -> None:
    """A legend beside the axes; labels that are numbers come in their order if sorted."""
    handles, labels = axes.get_legend_handles_labels()
    if is_sorted:
        order = sorted(
            range(len(labels)), key=lambda i: (not labels[i].isdigit(), labels[i].zfill(3))
        )
        handles, labels = [handles[i] for i in order], [labels[i] for i in order]
    axes.legend(
        handles, labels, title=title, frameon=False, fontsize=8, title_fontsize=8,
        loc="center left", bbox_to_anchor=(1.0, 0.5), ncols=1 + len(labels) // 18,
    )  # fmt: skip


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Any, Any]:
    """A figure and its axes (one, or a table of them with shared ranges)."""
    import matplotlib
    from matplotlib.figure import Figure

    style: Any = {"font.size": 8.5, "text.parse_math": False, "axes.edgecolor": "#9aa0a8"}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
    for panel in axes.flat:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(True, color=GRID, linewidth=0.7)
        panel.set_axisbelow(True)
    return figure, axes[0][0] if rows == columns == 1 else axes


def svg(figure: Any) -> str:
    """A figure as SVG text to put into a page; equal figures give equal text."""
    import matplotlib

    stream = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fewbits"}):
        figure.savefig(stream, format="svg", metadata={"Date": None}, transparent=True)
    text = stream.getvalue()
    return text[text.index("<svg") :]


def png(figure: Any) -> bytes:
    """A figure as a PNG file."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=150, metadata={"Software": None})
    return stream.getvalue()
