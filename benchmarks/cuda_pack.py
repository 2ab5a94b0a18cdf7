"""What a bare GPU machine lacks to run libraries and benchmarks: TVM's runtime, and nothing else.

    python benchmarks/cuda_pack.py --python 3.12 --out build/pack
    python benchmarks/cuda_kernels.py build --out build/pack/kernels
    # there, where torch, numpy and rich are installed:
    export PYTHONPATH=pack/site TVM_USE_RUNTIME_LIB=1
    python3 pack/benchmarks/cuda_kernels.py run pack/kernels

Collected are TVM's Python files with its runtime libraries (no compiler, no bundled CUTLASS),
apache-tvm-ffi and ml_dtypes for that Python (pip fetches their wheels; its processor and glibc
2.28 or later are asked for), and the benchmarks. fewbits itself, which needs TVM's compiler, and
nvcc stay behind.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

#: Of TVM's package: what only compiling needs.
LEFT_BEHIND = (
    "3rdparty", "include", "src", "cmake", "lib64", "web", "libtvm_compiler.so", "__pycache__",
)  # fmt: skip
#: Of this folder: what runs there.
SCRIPTS = ("cuda_kernels.py", "cuda_models.py", "cuda_check.py", "gpu")
#: Newest first: pip takes the first tag that a wheel has.
GLIBC = ("2_28", "2_27", "2_26", "2_24", "2_17", "2014")


def wheels(python: str, machine: str, site: Path) -> None:
    """Install what pip has for another Python into a folder.

    Raises:
        SystemExit: pip found no wheel.
    """
    tags = [f"manylinux{'' if name == '2014' else '_'}{name}_{machine}" for name in GLIBC]
    names = [f"apache-tvm-ffi=={version('apache-tvm-ffi')}", "ml_dtypes", "typing_extensions"]
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:",
        "--implementation", "cp", "--python-version", python, "--target", str(site),
        *(part for tag in tags for part in ("--platform", tag)), *names,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"pip has no wheels for Python {python}:\n{done.stderr.strip()}")


def runtime(site: Path) -> None:
    """Copy TVM's Python files and runtime libraries."""
    found = find_spec("tvm")
    if found is None or found.origin is None:
        raise SystemExit("apache-tvm is not installed")
    shutil.copytree(
        Path(found.origin).parent, site / "tvm", ignore=shutil.ignore_patterns(*LEFT_BEHIND),
        dirs_exist_ok=True,
    )  # fmt: skip


def scripts(folder: Path) -> None:
    """Copy the benchmarks that run there."""
    folder.mkdir(parents=True, exist_ok=True)
    here = Path(__file__).resolve().parent
    for name in SCRIPTS:
        if (here / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(here / name, folder / name, ignore=ignored, dirs_exist_ok=True)
        else:
            shutil.copy2(here / name, folder / name)


def main() -> None:
    """Collect, and print sizes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", default="3.12", help="version on the GPU machine")
    parser.add_argument("--machine", default=platform.machine(), help="its processor")
    parser.add_argument("--out", type=Path, required=True, help="a folder; what is there is kept")
    options = parser.parse_args()
    if options.machine != platform.machine():
        raise SystemExit(f"TVM's runtime here is for {platform.machine()}: pack on such a machine")
    site = options.out / "site"
    if site.exists():
        shutil.rmtree(site)
    site.mkdir(parents=True)
    wheels(options.python, options.machine, site)
    runtime(site)
    scripts(options.out / "benchmarks")
    total = 0
    for part in sorted(path for path in options.out.iterdir() if path.is_dir()):
        size = sum(file.stat().st_size for file in part.rglob("*") if file.is_file())
        total += size
        print(f"{part.name:12} {size / 1e6:6.1f} MB")
    print(f"{'all':12} {total / 1e6:6.1f} MB in {options.out}")


if __name__ == "__main__":
    main()
