"""An evaluation set on the product: score, exactness against the oracle, distance from float."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FewbitsError
from ..targets.catalogue import get_target
from .artifact import Artifact
from .data import Batch, check_batch, load_arrays
from .execution import batch_codes, count_samples, encode_batch, run_artifact
from .progress import Progress, quiet
from .reference import FLOAT_MODEL, read_module, reference_file
from .symbols import batch_of, concrete, sizes_of
from .verify import CHUNK, Oracle, same


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What `verify` found on an evaluation set.

    Attributes:
        samples: how many were run.
        exact: how many agreed with the oracle bit for bit, in every output.
        score: accuracy against labels, None without labels.
        float_score: the same of onnxruntime's float model; None where the artifact has none.
        snr_db: of the first output against onnxruntime, over all samples; None as before.
        agreement: share of samples whose largest output is onnxruntime's; None as before.
        instructions: (least, mean, most) instructions per inference, None on the host.
    """

    samples: int
    exact: int
    score: float | None
    float_score: float | None
    snr_db: float | None
    agreement: float | None
    instructions: tuple[int, float, int] | None

    def as_dict(self) -> dict[str, Any]:
        """Plain data for the manifest."""
        return dataclasses.asdict(self)


def evaluate_artifact(
    artifact: Artifact,
    data: str | Path | Mapping[str, np.ndarray],
    *,
    limit: int | None = None,
    progress: Progress = quiet,
) -> Evaluation:
    """Run an evaluation set (input names and optionally ``labels``) on the product.

    Raises:
        FewbitsError: as `check_batch`; ``wrong-shape`` for labels that don't fit.
    """
    arrays = dict(load_arrays(data)) if isinstance(data, str | Path) else dict(data)
    infos = [port.real for port in artifact.inputs]
    named = {info.name for info in infos}
    labels = None if "labels" in named else arrays.pop("labels", None)
    batch = check_batch(arrays, infos, "the evaluation set")
    count = count_samples(batch, "the evaluation set")
    if labels is not None:
        labels = np.asarray(labels)
        if labels.ndim == 0 or len(labels) != count:
            raise FewbitsError(
                "wrong-shape",
                f"labels of shape {labels.shape} for {count} samples",
                where="labels",
                hint="one label a sample",
            )
    if limit is not None:
        batch = {key: array[:limit] for key, array in batch.items()}
        labels = None if labels is None else labels[:limit]
        count = min(count, limit)
    codes, instructions = run_artifact(
        artifact, batch_codes(batch, artifact), raw=True, progress=progress
    )
    exact = _exactness(artifact, batch, codes)
    first = artifact.outputs[0]
    real = first.to_real(codes[first.name])
    wanted = None
    if artifact.manifest["model"].get("kept", True):
        wanted = np.concatenate(list(float_outputs(artifact, batch))).reshape(real.shape)
    classes = real.ndim == 2 and real.shape[1] > 1
    if not classes:
        labels = None
    return Evaluation(
        samples=count,
        exact=exact,
        score=None if labels is None else accuracy(real, labels),
        float_score=None if labels is None or wanted is None else accuracy(wanted, labels),
        snr_db=None if wanted is None else _snr_db(real, wanted),
        agreement=(
            float((real.argmax(1) == wanted.argmax(1)).mean())
            if classes and wanted is not None
            else None
        ),
        instructions=(
            (min(instructions), float(np.mean(instructions)), max(instructions))
            if instructions
            else None
        ),
    )


def _snr_db(real: np.ndarray, wanted: np.ndarray) -> float | None:
    """Signal to noise ratio; None where one of them is nothing."""
    noise = float(((real - wanted).astype(np.float64) ** 2).sum())
    signal = float((wanted.astype(np.float64) ** 2).sum())
    return float(10 * np.log10(signal / noise)) if noise > 0 and signal > 0 else None


def accuracy(outputs: np.ndarray, labels: np.ndarray) -> float | None:
    """Share of rows whose largest output is the label; None where labels are no class numbers."""
    if labels.shape != (len(outputs),) or labels.dtype.kind not in "iu":
        return None
    return float((outputs.argmax(1) == labels).mean())


def _exactness(artifact: Artifact, batch: Batch, codes: Mapping[str, np.ndarray]) -> int:
    oracle = Oracle(read_module(artifact.folder, get_target(artifact.target).oracle))
    expected = oracle(encode_batch(batch, artifact.inputs))
    agree = np.ones(len(expected[0]), bool)
    match = float(artifact.manifest.get("float_match", 1e-4))
    for port, want in zip(artifact.outputs, expected, strict=True):
        got = codes[port.name].reshape(want.shape)
        agree &= np.array([same(g, w, match) for g, w in zip(got, want, strict=True)])
    return int(agree.sum())


def float_outputs(artifact: Artifact, batch: Batch) -> Iterator[np.ndarray]:
    """onnxruntime's first output of the float model, a few samples or one at a time."""
    import onnxruntime

    path = reference_file(artifact.folder, FLOAT_MODEL)
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base
        raise FewbitsError(
            "onnxruntime-failed",
            f"onnxruntime cannot run the float model: {str(error)[:300]}",
            where=str(path),
            hint="another version of onnxruntime may",
        ) from error
    ports = artifact.inputs
    infos = concrete(ports, sizes_of(ports, batch, "the evaluation set"))
    count = len(next(iter(batch.values())))
    step = CHUNK if batch_of(ports) is not None else 1
    for start in range(0, count, step):
        # Shapes have a batch of 1, or one that may be anything.
        feed = {
            info.name: batch[info.name][start : start + step].reshape(-1, *info.shape[1:])
            if info.shape[:1] == (1,)
            else batch[info.name][start].reshape(info.shape)
            for info in infos
        }
        yield np.asarray(session.run(None, feed)[0])
