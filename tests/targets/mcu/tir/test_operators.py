"""Every operator that has a meaning: through TIR to C, compiled with sanitizers, compared.

The calls are those that the meanings themselves are tested with, and some that only matter in C:
narrow integers, indices at run time, values where conversions are undefined.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fewbits.errors import FewbitsError
from fewbits.ops.evaluate import Evaluator
from fewbits.targets.mcu import lower as lowering
from fewbits.targets.mcu.target import get_target
from tvm import relax
from tvm.relax import op

REPOSITORY = Path(__file__).resolve().parents[4]


def _load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


batch = _load("fewbits_batch", REPOSITORY / "benchmarks" / "batch.py")
shared = _load("shared_cases", REPOSITORY / "tests" / "ops" / "meanings" / "test_against_tvm.py")

RNG = np.random.default_rng(5)
EXTREME = np.float32(
    [0, -0.0, 0.5, 1.5, 2.5, -0.5, -1.5, 126.5, 127.5, -128.5, -129.5, 255.5, 3e9, -3e9, 1e20,
     -1e20, np.inf, -np.inf, 1e-40, -1e-40]
)  # fmt: skip
INPUTS = {
    **shared.INPUTS,
    "e": EXTREME,
    "b": RNG.integers(-128, 128, (1, 6, 5)).astype(np.int8),
    "c": RNG.integers(-128, 128, (1, 6, 5)).astype(np.int8),
    "n": RNG.integers(0, 256, (1, 6, 5)).astype(np.uint8),
    "t": RNG.integers(0, 2, (1, 6, 5)).astype(bool),
    "k": RNG.integers(-6, 6, (2, 3)).astype(np.int64),
    "l": RNG.integers(-(2**62), 2**62, (1, 6, 5)).astype(np.int64),
    "r": RNG.integers(-(2**31), 2**31, (1, 6, 5)).astype(np.int32),
}


def more(v):
    """Calls that matter in C."""
    x, i, e, b, c, n, t, k, wide, r = (v[name] for name in "xiebcntklr")
    made = {}
    for name in ("int8", "uint8", "int16"):
        made[f"quantize extremes {name}"] = op.quantize(
            e, relax.const(0.5, "float32"), relax.const(3, name), -1, name
        )
    for name in ("add", "subtract", "multiply", "maximum", "minimum"):
        for kind, (a, d) in {"int8": (b, c), "int64": (wide, wide), "int32": (r, r)}.items():
            made[f"{name} {kind} wraps"] = getattr(op, name)(a, d)
    made["negative int8"] = op.negative(b)
    made["abs int8"] = op.abs(b)
    made["uint8 sum"] = op.sum(op.astype(n, "int32"), [2])
    made["int8 to uint8"] = op.astype(b, "uint8")
    made["int32 to int8"] = op.astype(r, "int8")
    made["int64 to int32"] = op.astype(wide, "int32")
    made["bool to float"] = op.astype(t, "float32")
    made["where runtime"] = op.where(t, b, c)
    made["logical_not runtime"] = op.logical_not(t)
    made["take runtime"] = op.take(b, k, 1)
    made["gather_elements runtime"] = op.gather_elements(
        op.squeeze(b, [0]), op.astype(op.greater(k, relax.const(0, "int64")), "int64"), 0
    )
    made["take without axis"] = op.take(op.reshape(b, (30,)), k)
    made["argmax of all"] = op.argmax(x)
    made["argmin of all keeping axes"] = op.argmin(b, keepdims=True)
    made["scatter_elements runtime"] = op.scatter_elements(
        op.squeeze(b, [0]), k, relax.const([[9, 8, 7], [6, 5, 4]], "int8"), 0
    )
    made["less uint8"] = op.less(n, relax.const(0, "uint8"))
    made["clip uint8"] = op.clip(n, 0, 200)
    made["topk ties"] = op.topk(op.right_shift(b, relax.const(5, "int8")), 3, 1)
    made["argsort int8"] = op.argsort(b, 2, True, "int64")
    made["conv2d int8"] = op.nn.conv2d(
        op.reshape(b, (1, 1, 6, 5)), relax.const(RNG.integers(-9, 9, (2, 1, 3, 3)), "int8"),
        padding=[1, 1, 1, 1], out_dtype="int32",
    )  # fmt: skip
    made["concat int8"] = op.concat([b, c, b], 1)
    made["float64"] = op.sqrt(op.abs(op.astype(e, "float64")))
    made["double sum"] = op.sum(op.astype(x, "float64"), [2])
    made["round extremes"] = op.round(e)
    made["floor extremes"] = op.floor(e)
    made["relu extremes"] = op.nn.relu(e)
    made["sigmoid extremes"] = op.sigmoid(e)
    made["max pool of minus infinity"] = op.nn.max_pool1d(
        op.reshape(op.log(op.astype(t, "float32")), (1, 6, 5)), 3, 1, (1, 1)
    )
    made["power"] = op.power(op.abs(x), relax.const(0.3, "float32"))
    made["shape only"] = op.reshape(op.permute_dims(i, [2, 0, 1]), (30,))
    return made


def module_of(call, variables):
    builder = relax.BlockBuilder()
    with builder.function("main", list(variables.values())):
        with builder.dataflow():
            var = builder.emit(shared.flatten_arguments(builder, call), "result")
            outputs = [var]
            if isinstance(var.ty, relax.TupleType):
                fields = range(len(var.ty.fields))
                outputs = [builder.emit(relax.TupleGetItem(var, i), f"result{i}") for i in fields]
            outputs = [builder.emit_output(one) for one in outputs]
        builder.emit_func_output(relax.Tuple(outputs) if len(outputs) > 1 else outputs[0])
    module = builder.get()
    names = [f"y{i}" for i in range(len(outputs))]
    module["main"] = module["main"].with_attr("output_names", names)
    return module


def variables():
    return {
        name: relax.Var(name, relax.TensorType(array.shape, str(array.dtype)))
        for name, array in INPUTS.items()
    }


#: What TVM itself cannot lower, or float64 functions that firmware does not have.
REFUSED = {"nn.pixel_shuffle"}
NAMES = [*shared.cases(variables()), *more(variables())]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """By case: outputs of the C, or the reason why there are none; and the module."""
    patch = pytest.MonkeyPatch()
    patch.setattr(lowering, "RULES", {})
    patch.setattr(lowering, "ALIASES", frozenset())
    modules, refusals, programs = {}, {}, []
    parameters = variables()
    for name, call in {**shared.cases(parameters), **more(parameters)}.items():
        modules[name] = module_of(call, parameters)
        try:
            program = lowering.lower(modules[name], get_target("c"), "m", {})
        except FewbitsError as error:
            refusals[name] = str(error)
            continue
        programs.append(batch.Case(name, program, INPUTS))
    patch.undo()
    outputs = batch.run(programs, tmp_path_factory.mktemp("batch"))
    return modules, {**refusals, **outputs}


@pytest.mark.parametrize("name", NAMES)
def test_c_means_what_the_oracle_means(name, results):
    modules, outputs = results
    if name in REFUSED:
        assert "no-kernel" in outputs[name]
        return
    assert not isinstance(outputs[name], str), outputs[name]
    given = {key: torch.from_numpy(array) for key, array in INPUTS.items()}
    expected = Evaluator(modules[name])(given)
    for ours, theirs in zip(outputs[name], expected.values(), strict=True):
        theirs = theirs.numpy()
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        if ours.dtype.kind == "f":
            np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-6)
        else:
            np.testing.assert_array_equal(ours, theirs)


def test_bad_indices_touch_no_foreign_memory(tmp_path):
    data = np.arange(6, dtype=np.float32)
    indices = np.int64([6, -7, 2**31, -(2**31) - 5, 2**40, 5])
    parameters = {
        "x": relax.Var("x", relax.TensorType(data.shape, "float32")),
        "k": relax.Var("k", relax.TensorType(indices.shape, "int64")),
    }
    x, k = parameters.values()
    calls = {
        "take": op.take(x, k, 0),
        "gather_elements": op.gather_elements(x, k, 0),
        "gather_nd": op.gather_nd(x, op.reshape(k, (6, 1))),
        "scatter_elements": op.scatter_elements(x, k, x, 0),
        "scatter_nd": op.scatter_nd(x, op.reshape(k, (6, 1)), x),
    }
    cases = []
    for name, call in calls.items():
        program = lowering.lower(module_of(call, parameters), get_target("c"), "m", {})
        cases.append(batch.Case(name, program, {"x": data, "k": indices}))
    for name, outputs in batch.run(cases, tmp_path).items():
        assert not isinstance(outputs, str), f"{name}: {outputs}"
        assert set(outputs[0]) <= set(data)
