"""The verb ``tune`` for GPUs: all at once, or its steps on different machines."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ...errors import FewbitsError
from .output import console, messages, print_json, print_table, progress

if TYPE_CHECKING:
    from ..cuda_tuning import Built, CudaTuning, Measured
    from ..options import Options
    from ..tuning import Plan

#: Layers that a row names.
_SHOWN = 2


@dataclasses.dataclass(frozen=True)
class Wish:
    """What is to be done with what.

    Attributes:
        model: the ONNX file, for what compiles.
        calibration: as for compiling.
        build_only: folder for compiled candidates.
        measure: folder with them.
        merge: file of records.
    """

    model: Path | None
    calibration: str | None
    build_only: Path | None
    measure: Path | None
    merge: Path | None

    @property
    def apart(self) -> bool:
        """Whether a single step was asked for."""
        return any(step is not None for step in (self.build_only, self.measure, self.merge))

    def needed_model(self) -> Path:
        """The model.

        Raises:
            FewbitsError: ``unknown-option`` where there is none.
        """
        if self.model is None:
            raise FewbitsError(
                "unknown-option", "there is no model", hint="fewbits tune MODEL.onnx"
            )
        return self.model


def tune_gpu(wish: Wish, options: Options, plan: Plan, *, as_json: bool) -> None:
    """Tune for a GPU, or take one of the steps.

    Raises:
        FewbitsError: as `cuda_tuning`'s functions; ``unknown-option`` for steps that exclude each
            other, or that take no model.
    """
    from .. import cuda_tuning

    _check(wish)
    if wish.merge is not None:
        _merged(wish.merge, plan, as_json)
        return
    built = None
    with progress(as_json) as listener:
        if wish.measure is not None:
            result = cuda_tuning.measure_plan(
                wish.measure, plan.database, again=plan.again, tracker=plan.tracker,
                progress=listener,
            )  # fmt: skip
        else:
            model = wish.needed_model()
            if wish.build_only is not None:
                built = cuda_tuning.build_plan(
                    model, options, plan, wish.build_only, wish.calibration, listener
                )
                result = None
            else:
                built, result = cuda_tuning.tune_cuda(
                    model, options, plan, wish.calibration, listener
                )
    if as_json:
        print_json({**_built_document(built), **_document(result)})
    else:
        if built is not None:
            _show_built(built, kept=result is None)
        if result is not None:
            _show(result)
    if result is not None and result.interrupted:
        raise typer.Exit(130)


def _check(wish: Wish) -> None:
    steps = {
        "--build-only": wish.build_only, "--measure": wish.measure, "--merge": wish.merge,
    }  # fmt: skip
    given = [name for name, value in steps.items() if value is not None]
    if len(given) > 1:
        raise FewbitsError(
            "unknown-option",
            f"{' and '.join(given)} are steps of their own",
            hint="give one of them",
        )
    if wish.model is not None and given and given[0] != "--build-only":
        raise FewbitsError(
            "unknown-option",
            f"{given[0]} takes no model, but there is {wish.model}",
            hint="leave it out",
        )


def _merged(file: Path, plan: Plan, as_json: bool) -> None:
    from .. import cuda_tuning

    count, lost = cuda_tuning.merge_records(file, plan.database)
    if as_json:
        print_json({"records": count, "ignored_lines": lost, "database": str(plan.database)})
        return
    console.print(f"{count} records in {plan.database}", markup=False)
    if lost:
        messages.print(f"{lost} lines make no sense: left out")


def _built_document(built: Built | None) -> dict[str, Any]:
    if built is None:
        return {}
    return {
        "folder": str(built.folder),
        "kernels": built.kernels,
        "cases": built.cases,
        "failures": dict(built.failures),
        "untuned": list(built.untuned),
    }


def _document(result: CudaTuning | None) -> dict[str, Any]:
    if result is None:
        return {}
    return {
        "database": str(result.database),
        "card": result.card,
        "total": result.total,
        "interrupted": result.interrupted,
        "workloads": [row.as_dict() for row in result.rows],
    }


def _show_built(built: Built, *, kept: bool) -> None:
    for candidate, reason in built.failures.items():
        messages.print(f"{candidate}: {reason}", markup=False)
    if built.untuned:
        messages.print(f"not tuned: {', '.join(built.untuned)}", markup=False)
    if kept:
        console.print(
            f"{built.kernels} kernels for {built.cases} products in {built.folder}", markup=False
        )
        messages.print(
            "where there is a GPU: `python -m measuring` in this folder, then here "
            "`fewbits tune --merge records.jsonl`"
        )


def _show(result: CudaTuning) -> None:
    print_table(
        f"{result.card}: {len(result.rows)} of {result.total} products",
        ["product", "rows", "layers", "model us", "best us", "ratio", "kernel"],
        [_line(row) for row in result.rows],
        text=frozenset({"product", "layers", "kernel"}),
    )
    for row in result.rows:
        for candidate, reason in row.failures.items():
            messages.print(f"{candidate}: {reason}", markup=False)
    known = sum(row.known for row in result.rows)
    if known:
        messages.print(f"{known} were known before: --again measures them anew")
    if result.interrupted:
        messages.print("interrupted; what was found is kept", style="yellow")
    console.print(f"{result.database}", markup=False)


def _line(row: Measured) -> list[Any]:
    from ..cuda_tuning import title_of

    more = len(row.layers) - _SHOWN
    layers = ", ".join(row.layers[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
    first = [title_of(row.problem), row.rows, layers or None]
    record = row.record
    if record is None:
        return [*first, None, None, None, "failed"]
    sizes = " ".join(f"{name}={value}" for name, value in record.sizes.items())
    usual, best = record.model_seconds * 1e6, record.seconds * 1e6
    return [*first, usual, best, best / usual, f"{record.template} {sizes}"]
