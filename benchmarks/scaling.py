"""k-bit scaling laws on a small scale (Dettmers & Zettlemoyer 2022): which width wins per bit?

    python models/language.py --out build/lm
    python benchmarks/scaling.py --family build/lm --out build/scaling

Every size of the family of language models, its blocks' weights in 3 to 8 and 16 bits, in several
families of formats, with one scale per tensor, per 256 and per 64 values. Embedding and head are
float16 everywhere; budgets count the bits of the blocks, scales included, and with ``--size total``
everything. Prints, for each budget, which width is on the front, and the claims of the paper with
what was found.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fewbits.compiler.sweep.executors import LocalExecutor
from fewbits.compiler.sweep.fronts import Reading, at_equal_bits, budgets, pareto_front
from fewbits.compiler.sweep.plan import SweepPlan, make_plan
from fewbits.compiler.sweep.run import sweep

Row = Mapping[str, Any]
WIDTHS = (3, 4, 5, 6, 7, 8, 16)
FORMATS = ("int", "fp-e2", "fp-e3", "quantile", "nf4", "dynamic")
BLOCKS = ("none", "256", "64")


def plan_of(options: argparse.Namespace) -> SweepPlan:
    """The study as a plan."""
    family: Path = options.family
    models = sorted(family.glob("*.onnx"), key=lambda path: path.stat().st_size)
    if options.sizes:
        models = [model for model in models if model.stem in options.sizes]
    if not models:
        raise SystemExit(f"no models in {family}: python models/language.py --out {family}")
    return make_plan(
        {
            "models": [{"path": model.absolute()} for model in models],
            "formats": options.formats,
            "bits": options.bits,
            "blocks": options.blocks,
            "solvers": options.solvers,
            "options": {"ignore": ["head"]},
            "after": [{"half_weights": {"embeddings": True}}],
            "metric": "nats",
            "size": options.size,
            "limit": options.limit,
        }
    )


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they need to be."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def describe(row: Row) -> str:
    """A cell in a few words."""
    return " ".join(filter(None, (row["model"], row["format"], row["block"] and f"b{row['block']}",
                                  "" if row["solver"] == "rtn" else row["solver"])))  # fmt: skip


def print_fronts(rows: Sequence[Row], cost: str) -> None:
    """The front of whole models, and the best width when curves are read at equal bits."""
    print(f"\nPareto front ({cost}), nats per token:")
    print_table(
        ["bits", "nats", "k", "what"],
        [[f"{r[cost]:,}", f"{r['nats']:.4f}", str(r["bits"]), describe(r)]
         for r in pareto_front(rows, cost)],
    )  # fmt: skip
    print("\nBest whole model of each width within a budget (the best is starred):")
    found = budgets(rows, cost)
    widths = sorted({width for budget in found for width in budget.by_width})
    print_table(
        ["budget", *map(str, widths), "best"],
        [[f"{b.bits:,}", *(_starred(b.by_width.get(w), b.best) for w in widths), describe(b.best)]
         for b in found],
    )  # fmt: skip
    readings = at_equal_bits(rows, cost, per_octave=2)
    print("\nCurves over the sizes read at equal bits: nats above the best width there:")
    widths = sorted({width for reading in readings for width in reading.loss})
    print_table(
        ["bits", *map(str, widths), "curve"],
        [[f"{r.bits:,.0f}", *(_excess(r, w) for w in widths), _curve(r)] for r in readings],
    )


def _starred(row: Row | None, best: Row) -> str:
    if row is None:
        return "-"
    return f"{row['nats']:.4f}{'*' if row['nats'] == best['nats'] else ' '}"


def _excess(reading: Reading, width: int) -> str:
    if width not in reading.loss:
        return "-"
    return f"{reading.loss[width] - min(reading.loss.values()):.4f}"


def _winner(reading: Reading) -> int:
    return min(reading.loss, key=lambda width: reading.loss[width])


def _curve(reading: Reading) -> str:
    row = reading.curve[_winner(reading)][0]
    return f"{row['format']} b{row['block']}" if row["block"] else row["format"]


def print_claims(rows: Sequence[Row], cost: str) -> None:
    """The paper's claims, each with the numbers found here."""
    solvers = sorted({row["solver"] for row in rows if row["solver"]})
    print(f"\nThe paper's claims ({cost}; solvers: {', '.join(solvers)}):")
    fine = at_equal_bits(rows, cost, per_octave=8)
    if not fine:
        print("- no number of bits at which every width has a curve: more sizes are needed")
        return
    wins = Counter(_winner(reading) for reading in fine)
    shares = ", ".join(f"{w} bits {100 * n / len(fine):.0f} %" for w, n in sorted(wins.items()))
    print(f"- 4 bits are almost universally best: best at equal bits: {shares}")
    both = [r.loss[3] - r.loss[4] for r in fine if {3, 4} <= r.loss.keys()]
    if both:
        print(
            f"- 3 bits against 4 at equal bits: {min(both):+.4f} to {max(both):+.4f} nats, "
            f"mean {sum(both) / len(both):+.4f}"
        )
    print("- small blocks help, most at few bits: nats above float, mean over models and formats:")
    blocks = list(dict.fromkeys(row["block"] for row in rows if row["block"]))
    widths = sorted({row["bits"] for row in rows if row["block"]})
    floats = {row["model"]: row["nats"] for row in rows if row["recipe"] == "float32"}
    print_table(
        ["block", *map(str, widths)],
        [[b, *(_mean_damage(rows, floats, block=b, bits=w) for w in widths)] for b in blocks],
    )
    smallest = blocks[-1]
    print(f"- the data type matters: nats above float in blocks of {smallest}, mean over models:")
    families = list(dict.fromkeys(row["family"] for row in rows if row["block"]))
    print_table(
        ["format", *map(str, widths)],
        [[f, *(_mean_damage(rows, floats, family=f, bits=w, block=smallest) for w in widths)]
         for f in families],
    )  # fmt: skip


