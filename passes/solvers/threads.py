"""One thread for loops over columns.

A column is a few thousand values: shorter work than it takes to wake another thread and wait for
it. Split, such loops are slower on an idle machine and many times slower on a busy one, where a
thread that is waited for may not even be running.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch computes in the calling thread alone, as long as this lasts."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
