"""ONNX's node cases on the target `c`: a sample of them here, all in `benchmarks/node_cases.py`."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[2]))
from benchmarks import node_cases

#: All cases would take minutes: one of every operator is tested, and every STRIDE-th case.
STRIDE = 7
#: Why a case may be refused. Anything else is an operator that is claimed but does not work.
REASONS = (
    "[unsupported-dtype]", "[unsupported-form]", "[dynamic-argument]", "[constant-output]",
    "[empty-tensor]", "[sequence]",
)  # fmt: skip


def sample(cases):
    chosen, seen = [], set()
    for number, case in enumerate(cases):
        operator = node_cases.operator_of(case)
        if number % STRIDE == 0 or operator not in seen:
            chosen.append(case)
        seen.add(operator)
    return chosen


@pytest.fixture(scope="module")
def results():
    return list(node_cases.sweep(sample(node_cases.claimed_cases())))


def test_nothing_fails(results):
    failed = [f"{one.name}: {one.reason}" for one in results if one.verdict == "failed"]
    assert not failed, "\n".join(failed)


def test_refusals_are_of_known_kinds(results):
    odd = [
        one for one in results if one.verdict == "refused" and not one.reason.startswith(REASONS)
    ]
    assert not odd


def test_most_pass(results):
    count = Counter(one.verdict for one in results)
    assert count["passed"] > 200
    assert count["passed"] > 3 * count["refused"]


def test_the_table_counts_every_case(results):
    rows = node_cases.table(results).splitlines()
    total = Counter(one.verdict for one in results)
    assert (
        rows[-1]
        == "| **all** | "
        + " | ".join(f"**{total[verdict]}**" for verdict in node_cases.VERDICTS)
        + " | |"
    )
    assert any(row.startswith("| Conv | ") for row in rows)


def test_differences_are_noticed():
    one = np.float32([1, 2, np.nan])
    tolerance = (1e-3, 1e-7)
    assert node_cases.difference(one, one + np.float32(1e-4), tolerance) is None
    assert node_cases.difference(one, one + np.float32(1e-2), tolerance)
    assert node_cases.difference(one, one.astype(np.float64), tolerance)
    assert node_cases.difference(one, one[None], tolerance)
    assert node_cases.difference(np.int8([1]), np.int8([2]), tolerance)
