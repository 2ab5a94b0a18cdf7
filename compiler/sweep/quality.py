"""How good a compressed model is: against labels, and against the float model's outputs.

Figures are sums over chunks, so no set of outputs is ever held whole but the float model's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import FewbitsError

Floats = npt.NDArray[np.floating]
#: Metrics of which less is better.
LOWER_IS_BETTER = frozenset({"nats"})


@dataclasses.dataclass(frozen=True)
class Quality:
    """What was measured on an evaluation set; None where it has no meaning.

    Attributes:
        nats: mean negative log likelihood of the labels, in nats per label.
        accuracy: share of labels that are the largest output.
        cosine: mean cosine, along the last axis, of the first output with the float model's.
        sqnr_db: signal to quantization noise of the first output; None where it is equal.
        agreement: share of rows whose largest output is the float model's.
        samples: how many samples were run.
    """

    nats: float | None
    accuracy: float | None
    cosine: float
    sqnr_db: float | None
    agreement: float | None
    samples: int

    def of(self, metric: str) -> float | None:
        """The figure of that name."""
        return getattr(self, metric)


def choose_metric(metric: str, quality: Quality, labels: np.ndarray | None) -> str:
    """What ``auto`` stands for: nats where labels come in sequences, else accuracy, else cosine.

    Raises:
        FewbitsError: ``no-labels`` for a metric that needs other labels than there are.
    """
    if metric == "auto":
        if quality.nats is None:
            return "cosine"
        return "nats" if labels is not None and labels.ndim > 1 else "accuracy"
    if metric in ("nats", "accuracy") and quality.nats is None:
        raise FewbitsError(
            "no-labels",
            f"{metric} needs class numbers in `labels`, one for each row of the first output",
            where="the evaluation set",
            hint="measure cosine or sqnr_db, which need none",
        )
    return metric


def measure(chunks: Iterable[tuple[Floats, Floats, np.ndarray | None]]) -> Quality:
    """Quality over chunks of (first output, the float model's, labels).

    Args:
        chunks: outputs ``[n, ..., classes]``; labels ``[n, ...]`` are class numbers (integers) of
            all rows, or anything else, which is not measured.

    Raises:
        FewbitsError: ``empty-data`` without samples, ``not-finite`` for outputs that are not.
    """
    totals: dict[str, float] = dict.fromkeys(
        ("samples", "rows", "nats", "correct", "cosine", "signal", "noise", "agree"), 0.0
    )
    labelled, classes = True, True
    for got, wanted, labels in chunks:
        if not np.isfinite(got).all():
            raise FewbitsError(
                "not-finite", "the compressed model's outputs hold NaN or infinity",
                hint="the recipe breaks this model; try other formats or solvers",
            )  # fmt: skip
        got64 = got.reshape(got.shape[0], -1, got.shape[-1]).astype(np.float64)
        wanted64 = wanted.reshape(got64.shape).astype(np.float64)
        totals["samples"] += len(got)
        totals["rows"] += got64.shape[0] * got64.shape[1]
        totals["signal"] += float((wanted64**2).sum())
        totals["noise"] += float(((got64 - wanted64) ** 2).sum())
        totals["cosine"] += float(_cosine(got64, wanted64).sum())
        classes &= got.shape[-1] > 1
        totals["agree"] += float((got64.argmax(-1) == wanted64.argmax(-1)).sum())
        labelled &= labels is not None and is_class_labels(labels, got)
        if labelled and labels is not None:
            flat = labels.reshape(got64.shape[:-1])
            totals["correct"] += float((got64.argmax(-1) == flat).sum())
            totals["nats"] += float(_negative_log_likelihood(got64, flat).sum())
    if not totals["rows"]:
        raise FewbitsError("empty-data", "the evaluation set holds no samples")
    rows = totals["rows"]
    equal = totals["noise"] == 0 or totals["signal"] == 0
    return Quality(
        nats=totals["nats"] / rows if labelled and classes else None,
        accuracy=totals["correct"] / rows if labelled and classes else None,
        cosine=totals["cosine"] / rows,
        sqnr_db=None if equal else float(10 * np.log10(totals["signal"] / totals["noise"])),
        agreement=totals["agree"] / rows if classes else None,
        samples=int(totals["samples"]),
    )


def is_class_labels(labels: np.ndarray, outputs: Floats) -> bool:
    """Whether labels are class numbers, one for each row of the outputs."""
    return (
        labels.dtype.kind in "iu"
        and labels.shape == outputs.shape[:-1]
        and bool(labels.size == 0 or (labels.min() >= 0 and labels.max() < outputs.shape[-1]))
    )


def _cosine(a: Floats, b: Floats) -> Floats:
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    both_zero = (np.abs(a).max(-1, initial=0) == 0) & (np.abs(b).max(-1, initial=0) == 0)
    return np.where(both_zero, 1.0, (a * b).sum(-1) / np.where(lengths == 0, 1.0, lengths))


def _negative_log_likelihood(outputs: Floats, labels: np.ndarray) -> Floats:
    """Of logits, or of probabilities where that is what the outputs are."""
    probabilities = outputs.min() >= 0 and np.allclose(outputs.sum(-1), 1.0, atol=1e-3)
    if probabilities:
        logs = np.log(np.maximum(outputs, 1e-12))
    else:
        shifted = outputs - outputs.max(-1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return -np.take_along_axis(logs, labels[..., None].astype(np.intp), -1)[..., 0]


def plain(quality: Quality) -> Mapping[str, Any]:
    """Plain data."""
    return dataclasses.asdict(quality)
