"""A sweep's plots: quality against bits, what each width loses, quality against latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .canvas import FAMILIES, INK, MARKERS, SOFT, WIDTHS, bits_axis, clip_losses, legend, new_figure
from .fronts import at_equal_bits, budgets, curves, loss_of, pareto_front

Row = Mapping[str, Any]
NAMES = {
    "nats": "nats per token (less is better)",
    "accuracy": "accuracy",
    "cosine": "cosine to the float model",
    "sqnr_db": "signal to noise against float, dB",
}
BITS = {
    "total_bits": "bits of the whole model",
    "body_bits": "bits of the body (without embeddings and head)",
}


def scaling_plot(rows: Sequence[Row], cost: str) -> Any:
    """Quality against log2 bits: a line for each (width, family, block, solver), and the front."""
    figure, axes = new_figure(7.6, 4.9)
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
    bits_axis(axes, rows, cost)
    axes.set_xlabel(BITS[cost])
    axes.set_ylabel(NAMES[rows[0]["metric"]])
    clip_losses(axes, rows)
    legend(axes, "bits per code" if family_plot else "format", family_plot)
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
    figure, axes = new_figure(
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
            bits_axis(panel, rows, cost)
            clip_losses(panel, rows)
            if line == 0:
                panel.set_title(family, fontsize=9)
            if column == 0:
                panel.set_ylabel(f"block {block}")
            if column:
                panel.tick_params(labelleft=False)
            if line < len(blocks) - 1:
                panel.tick_params(labelbottom=False)
    figure.supxlabel(BITS[cost], fontsize=8.5)
    figure.supylabel(NAMES[rows[0]["metric"]], fontsize=8.5)
    from matplotlib.lines import Line2D

    widths = sorted({row["bits"] for row in rows if row["bits"] is not None})
    handles = [Line2D([], [], color=WIDTHS.get(w, SOFT), marker="o", label=str(w)) for w in widths]
    handles.append(Line2D([], [], color="#c9ccd1", linewidth=3, label="front"))
    if any(row["solver"] not in ("", "rtn") for row in grid):
        handles.append(Line2D([], [], color=SOFT, linestyle="--", label="other solver than rtn"))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False,
                  fontsize=8, title="bits per code", title_fontsize=8)  # fmt: skip
    return figure


def widths_plot(rows: Sequence[Row], cost: str) -> Any | None:
    """How much worse the best of each width is than the best of all, over the bits.

    For a family of models at equal bits, between its sizes; for one model within a budget. The
    line at 0 is the width that wins. None where fewer than two widths can be compared.
    """
    readings = at_equal_bits(rows, cost, per_octave=8)
    points = [(r.bits, r.loss) for r in readings] or [
        (b.bits, {width: loss_of(row) for width, row in b.by_width.items()})
        for b in budgets(rows, cost, per_octave=8)
    ]
    points = [(bits, loss) for bits, loss in points if len(loss) > 1]
    if not points:
        return None
    figure, axes = new_figure(7.6, 3.6)
    excesses = {
        width: [(bits, loss[width] - min(loss.values())) for bits, loss in points if width in loss]
        for width in sorted({width for _, loss in points for width in loss})
    }
    found = sorted(excess for line in excesses.values() for _, excess in line)
    # The interesting part: widths that hopelessly lose leave the picture at the top.
    top = max(found[int(0.8 * (len(found) - 1))], 1e-6)
    for width, line in excesses.items():
        if min(excess for _, excess in line) <= 1.05 * top:
            axes.plot(
                *zip(*line, strict=True), color=WIDTHS.get(width, SOFT), linewidth=1.6,
                drawstyle="default" if readings else "steps-post", label=str(width),
            )  # fmt: skip
    axes.set_ylim(-0.03 * top, 1.05 * top)
    what = rows[0]["metric"].removesuffix("_db")
    axes.set_ylabel(
        f"{what} lost against the best\n{'at equal bits' if readings else 'within the budget'}"
    )
    bits_axis(axes, [{cost: bits} for bits, _ in points], cost)
    axes.set_xlabel(("" if readings else "budget: ") + BITS[cost])
    legend(axes, "bits per code", True)
    return figure


def latency_plot(rows: Sequence[Row]) -> Any | None:
    """Quality against instructions, or milliseconds; None where nothing was timed."""
    column = next(
        (c for c in ("instructions", "latency_ms") if any(row.get(c) for row in rows)), None
    )
    if column is None:
        return None
    timed = [row for row in rows if row.get(column)]
    figure, axes = new_figure(7.6, 4.2)
    labels = list(dict.fromkeys(_short(row) for row in timed))
    for row in timed:
        colour = FAMILIES[labels.index(_short(row)) % len(FAMILIES)]
        marker = MARKERS[labels.index(_short(row)) // len(FAMILIES) % len(MARKERS)]
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
    clip_losses(axes, timed)
    legend(axes, None, False)
    return figure


def _curves(rows: Sequence[Row], family_plot: bool) -> list[list[Row]]:
    """Rows that a line joins, cheapest first: over the models, or over the widths of one model."""
    if family_plot:
        found = curves(rows, "total_bits")
    else:
        lines: dict[tuple[Any, ...], list[Row]] = {}
        for row in rows:
            lines.setdefault(
                tuple(row[n] for n in ("family", "block", "solver", "recipe")), []
            ).append(row)
        found = [sorted(line, key=lambda row: row["total_bits"]) for line in lines.values()]
    return sorted(found, key=lambda curve: (curve[0]["bits"] is None, curve[0]["bits"] or 0))


def _width_label(row: Row) -> str:
    return row["recipe"] if row["bits"] is None else str(row["bits"])


def _width_colour(row: Row) -> str:
    return WIDTHS.get(row["bits"], SOFT)


def _family_style(row: Row, rows: Sequence[Row]) -> tuple[str, str]:
    names = list(dict.fromkeys(r["family"] or r["recipe"] for r in rows))
    index = names.index(row["family"] or row["recipe"])
    return FAMILIES[index % len(FAMILIES)], MARKERS[index // len(FAMILIES) % len(MARKERS)]


def _short(row: Row) -> str:
    parts = [row["format"] or row["recipe"], row["block"], row["solver"]]
    return " ".join(part for part in parts if part)
