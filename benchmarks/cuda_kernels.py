"""The CUDA kernels' table: built without a GPU, then checked and timed where there is one.

    python benchmarks/cuda_kernels.py build --out build/gpu          # here: nvcc, no GPU
    python benchmarks/cuda_kernels.py run build/gpu --json gpu.json  # there: torch, TVM's runtime
    python benchmarks/cuda_kernels.py --emulate                      # tiny sizes, emulated, untimed

`build` writes a library for each case and a plan; a few tens of MB travel. `run` needs Python 3.10
or later with torch, numpy, ml_dtypes, rich and apache-tvm's runtime (`cuda_pack.py` collects what a
bare machine lacks; set TVM_USE_RUNTIME_LIB=1 there), but neither fewbits nor nvcc. Each result is
checked before it is timed: int8 for equality, floats against a bound from float64. Times are
medians of CUDA events, contenders in turn, the second cache flushed, on random data. Ceilings
(copy, bf16, binary products) are measured first. Exit status 1: a wrong result, or with --strict
a bar that was not reached.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from gpu.cases import cases

#: What `build` may weigh, so that it travels.
MOST_BYTES = 50 << 20


def build(options: argparse.Namespace) -> None:
    """Step one."""
    from gpu.build import build

    wanted = [
        case
        for case in cases(options.tiny)
        if options.groups is None or case.group in options.groups
    ]
    build(wanted, options.arch, options.out, print)
    size = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
    print(f"{options.out}: {size / 1e6:.1f} MB")
    if size > MOST_BYTES:
        raise SystemExit(f"more than {MOST_BYTES >> 20} MiB: build groups one by one")


def run(options: argparse.Namespace, folder: Path, emulated: bool) -> int:
    """Step two; the exit status."""
    if not emulated:
        import torch  # before TVM, which takes CUDA's run-time library from it

        if not torch.cuda.is_available():
            print("no GPU: --emulate checks the kernels on an emulated one", file=sys.stderr)
            return 2
    from gpu import tables
    from gpu.run import run as measure
    from rich.console import Console

    report = measure(folder, print, emulated=emulated, rounds=options.rounds, groups=options.groups)
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(tables.table(report))
    for line in tables.notes(report):
        console.print(line, highlight=False)
    if options.json is not None:
        options.json.write_text(json.dumps(tables.as_json(report), indent=1) + "\n", "utf-8")
    if options.markdown is not None:
        options.markdown.write_text(tables.markdown(report), "utf-8")
    missed = tables.missed(report)
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    wrong = any(row.wrong is not None for row in report.rows)
    return 1 if wrong or (options.strict and missed) else 0


def emulate(options: argparse.Namespace) -> int:
    """Tiny sizes of everything, built and checked in the emulated GPU."""
    os.environ["FEWBITS_CUDA"] = f"emulator:{options.arch}"
    from fewbits.targets.cuda import driver

    driver.prepare()
    with tempfile.TemporaryDirectory() as name:
        options.tiny, options.out = True, Path(name)
        build(options)
        return run(options, Path(name), emulated=True)


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--emulate", action="store_true", help="tiny sizes in the emulated GPU")
    _shared(parser)
    steps = parser.add_subparsers(dest="step")
    first = steps.add_parser("build", help="compile; no GPU needed")
    first.add_argument("--out", type=Path, required=True)
    first.add_argument("--tiny", action="store_true", help="sizes for the emulated GPU")
    second = steps.add_parser("run", help="check and time; a GPU, torch and TVM's runtime needed")
    second.add_argument("folder", type=Path)
    for step in (first, second):
        _shared(step)
    options = parser.parse_args(arguments)
    if options.step is None and not options.emulate:
        parser.error("say build, run, or --emulate")
    return options


def _shared(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--arch", default="sm_90a", choices=("sm_80", "sm_89", "sm_90a"))
    parser.add_argument("--groups", nargs="+", help="int8, fp8, few-bit, few-bit-many, ...")
    parser.add_argument("--rounds", type=int, default=30, help="timed calls of each contender")
    parser.add_argument("--json", type=Path, help="write everything that was found")
    parser.add_argument("--markdown", type=Path, help="write the table's rows")
    parser.add_argument("--strict", action="store_true", help="fail where a bar is not reached")


def main() -> None:
    """Do what the command line says."""
    options = parsed()
    if options.step == "build":
        build(options)
    elif options.step == "run":
        raise SystemExit(run(options, options.folder, emulated=False))
    else:
        raise SystemExit(emulate(options))


if __name__ == "__main__":
    main()
