"""General kernels through nvcc and on the emulated GPU, for real models' functions."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import fewbits
import numpy as np
import pytest
from fewbits.compiler.importer import import_onnx
from fewbits.errors import FewbitsError
from fewbits.schedules.cuda.architecture import ARCHITECTURES
from fewbits.schedules.cuda.general import schedule_module
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


def test_rows_on_a_gpu(gpu: Any, scheduled: Any) -> None:
    from fewbits.targets.cuda.testing import run_function

    def write(emit: Any, x: Any, other: Any) -> Any:
        total = emit(R.add(x, other))
        return relax.Tuple([total, emit(R.nn.softmax(total))])

    x, other = (np.random.default_rng(n).standard_normal((5, 1000)) for n in range(2))
    x, other = x.astype(np.float32), other.astype(np.float32)
    built = scheduled(write, (5, 1000), (5, 1000))
    functions = named(built.module)
    (name,) = (variable.name_hint for variable in functions.functions)
    compiled = compile_module(functions, gpu.architecture, "s_tir")
    results = [np.zeros_like(x), np.zeros_like(x)]
    got = run_function(compiled[name], gpu, x, other, *results, outputs=2)
    for here, there in zip(got, built(x, other), strict=True):
        np.testing.assert_allclose(here, there, rtol=1e-6)
