"""From C sources to a linked program, with a compiler that pip installs.

`zig cc` (the package `ziglang`) is a complete cross compiler for every target, so that a fresh
machine needs nothing else; a GNU cross compiler is used when asked for. Equal sources give equal
bytes whatever folder they are in: no debug information, no build id, no absolute names.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ...errors import FewbitsError
from . import startup
from .elf import Sizes, format_map, sizes
from .target import McuTarget

# Measured on small kernels: zig takes -O1 and -O3 for -O2; clang's own -O3 quadruples the code
# for no fewer instructions, -Os costs a quarter to a half more; GNU's -O3 spills in large kernels.
DEFAULT_OPTIMIZATION = "-O2"

_TIMEOUT_SECONDS = 900
_KEPT_LINES = 40

_WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Werror")
_SECTIONS = ("-ffunction-sections", "-fdata-sections")
_BARE = (
    "-ffreestanding",
    "-fomit-frame-pointer",
    "-fno-unwind-tables",
    "-fno-asynchronous-unwind-tables",
)


@dataclasses.dataclass(frozen=True)
class BuildResult:
    """A linked program.

    Attributes:
        elf: the program, or the shared library.
        sizes: bytes by kind of section (all zero on hosts whose programs are not ELF files).
        map: a text file with the address and size of every section and symbol.
        command: the compiler's command line.
        compiler: name and version of the compiler.
    """

    elf: Path
    sizes: Sizes
    map: Path
    command: tuple[str, ...]
    compiler: str


def build(
    sources: Sequence[Path],
    target: McuTarget,
    out: Path,
    *,
    include: Sequence[Path] = (),
    linker_script: Path | None = None,
    roots: Sequence[str] | None = None,
    optimize: str = DEFAULT_OPTIMIZATION,
    compiler: str | None = None,
    defines: Sequence[str] = (),
    extra: Sequence[str] = (),
    shared: bool = False,
    sanitize: Sequence[str] = (),
) -> BuildResult:
    """Compiles and links; nothing is written unless it succeeds.

    Args:
        sources: C or assembler files. Start-up code is not added (`startup.startup_sources`).
        target: what to compile for.
        out: the program to write; the map is written beside it as ``<out>.map``.
        include: folders of headers.
        linker_script: None for the roomy map that only the emulator has (`startup.GENERIC`).
        roots: functions to keep although nothing calls them; what neither they nor the entry
            point reach is dropped. None keeps everything.
        optimize: optimization flag.
        compiler: path or name of a GNU (cross) compiler, or of any C compiler on the host; None
            for `zig cc`.
        defines: macros, ``"NAME"`` or ``"NAME=value"``.
        extra: further flags, last on the command line.
        shared: build a shared library (host only).
        sanitize: ``"address"``, ``"undefined"`` (host only; zig has only ``"undefined"``).

    Raises:
        FewbitsError: ``compiler-missing`` or ``compiler-failed`` (with the compiler's own last
            words and the command).
    """
    tool = compiler_command(compiler)
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    host = target.family == "host"
    with tempfile.TemporaryDirectory(prefix=".build-", dir=out.parent) as folder:
        product = Path(folder) / out.name
        command = [*tool, *(target.zig_flags if compiler is None else target.gcc_flags)]
        # At -Os zig strips the symbols unless debug information is asked for.
        small = compiler is None and optimize in ("-Os", "-Oz")
        command += [optimize, "-g" if small or sanitize else "-g0", *_WARNINGS, *_SECTIONS]
        command += [f"-ffile-prefix-map={Path(name).absolute().parent}=." for name in sources]
        if host:
            command += _host_flags(compiler, shared, sanitize)
        else:
            if shared or sanitize:
                raise ValueError("shared libraries and sanitizers exist on the host only")
            script = linker_script.absolute() if linker_script else Path(folder) / "generic.ld"
            if linker_script is None:
                script.write_text(startup.linker_script(target), encoding="utf-8")
            command += _bare_flags(target, compiler, script, roots)
        command += [f"-I{headers.absolute()}" for headers in include]
        command += [f"-D{name}" for name in defines]
        command += [str(Path(name).absolute()) for name in sources]
        command += ["-o", str(product)]
        command += _libraries(target, compiler)
        command += extra
        # People see the command as if it had been run in the product's own folder.
        shown = tuple(word.replace(folder, str(out.parent)) for word in command)
        run_command(command, shown)
        map_file = Path(folder) / f"{out.name}.map"
        measured = _measure(product, map_file)
        product.replace(out)
        map_out = out.with_name(f"{out.name}.map")
        map_file.replace(map_out)
    return BuildResult(out, measured, map_out, shown, compiler_version(compiler))


def compiler_version(compiler: str | None = None) -> str:
    """Name and version of a compiler in one line, e.g. ``"zig cc 0.17.0"``.

    Raises:
        FewbitsError: ``compiler-missing``, ``compiler-failed``.
    """
    return _version(compiler_command(compiler))


@functools.lru_cache
def _version(tool: tuple[str, ...]) -> str:
    if tool[-1] == "cc":
        return "zig cc " + run_command([*tool[:-1], "version"]).strip()
    return (run_command([*tool, "--version"]).splitlines() or [tool[0]])[0].strip()


def system_compiler() -> str | None:
    """A C compiler of this machine that has the address sanitizer, or None."""
    return shutil.which("clang") or shutil.which("gcc")


def cache_folder() -> Path:
    """Where compilers may keep their caches: ``$FEWBITS_CACHE`` or the user's cache folder."""
    if chosen := os.environ.get("FEWBITS_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "fewbits"


def compiler_command(compiler: str | None) -> tuple[str, ...]:
    """The words that call a compiler, by default zig's.

    Raises:
        FewbitsError: ``compiler-missing``.
    """
    if compiler is None:
        if importlib.util.find_spec("ziglang") is None:
            raise FewbitsError(
                "compiler-missing",
                "the pip package ziglang, the default C compiler, is not installed",
                hint="pip install ziglang, or name a compiler with --cc",
            )
        return (sys.executable, "-m", "ziglang", "cc")
    path = shutil.which(compiler)
    if path is None:
        raise FewbitsError(
            "compiler-missing",
            f"there is no compiler {compiler!r}",
            where="--cc",
            hint="install it, give its full path, or leave --cc out to use zig cc from pip",
        )
    return (path,)


def _host_flags(compiler: str | None, shared: bool, sanitize: Sequence[str]) -> list[str]:
    flags: list[str] = []
    if shared:
        flags += ["-shared", "-fPIC"]
    if compiler is None:
        # The machine's own instruction set would make the product differ from machine to machine.
        flags.append("-mcpu=baseline")
        if "address" in sanitize:
            raise FewbitsError(
                "compiler-failed",
                "zig cc has no address sanitizer",
                hint="install clang or gcc and name it with --cc",
            )
    if sanitize:
        flags += [f"-fsanitize={','.join(sanitize)}", "-fno-sanitize-recover=all"]
    elif compiler is None:
        flags.append("-fno-sanitize=all")
    return flags


def _bare_flags(
    target: McuTarget, compiler: str | None, script: Path, roots: Sequence[str] | None
) -> list[str]:
    entry = startup.entry_symbol(target)
    flags = [*_BARE]
    if compiler is None:
        flags.append("-fno-sanitize=all")
    else:
        flags += ["-fno-schedule-insns", "-nostartfiles", "-static"]
    # zig ignores the script's ENTRY.
    flags += ["-T", str(script), f"-Wl,-e,{entry}", "-Wl,--build-id=none"]
    if roots is None:
        flags.append("-Wl,--no-gc-sections")
    else:
        flags += ["-Wl,--gc-sections", *(f"-Wl,-u,{name}" for name in roots)]
    return flags


def _libraries(target: McuTarget, compiler: str | None) -> list[str]:
    """zig brings its own run-time library; GNU compilers are told which of theirs to use."""
    if compiler is None:
        return []
    if target.family == "host":
        return ["-lm"]
    return ["-nodefaultlibs", *_c_library(compiler_command(compiler), target), "-lgcc"]


def _c_library(tool: tuple[str, ...], target: McuTarget) -> list[str]:
    """``-lm -lc`` where the cross compiler has a C library (RISC-V's often comes without)."""
    found = run_command([*tool, *target.gcc_flags, "-print-file-name=libc.a"]).strip()
    return ["-lm", "-lc"] if Path(found).is_absolute() else []


def _measure(product: Path, map_file: Path) -> Sizes:
    with product.open("rb") as file:
        is_elf = file.read(4) == b"\x7fELF"
    map_file.write_text(format_map(product) if is_elf else "", encoding="utf-8")
    return sizes(product) if is_elf else Sizes(0, 0, 0, 0)


def run_command(command: Sequence[str], shown: Sequence[str] | None = None) -> str:
    """Run a tool; its standard output. `shown` is the command as errors name it.

    Raises:
        FewbitsError: ``compiler-failed``, ``compiler-missing``.
    """
    where = " ".join(shown or command)
    cache = cache_folder() / "zig"
    environment = {
        "ZIG_GLOBAL_CACHE_DIR": str(cache),
        "ZIG_LOCAL_CACHE_DIR": str(cache),
        **os.environ,
        "LC_ALL": "C",
    }
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_SECONDS,
            env=environment,
        )
    except subprocess.TimeoutExpired as error:
        raise FewbitsError(
            "compiler-failed",
            f"the compiler did not finish in {_TIMEOUT_SECONDS} s",
            where=where,
        ) from error
    except OSError as error:
        raise FewbitsError(
            "compiler-missing", f"cannot run the compiler: {error}", where=command[0]
        ) from error
    if done.returncode:
        words = (done.stderr + done.stdout).strip().splitlines()
        raise FewbitsError(
            "compiler-failed",
            f"the compiler ended with status {done.returncode}:\n"
            + "\n".join(words[-_KEPT_LINES:]),
            where=where,
            hint="run the command above by itself to see more",
        )
    return done.stdout
