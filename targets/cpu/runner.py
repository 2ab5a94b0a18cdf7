"""Runs a built library in this process: numpy in, numpy out."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import FewbitsError
from ..base import Run, Runner
from ..vm.loading import built_library, check_largest, check_whole, not_loadable
from .features import missing_here
from .threads import default_threads, use_threads


class LibraryRunner(Runner):
    """A loaded library.

    Args:
        folder: an artifact's.
        manifest: its manifest.
        threads: how many to compute with; None for all cores, or TVM_NUM_THREADS.

    Raises:
        FewbitsError: ``no-such-file``; ``wrong-machine`` where this CPU lacks what the code needs;
            ``bad-library``; ``unknown-option`` for an impossible number of threads.
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any], threads: int | None) -> None:
        if threads is not None and not 1 <= threads <= 1024:
            raise FewbitsError(
                "unknown-option", f"{threads} threads", where="threads", hint="at least 1"
            )
        library = built_library(folder, manifest)
        _check_machine(library, manifest)
        check_whole(library, manifest)
        import tvm
        from tvm.runtime.vm import VirtualMachine

        try:
            loaded = tvm.runtime.load_module(str(library.absolute()))
            self._machine = VirtualMachine(loaded, tvm.cpu())
            self._main = self._machine["main"]
        except (RuntimeError, ValueError, AttributeError, OSError) as error:
            raise not_loadable(library, error) from error
        self._tensor = tvm.runtime.tensor
        self._inputs = manifest["inputs"]
        self._largest = manifest.get("largest_sizes", {})
        self._threads = threads or default_threads()
        self._lock = threading.Lock()

    def run(self, inputs: Sequence[np.ndarray]) -> Run:
        """One call; the arrays are copied, as kernels want them aligned.

        Raises:
            FewbitsError: ``wrong-shape`` for a dimension larger than the model has room for.
        """
        check_largest(self._inputs, [array.shape for array in inputs], self._largest)
        with self._lock:
            use_threads(self._threads)
            result = self._main(*(self._tensor(np.ascontiguousarray(a)) for a in inputs))
        fields = [result] if hasattr(result, "numpy") else list(result)
        return Run(tuple(field.numpy() for field in fields))


def _check_machine(library: Path, manifest: Mapping[str, Any]) -> None:
    missing = missing_here(manifest["machine"], manifest["features"])
    if missing:
        raise FewbitsError(
            "wrong-machine",
            f"this CPU cannot run a library for {manifest['target']}: "
            f"it lacks {', '.join(missing)}",
            where=str(library),
            hint="compile the model for another target: `--target cpu` is this machine",
        )
