"""From scheduled functions to machine code, by nvcc, with no GPU and no driver at hand.

A module holds machine code of the very architecture and its PTX. Both are stored uncompressed, as
other tools read them, the emulated GPU among them. Equal sources give equal bytes: nvcc runs in a
folder of its own and sees no names but fixed ones. Nothing is relaxed (no fast division, no flushed
denormals): what a kernel computes is what its TIR says, but for fused multiply-add.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...errors import FewbitsError
from ...schedules.cuda.architecture import Architecture
from ...schedules.cuda.template import Kernel
from ..mcu.toolchain import cache_folder
from . import driver
from .source import separated
from .toolchain import check_host_compiler, find_nvcc, run_tool

# Warning 177 is about variables that are never used: TVM's printer leaves some.
_FLAGS = (
    "-fatbin",
    "-O3",
    "-std=c++17",
    "--no-compress",
    "--frandom-seed=fewbits",
    "-diag-suppress",
    "177",
)
_SOURCE = "kernels.cu"
_OUTPUT = "kernels.fatbin"
_DIGEST = hashlib.sha256().digest_size


class _Turn(threading.local):
    """Whether this thread is the one that has TVM."""

    mine: bool = False


#: TVM works for one thread at a time; while one waits for nvcc, another may go on.
_turn = threading.Lock()
_has = _Turn()


class _Failure(threading.local):
    """What went wrong inside TVM: errors that cross its boundary lose their type."""

    error: FewbitsError | None = None


class _Also(threading.local):
    """The architectures that are compiled for besides TVM's target."""

    names: tuple[str, ...] = ()


_failure = _Failure()
_also = _Also()


def compile_kernels(kernels: Sequence[Kernel]) -> list[Any]:
    """Machine code for kernels, one TVM runtime module for each way to lower them.

    Args:
        kernels: names must differ within one architecture.

    Returns:
        Modules in the order in which their first kernels come. Kernels that share architecture,
        pipeline and options share a module. `modules[0][name](*tensors)` launches one.

    Raises:
        FewbitsError: ``compiler-missing``, ``compiler-failed``.
    """
    from tvm import ir

    groups: dict[tuple[Architecture, str, tuple[tuple[str, Any], ...]], dict[str, Any]] = {}
    for kernel in kernels:
        group = groups.setdefault((kernel.architecture, kernel.pipeline, kernel.options), {})
        if kernel.name in group:
            raise ValueError(f"two kernels are called {kernel.name}")
        group[kernel.name] = kernel.function.with_attr("global_symbol", kernel.name)
    work = [
        (ir.IRModule(functions), architecture, pipeline, dict(options))
        for (architecture, pipeline, options), functions in groups.items()
    ]
    if len(work) < 2:
        return [compile_module(*each) for each in work]
    with concurrent.futures.ThreadPoolExecutor(min(len(work), os.cpu_count() or 1)) as pool:
        return list(pool.map(lambda each: compile_module(*each), work))


def compile_module(
    module: Any, architecture: Architecture, pipeline: str, options: dict[str, Any] | None = None
) -> Any:
    """One module of PrimFuncs, lowered by TVM's `pipeline`, as a TVM runtime module.

    Raises:
        FewbitsError: ``compiler-missing``, ``compiler-failed``.
    """
    with _my_turn(), compiling(architecture) as target:
        import tvm

        with tvm.transform.PassContext(opt_level=3, config=options or {}):
            return tvm.compile(module, target=target, tir_pipeline=pipeline).mod


@contextlib.contextmanager
def compiling(architecture: Architecture, *others: Architecture) -> Iterator[Any]:
    """Whatever TVM compiles for the GPU inside goes through nvcc; the value is TVM's target.

    Args:
        architecture: the one that TVM writes code for.
        others: for which the same source is compiled as well, into the same fat binary.

    Raises:
        FewbitsError: ``compiler-missing``, ``compiler-failed``: from inside of TVM as well.
    """
    driver.prepare()
    find_nvcc()
    _install()
    target = architecture.tvm_target()
    _failure.error = None
    _also.names = tuple(other.name for other in others)
    try:
        with target:
            yield target
    except Exception:
        error, _failure.error = _failure.error, None
        if error is not None:
            raise error from None
        raise
    finally:
        _also.names = ()


def fatbin(source: str, *architectures: str) -> bytes:
    """CUDA source as a fat binary: machine code for architectures, and their PTX.

    Args:
        source: CUDA C++.
        architectures: as nvcc writes them, e.g. ``"sm_90a"``.

    Raises:
        FewbitsError: ``compiler-missing``, ``compiler-failed``, ``output-not-writable``.
    """
    nvcc = find_nvcc()
    numbers = [architecture.removeprefix("sm_") for architecture in architectures]
    codes = [f"-gencode=arch=compute_{n},code=[sm_{n},compute_{n}]" for n in numbers]
    flags = (*_FLAGS, *codes)
    key = hashlib.sha256("\0".join((nvcc.release, *flags, source)).encode()).hexdigest()
    path = cache_folder() / "cuda" / f"{key}.fatbin"
    found = _load(path)
    if found is not None:
        return found
    check_host_compiler()
    with tempfile.TemporaryDirectory(prefix="fewbits-nvcc-") as name:
        folder = Path(name)
        (folder / _SOURCE).write_text(source, encoding="utf-8")
        # One process for each architecture; what they write does not depend on their number.
        at_once = f"--threads={len(architectures)}"
        run_tool([nvcc.path, *flags, at_once, "-o", _OUTPUT, _SOURCE], folder)
        content = (folder / _OUTPUT).read_bytes()
    _store(path, content)
    return content


def _install() -> None:
    """Puts `fatbin` in the place of TVM's own way to compile CUDA."""
    import tvm_ffi

    tvm_ffi.register_global_func("tvm_callback_cuda_compile", _callback, override=True)


def _callback(source: str) -> bytes:
    from tvm.target import Target

    target = Target.current(allow_none=True)
    if target is None:
        raise ValueError("CUDA is compiled inside of `with target:` only")
    architectures = (str(target.arch), *_also.names)
    try:
        with _others_turn():
            return fatbin(separated(source), *architectures)
    except FewbitsError as error:
        _failure.error = error
        raise


@contextlib.contextmanager
def _my_turn() -> Iterator[None]:
    """Inside, no other thread that asks for its turn has TVM."""
    if _has.mine:
        yield
        return
    with _turn:
        _has.mine = True
        try:
            yield
        finally:
            _has.mine = False


@contextlib.contextmanager
def _others_turn() -> Iterator[None]:
    """Inside, another thread may have TVM, if it was this one's turn."""
    if not _has.mine:
        yield
        return
    _has.mine = False
    _turn.release()
    try:
        yield
    finally:
        _turn.acquire()
        _has.mine = True


def _load(path: Path) -> bytes | None:
    """An entry of the cache; what is damaged or cannot be read counts as missing."""
    try:
        stored = path.read_bytes()
    except OSError:
        return None
    digest, content = stored[:_DIGEST], stored[_DIGEST:]
    return content if hashlib.sha256(content).digest() == digest else None


def _store(path: Path, content: bytes) -> None:
    """Written beside and moved: other processes see all of an entry or nothing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(hashlib.sha256(content).digest() + content)
        Path(file.name).replace(path)
    except OSError as error:
        raise FewbitsError(
            "output-not-writable",
            f"the cache cannot be written: {error}",
            where=str(path.parent),
            hint="set FEWBITS_CACHE to a folder that can be written",
        ) from error
