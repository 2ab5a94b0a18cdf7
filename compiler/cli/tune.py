"""The verb ``tune``: the best kernels of a model on a CPU or GPU, measured and kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...errors import FewbitsError
from .cuda_tune import Wish, tune_gpu
from .output import console, messages, print_json, print_table, progress, reporting

if TYPE_CHECKING:
    from ..tuning import Tuned, TuningResult

#: Layers that a row names.
_SHOWN = 2


def tune(
    model: Annotated[
        Path | None, typer.Argument(help="ONNX model, float or quantized.", show_default=False)
    ] = None,
    target: Annotated[str, typer.Option("--target", "-t", help="A CPU or GPU target.")] = "cpu",
    recipe: Annotated[str, typer.Option("--recipe", "-r", help="As for compile.")] = "float",
    calibration: Annotated[
        str | None, typer.Option("--calibration", "-c", help="As for compile.")
    ] = None,
    trials: Annotated[
        int, typer.Option(min=1, help="Kernels to try for each workload, the usual one included.")
    ] = 16,
    bind: Annotated[
        list[str],
        typer.Option(
            "--bind",
            help="Size of an open dimension, NAME=SIZE; repeatable, a name as well: kernels are "
            "then tuned for all of its sizes.",
        ),
    ] = [],  # noqa: B006
    static: Annotated[
        bool, typer.Option("--static", help="For `compile --bind`: sizes are known to kernels.")
    ] = False,
    tracker: Annotated[
        str | None,
        typer.Option("--tracker", help="Measure on machines of a TVM tracker: HOST:PORT."),
    ] = None,
    key: Annotated[str | None, typer.Option("--key", help="The machines' key there.")] = None,
    database: Annotated[
        Path | None,
        typer.Option(
            "--database",
            help="Folder of records. [default: $FEWBITS_TUNING or the user's data folder]",
        ),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Measure what has a record, too.")] = False,
    samples: Annotated[
        int | None,
        typer.Option("--samples", min=1, help="Use at most so many calibration samples."),
    ] = None,
    float_type: Annotated[
        str | None, typer.Option("--float", help="GPUs: as for compile.", show_default=False)
    ] = None,
    build_only: Annotated[
        Path | None,
        typer.Option(
            "--build-only",
            help="GPUs: compile kernels into this folder, with a program that measures them "
            "elsewhere; needs no GPU.",
            show_default=False,
        ),
    ] = None,
    measure: Annotated[
        Path | None,
        typer.Option(
            "--measure",
            help="GPUs: measure what --build-only made; takes no model.",
            show_default=False,
        ),
    ] = None,
    merge: Annotated[
        Path | None,
        typer.Option(
            "--merge",
            help="GPUs: keep the records of this file, measured elsewhere; takes no model.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure which kernels are fastest for a model; later compilations use them.

    For GPUs, compiling and measuring may be on different machines:

    --build-only DIR compiles kernels, and needs no GPU.

    --measure DIR, or `python -m measuring` in it, measures them and needs no compiler.

    --merge FILE takes in what was measured there (records.jsonl).
    """
    with reporting(as_json):
        from ...targets.catalogue import get_target
        from ..options import Options
        from ..tuning import Plan, tune_model

        sizes = parse_sizes(bind)
        folder = _folder(database)
        fixed = _fixed(sizes) if static else {}
        options = Options(
            target=target, recipe=recipe, bind=fixed, samples=samples, seed=seed, cache=_cache(),
            float_type=float_type,
        )  # fmt: skip
        plan = Plan({} if static else sizes, trials, again, folder, parse_tracker(tracker, key))
        wish = Wish(model, calibration, build_only, measure, merge)
        if wish.apart or get_target(target).kind == "cuda":
            tune_gpu(wish, options, plan, as_json=as_json)
            return
        with progress(as_json) as listener:
            result = tune_model(wish.needed_model(), options, plan, calibration, listener)
        if as_json:
            print_json(_document(result))
        else:
            _show(result)
        if result.interrupted:
            raise typer.Exit(130)