def _mean_damage(rows: Sequence[Row], floats: Mapping[str, float], **where: Any) -> str:
    found = [
        row["nats"] - floats[row["model"]]
        for row in rows
        if row["block"] and all(row[key] == value for key, value in where.items())
    ]
    return f"{sum(found) / len(found):+.4f}" if found else "-"


def main() -> None:
    """Run what has not been run yet, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--family", type=Path, required=True, help="folder of models/language.py")
    parser.add_argument("--out", type=Path, required=True, help="folder of the sweep")
    parser.add_argument("--sizes", nargs="+", help="models, e.g. lm-98k; all by default")
    parser.add_argument("--formats", nargs="+", default=FORMATS)
    parser.add_argument("--bits", nargs="+", type=int, default=WIDTHS)
    parser.add_argument("--blocks", nargs="+", default=BLOCKS)
    parser.add_argument("--solvers", nargs="+", default=["rtn"])
    parser.add_argument("--size", choices=["body", "total"], default="body")
    parser.add_argument("--limit", type=int, help="evaluation samples of 128 tokens")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    result = sweep(plan_of(options), options.out, LocalExecutor(options.jobs))
    done = [row for row in result.rows if row["status"] == "done"]
    print(
        f"{len(done)} of {len(result.rows)} cells have a result; plots in {options.out / 'plots'}"
    )
    for row in result.rows:
        if row["status"] != "done":
            print(f"  {describe(row)}: {row['error']}")
    for row in done:
        if row["recipe"] == "float32":
            parts = ", ".join(f"{p} {row[f'{p}_bits']:,}" for p in ("embedding", "head", "rest"))
            weights = f"{row['body_weights']:,} weights in the blocks"
            print(f"  {row['model']}: float {row['nats']:.4f} nats, {weights}; bits of {parts}")
    cost = f"{options.size}_bits"
    print_fronts(done, cost)
    print_claims(done, cost)


if __name__ == "__main__":
    main()
