"""A sweep's plots: quality against bits, the best width for each budget, quality against latency.

Figures are made without pyplot, so nothing global is touched and workers may plot as well.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .fronts import Budget, budgets, loss_of, pareto_front

Row = Mapping[str, Any]
INK, SOFT, GRID = "#20242b", "#8a8f98", "#e6e8ec"
#: One colour per width, from few bits to many, readable on white and in print.
_WIDTHS = {
    2: "#6b2c91", 3: "#b5316f", 4: "#e0641f", 5: "#c9a012", 6: "#5c9e31", 7: "#1f9a8a",
    8: "#2f6fb7", 16: "#7d8794", 32: "#20242b",
}  # fmt: skip
_FAMILIES = ("#2f6fb7", "#e0641f", "#5c9e31", "#b5316f", "#1f9a8a", "#c9a012", "#6b2c91", "#7d8794")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
NAMES = {
    "nats": "nats per token (less is better)",
    "accuracy": "accuracy",
    "cosine": "cosine to the float model",
    "sqnr_db": "signal to noise against float, dB",
}
BITS = {
    "total_bits": "total bits of the model",
    "body_bits": "bits of the body (without embeddings and head)",
}


def scaling_plot(rows: Sequence[Row], cost: str) -> Any:
    """Quality against log2 bits: a line for each (width, family, block, solver), and the front."""
    figure, axes = _figure(7.6, 4.9)
    family_plot = len({row["model"] for row in rows}) > 1
    drawn: set[str] = set()
    for curve in _curves(rows, family_plot):
        row = curve[0]
        if family_plot:
            label, colour, marker = _width_label(row), _width_colour(row), "."
        else:
            label, (colour, marker) = row["family"] or row["recipe"], _family_style(row, rows)
        axes.plot(
            [r[cost] for r in curve], [r["quality"] for r in curve], color=colour, marker=marker,
            markersize=4, linewidth=0.9, alpha=0.55, zorder=2,
            label="_" if label in drawn else label,
        )  # fmt: skip
        drawn.add(label)
    front = pareto_front(rows, cost)
    axes.plot(
        [r[cost] for r in front], [r["quality"] for r in front], color=INK, linewidth=1.6,
        drawstyle="steps-post", zorder=3, label="Pareto front",
    )  # fmt: skip
    for row in front:
        axes.plot(row[cost], row["quality"], "o", color=_width_colour(row), markersize=6.5,
                  markeredgecolor=INK, markeredgewidth=0.8, zorder=4)  # fmt: skip
    _bits_axis(axes, rows, cost)
    axes.set_ylabel(NAMES[rows[0]["metric"]])
    _clip_losses(axes, rows)
    _legend(axes, "bits per code" if family_plot else "format", family_plot)
    return figure


def panels_plot(rows: Sequence[Row], cost: str) -> Any | None:
    """The curves apart: a panel for each block and family, a line for each width and solver.

    None for a single model, where there are no such lines.
    """
    grid = [row for row in rows if row["recipe"] == "grid" and row["block"]]
    families = list(dict.fromkeys(row["family"] for row in grid))
    blocks = list(dict.fromkeys(row["block"] for row in grid))
    if len({row["model"] for row in rows}) < 2 or not families:
        return None
    figure, axes = _figure(
        1.2 + 2.1 * len(families), 0.9 + 1.8 * len(blocks), rows=len(blocks), columns=len(families)
    )
    reference = [row for row in rows if not row["block"]]
    front = pareto_front(rows, cost)
    for line, block in enumerate(blocks):
        for column, family in enumerate(families):
            panel = axes[line][column]
            here = [r for r in grid if r["family"] == family and r["block"] == block]
            panel.plot([r[cost] for r in front], [r["quality"] for r in front], color="#c9ccd1",
                       linewidth=3, drawstyle="steps-post", zorder=1)  # fmt: skip
            for curve in _curves([*reference, *here], True):
                dashed = curve[0]["solver"] not in ("", "rtn")
                panel.plot([r[cost] for r in curve], [r["quality"] for r in curve],
                           color=_width_colour(curve[0]), marker="o", markersize=2.6,
                           linewidth=1.1, linestyle="--" if dashed else "-", zorder=2)  # fmt: skip
            _bits_axis(panel, rows, cost, label=line == len(blocks) - 1)
            _clip_losses(panel, rows)
            if line == 0:
                panel.set_title(family, fontsize=9)
            if column == 0:
                panel.set_ylabel(f"block {block}")
            if column:
                panel.tick_params(labelleft=False)
            if line < len(blocks) - 1:
                panel.tick_params(labelbottom=False)
    from matplotlib.lines import Line2D

    widths = sorted({row["bits"] for row in rows if row["bits"] is not None})
    handles = [Line2D([], [], color=_WIDTHS.get(w, SOFT), marker="o", label=str(w)) for w in widths]
    handles.append(Line2D([], [], color="#c9ccd1", linewidth=3, label="front"))
    if any(row["solver"] not in ("", "rtn") for row in grid):
        handles.append(Line2D([], [], color=SOFT, linestyle="--", label="other solver than rtn"))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False,
                  fontsize=8, title="bits per code", title_fontsize=8)  # fmt: skip
    return figure


def widths_plot(rows: Sequence[Row], cost: str) -> Any | None:
    """How much worse the best of each width is than the best of all, over the budget.

    The line at 0 is the width that wins. None where fewer than two widths were tried.
    """
    found = budgets(rows, cost, per_octave=8)
    widths = sorted({width for budget in found for width in budget.by_width})
    if len(widths) < 2:
        return None
    figure, axes = _figure(7.6, 3.6)
    for width in widths:
        line = [(b.bits, _excess(b, width)) for b in found if width in b.by_width]
        axes.plot(*zip(*line, strict=True), color=_WIDTHS.get(width, SOFT), linewidth=1.6,
                  drawstyle="steps-post", label=str(width))  # fmt: skip
    excesses = sorted(_excess(b, w) for b in found for w in b.by_width)
    # The interesting part: widths that hopelessly lose leave the picture at the top.
    top = excesses[int(0.85 * (len(excesses) - 1))]
    axes.set_ylim(-0.03 * top, max(top, 1e-6) * 1.05)
    metric = rows[0]["metric"]
    axes.set_ylabel(f"{metric.removesuffix('_db')} lost against\nthe best within the budget")
    _bits_axis(axes, rows, cost, "budget: ")
    _legend(axes, "bits per code", True)
    return figure


def latency_plot(rows: Sequence[Row]) -> Any | None:
    """Quality against instructions, or milliseconds; None where nothing was timed."""
    column = next(
        (c for c in ("instructions", "latency_ms") if any(row.get(c) for row in rows)), None
    )
    if column is None:
        return None
    timed = [row for row in rows if row.get(column)]
    figure, axes = _figure(7.6, 4.2)
    labels = list(dict.fromkeys(_short(row) for row in timed))
    for row in timed:
        colour = _FAMILIES[labels.index(_short(row)) % len(_FAMILIES)]
        marker = _MARKERS[labels.index(_short(row)) // len(_FAMILIES) % len(_MARKERS)]
        seen = any(_short(r) == _short(row) for r in timed[: timed.index(row)])
        axes.plot(row[column], row["quality"], marker, color=colour, markersize=6,
                  label="_" if seen else _short(row))  # fmt: skip
    front = pareto_front(timed, column)
    axes.plot([r[column] for r in front], [r["quality"] for r in front], color=INK, linewidth=1.2,
              drawstyle="steps-post", zorder=1, label="Pareto front")  # fmt: skip
    if max(r[column] for r in timed) > 8 * min(r[column] for r in timed):
        axes.set_xscale("log")
    else:
        axes.xaxis.set_major_formatter("{x:,.4g}")
    axes.set_xlabel(
        {"instructions": "instructions per inference", "latency_ms": "ms per inference"}[column]
    )
    axes.set_ylabel(NAMES[timed[0]["metric"]])
    _clip_losses(axes, timed)
    _legend(axes, None, False)
    return figure


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


def _excess(budget: Budget, width: int) -> float:
    return loss_of(budget.by_width[width]) - loss_of(budget.best)


def _curves(rows: Sequence[Row], family_plot: bool) -> list[list[Row]]:
    """Rows that a line joins, cheapest first: over the models, or over the widths of one model."""

    def over_models(row: Row) -> tuple[Any, ...]:
        return (row["bits"], row["family"], row["block"], row["solver"], row["recipe"])

    def over_widths(row: Row) -> tuple[Any, ...]:
        return (row["family"], row["block"], row["solver"], row["recipe"])

    key: Callable[[Row], tuple[Any, ...]] = over_models if family_plot else over_widths
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    curves = [sorted(curve, key=lambda row: row["total_bits"]) for curve in found.values()]
    return sorted(curves, key=lambda curve: (curve[0]["bits"] is None, curve[0]["bits"] or 0))


def _width_label(row: Row) -> str:
    return row["recipe"] if row["bits"] is None else str(row["bits"])


def _width_colour(row: Row) -> str:
    return _WIDTHS.get(row["bits"], SOFT)


def _family_style(row: Row, rows: Sequence[Row]) -> tuple[str, str]:
    names = list(dict.fromkeys(r["family"] or r["recipe"] for r in rows))
    index = names.index(row["family"] or row["recipe"])
    return _FAMILIES[index % len(_FAMILIES)], _MARKERS[index // len(_FAMILIES) % len(_MARKERS)]


def _short(row: Row) -> str:
    parts = [row["format"] or row["recipe"], row["block"], row["solver"]]
    return " ".join(part for part in parts if part)


def _bits_axis(
    axes: Any, rows: Sequence[Row], cost: str, prefix: str = "", label: bool = True
) -> None:
    """A logarithmic axis to base 2 whose ticks are powers of two, in words."""
    low = min(row[cost] for row in rows) * 0.9
    high = max(row[cost] for row in rows) * 1.1
    axes.set_xscale("log", base=2)
    axes.set_xlim(low, high)
    ticks = [2**n for n in range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)]
    step = max(
        1,
        math.ceil(len(ticks) * 45 / (axes.get_position().width * axes.figure.get_figwidth() * 72)),
    )
    axes.set_xticks(ticks[::step], [_bits_text(tick) for tick in ticks[::step]])
    axes.set_xticks([], minor=True)
    if label:
        axes.set_xlabel(prefix + BITS[cost], fontsize=8)


def _bits_text(bits: int) -> str:
    for size, unit in ((1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")):
        if bits >= size:
            return f"{bits // size} {unit}b"
    return f"{bits} b"


def _clip_losses(axes: Any, rows: Sequence[Row]) -> None:
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


def _legend(axes: Any, title: str | None, is_sorted: bool) -> None:
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


def _figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Any, Any]:
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
