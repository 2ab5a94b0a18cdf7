"""Measuring behind TVM's tracker: the same road, with a machine's processor in a GPU's place."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tvm
from fewbits.schedules.cuda.tuning.measuring.measure import Session, Settings
from fewbits.schedules.cuda.tuning.measuring.plan import (
    ENTRY,
    Argument,
    Candidate,
    Case,
    Plan,
)
from fewbits.targets.cpu.target import this_machine
from fewbits.targets.vm.link import link
from tvm.script import tirx as T


@pytest.fixture
def tracker() -> Iterator[tuple[str, int, str]]:
    """A tracker with one machine, both of them processes here."""
    pytest.importorskip("tornado", reason="TVM's tracker needs tornado")
    from tvm import rpc
    from tvm.rpc.tracker import Tracker

    tracker = Tracker(host="127.0.0.1", port=19490, port_end=19590, silent=True)
    server = None
    try:
        server = rpc.Server(
            host="127.0.0.1", port=19600, port_end=19700, key="card", silent=True,
            tracker_addr=("127.0.0.1", tracker.port),
        )  # fmt: skip
        session = rpc.connect_tracker("127.0.0.1", tracker.port)
        for _ in range(300):
            if session.summary()["queue_info"].get("card", {}).get("free"):
                break
            time.sleep(0.1)
        yield ("127.0.0.1", tracker.port, "card")
    finally:
        if server is not None:
            server.terminate()
        tracker.terminate()


def _scaled(factor: float) -> Any:
    @T.prim_func(s_tir=True)
    def function(x: T.Buffer((64,), "float32"), y: T.Buffer((64,), "float32")):
        for i in range(64):
            with T.sblock("y"):
                place = T.axis.spatial(64, i)
                y[place] = x[place] * T.float32(factor)

    return function.with_attr("global_symbol", ENTRY)


def test_kernels_are_sent_checked_and_timed(tmp_path: Path, tracker: tuple[str, int, str]) -> None:
    for name, factor in {"usual": 2.0, "equal": 2.0, "wrong": 3.0}.items():
        module = tvm.compile(tvm.IRModule({ENTRY: _scaled(factor)}), target="llvm").mod
        link(module, this_machine(), tmp_path / f"{name}.so")
    case = Case(
        "scaled", "sm_00", 1, 1,
        (
            Argument((64,), "float32", {"kind": "uniform", "low": -1.0, "high": 1.0}),
            Argument((64,), "float32", {"kind": "result"}),
        ),
        0.0,
        tuple(Candidate(name, {}, f"{name}.so") for name in ("usual", "equal", "wrong")),
    )  # fmt: skip
    plan = Plan((case,))
    plan.save(tmp_path)
    settings = Settings(rounds=2, repeats=2, warm=0.0, flush=0, tracker=tracker, kind="cpu")
    with Session(tmp_path, plan, settings) as session:
        (outcome,) = session.measure([0])
    assert set(outcome.failures) == {"wrong"}
    assert outcome.record is not None and outcome.record["trials"] == 2
    assert outcome.record["template"] in ("usual", "equal")
