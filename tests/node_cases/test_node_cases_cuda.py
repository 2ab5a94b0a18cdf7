"""A sample of ONNX's node cases in the emulated GPU: all of them in `benchmarks/node_cases.py`."""

import sys
from pathlib import Path

import pytest
from fewbits.targets.cuda import testing

sys.path.append(str(Path(__file__).resolve().parents[2]))
from benchmarks import node_cases

#: All cases take minutes.
STRIDE = 41
#: Why a case may be refused. Anything else is an operator that is claimed but does not work.
REASONS = (
    "[unsupported-dtype]", "[unsupported-form]", "[dynamic-argument]", "[constant-output]",
    "[empty-tensor]", "[sequence]", "[no-size]", "[symbolic-dimension]", "[dynamic-shape]",
)  # fmt: skip

pytestmark = pytest.mark.skipif(
    testing.no_compiler() is not None, reason=str(testing.no_compiler())
)


@pytest.mark.parametrize(
    ("dtype", "symbolic"), [("float32", False), ("float32", True), ("float16", False)]
)
def test_a_sample_passes(dtype, symbolic):
    cases = node_cases.claimed_cases()[:: STRIDE if dtype == "float32" else 3 * STRIDE]
    results = list(node_cases.sweep_cuda(cases, "sm_80", dtype, symbolic=symbolic))
    assert [one.name for one in results] == [case.name for case in cases]
    failed = [f"{one.name}: {one.reason}" for one in results if one.verdict == "failed"]
    assert not failed, "\n".join(failed)
    refused = [one for one in results if one.verdict == "refused"]
    assert not [one for one in refused if not one.reason.startswith(REASONS)]
    assert sum(one.verdict == "passed" for one in results) > len(cases) // (4 if symbolic else 2)


def test_a_wrong_result_is_noticed(monkeypatch):
    """Of a case that is compared with something else."""
    case = next(case for case in node_cases.claimed_cases() if case.name == "test_add")
    data = node_cases._data(case)
    assert isinstance(data, tuple)
    given, (expected,) = data
    monkeypatch.setattr(node_cases, "_data", lambda case: (given, [expected + 1]))
    (result,) = node_cases.run_cuda([case], "sm_80")
    assert result.verdict == "failed" and "library: differs" in result.reason
