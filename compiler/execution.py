"""Runs what an artifact holds: real values or codes in, real values or codes out.

Two ways of calling. Where the batch is a symbolic dimension, the arrays are a batch and the product
runs once. Otherwise the product takes one sample at a time, and the first axis counts samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import FewbitsError, nearest
from ..targets.base import Runner
from ..targets.catalogue import get_target
from .artifact import Artifact, Port
from .data import Batch, check_batch
from .progress import Progress, quiet
from .symbols import batch_of, concrete, sizes_of


def encode_batch(batch: Batch, ports: Sequence[Port]) -> list[np.ndarray]:
    """Codes of checked real samples, in the order of the ports.

    Returns:
        Arrays ``[samples, *port.shape]``; with a symbolic batch, in the ports' own shapes.
    """
    whole = batch_of(ports) is not None
    return [
        _shaped(port.to_codes(batch[port.name]), info.shape[1:] if whole else info.shape)
        for port, info in zip(ports, concrete(ports, sizes_of(ports, batch, "data")), strict=True)
    ]


def _shaped(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return array.reshape(len(array), *shape)


def runner_of(artifact: Artifact, *, strict: bool = False, threads: int | None = None) -> Runner:
    """A runner for the binary in an artifact's folder.

    Raises:
        FewbitsError: as `Target.open`.
    """
    target = get_target(artifact.target)
    return target.open(artifact.folder, artifact.manifest, strict=strict, threads=threads)


def run_samples(
    runner: Runner,
    codes: Sequence[np.ndarray],
    inputs: Sequence[Port],
    progress: Progress = quiet,
) -> tuple[list[np.ndarray], list[int]]:
    """Output codes for input codes as `encode_batch` gives them; instructions per sample.

    Returns:
        Outputs with a first axis of samples, or as they are with a symbolic batch.
    """
    if batch_of(inputs) is not None:
        return list(runner.run(codes).outputs), []
    results: list[list[np.ndarray]] = []
    instructions: list[int] = []
    for index in range(len(codes[0])):
        run = runner.run([array[index] for array in codes])
        results.append([output.copy() for output in run.outputs])
        if run.instructions is not None:
            instructions.append(run.instructions)
        progress.samples(index + 1, len(codes[0]))
    return [np.stack(kept) for kept in zip(*results, strict=True)], instructions


def run_artifact(
    artifact: Artifact,
    batch: Mapping[str, np.ndarray],
    *,
    raw: bool = False,
    runner: Runner | None = None,
    progress: Progress = quiet,
) -> tuple[dict[str, np.ndarray], list[int]]:
    """Outputs by name for inputs by name, first axes counting samples; instructions per sample.

    One sample in the model's own shapes gives outputs in the model's own shapes.

    Args:
        artifact: a compiled model.
        batch: real values (codes with `raw`).
        raw: take and give codes.
        runner: what `runner_of` gave, None to make one.
        progress: told how many samples are done.

    Raises:
        FewbitsError: as `check_batch` and `runner_of`; ``empty-data``.
    """
    inputs, outputs = artifact.inputs, artifact.outputs
    if raw:
        infos = [Port(p.name, p.shape, p.dtype, None, 0, p.dtype) for p in inputs]
        checked = check_batch(batch, infos, "the input")
        codes = encode_batch(checked, infos)
    else:
        checked = check_batch(batch, [port.real for port in inputs], "the input")
        codes = encode_batch(checked, inputs)
    count_samples(checked, "the input")
    given = runner or runner_of(artifact)
    results, instructions = run_samples(given, codes, inputs, progress)
    whole = batch_of(inputs) is not None
    bare = not whole and _is_bare(batch, inputs)
    named = {}
    for port, result in zip(outputs, results, strict=True):
        if bare:
            result = result[0]
        elif not whole and port.shape[:1] == (1,):
            # The batch axis of 1 becomes the sample axis, as onnxruntime would give it.
            result = result.reshape(len(result), *result.shape[2:])
        named[port.name] = result if raw else port.to_real(result)
    return named, instructions


def run_on_gpu(
    artifact: Artifact, tensors: Mapping[str, Any], runner: Runner, *, raw: bool = False
) -> dict[str, Any]:
    """Outputs by name for tensors on a GPU by name, all in the model's own shapes and dtypes.

    Args:
        artifact: a compiled model.
        tensors: with ``__dlpack__``; nothing is copied.
        runner: of the artifact.
        raw: take and give codes; needed where the model's inputs or outputs are codes.

    Raises:
        FewbitsError: ``missing-input``, ``unknown-input``, ``wrong-shape``, ``wrong-dtype``,
            ``wrong-device``, and as `Runner.run_tensors`.
    """
    ports = [*artifact.inputs, *artifact.outputs]
    if not raw and any(port.scale is not None for port in ports):
        raise FewbitsError(
            "wrong-dtype",
            "the model computes in integers from end to end, and real values are no codes",
            where="the input",
            hint="give raw=True and codes (the manifest has scales and zero points), or numpy",
        )
    names = [port.name for port in artifact.inputs]
    for name in tensors:
        if name not in names:
            raise FewbitsError(
                "unknown-input", f"the model has no input {name!r}", hint=nearest(name, names)
            )
    ordered, sizes = [], {}
    for port in artifact.inputs:
        if port.name not in tensors:
            raise FewbitsError(
                "missing-input",
                f"the input {port.name!r} is missing",
                hint=f"the model's inputs: {', '.join(names)}",
            )
        _check_tensor(port, tensors[port.name], sizes)
        ordered.append(tensors[port.name])
    results = runner.run_tensors(ordered)
    return {port.name: result for port, result in zip(artifact.outputs, results, strict=True)}


def _check_tensor(port: Port, tensor: Any, sizes: dict[str, int]) -> None:
    """Type and shape; `sizes` are those of symbolic dimensions so far."""
    where = f"input {port.name!r}"
    dtype, shape = str(tensor.dtype).removeprefix("torch."), tuple(map(int, tensor.shape))
    if dtype != port.dtype:
        raise FewbitsError("wrong-dtype", f"{dtype}, not {port.dtype}", where=where)
    fits = len(shape) == len(port.shape) and all(
        size == (sizes.setdefault(wanted, size) if isinstance(wanted, str) else wanted)
        for wanted, size in zip(port.shape, shape, strict=True)
    )
    if not fits:
        raise FewbitsError(
            "wrong-shape",
            f"shape {shape} does not fit the model's {port.shape}"
            + "".join(f", {name} = {size}" for name, size in sizes.items()),
            where=where,
        )


def _is_bare(batch: Mapping[str, np.ndarray], inputs: Sequence[Port]) -> bool:
    """Whether the arrays are one sample in the model's own shapes, where no axis is a batch of 1.

    A step of a model with a cache is such a call: the cache's first axis counts layers.
    """
    if all(port.shape[:1] == (1,) for port in inputs):
        return False
    return all(np.ndim(batch[port.name]) == len(port.shape) for port in inputs)


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
