"""Which machines measure for `tuning`: this one, or those that a TVM tracker knows."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import FewbitsError

if TYPE_CHECKING:
    from ..schedules.tuning.bench import Bench
    from ..targets.cpu.target import CpuTarget

#: How long a tracker may take to answer.
_TRACKER_SECONDS = 10.0


def open_machines(target: CpuTarget, folder: Path, tracker: tuple[str, int, str] | None) -> Bench:
    """This machine, or those of a tracker (host, port, key), with a folder for their files.

    Raises:
        FewbitsError: ``wrong-machine`` where code for the target does not run here;
            ``tracker-unreachable``.
    """
    from ..schedules.tuning.bench import evaluator_config, local_bench, remote_bench
    from ..targets.cpu.target import tvm_target
    from ..targets.cpu.threads import default_threads
    from ..targets.cpu.tuning import kernel_linker

    compiled, linker = tvm_target(target), kernel_linker(target)
    if tracker is None:
        if not target.runs_here:
            raise FewbitsError(
                "wrong-machine",
                f"this machine cannot run code for {target.name!r}",
                where="--target",
                hint="measure on machines that can: --tracker HOST:PORT --key KEY",
            )
        return local_bench(compiled, folder, linker, default_threads(), evaluator_config())
    machines = _machines(tracker)
    return remote_bench(compiled, folder, linker, tracker, evaluator_config(), machines)


def _machines(tracker: tuple[str, int, str]) -> int:
    """How many machines of the key a tracker has."""
    from tvm import rpc

    host, port, key = tracker
    try:
        # TVM itself goes on trying for minutes.
        socket.create_connection((host, port), timeout=_TRACKER_SECONDS).close()
        servers = rpc.connect_tracker(host, port).summary()["queue_info"].get(key, {})
    except (OSError, RuntimeError) as error:
        raise FewbitsError(
            "tracker-unreachable",
            f"no TVM tracker answers: {error}",
            where=f"{host}:{port}",
            hint="start one with `python -m tvm.exec.rpc_tracker`",
        ) from error
    count = int(servers.get("free", 0)) + int(servers.get("pending", 0))
    if not count:
        raise FewbitsError(
            "tracker-unreachable",
            f"the tracker has no machine with the key {key!r}",
            where=f"{host}:{port}",
            hint="start `python -m tvm.exec.rpc_server --tracker HOST:PORT --key KEY` on one",
        )
    return count
