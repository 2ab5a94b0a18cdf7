"""A worker process as seen from outside: requests with time limits."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

#: Seconds for Python, TVM and the driver to come up.
_START_SECONDS = 180.0


class WorkerLost(Exception):
    """The worker ended, failed, or was silent for too long.

    Attributes:
        at: the candidate that it was at, or None.
    """

    def __init__(self, reason: str, at: int | None = None) -> None:
        super().__init__(reason)
        self.at = at


class Worker:
    """Starts a worker.

    Args:
        folder: of the plan.
        options: for `worker.serve`.
        patience: seconds that it may be silent, once it has come up.

    Raises:
        WorkerLost: it did not come up.
    """

    def __init__(self, folder: Path, options: dict[str, Any], patience: float) -> None:
        self._patience = patience
        # Files, as nobody reads what libraries write while they work.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        package = __package__ or ""
        root = Path(__file__).resolve().parents[len(package.split("."))]
        paths = [str(root), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        }  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{package}.worker", str(folder.resolve()), json.dumps(options)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
            text=True, encoding="utf-8", env=environment,
        )  # fmt: skip
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        try:
            first = self._answer(max(patience, _START_SECONDS))
        except WorkerLost:
            self.close()
            raise
        self.card = str(first["card"])
        self.capability: tuple[int, int] = (
            int(first["capability"][0]),
            int(first["capability"][1]),
        )

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """One request and its answer.

        Raises:
            WorkerLost: it is of no use any more.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise WorkerLost(f"the worker is gone: {error}") from error
        return self._answer()["done"]

    def close(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._errors):
            if pipe is not None:
                pipe.close()

    def _answer(self, patience: float | None = None) -> dict[str, Any]:
        at, patience = None, patience or self._patience
        while True:
            try:
                line = self._lines.get(timeout=patience)
            except queue.Empty:
                raise WorkerLost(f"not done after {patience:g} s", at) from None
            if line is None:
                raise WorkerLost(self._epitaph(), at)
            answer = json.loads(line)
            if "failed" in answer:
                raise WorkerLost(answer["failed"], at)
            if "at" not in answer:
                return answer
            at = int(answer["at"])

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(None)

    def _epitaph(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", errors="replace").strip().splitlines()
        return f"the worker ended with {code}" + (f": {lines[-1][:300]}" if lines else "")
