"""Whole models' figures on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def print_tables(found: dict[str, Any], bars: Mapping[tuple[str, str], float]) -> None:
    """Scores, then times against torch.

    Args:
        found: what `cuda_models.run` collected.
        bars: the least speed of eager torch's, by model and recipe.
    """
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for line in found["wrong"]:
        console.print(f"wrong: {line}", highlight=False)
    if found["accuracy"]:
        table = Table("model", "recipe", "score", "metric", title=found["card"])
        for row in found["accuracy"]:
            table.add_row(row["model"], row["recipe"], f"{row['score']:.4f}", row["metric"])
        console.print(table)
    for row in found["times"]:
        title = f"{row['model']}, {row['batch']} x {row['tokens']} tokens, {found['card']}"
        table = Table("contender", "us", "of torch's speed", "wanted", title=title)
        torch = row["milliseconds"]["torch fp16"]
        for name, time in row["milliseconds"].items():
            bar = bars.get((row["model"], name.split(",")[0]))
            table.add_row(
                name, f"{time * 1e3:.1f}", f"{torch / time:.2f}", f">= {bar}" if bar else ""
            )
        console.print(table)
    if not found["times"]:
        console.print("times: not measured, no GPU was at hand", highlight=False)
