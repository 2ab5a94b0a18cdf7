"""How many threads a library computes with.

TVM keeps a pool of workers for each calling thread. By itself it takes half the logical cores and
ties workers to cores, which is wrong where a machine is shared: here the pool has a worker for
every core this process may use, tied to none, and each call uses as many as it was told. TVM reads
its two environment variables whenever it likes, so they are set for the process if they are not.
"""

from __future__ import annotations

import os
import threading

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

    with _environment_lock:
        # The first call in a thread makes its pool as the environment says. TVM asks for the number
        # again at every launch and computes alone where it is 1, so the variables must stay.
        os.environ.setdefault("TVM_NUM_THREADS", str(default_threads()))
        os.environ.setdefault("TVM_BIND_THREADS", "0")
        get_global_func("runtime.config_threadpool")(_ANY_CORES, count)
    _pool.size = count
