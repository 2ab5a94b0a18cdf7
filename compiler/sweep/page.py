"""``report.html`` of a sweep (one file, nothing loaded from elsewhere) and its plots as files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from ..files import write_file
from . import plots
from .canvas import png, svg
from .fronts import Budget, at_equal_bits, budgets, pareto_front
from .plan import SweepPlan
from .quality import LOWER_IS_BETTER

Row = Mapping[str, Any]
_TEMPLATES = Path(__file__).parent.parent / "templates"


def write_page(folder: Path, plan: SweepPlan, rows: Sequence[Row]) -> None:
    """Write the page, and ``plots/*.png`` and ``*.svg``, of all rows that have ended."""
    groups = []
    for (family, metric), members in group_rows(rows).items():
        cost = f"{plan.size}_bits"
        name = "-".join(part for part in (family, metric) if part)
        figures = {
            "scaling": plots.scaling_plot(members, cost),
            "widths": plots.widths_plot(members, cost),
            "panels": plots.panels_plot(members, cost),
            "latency": plots.latency_plot(members),
        }
        drawn = {}
        for kind, figure in figures.items():
            if figure is not None:
                drawn[kind] = svg(figure)
                write_file(folder / "plots" / f"{_safe(name)}-{kind}.svg", drawn[kind])
                write_file(folder / "plots" / f"{_safe(name)}-{kind}.png", png(figure))
        found = budgets(members, cost)
        groups.append(
            {
                "title": family or "All models",
                "metric": metric,
                "metric_name": plots.NAMES[metric],
                "cost": cost,
                "cost_name": plots.BITS[cost],
                "plots": drawn,
                "front": pareto_front(members, cost),
                "budgets": found,
                "readings": at_equal_bits(members, cost),
                "widths": sorted({width for budget in found for width in budget.by_width}),
                "wins": _wins(found),
                "rows": members,
                "lower": metric in LOWER_IS_BETTER,
                "timed": any(row["instructions"] or row["latency_ms"] for row in members),
            }
        )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = _figure
    text = environment.get_template("sweep.html.j2").render(
        groups=groups,
        plan=plan,
        problems=[row for row in rows if row["status"] != "done"],
        count=len(rows),
        seconds=sum(row["seconds"] or 0.0 for row in rows),
    )
    write_file(folder / "report.html", text)


def group_rows(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows with a quality by family of models and metric: what one plot may compare."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row["status"] == "done" and row["quality"] is not None:
            groups.setdefault((row["model_family"], row["metric"]), []).append(row)
    return groups


def _wins(found: Sequence[Budget]) -> list[tuple[int, int]]:
    """How many budgets each width wins, most first; ties go to every width that is as good."""
    wins = Counter(
        width
        for budget in found
        for width, row in budget.by_width.items()
        if row["quality"] == budget.best["quality"]
    )
    return sorted(wins.items(), key=lambda entry: (-entry[1], entry[0]))


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[:80] or "all"


def _figure(value: Any) -> str:
    if value is None or value == "":
        return "–"
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
