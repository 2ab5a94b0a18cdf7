"""What follows a product becomes its epilogue and means what the operators mean by themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import tvm
from fewbits.passes.layers import find_layers
from fewbits.passes.rewrite import Rewriter, as_array, variables
from fewbits.targets.cuda.patterns.followers import Followers, Graph
from tvm import relax
from tvm.ir import prim
from tvm.sym.analyzer import Analyzer

#: TVM's expressions and types are built by calls that its annotations do not cover.
_relax: Any = relax
op: Any = relax.op

_WEIGHT = np.arange(12, dtype=np.float32).reshape(4, 3)
_BIAS = np.array([0.5, -1.0, 2.0], np.float32)


def _chain(write: Any, extra: int = 0) -> Followers:
    """The followers of ``x @ weight`` in a function; `write` continues from the product."""
    rows = tvm.tirx.Var("n", "int64")
    x = relax.Var("x", _relax.TensorType((rows, 2, 4), "float32"))
    others = [
        relax.Var(f"other{i}", _relax.TensorType((rows, 2, 3), "float32")) for i in range(extra)
    ]
    builder = _relax.BlockBuilder()
    with builder.function("main", [x, *others]):
        with builder.dataflow():
            product = builder.emit(op.matmul(x, relax.const(_WEIGHT)), "product")
            result = builder.emit_output(write(builder, product, *others))
        builder.emit_func_output(result)
    module = builder.get()
    (layer,) = find_layers(module)
    rewriter = Rewriter(module)
    graph = Graph(rewriter.bindings, variables(rewriter.function.body.body))
    return graph.followers(layer.var, set())


def _evaluate(chain: Followers, total: float, elements: list[float]) -> float:
    numbers = [prim.FloatImm("float32", value) for value in elements]
    value = Analyzer().simplify(chain.epilogue.at(prim.FloatImm("float32", total), numbers))
    return _number(value)


def _number(value: Any) -> float:
    """A closed expression's value, computed by TVM on the host."""
    from tvm import te

    out = te.compute((1,), lambda _: value, name="out")
    function = te.create_prim_func([out])
    library = tvm.compile(tvm.IRModule({"main": function}), target="llvm")
    result = tvm.runtime.tensor(np.zeros(1, np.float32))
    library["main"](result)
    return float(result.numpy()[0])


def test_bias_activation_and_residual_are_followers() -> None:
    def write(builder: Any, product: Any, other: Any) -> Any:
        value = builder.emit(op.add(product, relax.const(_BIAS)))
        value = builder.emit(op.nn.gelu(value))
        return op.add(other, value)

    chain = _chain(write, extra=1)
    assert [o.extends for o in chain.epilogue.operands] == ["column", "matrix"]
    assert np.array_equal(as_array(chain.operands[0]), _BIAS)
    assert str(chain.operands[1].name) == "other0"
    assert len(chain.inner) == 3
    expected = torch.nn.functional.gelu(torch.tensor(1.25 - 1.0)).item() + 0.75
    assert abs(_evaluate(chain, 1.25, [-1.0, 0.75]) - expected) < 1e-6


def test_the_order_of_a_difference_is_kept() -> None:
    chain = _chain(lambda builder, product: op.subtract(relax.const(np.float32(3)), product))
    assert [o.extends for o in chain.epilogue.operands] == ["one"]
    assert _evaluate(chain, 1.0, [3.0]) == 2.0


def test_a_value_that_others_read_too_ends_the_chain() -> None:
    def write(builder: Any, product: Any) -> Any:
        value = builder.emit(op.add(product, relax.const(_BIAS)), "shared")
        return op.multiply(builder.emit(op.nn.relu(value)), value)

    chain = _chain(write)
    assert str(chain.last.name) == "shared"


def test_what_looks_along_an_axis_is_no_follower() -> None:
    chain = _chain(lambda builder, product: op.nn.softmax(product, axis=-1))
    assert chain.last.same_as(chain.product)
    assert chain.epilogue.operands == ()


def test_a_constant_that_extends_over_rows_is_no_operand() -> None:
    table = np.ones((1, 2, 1), np.float32) * np.array([[[1.0], [2.0]]], np.float32)
    chain = _chain(lambda builder, product: op.add(product, relax.const(table)))
    assert chain.last.same_as(chain.product)


def test_the_product_twice_in_one_call_is_no_chain() -> None:
    chain = _chain(lambda builder, product: op.multiply(product, product))
    assert chain.last.same_as(chain.product)


def test_a_clip_between_numbers_is_a_follower() -> None:
    def write(builder: Any, product: Any) -> Any:
        value = builder.emit(op.add(product, relax.const(_BIAS)))
        return op.clip(value, 0.0, 6.0)

    chain = _chain(write)
    assert len(chain.inner) == 2
    found = [_evaluate(chain, total, [0.5]) for total in (-3.0, 2.0, 9.0)]
    assert found == [0.0, 2.5, 6.0]
