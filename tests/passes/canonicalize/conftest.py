"""Modules built from a few lines, and the check that a pass changed nothing but the form."""

import numpy as np
import pytest
import torch
from fewbits.ops.evaluate import Evaluator
from fewbits.passes.base import PassContext
from fewbits.passes.rewrite import assemble, operator_of
from tvm import relax


class Steps:
    """``steps(call, "name")`` binds a call and gives its variable; nested calls are taken apart."""

    def __init__(self):
        self.bindings = []
        self.normalize = relax.BlockBuilder().normalize

    def __call__(self, value, name):
        if isinstance(value, relax.Call):
            arguments = [self._argument(argument, name) for argument in value.args]
            value = relax.Call(value.op, arguments, value.attrs, value.ty_args)
        value = self.normalize(value)
        var = relax.DataflowVar(name, value.ty)
        self.bindings.append((var, value))
        return var

    def _argument(self, argument, name):
        if isinstance(argument, relax.Call):
            return self(argument, f"{name}:{len(self.bindings)}")
        return argument


@pytest.fixture(scope="session")
def build():
    """``build(function, x=(1, 3, 8, 8))``: `function(steps, x)` gives the output(s)."""

    def make(function, dtype="float32", **shapes):
        inputs = [relax.Var(name, relax.TensorType(s, dtype)) for name, s in shapes.items()]
        steps = Steps()
        results = function(steps, *inputs)
        several = isinstance(results, tuple)
        count = len(results) if several else 1
        attributes = {
            "output_names": [f"output {index}" for index in range(count)],
            "input_names": list(shapes),
        }
        result = relax.Tuple(results) if several else results
        return assemble(inputs, steps.bindings, result, attributes)

    return make


@pytest.fixture(scope="session")
def const():
    def make(value, kind="float32"):
        array = np.asarray(value, kind)
        return relax.const(array, str(array.dtype))

    return make


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture
def reals(rng, const):
    """A constant of random reals."""
    return lambda *shape: const(rng.normal(size=shape))


@pytest.fixture(scope="session")
def operators():
    """The operators of a module, in order."""

    def names(module):
        bindings = module["main"].body.blocks[0].bindings
        found = [operator_of(binding.value) for binding in bindings]
        return [name.removeprefix("relax.") for name in found if name is not None]

    return names


@pytest.fixture(scope="session")
def outputs():
    """All outputs of a module on the same random inputs every time."""

    def run(module):
        random = np.random.default_rng(0)
        inputs = {
            parameter.name: torch.from_numpy(
                random.normal(size=[int(d) for d in parameter.ty.shape.values]).astype(
                    str(parameter.ty.dtype)
                )
            )
            for parameter in module["main"].params
        }
        return {name: value.numpy() for name, value in Evaluator(module)(inputs).items()}

    return run


@pytest.fixture
def apply(outputs):
    """Apply a pass; the outputs must stay the same, and a second time must change nothing."""

    def run(pass_, module, tolerance=1e-5, context=None):
        context = context or PassContext()
        after = pass_.apply(module, context)
        expected, found = outputs(module), outputs(after)
        assert list(expected) == list(found)
        for name, value in expected.items():
            assert found[name].dtype == value.dtype
            scale = np.abs(value).max() if value.size else 1.0
            np.testing.assert_allclose(found[name], value, rtol=0, atol=tolerance * scale)
        old, new = module["main"].params, after["main"].params
        assert [p.name for p in old] == [p.name for p in new]
        assert pass_.apply(after, context) is after
        return after

    return run
