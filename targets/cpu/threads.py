"""How many threads a library computes with.

TVM keeps a pool of workers for each calling thread. By itself it takes half the logical cores and
ties workers to cores, which is wrong where a machine is shared: here the pool has a worker for
every core this process may use, tied to none, and each call uses as many as it was told.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

#: TVM's mode for any cores; the affinity is off.
_ANY_CORES = 1

_pool = threading.local()
_environment_lock = threading.Lock()


def default_threads() -> int:
    """TVM_NUM_THREADS where it is set, else the number of cores this process may use."""
    given = os.environ.get("TVM_NUM_THREADS", "")
    if given.isdigit() and int(given):
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_threads(count: int) -> None:
    """Let kernels called from this thread use so many workers, or as many as there are cores."""
    if getattr(_pool, "size", None) == count:
        return
    from tvm import get_global_func

    workers = {"TVM_NUM_THREADS": str(default_threads()), "TVM_BIND_THREADS": "0"}
    with _environment_lock, _environment(workers):
        # The first call in a thread makes its pool, as the environment says.
        get_global_func("runtime.config_threadpool")(_ANY_CORES, count)
    _pool.size = count


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Environment variables for the duration of the block, where they are not set already."""
    missing = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)
