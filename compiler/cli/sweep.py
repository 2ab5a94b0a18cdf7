"""The verb ``sweep``: a plan from a file or from options, who runs it, and what is printed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import console, print_json, print_table, progress, reporting

if TYPE_CHECKING:
    from ..sweep.executors import Executor
    from ..sweep.plan import SweepPlan
    from ..sweep.run import SweepResult

#: Budgets that the terminal shows; the page has all.
_SHOWN = 12


def sweep(
    plan: Annotated[
        Path | None, typer.Argument(help="YAML file, see docs/sweep.md.", show_default=False)
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder; an earlier sweep goes on.")
    ] = Path("sweep"),
    model: Annotated[
        list[Path],
        typer.Option("--model", "-m", help="ONNX file; repeatable, as are the next nine."),
    ] = [],  # noqa: B006
    format_: Annotated[
        list[str], typer.Option("--format", "-f", help="int, fp, quantile ... or a whole name.")
    ] = [],  # noqa: B006
    bits: Annotated[list[int], typer.Option("--bits", "-b", help="2 to 8, or 16.")] = [],  # noqa: B006
    block: Annotated[list[str], typer.Option("--block", help="none, channel, 64, g64.")] = [],  # noqa: B006
    solver: Annotated[list[str], typer.Option("--solver", help="rtn, mse, gptq ...")] = [],  # noqa: B006
    recipe: Annotated[list[str], typer.Option("--recipe", "-r", help="Whole recipes.")] = [],  # noqa: B006
    backend: Annotated[
        list[str], typer.Option("--backend", help="Rules of tensorrt, snpe ... or all.")
    ] = [],  # noqa: B006
    observer: Annotated[
        list[str], typer.Option("--observer", help="Of activations, under each backend.")
    ] = [],  # noqa: B006
    target: Annotated[
        list[str], typer.Option("--target", "-t", help="Compile and measure latency.")
    ] = [],  # noqa: B006
    calibration: Annotated[
        Path | None, typer.Option("--calibration", "-c", help="Sample inputs of all models.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", "-d", help="Evaluation set of all models.")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="nats, accuracy, cosine, sqnr_db.")] = None,
    size: Annotated[str | None, typer.Option(help="What budgets count: total or body.")] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", min=1, help="Calibration samples.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Evaluation samples.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random choice.")] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, help="Worker processes; by default one per core."),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each worker.")] = 1,
    memory: Annotated[str | None, typer.Option(help="Memory of each worker, e.g. 4096M.")] = None,
    timeout: Annotated[float | None, typer.Option(min=0.0, help="Seconds for one cell.")] = None,
    ray: Annotated[
        str | None,
        typer.Option("--ray", help="Run on the Ray cluster at this address, auto or local."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the cells, run nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Try models x formats x bits x blocks x solvers x targets; tables, plots and a page."""
    with reporting(as_json):
        from ..sweep.cells import cells_of
        from ..sweep.run import sweep as run_sweep

        models = [
            {"path": path, "calibration": calibration, "evaluation": data}
            for path in map(Path.absolute, model)
        ]
        changes = {
            "models": models, "formats": format_, "bits": bits, "blocks": block,
            "solvers": solver, "recipes": recipe, "backends": backend, "observers": observer,
            "targets": target, "metric": metric,
            "size": size, "samples": samples, "limit": limit, "seed": seed,
        }  # fmt: skip
        chosen = _plan(
            plan, {key: value for key, value in changes.items() if value not in ([], None)}
        )
        if dry_run:
            _listed([cell.describe() for cell in cells_of(chosen)], as_json)
            return
        executor = _executor(jobs, threads, memory, timeout, ray)
        with progress(as_json) as listener:
            result = run_sweep(chosen, out, executor, listener)
        _show(result, chosen, as_json)


def _plan(file: Path | None, changes: Mapping[str, Any]) -> SweepPlan:
    """The file's plan with the options in place of its own."""
    from ...errors import FewbitsError
    from ..sweep.plan import load_plan, make_plan

    if file is None:
        if "models" not in changes:
            raise FewbitsError(
                "bad-plan", "no models to try", where="--model", hint="or give a plan as a file"
            )
        return make_plan(dict(changes))
    plan = load_plan(file)
    if not changes:
        return plan
    return make_plan({**plan.model_dump(), **changes}, str(file))


def _executor(
    jobs: int | None, threads: int, memory: str | None, timeout: float | None, ray: str | None
) -> Executor:
    import os

    from ..options import parse_size
    from ..sweep.executors import Limits, LocalExecutor

    limits = Limits(threads, parse_size(memory, "--memory") if memory else None, timeout)
    if ray is not None:
        from ..sweep.ray_executor import RayExecutor

        return RayExecutor(ray, limits)
    return LocalExecutor(jobs or max(1, (os.cpu_count() or 1) // threads), limits)


def _listed(cells: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(cells)
        return
    columns = ["model", "recipe", "format", "block", "solver", "target", "passes"]
    rows = [[*(cell[name] for name in columns[:-1]), "; ".join(cell["passes"])] for cell in cells]
    print_table(f"{len(cells)} cells", columns, rows, text=frozenset(columns))


def _show(result: SweepResult, plan: SweepPlan, as_json: bool) -> None:
    from ..sweep.fronts import budgets
    from ..sweep.page import group_rows

    if as_json:
        print_json({"folder": str(result.folder), "known": result.known, "rows": result.rows})
        return
    for (family, metric), rows in group_rows(result.rows).items():
        found = budgets(rows, f"{plan.size}_bits")
        found = found[:: -(-len(found) // _SHOWN)]
        widths = sorted({width for budget in found for width in budget.by_width})
        print_table(
            f"{family or 'all models'}: best {metric} within a budget of {plan.size} bits",
            ["bits", "model", "format", "block", "solver", metric, *map(str, widths)],
            (
                [b.bits, b.best["model"], b.best["format"] or b.best["recipe"], b.best["block"],
                 b.best["solver"], b.best["quality"],
                 *(b.by_width[w]["quality"] if w in b.by_width else None for w in widths)]
                for b in found
            ),
            text=frozenset({"model", "format", "block", "solver"}),
        )  # fmt: skip
        console.print()
    counts = ", ".join(
        f"{result.count(s)} {s}" for s in ("done", "refused", "failed") if result.count(s)
    )
    console.print(f"{counts} ({result.known} known before): {result.folder / 'report.html'}")
