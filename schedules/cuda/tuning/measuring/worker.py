"""The process that touches the GPU. A kernel that faults ends it, and nothing else.

It reads requests from its standard input and answers on its standard output, a line of JSON each.
Before anything that may fail it says which candidate it is at, so that whoever waits knows whose
fault the silence is.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from . import contents
from .gpu import Gpu, LocalGpu, RemoteGpu, cuda_functions
from .plan import ENTRY, Case, load


class Bench:
    """One case at a time on one GPU.

    Args:
        folder: of the plan.
        gpu: where kernels run.
        say: tells the candidate that is about to run.
    """

    def __init__(self, folder: Path, gpu: Gpu, say: Any) -> None:
        self._folder, self._gpu, self._say = folder, gpu, say
        self._plan = load(folder)
        self._case: Case | None = None
        self._arguments: list[Any] = []
        self._poison: Any = None
        self._expected: np.ndarray | None = None
        self._functions: dict[int, Any] = {}

    def open(self, number: int) -> dict[str, Any]:
        """Make the arguments of a case."""
        import tvm

        self._case, self._functions = self._plan.cases[number], {}
        self._arguments, self._expected = [], None
        random = np.random.default_rng(self._plan.seed)
        arrays = [
            contents.array(argument, random, self._folder) for argument in self._case.arguments
        ]
        self._poison = arrays[-1]
        self._arguments = [tvm.runtime.tensor(array, self._gpu.device) for array in arrays]
        return {}

    def check(self, candidate: int) -> dict[str, Any]:
        """Run once; candidate 0's results are those that others must give."""
        assert self._case is not None
        self._say(candidate)
        library = self._folder / self._case.candidates[candidate].library
        function = self._gpu.load(library.resolve(), ENTRY)
        self._functions[candidate] = function
        result = self._arguments[-1]
        result.copyfrom(self._poison)
        function(*self._arguments)
        self._gpu.device.sync()
        found = result.numpy()
        if candidate == 0:
            self._expected = found
            return {"distance": 0.0}
        assert self._expected is not None
        return {"distance": contents.distance(self._expected, found)}

    def warm(self, seconds: float) -> dict[str, Any]:
        """Keep the GPU busy until its clocks are where they stay."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._say(0)
            for _ in range(20):
                self._functions[0](*self._arguments)
            self._gpu.device.sync()
        return {}

    def measure(self, candidates: Sequence[int], repeats: int) -> dict[str, Any]:
        """Times in turns, so that what disturbs the machine disturbs all alike."""
        times: dict[int, list[float]] = {candidate: [] for candidate in candidates}
        for _ in range(repeats):
            for candidate in candidates:
                self._say(candidate)
                run = self._gpu.seconds(self._functions[candidate], self._arguments)
                times[candidate].append(run)
        return {"times": [[candidate, seen] for candidate, seen in times.items()]}


def serve(folder: Path, options: dict[str, Any], requests: Iterator[str], answers: TextIO) -> None:
    """Answer requests until there are no more, or one fails."""

    def answer(content: dict[str, Any]) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    try:
        gpu = _opened(options)
        bench = Bench(folder, gpu, lambda candidate: answer({"at": candidate}))
        answer({"card": gpu.card.name, "capability": gpu.card.capability})
        for line in requests:
            request = json.loads(line)
            step = getattr(bench, request.pop("do"))
            answer({"done": step(**request)})
    except Exception as error:  # whatever it was, the GPU's state is unknown: the process ends
        answer({"failed": f"{type(error).__name__}: {_brief(error)}"})


def _brief(error: Exception) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no reason given"


def _opened(options: dict[str, Any]) -> Gpu:
    if options.get("tracker"):
        host, port, key = options["tracker"]
        return RemoteGpu((host, int(port), key), options["flush"], options.get("kind", "cuda"))
    return LocalGpu(cuda_functions(options["prepare"]), options["flush"])


def main() -> None:
    """``python -m measuring.worker FOLDER OPTIONS``, the latter as JSON."""
    # Whatever else writes to the standard output must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(Path(sys.argv[1]), json.loads(sys.argv[2]), iter(sys.stdin), answers)
    answers.flush()
    # Drivers may wait for ever for a kernel that never ends.
    os._exit(0)


if __name__ == "__main__":
    main()
