"""Kernels become modules with machine code and PTX: the same bytes each time, nvcc's own words."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from fewbits import FewbitsError
from fewbits.schedules.cuda.architecture import ARCHITECTURES, SM_80, SM_90A
from fewbits.schedules.cuda.template import Kernel
from fewbits.targets.cuda import compile as compiler
from fewbits.targets.cuda import testing
from fewbits.targets.cuda.fatbin import entries
from tvm.script import tirx as T

pytestmark = pytest.mark.skipif(
    testing.no_compiler() is not None, reason=str(testing.no_compiler())
)

SOURCE = """
static __device__ int hidden[4] = {1, 2, 3, 4};
extern "C" __global__ void twice(int *x) { x[threadIdx.x] *= 2 + hidden[threadIdx.x & 3]; }
"""


def _scale(factor: float) -> Any:
    @T.prim_func
    def function(x_ptr: T.handle, y_ptr: T.handle):
        rows = T.int64()
        x = T.match_buffer(x_ptr, (rows, 256), "float32")
        y = T.match_buffer(y_ptr, (rows, 256), "float32")
        T.device_entry()
        row = T.cta_id([T.Cast("int32", rows)])
        thread = T.thread_id([256])
        y[row, thread] = x[row, thread] * T.float32(factor)

    return function


def _kernel(name: str, architecture: Any = SM_90A, factor: float = 2.0) -> Kernel:
    return Kernel(name, _scale(factor), architecture, "tirx")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_code_for_exactly_this_architecture_and_its_ptx(architecture: str) -> None:
    elf, ptx = entries(compiler.fatbin(SOURCE, architecture))
    assert (elf.kind, elf.architecture) == ("elf", architecture)
    assert (ptx.kind, ptx.architecture) == ("ptx", architecture)
    assert elf.content is not None and elf.content.startswith(b"\x7fELF")
    assert ptx.content is not None and f".target {architecture}".encode() in ptx.content


def test_equal_sources_give_equal_bytes_without_names_of_folders(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = []
    for name in ("a", "another-folder"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv("FEWBITS_CACHE", str(tmp_path / name / "cache"))
        monkeypatch.setattr(compiler.tempfile, "tempdir", str(tmp_path / name))
        made.append(compiler.fatbin(SOURCE, "sm_90a"))
    assert made[0] == made[1]
    assert b"another-folder" not in made[1] and b"/tmp" not in made[1]


def test_what_is_cached_is_not_compiled_and_what_is_damaged_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FEWBITS_CACHE", str(tmp_path))
    runs = []
    run_tool = compiler.run_tool
    monkeypatch.setattr(compiler, "run_tool", lambda *a: (runs.append(a), run_tool(*a))[1])
    first = compiler.fatbin(SOURCE, "sm_80")
    assert compiler.fatbin(SOURCE, "sm_80") == first and len(runs) == 1
    assert compiler.fatbin(SOURCE, "sm_89") != first and len(runs) == 2
    for entry in (tmp_path / "cuda").iterdir():
        entry.write_bytes(entry.read_bytes()[:-1])
    assert compiler.fatbin(SOURCE, "sm_80") == first and len(runs) == 3
    assert compiler.fatbin(SOURCE, "sm_80") == first and len(runs) == 3


def test_a_cache_that_cannot_be_written_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEWBITS_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(FewbitsError) as caught:
        compiler.fatbin(SOURCE, "sm_80")
    assert caught.value.code == "output-not-writable"


def test_threads_compile_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEWBITS_CACHE", str(tmp_path))
    made: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: made.append(compiler.fatbin(SOURCE, "sm_80")))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 3 and len(set(made)) == 1
    assert len(list((tmp_path / "cuda").iterdir())) == 1


def test_errors_of_nvcc_come_with_its_words() -> None:
    with pytest.raises(FewbitsError) as caught:
        compiler.fatbin("__global__ void k() { nonsense; }", "sm_80")
    assert caught.value.code == "compiler-failed"
    assert 'identifier "nonsense" is undefined' in caught.value.message


def test_errors_of_nvcc_pass_through_tvm() -> None:
    @T.prim_func
    def broken(x_ptr: T.handle):
        x = T.match_buffer(x_ptr, (32,), "float32")
        T.device_entry()
        T.cta_id([1])
        thread = T.thread_id([32])
        x[thread] = T.cuda.func_call(
            "wrong", source_code="__device__ float wrong() { return none; }", return_type="float32"
        )

    with pytest.raises(FewbitsError) as caught:
        compiler.compile_kernels([Kernel("broken", broken, SM_90A, "tirx")])
    assert caught.value.code == "compiler-failed"
    assert 'identifier "none" is undefined' in caught.value.message


def test_kernels_of_one_kind_share_a_module() -> None:
    kernels = [_kernel("a"), _kernel("b", SM_80), _kernel("c", factor=3.0)]
    first, second = compiler.compile_kernels(kernels)
    assert [first.implements_function(name, True) for name in "abc"] == [True, False, True]
    assert [second.implements_function(name, True) for name in "abc"] == [False, True, False]


def test_names_must_differ_within_an_architecture() -> None:
    with pytest.raises(ValueError, match="two kernels"):
        compiler.compile_kernels([_kernel("a"), _kernel("a")])
    assert len(compiler.compile_kernels([_kernel("a"), _kernel("a", SM_80)])) == 2


def test_an_exported_library_holds_the_code(tmp_path: Path) -> None:
    (module,) = compiler.compile_kernels([_kernel("scale")])
    module.export_library(str(tmp_path / "k.so"))
    content = (tmp_path / "k.so").read_bytes()
    assert content.count(compiler.fatbin(module.imports[0].inspect_source("cuda"), "sm_90a")) == 1