def parse_sizes(texts: list[str]) -> dict[str, list[int]]:
    """``["N=1", "T=16", "T=128"]`` as ``{"N": [1], "T": [16, 128]}``.

    Raises:
        FewbitsError: ``unknown-option``.
    """
    from ..options import parse_bindings

    sizes: dict[str, list[int]] = {}
    for text in texts:
        for name, size in parse_bindings([text]).items():
            known = sizes.setdefault(name, [])
            if size not in known:
                known.append(size)
    return sizes


def parse_tracker(address: str | None, key: str | None) -> tuple[str, int, str] | None:
    """``HOST:PORT`` and a key, both or none.

    Raises:
        FewbitsError: ``unknown-option``.
    """
    if address is None and key is None:
        return None
    host, colon, port = (address or "").rpartition(":")
    if not key or not colon or not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise FewbitsError(
            "unknown-option",
            f"{address or 'nothing'} and {key or 'no key'} do not name a tracker's machines",
            where="--tracker",
            hint="--tracker HOST:PORT --key KEY",
        )
    return host, int(port), key


def _fixed(sizes: dict[str, list[int]]) -> dict[str, int]:
    for name, several in sizes.items():
        if len(several) > 1:
            raise FewbitsError(
                "unknown-option",
                f"{name} has {len(several)} sizes, a static model one",
                where="--bind",
                hint="run it once for each size",
            )
    return {name: several[0] for name, several in sizes.items()}


def _folder(given: Path | None) -> Path:
    from ...schedules.tuning.folder import VARIABLE, default_folder

    folder = given or default_folder()
    if folder is None:
        raise FewbitsError(
            "unknown-option", f"{VARIABLE} says that there is no database", hint="--database DIR"
        )
    return folder


def _cache() -> Path:
    from ...passes.cache import default_folder

    return default_folder()


def _document(result: TuningResult) -> dict[str, Any]:
    return {
        "database": str(result.database),
        "cpu": result.cpu,
        "total": result.total,
        "ignored_lines": result.ignored_lines,
        "interrupted": result.interrupted,
        "workloads": [row.as_dict() for row in result.rows],
    }


def _show(result: TuningResult) -> None:
    print_table(
        f"{result.cpu}: {len(result.rows)} of {result.total} workloads",
        ["workload", "layers", "calls", "bound to", "rule us", "best us", "ratio", "sizes"],
        [line for row in result.rows for line in _lines(row)],
        text=frozenset({"workload", "layers", "bound to", "sizes"}),
    )
    if result.ignored_lines:
        messages.print(f"{result.ignored_lines} lines of the database make no sense: left out")
    for row in result.rows:
        if row.record is None:
            reason = next(iter(row.failures.values()), "nothing could be measured")
            messages.print(f"{row.title}: {reason}", markup=False)
    known = sum(row.known for row in result.rows)
    if known:
        messages.print(f"{known} were known before: --again measures them anew")
    if result.interrupted:
        messages.print("interrupted; what was found is kept", style="yellow")
    console.print(f"{result.database}", markup=False)


def _lines(row: Tuned) -> list[list[Any]]:
    more = len(row.layers) - _SHOWN
    layers = ", ".join(row.layers[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
    record = row.record
    if record is None:
        return [[row.title, layers or None, row.calls, None, None, None, None, "failed"]]
    lines: list[list[Any]] = []
    for number, binding in enumerate(record.bindings):
        rule, best = record.rule_us[number], record.best_us[number]
        first = [row.title, layers or None, row.calls] if not number else ["", "", None]
        bound = ", ".join(f"{name}={size}" for name, size in binding.items())
        sizes = "x".join(map(str, record.sizes)) if not number else ""
        if not number and record.sizes == record.rule:
            sizes += " (the rule's)"
        lines.append([*first, bound, rule, best, best / rule, sizes])
    return lines
