"""Names, host functions and sources on the way into one library."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tvm
import tvm_ffi
from fewbits import FewbitsError
from fewbits.targets.cuda.hosts import prepare_hosts
from fewbits.targets.cuda.placement import check_placement
from fewbits.targets.cuda.source import separated
from fewbits.targets.vm.names import plain_names
from tvm import relax, sym, tirx
from tvm.script import tirx as T


def _host():
    @T.prim_func(s_tir=True)
    def pick(x_ptr: T.handle, y_ptr: T.handle):
        T.func_attr({"global_symbol": "pick", "tirx.is_scheduled": True})
        m = T.int64()
        x = T.match_buffer(x_ptr, (m, 4), "float32")
        y = T.match_buffer(y_ptr, (m, 4), "float32")
        if m <= 2:
            T.call_packed("a", x, y)
        else:
            if m <= 8:
                T.call_packed("b", x, y)
            else:
                T.call_packed("a", x, y)

    return pick


def test_each_kernel_is_called_once_for_the_same_rows():
    module = prepare_hosts(tvm.IRModule({"pick": _host()}), {"a", "b"})
    assert len(re.findall(r"call_cpacked", module.script())) == 2
    assert "call_packed(" not in module.script()
    conditions = [each.condition for each in module["pick"].body.block.body.seq]
    analyzer = sym.Analyzer()
    (size,) = {v for v in _variables(conditions[0])}
    for rows, wanted in ((1, "a"), (2, "a"), (3, "b"), (8, "b"), (9, "a"), (500, "a")):
        held = [_holds(condition, size, rows, analyzer) for condition in conditions]
        assert held == [wanted == "a", wanted == "b"]


def _variables(expression):
    found = set()
    tvm_ffi.structural_map(expression, [(tirx.Var, lambda var: found.add(var) or var)])
    return found


def _holds(condition, size, rows, analyzer):
    value = tvm_ffi.structural_map(
        condition, [(tirx.Var, lambda var: tirx.IntImm("int64", rows) if var == size else var)]
    )
    return bool(analyzer.simplify(value))


def test_calls_of_others_stay():
    before = tvm.IRModule({"pick": _host()})
    after = prepare_hosts(tvm.IRModule({"pick": _host()}), {"a"})
    assert before["pick"].body.script() == after["pick"].body.block.body.script()


def test_names_are_plain_and_remembered():
    size = tirx.Var("batch size", "int64")
    x = relax.Var("in/put:0", relax.TensorType([size, 4], "float32"))
    builder = relax.BlockBuilder()
    attributes = {"tir_var_upper_bound": {"batch size": 7}, "input_names": ["in/put:0"]}
    with builder.function("main", [x], attrs=attributes):
        with builder.dataflow():
            var = relax.DataflowVar("float; é", x.ty)
            builder.emit_normalized(relax.VarBinding(var, builder.normalize(relax.op.nn.relu(x))))
            result = builder.emit_output(relax.op.exp(var))
        builder.emit_func_output(result)
    plain = plain_names(builder.get())
    assert "float; é" in plain.layers.values()
    (renamed,) = plain.dimensions
    assert plain.dimensions[renamed] == "batch size" and renamed.isidentifier()
    main = plain.module["main"]
    assert dict(main.attrs["tir_var_upper_bound"]) == {renamed: 7}
    assert all(v.name.isidentifier() for v in main.params)
    assert str(main.params[0].ty.shape.values[0]) == renamed


def test_operators_of_the_host_are_refused_by_name():
    x = relax.Var("x", relax.TensorType([4], "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            call = builder.normalize(relax.op.nn.relu(x))
            var = relax.DataflowVar("v0", x.ty)
            builder.emit_normalized(relax.VarBinding(var, call))
            result = builder.emit_output(relax.op.add(var, relax.const(np.float32(1))))
        builder.emit_func_output(result)
    with pytest.raises(FewbitsError) as caught:
        check_placement(builder.get(), {"v0": "the/layer"})
    assert caught.value.code == "no-kernel"
    assert caught.value.where == "the/layer" and "relu" in caught.value.message


def test_shared_memory_of_two_kernels_has_two_names():
    one = 'extern "C" __global__ void a() {\n  extern __shared__ half buf[];\n  buf[0] = 1;\n}\n'
    two = (
        'extern "C" __global__ void b() {\n  extern __shared__ uchar buf[];\n  buf[2] = buf2;\n}\n'
    )
    text = separated("int buf;\n" + one + two)
    assert text.startswith("int buf;\n")
    names = re.findall(r"extern __shared__ \w+ (\w+)\[\]", text)
    assert len(set(names)) == 2
    assert f"{names[0]}[0] = 1" in text and f"{names[1]}[2] = buf2" in text
