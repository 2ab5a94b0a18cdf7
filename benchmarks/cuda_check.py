"""Are kernels right on a real GPU, do its tools find fault, and does the emulated GPU agree?

    python benchmarks/cuda_check.py build --out build/gpu-check   # here: nvcc, no GPU
    python benchmarks/cuda_check.py run build/gpu-check           # there, see cuda_kernels.py
    python benchmarks/cuda_check.py tests                         # where fewbits is installed

`build` compiles small products for every template, runs them on the emulated GPU, and keeps
its results. `run` repeats them on the GPU: int8 must give the reference's bits and the emulated
GPU's; floats lie within their bound, and how many bits differ from the emulated ones is printed.
Then the same runs under each tool of compute-sanitizer, where that is installed. `tests` runs
pytest's GPU tests on the machine's GPU instead of the emulated one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
#: What compute-sanitizer ends with where a tool found something.
FOUND = 86
#: Seconds that a tool may take.
PATIENCE = 600


def build(options: argparse.Namespace) -> int:
    """Libraries and the emulated GPU's results."""
    os.environ["FEWBITS_CUDA"] = f"emulator:{options.arch}"
    from fewbits.targets.cuda import driver

    driver.prepare()
    from gpu.build import build
    from gpu.cases import check_cases
    from gpu.emulated import keep

    plan = build(check_cases(), options.arch, options.out, print)
    missing = [entry["title"] for entry in plan["cases"] if "missing" in entry]
    wrong = {title: why for title, why in keep(options.out).items() if why is not None}
    for title, why in wrong.items():
        print(f"wrong on the emulated GPU: {title}: {why}", file=sys.stderr)
    print(f"{len(plan['cases']) - len(missing)} built, {len(missing)} without a kernel, "
          f"{len(wrong)} wrong on the emulated GPU")  # fmt: skip
    return 1 if wrong else 0


def run(options: argparse.Namespace) -> int:
    """Everything that a GPU can say."""
    import torch  # before TVM, which takes CUDA's run-time library from it

    if not torch.cuda.is_available():
        print("no GPU", file=sys.stderr)
        return 2
    from gpu.emulated import compared
    from gpu.run import run

    print(f"{torch.cuda.get_device_name(0)}, torch {torch.__version__}")
    failed = 0
    # Under a tool, no kernels but these should run: references are torch's on the host then.
    reference = "cpu" if options.inside else "cuda"
    for title, passes, words in compared(options.folder, reference):
        failed += not passes
        print(f"{'pass' if passes else 'FAIL'}  {title}: {words}")
    report = run(options.folder, lambda _: None, emulated=True, groups=["outliers", "fused"])
    for row in report.rows:
        failed += row.wrong is not None
        print(f"{'FAIL' if row.wrong else 'pass'}  {row.case.title}: {row.wrong or 'right'}")
    if not options.inside:
        failed += sum(not _sanitized(tool, options) for tool in TOOLS)
    print(f"{failed} failed" if failed else "all passed")
    return 1 if failed else 0


def _sanitized(tool: str, options: argparse.Namespace) -> bool:
    """The same under a tool; what is not installed does not fail."""
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        print(f"skip  compute-sanitizer {tool}: not installed")
        return True
    command = [
        sanitizer, "--tool", tool, "--error-exitcode", str(FOUND), sys.executable,
        str(Path(__file__).resolve()), "run", str(options.folder), "--inside",
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        print(f"FAIL  compute-sanitizer {tool}: not done after {PATIENCE} s")
        return False
    output = done.stdout + done.stderr
    if "Device not supported" in output:
        print(f"skip  compute-sanitizer {tool}: it does not support this machine")
        return True
    print(f"{'FAIL' if done.returncode else 'pass'}  compute-sanitizer {tool}")
    if done.returncode:
        print("\n".join(f"      {line}" for line in output.strip().splitlines()[-30:]))
    return done.returncode == 0


def tests(arguments: list[str]) -> int:
    """pytest's GPU tests, on the machine's GPU."""
    environment = {k: v for k, v in os.environ.items() if k != "FEWBITS_CUDA"}
    folders = ["tests/schedules/cuda", "tests/targets/cuda"]
    command = [sys.executable, "-m", "pytest", "-q", "-rs", *folders, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    steps = parser.add_subparsers(dest="step", required=True)
    first = steps.add_parser("build", help="compile and emulate; no GPU needed")
    first.add_argument("--out", type=Path, required=True)
    first.add_argument("--arch", default="sm_90a", choices=("sm_80", "sm_89", "sm_90a"))
    second = steps.add_parser("run", help="a GPU, torch and TVM's runtime needed")
    second.add_argument("folder", type=Path)
    second.add_argument("--inside", action="store_true", help="without compute-sanitizer")
    steps.add_parser("tests", help="GPU tests; further arguments are pytest's")
    options, rest = parser.parse_known_args()
    if options.step == "tests":
        raise SystemExit(tests(rest))
    if rest:
        parser.error(f"unknown arguments: {' '.join(rest)}")
    raise SystemExit(build(options) if options.step == "build" else run(options))


if __name__ == "__main__":
    main()
