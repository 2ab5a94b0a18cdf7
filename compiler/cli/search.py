"""The verb ``search``: formats layer by layer under a budget, as a recipe file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import FewbitsError
from .output import console, print_json, print_table, progress, reporting

if TYPE_CHECKING:
    from ..search import Budget, Found

_BUDGET = re.compile(r"(\d+(?:\.\d+)?(?:[eE]\d+)?)\s*(bits|bops|[kKmMgG]?(?:i?[bB])?)")
_FACTORS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_DEFAULTS = ["int8", "int6-g64", "int4-g64", "int3-g64"]


def search(
    model: Annotated[Path, typer.Argument(help="ONNX model, float.", show_default=False)],
    budget: Annotated[
        str,
        typer.Option(
            "--budget",
            "-b",
            help="4.5bits (average per weight), 2M (bytes of weights) or 3e9bops.",
            show_default=False,
        ),
    ],
    calibration: Annotated[
        str, typer.Option("--calibration", "-c", help="Sample inputs.", show_default=False)
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The recipe to write.")] = None,
    candidate: Annotated[
        list[str],
        typer.Option(
            "--candidate",
            help="A format: int8, int4-g64, nf4-b64, float; repeatable. "
            f"Default: {' '.join(_DEFAULTS)}.",
        ),
    ] = [],  # noqa: B006
    activation_bits: Annotated[
        int, typer.Option(min=1, max=32, help="Bits of what weights multiply, for bops.")
    ] = 32,
    bind: Annotated[
        list[str],
        typer.Option("--bind", help="Size of a symbolic dimension, NAME=SIZE; repeatable."),
    ] = [],  # noqa: B006
    samples: Annotated[int | None, typer.Option(min=1, help="Use at most so many samples.")] = 16,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Choose each layer's format so that the damage is least within a budget."""
    with reporting(as_json):
        from ..files import write_file
        from ..options import Options, parse_bindings
        from ..search import search_recipe

        limit, kind = parse_budget(budget)
        options = Options(seed=seed, bind=parse_bindings(bind), samples=samples)
        with progress(as_json) as listener:
            found = search_recipe(
                model, candidate or _DEFAULTS, limit, kind, calibration, options,
                activation_bits=activation_bits, progress=listener,
            )  # fmt: skip
        if out is not None:
            write_file(out, found.recipe.to_yaml())
        if as_json:
            print_json(found.as_dict())
            return
        _show(found, kind)
        if out is None:
            console.print(found.recipe.to_yaml(), highlight=False, markup=False)
        else:
            console.print(f"{out}: compile with --recipe {out}", markup=False)


def parse_budget(text: str) -> tuple[float, Budget]:
    """``4.5bits``, ``2M``, ``2MB``, ``3e9bops`` as a number and its unit.

    Raises:
        FewbitsError: ``bad-budget``.
    """
    match = _BUDGET.fullmatch(text.strip())
    if match is None:
        raise FewbitsError(
            "bad-budget", f"{text!r} is no budget", where="--budget", hint="4.5bits, 2M or 3e9bops"
        )
    number, unit = float(match[1]), match[2]
    if unit == "bits":
        return number, "bits"
    if unit == "bops":
        return number, "bops"
    return number * _FACTORS[unit[:1].lower() if unit[:1].lower() in "kmg" else ""], "bytes"


def _show(found: Found, kind: Budget) -> None:
    rows = [
        (
            c.layer,
            c.candidate,
            f"{c.weights:,}",
            f"{c.bits / max(c.weights, 1):.2f}",
            f"{c.damage:.2e}",
        )
        for c in found.choices
    ]
    print_table(None, ("layer", "format", "weights", "bits each", "damage alone"), rows)
    console.print(
        f"{found.cost:,.4g} of {found.budget:,.4g} {kind}; damage {found.measured:.2e} with all "
        f"layers at once, {found.predicted:.2e} predicted"
    )
