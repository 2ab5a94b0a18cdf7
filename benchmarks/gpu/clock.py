"""Time on the GPU: CUDA events, the second cache flushed, contenders in turn, the median.

Before each call the GPU is given work that takes longer than the host needs to enqueue the call,
so that what lies between the events is the kernels' time and not the host's.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping

#: Bytes that are overwritten before each call: several times any card's second cache.
FLUSHED = 512 << 20
#: GPU cycles that hide the host's work before a call.
HIDDEN = 1_000_000


def milliseconds(
    runs: Mapping[str, Callable[[], object]], rounds: int = 30, warm_up: int = 5
) -> dict[str, float]:
    """Median time of each contender.

    Args:
        runs: enqueue their work on torch's current stream, and do not wait.
        rounds: timed calls of each; every round calls all of them, in an order that is turned.
        warm_up: calls before that.
    """
    import torch

    flush = torch.empty(FLUSHED, dtype=torch.int8, device="cuda")
    for run in runs.values():
        for _ in range(warm_up):
            run()
    torch.cuda.synchronize()
    times: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for turn in range(rounds):
        first = turn % len(names)
        for name in (*names[first:], *names[:first]):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            flush.random_(-100, 100)
            torch.cuda._sleep(HIDDEN)
            start.record()
            runs[name]()
            end.record()
            end.synchronize()
            times[name].append(start.elapsed_time(end))
    return {name: statistics.median(values) for name, values in times.items()}


def ceilings() -> dict[str, float]:
    """What the card can do: ``copy`` in bytes per second, read and written; ``bf16`` per second."""
    import torch

    source = torch.randint(-100, 100, (2 << 30,), dtype=torch.int8, device="cuda")
    target = torch.empty_like(source)
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    times = milliseconds({"copy": lambda: target.copy_(source), "bf16": lambda: a @ b})
    return {
        "copy": 2 * source.numel() / times["copy"] * 1e3,
        "bf16": 2 * 8192.0**3 / times["bf16"] * 1e3,
    }
