"""Runs what an artifact holds: real values or codes in, real values or codes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FewbitsError
from ..targets.mcu.program import Buffer
from ..targets.mcu.runner import Runner, Signature, make_runner
from ..targets.mcu.target import get_target
from .artifact import Artifact, Port
from .data import Batch, check_batch
from .progress import Progress, quiet


def encode_batch(batch: Batch, ports: Sequence[Port]) -> list[np.ndarray]:
    """Codes of real samples in the order of the ports, each ``[samples, *port.shape]``."""
    return [
        port.to_codes(batch[port.name]).reshape(len(batch[port.name]), *port.shape)
        for port in ports
    ]


def signature_of(manifest: Mapping[str, Any]) -> Signature:
    """What a runner needs, from the manifest."""
    return Signature(
        function=manifest["function"],
        inputs=tuple((tuple(p["shape"]), p["dtype"]) for p in manifest["inputs"]),
        outputs=tuple((tuple(p["shape"]), p["dtype"]) for p in manifest["outputs"]),
        arena_bytes=manifest["ram_bytes"],
        layers=len(manifest["layers"]),
    )


def runner_of(folder: Path, manifest: Mapping[str, Any], *, strict: bool = False) -> Runner:
    """A runner for the binary in an artifact's folder."""
    target = get_target(manifest["target"])
    binary = "model.so" if target.family == "host" else "model.elf"
    return make_runner(folder / "bin" / binary, target, signature_of(manifest), strict=strict)


def run_artifact(
    artifact: Artifact,
    batch: Mapping[str, np.ndarray],
    *,
    raw: bool = False,
    progress: Progress = quiet,
) -> tuple[dict[str, np.ndarray], list[int]]:
    """Outputs by name for inputs by name, first axes counting samples; instructions per sample.

    Args:
        artifact: a compiled model.
        batch: real values (codes with `raw`).
        raw: take and give codes.
        progress: told how many samples are done.
    """
    inputs, outputs = artifact.inputs, artifact.outputs
    runner = runner_of(artifact.folder, artifact.manifest)
    if raw:
        infos = [Buffer(p.name, p.shape, p.dtype) for p in inputs]
        checked = check_batch(batch, infos, "the input")
        codes = [checked[p.name].reshape(-1, *p.shape) for p in inputs]
    else:
        infos = [Buffer(p.name, p.shape, p.real_dtype) for p in inputs]
        checked = check_batch(batch, infos, "the input")
        codes = encode_batch(checked, inputs)
    count_samples(checked, "the input")
    results: list[list[np.ndarray]] = [[] for _ in outputs]
    instructions: list[int] = []
    for index in range(len(codes[0])):
        run = runner.run([array[index] for array in codes])
        for kept, output in zip(results, run.outputs, strict=True):
            kept.append(output.copy())
        if run.instructions is not None:
            instructions.append(run.instructions)
        progress.samples(index + 1, len(codes[0]))
    named = {}
    for port, kept in zip(outputs, results, strict=True):
        stacked = np.stack(kept)
        # The batch axis of 1 becomes the sample axis, as onnxruntime would give it.
        shape = port.shape[1:] if port.shape[:1] == (1,) else port.shape
        stacked = stacked.reshape(len(stacked), *shape)
        named[port.name] = stacked if raw else port.to_real(stacked)
    return named, instructions


def batch_codes(batch: Batch, artifact: Artifact) -> Batch:
    """The batch as codes, by input name."""
    codes = encode_batch(batch, artifact.inputs)
    return {port.name: array for port, array in zip(artifact.inputs, codes, strict=True)}


def count_samples(batch: Mapping[str, np.ndarray], where: str) -> int:
    """How many samples a checked batch holds.

    Raises:
        FewbitsError: ``empty-data`` for none.
    """
    count = len(next(iter(batch.values()))) if batch else 0
    if not count:
        raise FewbitsError(
            "empty-data", "there are no samples", where=where, hint="give at least one"
        )
    return count
