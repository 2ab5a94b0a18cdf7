"""A run as a table on the terminal, as JSON, and as Markdown rows: measured figures and bars."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any

from .cases import Bar, Product, as_plan
from .run import Report, Row, published

NOT_MEASURED = "not measured: no GPU was at hand"


def speed(row: Row) -> str:
    """Operations per second of a product in tera, or nothing."""
    ours = row.milliseconds.get("fewbits")
    if ours is None or not isinstance(row.case, Product):
        return ""
    case = row.case
    operations = 2.0 * case.rows * case.outputs * case.inputs
    return f"{operations / ours / 1e9:.0f} TFLOP/s"


def reached(bar: Bar, row: Row, report: Report) -> str:
    """``0.93 / >= 0.90 of cuBLASLt int8``."""
    share = row.share(bar.against, report.ceilings)
    found = "not measured" if share is None else f"{share:.2f}"
    name = "copy bandwidth" if bar.against == "copy" else bar.against
    return f"{found} / >= {bar.least:.2f} of {name}"


def outcome(row: Row) -> str:
    """``right``, or what is wrong."""
    if row.wrong is not None:
        return row.wrong
    exact = isinstance(row.case, Product) and row.case.check == "exact"
    return "equal" if exact else "within bounds"


def table(report: Report) -> Any:
    """For rich."""
    from rich.table import Table

    title = f"{report.card}, {report.plan['architecture']}, driver {report.driver}"
    result = Table(title=title)
    for column in ("case", "kernel", "result", "us", "speed", "measured / bar"):
        result.add_column(column, justify="right" if column in ("us", "speed") else "left")
    for row in report.rows:
        ours = row.milliseconds.get("fewbits")
        result.add_row(
            row.case.title, row.kernel.split(" ")[0].rstrip(";"), outcome(row),
            "" if ours is None else f"{ours * 1e3:.1f}", speed(row),
            "\n".join(reached(bar, row, report) for bar in row.case.bars),
        )  # fmt: skip
    return result


def notes(report: Report) -> list[str]:
    """Ceilings, missing peers, and figures of others."""
    lines = [f"{name}: {value / 1e12:.2f} T/s" for name, value in report.ceilings.items()]
    lines += [f"missing: {line}" for line in report.missing]
    return lines + [f"published: {line}" for line in published()]


def markdown(report: Report) -> str:
    """Rows for a README, with the card and the date."""
    day = datetime.date.today().isoformat()
    lines = [
        f"Measured on {report.card}, driver {report.driver}, {day}."
        if report.card != "emulated"
        else f"{NOT_MEASURED[0].upper()}{NOT_MEASURED[1:]} ({day}); checked in the emulated GPU.",
        "",
        "| case | result | µs | measured / bar |",
        "|---|---|---:|---|",
    ]
    for row in report.rows:
        ours = row.milliseconds.get("fewbits")
        time = "" if ours is None else f"{ours * 1e3:.1f}"
        bars = "; ".join(reached(bar, row, report) for bar in row.case.bars)
        lines.append(f"| {row.case.title} | {outcome(row)} | {time} | {bars} |")
    return "\n".join([*lines, "", *(f"- {line}" for line in notes(report))]) + "\n"


def as_json(report: Report) -> dict[str, Any]:
    """Everything, with the date."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "card": report.card,
        "driver": report.driver,
        "architecture": report.plan["architecture"],
        "nvcc": report.plan["nvcc"],
        "versions": {**report.plan["versions"], **report.versions},
        "ceilings": report.ceilings,
        "missing": report.missing,
        "published": published(),
        "rows": [
            {
                **as_plan(row.case),
                "kernel": row.kernel,
                "result": outcome(row),
                "milliseconds": row.milliseconds,
                "bytes": row.bytes,
                "bars": [
                    {**dataclasses.asdict(bar), "measured": row.share(bar.against, report.ceilings)}
                    for bar in row.case.bars
                ],
            }
            for row in report.rows
        ],
    }


def missed(report: Report) -> list[str]:
    """Wrong results, and bars that were measured and not reached."""
    found = []
    for row in report.rows:
        if row.wrong is not None:
            found.append(f"{row.case.title}: {row.wrong}")
        for bar in row.case.bars:
            share = row.share(bar.against, report.ceilings)
            if share is not None and share < bar.least:
                found.append(f"{row.case.title}: {reached(bar, row, report)}")
    return found
