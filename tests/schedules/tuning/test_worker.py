"""What workers do, done here: arguments of jobs, comparison with the rule's results."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from fewbits.schedules.tuning import worker
from fewbits.schedules.tuning.bench import Bench, arguments, last_line
from fewbits.schedules.tuning.choices import Site, Variant
from tuning_fakes import TARGET, FakeBuilder, FakeRunner, only_site, product_module
from tvm import relax, tirx


@pytest.fixture
def site() -> Site:
    return only_site(product_module(tirx.Var("N", "int64"), 16, 24, after=True))


def test_arguments_are_the_same_for_all_sizes_but_for_packing(site: Site) -> None:
    one, other = (arguments(site.build(sizes), {"N": 5}) for sizes in ((2, 3, 4), (3, 1, 3)))
    assert [array.shape for array in one] == [(5, 16), (16 * 24,), (5, 24)]
    np.testing.assert_array_equal(one[0], other[0])
    assert not np.array_equal(one[1], other[1]) and not one[2].any()


def test_integers_may_be_indices_unless_they_are_codes() -> None:
    types = (relax.TensorType((99,), "int32"), relax.TensorType((9,), "int64"))
    index, words = (arguments(Variant(None, types, 1, flag), {})[0] for flag in (False, True))
    assert set(index) <= {0, 1}
    assert words.min() < -(1 << 20) and words.max() > 1 << 20


def test_a_job_reaches_the_worker(site: Site, tmp_path: Path) -> None:
    bench = Bench(TARGET, tmp_path, FakeBuilder(), FakeRunner(lambda *_: 1.0), 3)
    variant = site.build((2, 3, 4))
    number = bench.job(variant, {"N": 5}, expected="results", leads=True)
    import tvm

    ((job, *tensors),) = worker.allocate(
        str(tmp_path), tvm.cpu(), [["TENSOR", "int64", [number]]], 1
    )
    assert (job.results, job.leads, job.threads) == (1, True, 3)
    for tensor, array in zip(tensors, arguments(variant, {"N": 5}), strict=True):
        np.testing.assert_array_equal(tensor.numpy(), array)


def test_results_have_to_be_the_rules(tmp_path: Path) -> None:
    job = worker.Job("", 2, str(tmp_path / "r.npz"), True, 1e-4, 1)
    floats, codes = np.array([1.0, -50.0, np.nan, np.inf], "float32"), np.arange(4, dtype="int8")
    worker.compare([floats, codes], job)
    follower = dataclasses.replace(job, leads=False)
    worker.compare([floats + 1e-3, codes], follower)
    for wrong in ([floats + 0.1, codes], [floats, codes + 1], [np.nan_to_num(floats), codes]):
        with pytest.raises(ValueError, match="results differ"):
            worker.compare(wrong, follower)


def test_complaints_are_short() -> None:
    assert last_line("Traceback\n  File x\n\nValueError: no\n\n") == "ValueError: no"
    assert last_line("") == "no reason given"
