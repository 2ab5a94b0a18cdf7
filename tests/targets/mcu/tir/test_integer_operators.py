"""The integer operators without their kernels: generated C equals the definition bit for bit."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fewbits.ops.evaluate import Evaluator
from fewbits.targets.mcu import lower as lowering
from fewbits.targets.mcu.target import get_target

REPOSITORY = Path(__file__).resolve().parents[4]


def _load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


batch = _load("fewbits_batch", REPOSITORY / "benchmarks" / "batch.py")
shared = _load("integer_cases", REPOSITORY / "tests" / "ops" / "integer" / "test_legalize.py")


@pytest.fixture(scope="module")
def program():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lowering, "RULES", {})
        return lowering.lower(shared.MODULE, get_target("c"), "m", {})


def test_bits(program, tmp_path):
    outputs = batch.run([batch.Case("all", program, shared.INPUTS)], tmp_path)["all"]
    assert not isinstance(outputs, str), outputs
    given = {name: torch.from_numpy(array) for name, array in shared.INPUTS.items()}
    expected = Evaluator(shared.MODULE)(given)
    assert len(outputs) == len(expected) > 15
    for got, (name, theirs) in zip(outputs, expected.items(), strict=True):
        np.testing.assert_array_equal(got, theirs.numpy(), name)


def test_memory(program):
    # No operator here needs more than a row: padded copies of the image would be kilobytes.
    assert max(call.scratch for call in program.calls) == 0
