"""Streams, events and graphs: a capture keeps launches with their parameters, and replays them."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

GLOBAL = 0


def _fails(cuda, number: int, call) -> None:
    with pytest.raises(Exception) as caught:
        call()
    assert caught.value.number == number


class Capture:
    """A stream that is captured, and a kernel that adds."""

    def __init__(self, cuda, flags: int = 0) -> None:
        self.cuda = cuda
        self.array = np.arange(64, dtype=np.int32)
        self.pointer = cuda.upload(self.array)
        self.function = cuda.function(cuda.module(), "add")
        self.stream = cuda.made("cudaStreamCreateWithFlags", flags)

    def begin(self) -> None:
        self.cuda("cudaStreamBeginCapture", self.stream, GLOBAL)

    def add(self, amount: int, stream: Any = None) -> None:
        self.cuda.add(self.function, self.pointer, amount, 64, stream or self.stream)

    def end(self) -> Any:
        return self.cuda.captured(self.stream)

    def value(self) -> int:
        return int(self.cuda.download(self.pointer, self.array)[0])


@pytest.fixture
def capture(cuda) -> Capture:
    return Capture(cuda)


def test_captured_work_is_done_when_it_is_launched(cuda, capture: Capture) -> None:
    saved = cuda.malloc(256)
    capture.begin()
    capture.add(1)
    cuda.copy(saved, capture.pointer, 256, 3, capture.stream)
    capture.add(10)
    graph = capture.end()
    assert capture.value() == 0
    executable = cuda.made("cudaGraphInstantiate", graph, ctypes.c_ulonglong(0))
    cuda("cudaGraphDestroy", graph)
    for _ in range(3):
        cuda("cudaGraphLaunch", executable, None)
    assert capture.value() == 33
    assert cuda.download(saved, capture.array)[0] == 23
    cuda("cudaGraphExecDestroy", executable)
    _fails(cuda, 1, lambda: cuda("cudaGraphLaunch", executable, None))


def test_a_graph_keeps_its_modules(cuda) -> None:
    array = np.zeros(32, np.int32)
    pointer = cuda.upload(array)
    module = cuda.module()
    function = cuda.function(module, "add")
    stream = cuda.made("cudaStreamCreate")
    cuda("cudaStreamBeginCapture", stream, GLOBAL)
    cuda.add(function, pointer, 4, 32, stream)
    graph = cuda.captured(stream)
    cuda("cuModuleUnload", module)
    executable = cuda.made("cudaGraphInstantiate", graph, ctypes.c_ulonglong(0))
    cuda("cudaGraphLaunch", executable, stream)
    assert (cuda.download(pointer, array) == 4).all()


def test_a_fault_in_a_graph_is_the_launchs(cuda, capture: Capture) -> None:
    capture.begin()
    capture.add(1)
    executable = cuda.made("cudaGraphInstantiate", capture.end(), ctypes.c_ulonglong(0))
    cuda("cudaFree", capture.pointer)
    _fails(cuda, 700, lambda: cuda("cudaGraphLaunch", executable, None))


@pytest.mark.parametrize(
    "forbidden",
    [
        lambda c: c.cuda.malloc(4),
        lambda c: c.cuda("cudaStreamSynchronize", c.stream),
        lambda c: c.cuda.module(),
    ],
)
def test_what_no_capture_allows_ends_it(capture: Capture, forbidden: Any) -> None:
    capture.begin()
    _fails(capture.cuda, 900, lambda: forbidden(capture))
    _fails(capture.cuda, 901, lambda: capture.add(1))
    _fails(capture.cuda, 901, capture.end)
    # The stream works again.
    capture.add(2)
    assert capture.value() == 2


def test_the_default_stream_waits_for_blocking_streams_only(cuda) -> None:
    blocking, free = Capture(cuda), Capture(cuda, flags=1)
    free.begin()
    free.cuda.add(free.function, free.pointer, 1, 64, None)
    assert free.end().value is not None
    assert free.value() == 1
    blocking.begin()
    _fails(cuda, 906, lambda: cuda.add(blocking.function, blocking.pointer, 1, 64, None))
    _fails(cuda, 901, blocking.end)


def test_streams_that_were_forked_are_joined(cuda, capture: Capture) -> None:
    side = cuda.made("cudaStreamCreate")
    fork, join = cuda.made("cudaEventCreate"), cuda.made("cudaEventCreate")
    for joined in (True, False):
        capture.begin()
        capture.add(1)
        cuda("cudaEventRecord", fork, capture.stream)
        cuda("cudaStreamWaitEvent", side, fork, 0)
        capture.add(20, side)
        if joined:
            cuda("cudaEventRecord", join, side)
            cuda("cudaStreamWaitEvent", capture.stream, join, 0)
            executable = cuda.made("cudaGraphInstantiate", capture.end(), ctypes.c_ulonglong(0))
            cuda("cudaGraphLaunch", executable, None)
            assert capture.value() == 21
        else:
            _fails(cuda, 904, capture.end)
    capture.add(100, side)
    assert capture.value() == 121


def test_captures_do_not_meet(cuda) -> None:
    one, two = Capture(cuda), Capture(cuda)
    one.begin()
    two.begin()
    event = cuda.made("cudaEventCreate")
    cuda("cudaEventRecord", event, one.stream)
    _fails(cuda, 902, lambda: cuda("cudaStreamWaitEvent", two.stream, event, 0))
    for capture in (one, two):
        _fails(cuda, 901, capture.end)


def test_captures_begin_and_end_in_their_stream(cuda, capture: Capture) -> None:
    _fails(cuda, 900, lambda: cuda("cudaStreamBeginCapture", None, GLOBAL))
    _fails(cuda, 1, lambda: cuda("cudaStreamBeginCapture", capture.stream, 7))
    _fails(cuda, 1, capture.end)
    capture.begin()
    _fails(cuda, 900, capture.begin)
    assert capture.end().value is not None


def test_a_stream_may_go_while_it_is_captured(cuda, capture: Capture) -> None:
    capture.begin()
    capture.add(1)
    cuda("cudaStreamDestroy", capture.stream)
    _fails(cuda, 400, lambda: cuda("cudaStreamSynchronize", capture.stream))
    cuda("cudaFree", cuda.malloc(4))


def test_events_have_times_in_order(cuda) -> None:
    first, second = cuda.made("cudaEventCreate"), cuda.made("cudaEventCreate")
    elapsed = ctypes.c_float()
    call = ("cudaEventElapsedTime", ctypes.byref(elapsed), first, second)
    _fails(cuda, 400, lambda: cuda(*call))
    cuda("cudaEventRecord", first, None)
    cuda("cudaEventRecord", second, None)
    cuda("cudaEventSynchronize", second)
    cuda(*call)
    assert elapsed.value >= 0
    cuda("cudaEventDestroy", first)
    _fails(cuda, 400, lambda: cuda("cudaEventRecord", first, None))
