"""Work in a child process, so that a crash costs one item and not the run."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

#: Longest that one item may take, in seconds, unless a caller says otherwise.
PATIENCE = 60


def each(
    work: Callable[[_Item], _Result],
    items: Sequence[_Item],
    crashed: Callable[[_Item, str], _Result],
    patience: float = PATIENCE,
) -> Iterator[_Result]:
    """``work(item)`` of every item in order, all in one child until that dies.

    Args:
        work: in the child; what it returns is pickled. The child is forked, so it sees everything.
        items: they stay where they are.
        crashed: the result for an item during which the child died or went silent.
        patience: longest that one item may take, in seconds.
    """
    context = multiprocessing.get_context("fork")
    done = 0
    while done < len(items):
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=_run, args=(work, items[done:], ours, theirs))
        child.start()
        theirs.close()
        try:
            while done < len(items) and ours.poll(patience):
                result = ours.recv()
                done += 1
                yield result
        except EOFError:
            child.join()
            yield crashed(items[done], f"the process ended with status {child.exitcode}")
            done += 1
            continue
        finally:
            child.kill()
            child.join()
            ours.close()
        if done < len(items):
            yield crashed(items[done], f"no answer in {patience:g} s")
            done += 1


def _run(
    work: Callable[[_Item], _Result], items: Sequence[_Item], unused: Connection, pipe: Connection
) -> None:
    unused.close()
    for item in items:
        pipe.send(work(item))
    pipe.close()
