"""onnx's node cases: every case of a claimed operator is right, or refused for a known reason."""

import warnings

import numpy as np
import onnx
import pytest
import torch
from fewbits.compiler.importer import import_onnx
from fewbits.compiler.importer.claims import CLAIMED_OPERATORS, REFUSED_CASES, refusal
from fewbits.errors import FewbitsError
from fewbits.ops.evaluate import Evaluator


def _claimed_cases():
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = collect_testcases(None)
    return [
        case
        for case in cases
        if case.model.graph.node
        and {node.op_type for node in case.model.graph.node} <= CLAIMED_OPERATORS
        and not any(node.domain for node in case.model.graph.node)
    ]


CASES = {case.name: case for case in _claimed_cases()}


def _array(value):
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    return np.asarray(value)


def _import(case):
    """The case's model with all inputs but the first as constants, and its first input."""
    names = [value.name for value in case.model.graph.input]
    inputs = case.data_sets[0][0]
    if any(isinstance(value, list) for value in inputs):
        return import_onnx(case.model), []
    arrays = [_array(value) for value in inputs]
    shapes = {names[0]: arrays[0].shape} if names else {}
    constants = dict(zip(names[1:], arrays[1:], strict=True))
    return import_onnx(case.model, constants=constants, shapes=shapes), arrays[:1]


def _to_torch(array):
    if array.dtype == "bfloat16":
        return torch.from_numpy(array.astype("float32")).to(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def _tolerance(dtype):
    """Results in 16 bits are compared to two units in the last place."""
    return {"float16": 2e-3, "bfloat16": 1.6e-2}.get(str(dtype), 1e-3)


@pytest.mark.parametrize("name", [name for name in CASES if refusal(name) is None])
def test_case_computes_what_onnx_expects(name):
    case = CASES[name]
    if any(_array(v).dtype == "bfloat16" for pair in case.data_sets[0] for v in pair):
        pytest.skip("the evaluator has no bfloat16")
    imported, inputs = _import(case)
    given = {
        info.name: _to_torch(array) for info, array in zip(imported.inputs, inputs, strict=True)
    }
    results = Evaluator(imported.module)(given)
    expected = [_array(value) for value in case.data_sets[0][1]]
    assert list(results) == [value.name for value in case.model.graph.output]
    for result, wanted, info in zip(results.values(), expected, imported.outputs, strict=True):
        actual = result.numpy()
        assert actual.shape == wanted.shape == info.shape
        assert actual.dtype == wanted.dtype == np.dtype(info.dtype)
        if wanted.dtype == bool:
            np.testing.assert_array_equal(actual, wanted)
            continue
        np.testing.assert_allclose(
            actual.astype("float64"),
            wanted.astype("float64"),
            rtol=max(_tolerance(wanted.dtype), case.rtol),
            atol=max(case.atol, 1e-7),
        )


@pytest.mark.parametrize("name", [name for name in CASES if refusal(name) is not None])
def test_refused_case_is_refused(name):
    with pytest.raises(FewbitsError) as caught:
        _import(CASES[name])
    assert caught.value.code in {
        "unsupported-dtype",
        "unsupported-form",
        "dynamic-argument",
        "empty-tensor",
    }


def test_every_reason_names_a_case():
    for reason, patterns in REFUSED_CASES.items():
        assert any(refusal(name) == reason for name in CASES), (reason, patterns)


def test_most_cases_are_claimed():
    assert len(CASES) > 1400
    assert sum(refusal(name) is None for name in CASES) > 1250
