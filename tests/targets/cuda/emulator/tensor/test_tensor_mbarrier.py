"""mbarrier objects: phases, transactions, tokens, and misuse."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

MAXIMUM = (1 << 20) - 1


class Barrier:
    """A barrier at address 16 of a block's shared memory."""

    def __init__(self, tensor: Any, count: int | None) -> None:
        self.tensor, self.memory = tensor, np.zeros(64, np.uint8)
        if count is not None:
            self.call("init", count)

    def call(self, name: str, *arguments: Any) -> None:
        """An operation without a result."""
        address = ctypes.c_uint32(16)
        self.tensor.call(
            f"fb_mbarrier_{name}", self.tensor.shared(self.memory), address, *arguments
        )

    def arrive(self, count: int = 1, no_complete: bool = False) -> int:
        """The token."""
        state = ctypes.c_uint64()
        self.call("arrive", count, no_complete, ctypes.byref(state))
        return state.value

    def done(self, parity: int) -> bool:
        """test_wait.parity"""
        result = ctypes.c_bool()
        self.call("test_wait_parity", parity, ctypes.byref(result))
        return result.value

    def passed(self, state: int) -> bool:
        """test_wait"""
        result = ctypes.c_bool()
        self.call("test_wait", ctypes.c_uint64(state), ctypes.byref(result))
        return result.value


def test_phases_by_parity_and_token(tensor: Any) -> None:
    """Three arrivals end a phase; the phase before the first counts as odd."""
    barrier = Barrier(tensor, 3)
    assert (barrier.done(0), barrier.done(1)) == (False, True)
    token = barrier.arrive()
    assert tensor.pending_count(token) == 3
    assert not barrier.passed(token)
    last = barrier.arrive(2)
    assert tensor.pending_count(last) == 2
    assert barrier.passed(token)
    assert barrier.passed(last)
    assert (barrier.done(0), barrier.done(1)) == (True, False)
    for _ in range(3):
        barrier.arrive()
    assert (barrier.done(0), barrier.done(1)) == (False, True)


def test_transactions_hold_the_phase(tensor: Any) -> None:
    """The phase ends when arrivals and bytes are both there, whichever comes first."""
    barrier = Barrier(tensor, 1)
    state = ctypes.c_uint64()
    barrier.call("arrive_expect_tx", 4096, ctypes.byref(state))
    assert not barrier.passed(state.value)
    barrier.call("complete_tx", 1024)
    assert not barrier.done(0)
    barrier.call("complete_tx", 3072)
    assert barrier.done(0)
    # Bytes before the arrival that expects them: the tx-count is negative for a while.
    barrier.call("complete_tx", 512)
    assert not barrier.done(1)
    barrier.call("arrive_expect_tx", 512, None)
    assert barrier.done(1)


@given(
    st.integers(1, 6),
    st.lists(st.tuples(st.booleans(), st.integers(1, 4)), max_size=60),
)
@settings(max_examples=60, deadline=None)
def test_like_the_manuals_rules(tensor: Any, expected: int, events: list[tuple[bool, int]]) -> None:
    """Random arrivals and transactions against the rules written out."""
    barrier = Barrier(tensor, expected)
    phase, pending, transactions = 0, expected, 0
    for arrival, amount in events:
        if arrival and amount <= pending:
            barrier.arrive(amount)
            pending -= amount
        elif not arrival and transactions > 0:
            barrier.call("complete_tx", transactions)
            transactions = 0
        elif pending:
            barrier.call("expect_tx", 16 * amount)
            transactions += 16 * amount
            continue
        if pending == 0 and transactions == 0:
            phase, pending = phase + 1, expected
        assert barrier.done(phase % 2) is False
        assert barrier.done(1 - phase % 2) is True


def test_drop_and_increment(tensor: Any) -> None:
    """A dropped thread is not waited for again; cp.async's arrival adds one that is pending."""
    barrier = Barrier(tensor, 3)
    barrier.call("arrive_drop", 1, 0, False, None)
    barrier.arrive(2)
    assert barrier.done(0)
    barrier.call("increment_pending")
    barrier.arrive(2)
    assert not barrier.done(1)
    barrier.arrive()
    assert barrier.done(1)


def test_invalidated(tensor: Any) -> None:
    """After inval the memory holds no barrier."""
    barrier = Barrier(tensor, 1)
    barrier.call("inval")
    with pytest.raises(tensor.Error, match="no initialised mbarrier"):
        barrier.arrive()


@pytest.mark.parametrize("fill", [0x00, 0xFF, 0xCD])
def test_uninitialised(tensor: Any, fill: int) -> None:
    """Memory that no init has seen."""
    barrier = Barrier(tensor, None)
    barrier.memory[:] = fill
    for name, arguments in (
        ("arrive", (1, False, None)),
        ("expect_tx", (16,)),
        ("complete_tx", (16,)),
        ("test_wait_parity", (0, ctypes.byref(ctypes.c_bool()))),
        ("inval", ()),
    ):
        with pytest.raises(tensor.Error, match="no initialised mbarrier"):
            barrier.call(name, *arguments)


def test_misuse(tensor: Any) -> None:
    """Counts out of range, too many arrivals, tokens and parities that are none."""
    for count in (0, MAXIMUM + 1):
        with pytest.raises(tensor.Error, match="count"):
            Barrier(tensor, count)
    barrier = Barrier(tensor, 2)
    with pytest.raises(tensor.Error, match="waits for 2 only"):
        barrier.arrive(3)
    with pytest.raises(tensor.Error, match="noComplete"):
        barrier.arrive(2, no_complete=True)
    barrier.call("expect_tx", MAXIMUM)
    with pytest.raises(tensor.Error, match="out of range"):
        barrier.call("expect_tx", 1)
    with pytest.raises(tensor.Error, match="not returned by"):
        barrier.passed(0)
    with pytest.raises(tensor.Error, match="phaseParity"):
        barrier.done(2)
    with pytest.raises(tensor.Error, match="multiple of 8"):
        tensor.call("fb_mbarrier_init", tensor.shared(barrier.memory), 12, 1)
    with pytest.raises(tensor.Error, match="outside"):
        tensor.call("fb_mbarrier_init", tensor.shared(barrier.memory), 64, 1)
    # None of the refused operations changed it.
    barrier.call("complete_tx", MAXIMUM)
    barrier.arrive(2)
    assert barrier.done(0)
