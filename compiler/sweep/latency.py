"""How long one inference takes on a target: instructions where they are counted, else seconds."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..options import Options

#: Runs that are timed; the least of them counts.
RUNS, WARM_UP = 30, 3
#: No cell is timed for longer than this.
SECONDS = 5.0


def measure_latency(
    model: str, options: Options, calibration: str | None, inputs: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Compile for ``options.target`` into a temporary folder and run one sample again and again.

    Returns:
        ``instructions``: per inference, None where the target counts none; ``latency_ms``: least
        of many runs on this machine, None where the target is emulated; ``latency_median_ms``;
        ``file_bytes``: what the product takes, where the manifest says so.

    Raises:
        FewbitsError: as `driver.compile`.
    """
    from ..api import load
    from ..artifact import Artifact
    from ..driver import compile

    with tempfile.TemporaryDirectory(prefix="fewbits-sweep-") as scratch:
        artifact = compile(model, Path(scratch) / "product", options, calibration)
        assert isinstance(artifact, Artifact)
        manifest = artifact.manifest
        figures = {
            "instructions": manifest.get("instructions_per_inference"),
            "file_bytes": manifest.get("flash_bytes") or manifest.get("library_bytes"),
            "latency_ms": None,
            "latency_median_ms": None,
        }
        if figures["instructions"] is None:
            sample = {name: array[:1] for name, array in inputs.items()}
            seconds = _time(load(artifact.folder), sample)
            figures["latency_ms"] = 1e3 * min(seconds)
            figures["latency_median_ms"] = 1e3 * statistics.median(seconds)
        return figures


def _time(run: Any, sample: Mapping[str, np.ndarray]) -> list[float]:
    """Seconds of each run."""
    for _ in range(WARM_UP):
        run(**sample)
    seconds: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(seconds) < RUNS and (not seconds or time.perf_counter() < end):
        start = time.perf_counter()
        run(**sample)
        seconds.append(time.perf_counter() - start)
    return seconds
