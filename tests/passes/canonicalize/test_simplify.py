import numpy as np
import pytest
from fewbits.passes.canonicalize import Simplify
from tvm import relax
from tvm.relax import op


def chains(const):
    def dropout(x, s):
        return s(relax.TupleGetItem(s(op.nn.dropout(x), "tuple"), 0), "item")

    return {
        "reshape to the same": lambda x, s: s(op.reshape(x, (2, 3, 4)), "a"),
        "squeeze and back": lambda x, s: s(
            op.squeeze(s(op.expand_dims(x, [0, 2]), "a"), [0, 2]), "b"
        ),
        "cast to the same": lambda x, s: s(op.astype(x, "float32"), "a"),
        "dropout": dropout,
        "split into one": lambda x, s: s(op.split(x, 1, 1), "a"),
        "concat of one": lambda x, s: s(op.concat([x], 1), "a"),
        "add 0": lambda x, s: s(op.add(const(0.0), x), "a"),
        "subtract 0": lambda x, s: s(op.subtract(x, const([[0.0]])), "a"),
        "multiply by 1": lambda x, s: s(op.multiply(x, const([1.0] * 4)), "a"),
        "divide by 1": lambda x, s: s(op.divide(x, const(1.0)), "a"),
        "endless clip": lambda x, s: s(op.clip(x, -3.5e38, 3.5e38), "a"),
        "pad by nothing": lambda x, s: s(op.nn.pad(x, [0] * 6), "a"),
        "slice of all": lambda x, s: s(op.strided_slice(x, [1], [0], [99]), "a"),
        "broadcast to the same": lambda x, s: s(op.broadcast_to(x, (2, 3, 4)), "a"),
        "tile once": lambda x, s: s(op.tile(x, (1, 1, 1)), "a"),
        "same order": lambda x, s: s(op.permute_dims(x, [0, 1, 2]), "a"),
    }


@pytest.mark.parametrize("name", list(chains(None)))
def test_what_does_nothing_goes(name, build, apply, operators, const):
    step = chains(const)[name]

    def model(steps, x):
        return steps(op.exp(step(steps(op.abs(x), "before"), steps)), "after")

    after = build(model, x=(2, 3, 4))
    for _ in range(3):
        after = Simplify().apply(after, None)
    assert operators(after) == ["abs", "exp"]
    apply(Simplify(), after)


KEPT = {
    "add 0 that broadcasts": lambda x, c: op.add(x, c(np.zeros((2, 3, 4)))),
    "multiply by 2": lambda x, c: op.multiply(x, c(2.0)),
    "1 divided": lambda x, c: op.divide(c(1.0), x),
    "0 minus": lambda x, c: op.subtract(c(0.0), x),
    "flip by slice": lambda x, c: op.strided_slice(x, [1], [-1], [-99], [-1]),
    "clip": lambda x, c: op.clip(x, -1.0, 1.0),
    "transposition": lambda x, c: op.permute_dims(x, [0, 2, 1]),
}


@pytest.mark.parametrize("name", list(KEPT))
def test_what_does_something_stays(name, build, const):
    module = build(lambda steps, x: steps(KEPT[name](x, const), "y"), x=(1, 3, 4))
    assert Simplify().apply(module, None) is module


def test_spellings_of_clamps(build, apply, operators, const):
    def model(steps, x):
        a = steps(op.clip(x, 0.0, float("inf")), "a")
        b = steps(op.maximum(const(0.0), x), "b")
        c = steps(op.maximum(x, const(-1.0)), "c:low")
        c = steps(op.minimum(c, const(6.0)), "c")
        d = steps(op.clip(steps(op.nn.relu(x), "d:relu"), -3.0, 6.0), "d")
        return a, b, c, d

    module = build(model, x=(2, 3))
    for _ in range(2):
        module = Simplify().apply(module, None)
    after = apply(Simplify(), module, tolerance=0)
    assert operators(after) == ["nn.relu", "nn.relu", "clip", "clip"]


def test_a_reduction_over_one_element_and_moved_ones_are_reshapes(build, apply, operators):
    def model(steps, x):
        mean = steps(op.mean(x, [2, 3]), "mean")
        turned = steps(op.permute_dims(x, [0, 2, 3, 1]), "turned")
        return mean, turned

    after = apply(Simplify(), build(model, x=(2, 5, 1, 1)), tolerance=0)
    assert operators(after) == ["reshape", "reshape"]


def test_outputs_stay_distinct_computed_variables(build, operators):
    def model(steps, x):
        y = steps(op.exp(x), "y")
        same = steps(op.reshape(y, (2, 2)), "same")
        return steps(op.reshape(x, (2, 2)), "copy"), y, same

    module = build(model, x=(2, 2))
    assert operators(Simplify().apply(module, None)) == ["exp", "reshape", "reshape"]
    assert Simplify().apply(module, None) is module
