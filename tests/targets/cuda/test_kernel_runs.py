"""Kernels and whole Relax modules run on `tvm.cuda(0)`, and their faults come back as words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from fewbits import FewbitsError
from fewbits.schedules.cuda.architecture import ARCHITECTURES, SM_90A
from fewbits.schedules.cuda.template import Kernel
from fewbits.targets.cuda import emulator, testing
from fewbits.targets.cuda.compile import compile_kernels, compiling
from tvm.script import tirx as T

_WIDTH = 64


def _copy(dtype: str, offset: int = 0) -> Any:
    @T.prim_func
    def function(x_ptr: T.handle, y_ptr: T.handle):
        rows = T.int64()
        x = T.match_buffer(x_ptr, (rows, _WIDTH), dtype)
        y = T.match_buffer(y_ptr, (rows, _WIDTH), dtype)
        T.device_entry()
        row = T.cta_id([T.Cast("int32", rows)])
        thread = T.thread_id([_WIDTH])
        y[row + offset, thread] = x[row, thread]

    return function


def _kernel(architecture: Any, dtype: str = "float32", offset: int = 0) -> Kernel:
    return Kernel("copied", _copy(dtype, offset), architecture, "tirx")


@pytest.mark.parametrize("gpu", ARCHITECTURES, indirect=True)
@pytest.mark.parametrize(
    "dtype",
    [np.float32, np.int8, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn],
    ids=lambda dtype: np.dtype(dtype).name,
)
def test_a_kernel_on_arrays_of_every_type(gpu: testing.Gpu, dtype: Any) -> None:
    if np.dtype(dtype).name.startswith("float8") and not gpu.architecture.has_fp8:
        pytest.skip("no FP8 before sm_89")
    x = np.random.default_rng(1).integers(-8, 8, (3, _WIDTH)).astype(dtype)
    (y,) = testing.run_kernel(
        _kernel(gpu.architecture, np.dtype(dtype).name), x, np.zeros((3, _WIDTH), dtype)
    )
    assert y.dtype == x.dtype
    assert y.tobytes() == x.tobytes()


def test_what_a_kernel_does_not_write_stays(gpu: testing.Gpu) -> None:
    @T.prim_func
    def half(x_ptr: T.handle, y_ptr: T.handle):
        x = T.match_buffer(x_ptr, (_WIDTH,), "float32")
        y = T.match_buffer(y_ptr, (_WIDTH,), "float32")
        T.device_entry()
        T.cta_id([1])
        thread = T.thread_id([_WIDTH // 2])
        y[thread * 2] = x[thread]

    x = np.arange(_WIDTH, dtype=np.float32)
    kernel = Kernel("half", half, gpu.architecture, "tirx")
    same, y = testing.run_kernel(kernel, x, np.full_like(x, -1), outputs=2)
    assert (same == x).all()
    assert (y[::2] == x[: _WIDTH // 2]).all() and (y[1::2] == -1).all()


def test_a_fault_is_an_error_with_the_emulators_words(gpu: testing.Gpu) -> None:
    if not gpu.emulated:
        pytest.skip("a real GPU does not come back from a fault")
    x = np.ones((2, _WIDTH), np.float32)
    with pytest.raises(FewbitsError) as caught:
        testing.run_kernel(_kernel(gpu.architecture, offset=1 << 20), x, x)
    assert caught.value.code == "gpu-fault"
    assert "copied" in caught.value.message
    assert emulator.fault() is None
    (y,) = testing.run_kernel(_kernel(gpu.architecture), x, np.zeros_like(x))
    assert (y == x).all()


def test_races_are_found_where_they_are_looked_for(gpu: testing.Gpu) -> None:
    if not gpu.emulated:
        pytest.skip("a real GPU does not look for races")

    def reverse(barrier: bool) -> Kernel:
        @T.prim_func
        def function(x_ptr: T.handle, y_ptr: T.handle):
            x = T.match_buffer(x_ptr, (_WIDTH,), "float32")
            y = T.match_buffer(y_ptr, (_WIDTH,), "float32")
            T.device_entry()
            T.cta_id([1])
            thread = T.thread_id([_WIDTH])
            kept = T.alloc_buffer((_WIDTH,), "float32", scope="shared")
            kept[thread] = x[thread]
            if barrier:
                T.cuda.cta_sync()
            y[thread] = kept[_WIDTH - 1 - thread]

        return Kernel("reversed", function, gpu.architecture, "tirx")

    x = np.arange(_WIDTH, dtype=np.float32)
    checks = emulator.Checks(races=True, shared_initialized=False)
    (y,) = testing.run_kernel(reverse(True), x, np.zeros_like(x), checks=checks)
    assert (y == x[::-1]).all()
    with pytest.raises(FewbitsError) as caught:
        testing.run_kernel(reverse(False), x, np.zeros_like(x), checks=checks)
    assert caught.value.code == "gpu-fault"


def test_an_error_of_a_launch_has_the_emulators_words(gpu: testing.Gpu) -> None:
    import tvm

    if not gpu.emulated:
        pytest.skip("NVIDIA's driver has words of its own")
    emulator.install("sm_80")
    try:
        x = tvm.runtime.tensor(np.ones((1, _WIDTH), np.float32), gpu.device)
        with pytest.raises(RuntimeError, match="no PTX for sm_80: it has elf for sm_90a"):
            compile_kernels([_kernel(SM_90A)])[0]["copied"](x, x)
    finally:
        emulator.install("sm_90a")


@pytest.mark.parametrize("graph", [False, True], ids=["launches", "graph"])
def test_a_relax_module_in_the_virtual_machine(
    gpu: testing.Gpu, tmp_path: Path, graph: bool
) -> None:
    import tvm
    from tvm import relax
    from tvm.s_tir import dlight

    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((4, _WIDTH), "float32"))
    weight = np.random.default_rng(2).standard_normal((_WIDTH, _WIDTH)).astype(np.float32)
    with builder.function("main", [x]):
        with builder.dataflow():
            value = x
            for _ in range(3):
                value = builder.emit(relax.op.matmul(value, relax.const(weight)))
                value = builder.emit(relax.op.nn.relu(value))
            value = builder.emit_output(value)
        builder.emit_func_output(value)
    module = relax.transform.LegalizeOps()(builder.get())
    config = {"relax.backend.use_cuda_graph": graph}
    with compiling(gpu.architecture) as target, tvm.transform.PassContext(config=config):
        module = dlight.ApplyDefaultSchedule(dlight.gpu.Fallback())(module)
        executable = tvm.compile(module, target=target)
    assert ("cuda_graph.run_or_capture" in executable.as_text()) == graph
    executable.export_library(str(tmp_path / "model.so"))
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(tmp_path / "model.so")), gpu.device)
    for seed in range(3):
        array = np.random.default_rng(seed).standard_normal((4, _WIDTH)).astype(np.float32)
        expected = array
        for _ in range(3):
            expected = np.maximum(expected @ weight, 0)
        answer = machine["main"](tvm.runtime.tensor(array, gpu.device)).numpy()
        np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-3)
