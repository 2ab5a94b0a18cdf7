"""Measuring in worker processes: right kernels get times, others end nothing but themselves.

The GPU is the emulated one: its times mean nothing, but it runs, faults and waits like a real one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fewbits.schedules.cuda.architecture import SM_80
from fewbits.schedules.cuda.template import Kernel
from fewbits.schedules.cuda.tuning.measuring.__main__ import main
from fewbits.schedules.cuda.tuning.measuring.measure import Outcome, Session, Settings
from fewbits.schedules.cuda.tuning.measuring.plan import (
    ENTRY,
    PLAN,
    RECORDS,
    Argument,
    Candidate,
    Case,
    Plan,
    load,
)
from fewbits.schedules.cuda.tuning.measuring.process import WorkerLost
from fewbits.schedules.cuda.tuning.records import EMULATED, records_in
from fewbits.targets.cpu.target import this_machine
from fewbits.targets.cuda import testing
from fewbits.targets.cuda.compile import compile_kernels
from fewbits.targets.cuda.driver import VARIABLE
from fewbits.targets.cuda.measuring import PREPARE
from fewbits.targets.cuda.tuning import MEASURING, copy_measuring
from fewbits.targets.vm.link import link
from tvm.script import tirx as T

_WIDTH = 32


def _copies(offset: int = 0, factor: float = 1.0, times: int = 1) -> Any:
    """``y = factor · x``, stored so many times, `offset` rows too far."""

    @T.prim_func
    def function(x_ptr: T.handle, y_ptr: T.handle):
        rows = T.int64()
        x = T.match_buffer(x_ptr, (rows, _WIDTH), "float32")
        y = T.match_buffer(y_ptr, (rows, _WIDTH), "float32")
        T.device_entry()
        row = T.cta_id([T.Cast("int32", rows)])
        thread = T.thread_id([_WIDTH])
        for i in T.serial(times):
            y[row + offset, thread] = x[(row + T.Cast("int32", i)) % 3, thread] * T.float32(factor)

    return function


KERNELS = {
    "right": _copies(),
    "equal": _copies(factor=1.0),
    "wrong": _copies(factor=1.5),
    "faulting": _copies(offset=1 << 24),
    "endless": _copies(times=1 << 40),
}


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a library of each of `KERNELS`."""
    reason = testing.no_compiler()
    if reason is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("libraries")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "emulator:sm_80")
        for name, function in KERNELS.items():
            (module,) = compile_kernels([Kernel(ENTRY, function, SM_80, "tirx")])
            link(module, this_machine(), folder / f"{name}.so")
        (folder / "broken.so").write_bytes(b"no library")
        yield folder


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "emulator:sm_80")


def plan_of(folder: Path, *names: str, architecture: str = "sm_80") -> Plan:
    arguments = (
        Argument((3, _WIDTH), "float32", {"kind": "uniform", "low": -1.0, "high": 1.0}),
        Argument((3, _WIDTH), "float32", {"kind": "result"}),
    )
    candidates = tuple(Candidate(name, {"rows": 1}, f"{name}.so") for name in names)
    case = Case("copy", architecture, 3, 4, arguments, 0.0, candidates, ("layer",))
    plan = Plan((case,))
    plan.save(folder)
    return plan


def measured(folder: Path, *names: str, patience: float = 120.0) -> list[Outcome]:
    settings = Settings(rounds=2, repeats=1, warm=0.0, flush=0, patience=patience, prepare=PREPARE)
    plan = plan_of(folder, *names)
    with Session(folder, plan, settings) as session:
        return list(session.measure(range(len(plan.cases))))


def test_kernels_that_are_wrong_fault_or_cannot_be_loaded_are_left_out(
    libraries: Path, emulated: None
) -> None:
    (outcome,) = measured(libraries, "right", "wrong", "faulting", "broken", "equal")
    assert outcome.record is not None
    assert outcome.record["template"] in ("right", "equal")
    assert outcome.record["trials"] == 2 and outcome.record["bucket"] == 4
    assert outcome.record["card"] == f"{EMULATED} sm_80"
    reasons = {title.split()[0]: reason for title, reason in outcome.failures.items()}
    assert set(reasons) == {"wrong", "faulting", "broken"}
    assert reasons["wrong"] == "results differ by 5.0e-01 of the largest"


def test_a_kernel_that_never_ends_is_given_up(libraries: Path, emulated: None) -> None:
    (outcome,) = measured(libraries, "right", "endless", "equal", patience=8.0)
    assert outcome.record is not None and outcome.record["trials"] == 2
    assert "not done after 8 s" in outcome.failures["endless rows=1"]


def test_without_the_first_nothing_is_recorded_and_other_gpus_cases_are_skipped(
    libraries: Path, emulated: None
) -> None:
    mine = plan_of(libraries, "faulting", "right")
    other = plan_of(libraries, "right", architecture="sm_90a")
    plan = Plan((*other.cases, *mine.cases))
    plan.save(libraries)
    settings = Settings(rounds=1, repeats=1, warm=0.0, flush=0, prepare=PREPARE)
    with Session(libraries, plan, settings) as session:
        (outcome,) = session.measure([0, 1])
    assert outcome.case == 1 and outcome.record is None
    assert set(outcome.failures) == {"faulting rows=1"}


def test_the_copied_package_measures_alone_with_tvms_runtime(
    libraries: Path, emulated: None
) -> None:
    plan_of(libraries, "right", "equal", "wrong")
    copy_measuring(libraries)
    (libraries / RECORDS).unlink(missing_ok=True)
    command = [
        sys.executable, "-m", MEASURING, "--rounds", "1", "--repeats", "1", "--warm", "0",
        "--prepare", PREPARE,
    ]  # fmt: skip
    environment = {**os.environ, "TVM_USE_RUNTIME_LIB": "1"}
    for count in range(2):
        done = subprocess.run(
            command, cwd=libraries, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        records, lost = records_in(libraries / RECORDS)
        assert len(records) == 1 and not lost  # the second time it is known
        assert ("wrong" in done.stdout) == (count == 0)


def test_what_it_imports_is_little() -> None:
    code = (
        "import sys; import fewbits.schedules.cuda.tuning.measuring.__main__ as m; "
        "assert m.__name__; print([n for n in sys.modules if n.split('.')[0] in "
        "('tvm', 'torch', 'pydantic', 'onnx', 'numpy', 'typer')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_gpu_is_said_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan_of(tmp_path, "right")
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(WorkerLost):
        Session(tmp_path, load(tmp_path), Settings(patience=120.0))
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"version": 2}', '{"version": 1, "cases": [{}], "seed": 0}']
)
def test_damaged_plans(tmp_path: Path, text: str) -> None:
    (tmp_path / PLAN).write_text(text)
    with pytest.raises(ValueError):
        load(tmp_path)
    with pytest.raises(ValueError):
        load(tmp_path / "none")


def test_plans_are_read_as_they_were_written(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "right", "wrong")
    assert load(tmp_path) == plan
    content = json.loads((tmp_path / PLAN).read_text())
    content["cases"][0]["candidates"][0]["library"] = "../../elsewhere.so"
    (tmp_path / PLAN).write_text(json.dumps(content))
    assert load(tmp_path).cases[0].candidates[0].library == "elsewhere.so"
