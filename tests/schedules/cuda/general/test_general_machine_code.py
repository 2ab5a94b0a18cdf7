"""General kernels through nvcc and on the emulated GPU, for real models' functions."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import fewbits
import numpy as np
import onnxruntime
import pytest
import tvm
from fewbits.compiler.importer import import_onnx
from fewbits.errors import FewbitsError
from fewbits.schedules.cuda.architecture import ARCHITECTURES
from fewbits.schedules.cuda.general import schedule_module
from fewbits.schedules.cuda.replay import replay_module
from fewbits.targets.cuda.compile import compile_module
from fewbits.targets.cuda.machine_code import report_module
from fewbits.targets.cuda.toolchain import find_nvcc
from fewbits.targets.vm.names import plain_names
from tvm import ir, relax, tirx

SHARED = Path(fewbits.__file__).resolve().parent.parent / "shared"
R = relax.op


@pytest.fixture
def nvcc() -> None:
    try:
        find_nvcc()
    except FewbitsError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def realdata() -> Any:
    if not (SHARED / "realdata.py").exists():
        pytest.skip("the real models are not here")
    specification = importlib.util.spec_from_file_location("realdata", SHARED / "realdata.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["realdata"] = module  # its dataclasses look their module up
    specification.loader.exec_module(module)
    return module


def named(module: ir.IRModule) -> ir.IRModule:
    """The PrimFuncs alone, as functions to call."""
    return ir.IRModule(
        {
            variable.name_hint: function.with_attr("global_symbol", variable.name_hint)
            for variable, function in module.functions.items()
            if isinstance(function, tirx.PrimFunc)
        }
    )


@pytest.mark.parametrize(
    ("model", "architecture"),
    [("minilm", "sm_80"), ("stories260k", "sm_90a"), ("kws", "sm_89"), ("resnet8", "sm_80"),
     ("vww", "sm_90a"), ("ad", "sm_80")],
)  # fmt: skip
def test_every_function_of_a_model_compiles(
    nvcc: None, realdata: Any, loops: Any, model: str, architecture: str
) -> None:
    task = realdata.load(model)
    imported = import_onnx(str(task.model), dynamic=model in ("minilm", "stories260k"))
    target = ARCHITECTURES[architecture]
    functions = named(schedule_module(loops(plain_names(imported.module).module), target))
    assert all(f.attrs["tirx.is_scheduled"] for f in functions.functions.values())
    found = report_module(compile_module(functions, target, "s_tir"), target)
    assert len(found) >= len(functions.functions)
    bad = {name: (c.stack, c.spill) for name, c in found.items() if c.stack or c.spill}
    assert not bad


@pytest.mark.parametrize("model", ["kws", "stories260k"])
def test_models_mean_the_same(realdata: Any, loops: Any, model: str) -> None:
    """A whole model of these kernels, replayed, against onnxruntime."""
    task = realdata.load(model)
    imported = import_onnx(str(task.model), dynamic=model == "stories260k")
    session = onnxruntime.InferenceSession(str(task.model))
    count = 1 if model == "kws" else 2
    inputs = {port.name: task.inputs[port.name][:count] for port in session.get_inputs()}
    want = session.run(None, inputs)
    host = replay_module(schedule_module(loops(imported.module), ARCHITECTURES["sm_80"]))
    executable = relax.build(host, target=tvm.target.Target({"kind": "llvm", "opt-level": 0}))
    machine = relax.VirtualMachine(executable, tvm.cpu())
    got = machine["main"](*[tvm.runtime.tensor(x) for x in inputs.values()])
    tensors = [got] if isinstance(got, tvm.runtime.Tensor) else list(got)
    for here, there in zip(tensors, want, strict=True):
        np.testing.assert_allclose(here.numpy(), there, rtol=1e-4, atol=1e-4)


#: What is built, and the inputs' shapes; each is one function.
ON_A_GPU: dict[str, tuple[Any, list[tuple[int, ...]], str]] = {
    "a block for each row": (
        lambda emit, x, y: emit(R.nn.softmax(emit(R.add(x, y)))), [(5, 4097), (5, 4097)], "float32",
    ),
    # The compiler reads the third warp's result together with one that nobody has.
    "three warps for each row": (
        lambda emit, x: emit(R.nn.softmax(x)), [(5, 1536)], "float32",
    ),
    "a warp for each row": (
        lambda emit, x, g, h: emit(R.nn.layer_norm(x, g, h, axes=[-1])),
        [(5, 768), (768,), (768,)], "float16",
    ),
    "a few lanes for each row": (lambda emit, x: emit(R.nn.softmax(x)), [(37, 5)], "float32"),
    "vectors": (lambda emit, x: emit(R.tanh(x)), [(7, 1000)], "float16"),
    "transpose": (lambda emit, x: emit(R.permute_dims(x, [0, 2, 1])), [(2, 70, 33)], "float32"),
    "tiles": (lambda emit, x, y: emit(R.matmul(x, y)), [(70, 33), (33, 65)], "float32"),
    "arg-max": (lambda emit, x: emit(R.argmax(x, 1)), [(3, 4097)], "float32"),
    "sort": (lambda emit, x: emit(R.sort(x)), [(3, 50)], "float32"),
    "convolution": (
        lambda emit, x, w: emit(R.nn.conv2d(x, w, padding=1)),
        [(1, 8, 12, 12), (24, 8, 3, 3)], "float32",
    ),
}  # fmt: skip


@pytest.mark.parametrize("gpu", ["sm_80"], indirect=True)
@pytest.mark.parametrize("name", ON_A_GPU)
def test_on_a_gpu(gpu: Any, scheduled: Any, name: str) -> None:
    from fewbits.targets.cuda.testing import run_function

    write, shapes, dtype = ON_A_GPU[name]
    built = scheduled(write, *shapes, dtypes=[dtype] * len(shapes))
    (function,) = built.kernels
    inputs = [np.random.default_rng(n).standard_normal(s) for n, s in enumerate(shapes)]
    inputs = [x.astype(dtype) for x in inputs]
    (want,) = built(*inputs)
    compiled = compile_module(named(built.module), gpu.architecture, "s_tir")
    (got,) = run_function(compiled[function], gpu, *inputs, np.zeros_like(want))
    np.testing.assert_allclose(got, want, rtol=1e-5 if dtype == "float32" else 1e-3, atol=1e-5)
