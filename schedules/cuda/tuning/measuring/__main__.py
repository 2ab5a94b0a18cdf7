"""``python -m measuring``: measure the plan in a folder, and write records beside it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from .measure import Session, Settings
from .plan import RECORDS, Plan, load
from .process import WorkerLost


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit status."""
    options = _parser().parse_args(arguments)
    folder = Path(options.folder)
    records = Path(options.records) if options.records else folder / RECORDS
    tracker = None
    if options.tracker:
        host, _, port = options.tracker.rpartition(":")
        tracker = (host, int(port), options.key)
    settings = Settings(
        rounds=options.rounds, repeats=options.repeats, warm=options.warm,
        patience=options.patience, tracker=tracker, prepare=options.prepare,
    )  # fmt: skip
    try:
        plan = load(folder)
        with Session(folder, plan, settings) as session:
            return _measure(plan, session, records, again=options.again)
    except (ValueError, WorkerLost) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"interrupted; {records} keeps what was found", file=sys.stderr)
        return 130


def _measure(plan: Plan, session: Session, records: Path, *, again: bool) -> int:
    known = set() if again else _known(records, session.card)
    print(f"{session.card}, compute capability {'.'.join(map(str, session.capability))}")
    left = [
        number
        for number, case in enumerate(plan.cases)
        if (case.problem, case.architecture, case.bucket) not in known
    ]
    failed = 0
    for outcome in session.measure(left):
        case = plan.cases[outcome.case]
        print(f"[{outcome.case + 1}/{len(plan.cases)}] {case.problem[:70]} rows={case.rows}")
        for candidate, reason in outcome.failures.items():
            print(f"    {candidate}: {reason}")
        if outcome.record is None:
            failed += 1
            continue
        with records.open("a", encoding="utf-8") as file:
            file.write(json.dumps(outcome.record, sort_keys=True) + "\n")
        first, best = outcome.record["model_seconds"], outcome.record["seconds"]
        print(f"    {first * 1e6:.2f} us -> {best * 1e6:.2f} us: {outcome.record['template']}")
    print(f"{records}")
    return 1 if failed else 0


def _known(records: Path, card: str) -> set[tuple[str, str, int]]:
    """What has a record of this card already."""
    found = set()
    if records.is_file():
        for line in records.read_text(encoding="utf-8").splitlines():
            try:
                one = json.loads(line)
                if one["card"] == card:
                    found.add((one["problem"], one["architecture"], one["bucket"]))
            except (ValueError, KeyError, TypeError):
                continue  # a line that an interruption cut off
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m measuring",
        description="Measure kernels that `fewbits tune --build-only` compiled, on this machine's "
        "GPU. Needs numpy and TVM's runtime (set TVM_USE_RUNTIME_LIB=1), no compiler.",
    )
    parser.add_argument("folder", nargs="?", default=".", help="with plan.json [.]")
    parser.add_argument("--records", help="file that records are added to [records.jsonl there]")
    parser.add_argument("--again", action="store_true", help="measure what has a record, too")
    parser.add_argument("--rounds", type=int, default=4, help="of successive halving [4]")
    parser.add_argument("--repeats", type=int, default=5, help="runs in the first round [5]")
    parser.add_argument("--warm", type=float, default=0.2, help="seconds for the clocks [0.2]")
    parser.add_argument("--patience", type=float, default=60, help="seconds for one run [60]")
    parser.add_argument("--tracker", help="measure on a machine of a TVM tracker: HOST:PORT")
    parser.add_argument("--key", default="", help="the machine's key there")
    parser.add_argument("--prepare", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
