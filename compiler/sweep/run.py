"""The road of a sweep: plan, cells, what is known already, the rest in parallel, what it shows."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..progress import Progress, quiet
from .cells import Cell, cells_of
from .executors import Executor, LocalExecutor
from .plan import SweepPlan
from .store import Store
from .tables import row_of, write_tables


@dataclasses.dataclass(frozen=True)
class SweepResult:
    """What a sweep left.

    Attributes:
        folder: ``results.parquet``, ``results.csv``, ``report.html``, ``plots/`` and ``cells/``.
        rows: one for each cell that has ended, see `tables.COLUMNS`.
        known: how many cells had ended before.
    """

    folder: Path
    rows: list[dict[str, Any]]
    known: int

    def count(self, status: str) -> int:
        """Cells with that status."""
        return sum(row["status"] == status for row in self.rows)


def sweep(
    plan: SweepPlan,
    out: str | Path,
    executor: Executor | None = None,
    progress: Progress = quiet,
) -> SweepResult:
    """Run the cells of a plan that have not ended yet, and write tables, plots and a page.

    Ctrl-C and crashes lose the running cells only; the same call goes on from there.

    Args:
        plan: what to try.
        out: a new folder, or that of an earlier sweep.
        executor: who runs the cells; one process on this machine by default.
        progress: told about cells.

    Raises:
        FewbitsError: ``bad-plan`` and whatever is wrong with recipes, before anything runs;
            ``output-exists``, ``output-not-writable``.
    """
    store = Store(Path(out))
    progress.phase("plan")
    cells = cells_of(plan)
    described = {cell.key: cell.describe() for cell in cells}
    store.begin(plan.model_dump(mode="json"))
    missing = _missing(cells, store)
    progress.phase(f"{len(missing)} of {len(cells)} cells")
    jobs = [described[cell.key] for cell in missing]
    runs = (executor or LocalExecutor(1)).run(jobs)
    done = 0
    with contextlib.closing(runs):  # type: ignore[type-var]
        for job, outcome in runs:
            store.put(job["key"], described[job["key"]], outcome)
            done += 1
            progress.samples(done, len(jobs))
    progress.phase("tables and plots")
    rows = collect(cells, store)
    write_tables(store.folder, rows)
    from .page import write_page

    write_page(store.folder, plan, rows)
    return SweepResult(store.folder, rows, len(cells) - len(missing))


def collect(cells: list[Cell], store: Store) -> list[dict[str, Any]]:
    """The rows of the cells that have ended, in the plan's order."""
    rows = []
    for cell in cells:
        outcome: Mapping[str, Any] | None = store.last(cell.key)
        if outcome is not None:
            rows.append(row_of(cell.describe(), outcome))
    return rows


def _missing(cells: list[Cell], store: Store) -> list[Cell]:
    """Cells to run, each once though two models may be the same file."""
    wanted = {cell.key: cell for cell in cells if store.get(cell.key) is None}
    return list(wanted.values())
