"""nvcc and its parts, wherever they are installed.

Pip's packages come before what is on the machine: their versions are those that fewbits was tested
with. They suffice on their own: no toolkit, no driver and no GPU is needed to compile.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...errors import FewbitsError

#: The environment variable that names an nvcc.
VARIABLE = "FEWBITS_NVCC"

#: Older ones know nothing of sm_90a.
OLDEST = (12, 0)

_INSTALL = f"pip install 'fewbits[cuda]', or name an nvcc with {VARIABLE}"
_SYSTEM = Path("/usr/local/cuda/bin")
_TIMEOUT_SECONDS = 900
_KEPT_LINES = 40


@dataclasses.dataclass(frozen=True)
class Nvcc:
    """A compiler for GPU code.

    Attributes:
        path: the program.
        release: what it calls itself, e.g. ``"13.0.88"``.
    """

    path: Path
    release: str

    @property
    def version(self) -> tuple[int, int]:
        """Major and minor version."""
        major, minor = self.release.split(".")[:2]
        return int(major), int(minor)

    def part(self, name: str) -> Path:
        """Another program of the same toolkit, e.g. ``ptxas``."""
        return self.path.resolve().parent / name


def find_nvcc() -> Nvcc:
    """The first nvcc that compiles for sm_90a: ``$FEWBITS_NVCC``, pip's, ``PATH``'s, the toolkit's.

    Raises:
        FewbitsError: ``compiler-missing``.
    """
    return _find_nvcc(os.environ.get(VARIABLE), os.environ.get("PATH"))


@functools.lru_cache
def _find_nvcc(chosen: str | None, path: str | None) -> Nvcc:
    if chosen:
        found = shutil.which(chosen, path=path)
        if found is None:
            raise FewbitsError(
                "compiler-missing",
                f"there is no nvcc at {chosen!r}",
                where=VARIABLE,
                hint="give its full path, or unset the variable",
            )
        candidates = [Path(found)]
    else:
        candidates = list(_candidates(path))
    seen: list[str] = []
    for candidate in candidates:
        release = _release(candidate)
        if release is None:
            seen.append(f"{candidate} does not run")
            continue
        nvcc = Nvcc(_program(candidate), release)
        if nvcc.version < OLDEST:
            seen.append(f"{candidate} is version {release}")
        elif missing := _missing_parts(nvcc):
            seen.append(f"{candidate} lacks {', '.join(missing)}")
        else:
            return nvcc
    oldest = ".".join(map(str, OLDEST))
    found_text = f" ({'; '.join(seen)})" if seen else ""
    raise FewbitsError(
        "compiler-missing",
        f"no CUDA compiler is installed: nvcc {oldest} or later is needed{found_text}",
        where=VARIABLE if chosen else None,
        hint=_INSTALL,
    )


def check_host_compiler() -> None:
    """nvcc reads the host's C++ headers, for which it runs the host's compiler.

    Raises:
        FewbitsError: ``compiler-missing``.
    """
    chosen = os.environ.get("NVCC_CCBIN")
    if shutil.which(chosen or "gcc") is None:
        raise FewbitsError(
            "compiler-missing",
            f"nvcc needs the host's C++ compiler, and there is no {chosen or 'gcc'}",
            where="NVCC_CCBIN" if chosen else "PATH",
            hint="install g++ (apt install g++, dnf install gcc-c++), or name one in NVCC_CCBIN",
        )


def disassembler(name: str) -> Path | None:
    """``cuobjdump`` or ``nvdisasm``: pip's, beside nvcc, from ``PATH``, or as triton brings it."""
    folders = [*_pip_folders("bin"), *(p.parent for p in _candidates(os.environ.get("PATH")))]
    spec = importlib.util.find_spec("triton")
    if spec is not None and spec.origin:
        folders.append(Path(spec.origin).parent / "backends" / "nvidia" / "bin")
    for folder in folders:
        if os.access(folder / name, os.X_OK):
            return folder / name
    found = shutil.which(name)
    return Path(found) if found else None


def run_tool(command: Sequence[str | Path], folder: Path) -> str:
    """Run one of the toolkit's programs in a folder; what it says on both outputs.

    Raises:
        FewbitsError: ``compiler-failed`` with its last words, ``compiler-missing``.
    """
    words = [str(word) for word in command]
    where = " ".join([Path(words[0]).name, *words[1:]])
    try:
        done = subprocess.run(
            words,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C", "TMPDIR": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise FewbitsError(
            "compiler-failed",
            f"{Path(words[0]).name} did not finish in {_TIMEOUT_SECONDS} s",
            where=where,
        ) from error
    except OSError as error:
        raise FewbitsError(
            "compiler-missing", f"cannot run {words[0]}: {error}", hint=_INSTALL
        ) from error
    if done.returncode:
        last = "\n".join(done.stdout.strip().splitlines()[-_KEPT_LINES:])
        raise FewbitsError(
            "compiler-failed",
            f"{Path(words[0]).name} ended with status {done.returncode}:\n{last}",
            where=where,
        )
    return done.stdout


def _candidates(path: str | None) -> Iterator[Path]:
    for folder in _pip_folders("bin"):
        if (folder / "nvcc").is_file():
            yield folder / "nvcc"
    found = shutil.which("nvcc", path=path)
    if found:
        yield Path(found)
    if (_SYSTEM / "nvcc").is_file():
        yield _SYSTEM / "nvcc"


def _pip_folders(name: str) -> list[Path]:
    """``nvidia/cu<version>/<name>`` of pip's packages, the latest version first."""
    roots = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    spec = importlib.util.find_spec("nvidia")
    if spec is not None:
        roots = [str(Path(p).parent) for p in spec.submodule_search_locations or ()] + roots
    folders: dict[Path, None] = {}
    for root in roots:
        for version in sorted(Path(root).glob("nvidia/cu[0-9]*"), reverse=True):
            if (version / name).is_dir():
                folders[version / name] = None
    return list(folders)


def pip_library(name: str) -> Path | None:
    """A shared library of pip's CUDA packages, e.g. ``libcudart.so.13``, or None."""
    for folder in _pip_folders("lib"):
        if (folder / name).is_file():
            return folder / name
    return None


def _missing_parts(nvcc: Nvcc) -> list[str]:
    """What pip's packages for the rest would have put beside pip's nvcc."""
    root = nvcc.path.parent.parent
    if nvcc.path.parent not in _pip_folders("bin"):
        return []
    parts = ("bin/ptxas", "nvvm/bin/cicc", "include/cuda_runtime.h", "include/crt/host_config.h")
    return [part for part in parts if not (root / part).is_file()]


@functools.lru_cache
def _release(nvcc: Path) -> str | None:
    try:
        done = subprocess.run([nvcc, "--version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"\bV(\d+\.\d+(?:\.\d+)?)", done.stdout)
    return match.group(1) if match and not done.returncode else None


def _program(nvcc: Path) -> Path:
    """The program itself: distributions put a script of one line into ``PATH``."""
    try:
        with nvcc.open("rb") as file:
            start = file.read(512)
    except OSError:
        return nvcc
    match = re.search(rb'^exec\s+"?(/[^\s"]+)', start, re.MULTILINE)
    if start.startswith(b"#!") and match:
        program = Path(os.fsdecode(match.group(1)))
        if program.is_file():
            return program
    return nvcc
