"""Whole models on the GPU machine: checked by golden samples, scored, timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .run import load

#: Samples of a call while a score is computed.
CHUNK = 64
#: Tokens' ids that are drawn stay below every model's vocabulary.
VOCABULARY = 500


class Model:
    """An artifact's graph, called with arrays."""

    def __init__(self, entry: dict[str, Any], folder: Path) -> None:
        import tvm
        from tvm.runtime.vm import VirtualMachine

        self.device = tvm.cuda(0)
        self.names = [name for name, _ in entry["inputs"]]
        self._dtypes = dict(entry["inputs"])
        machine = VirtualMachine(load(folder / entry["library"]), self.device)
        self._main = machine[entry["function"]]

    def upload(self, inputs: Mapping[str, np.ndarray]) -> list[Any]:
        """Arrays by name as tensors on the GPU, in the model's order."""
        import tvm

        arrays = [np.ascontiguousarray(inputs[n].astype(self._dtypes[n])) for n in self.names]
        return [tvm.runtime.tensor(array, self.device) for array in arrays]

    def enqueue(self, tensors: Sequence[Any]) -> Any:
        """Launch, and do not wait."""
        result = self._main(*tensors)
        return result if hasattr(result, "numpy") else result[0]

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """The first output."""
        return self.enqueue(self.upload(inputs)).numpy()


def checked(plan: dict[str, Any], folder: Path) -> list[str]:
    """Artifacts whose golden samples do not come out: model, recipe, sizes and distance."""
    wrong = []
    for entry in plan["models"]:
        for kind in ("open", "graph"):
            if entry.get(kind, {}).get("library") is None:
                continue
            away = _distance(entry[kind], folder, whole=kind == "open")
            if not away <= entry[kind]["tolerance"]:
                name = f"{entry['model']} {entry['recipe']}, {kind} sizes"
                wrong.append(f"{name}: {away:.2g} of its length away")
    return wrong


def _distance(entry: dict[str, Any], folder: Path, whole: bool) -> float:
    """Of golden samples from the oracle's results, as a share of their length.

    Args:
        entry: an artifact.
        folder: of the plan.
        whole: samples are a batch; else each is a call, twice, so that a recording is replayed.
    """
    golden = (folder / entry["library"]).parent / "golden"
    model = Model(entry, folder)
    inputs = {name: np.load(golden / f"input_{i}.npy") for i, name in enumerate(model.names)}
    want = np.load(golden / "output_0.npy").astype(np.float64)

    def each() -> np.ndarray:
        return np.stack(
            [model({name: a[i] for name, a in inputs.items()}) for i in range(len(want))]
        )

    got = model(inputs) if whole else (each(), each())[1]
    return float(np.linalg.norm(got.reshape(want.shape) - want) / np.linalg.norm(want))


def accuracy_rows(plan: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Scores of models that came with data."""
    rows = []
    for entry in plan["models"]:
        data = folder / f"{entry['model']}.npz"
        if not data.exists() or entry["open"]["library"] is None:
            continue
        with np.load(data) as arrays:
            held = dict(arrays)
        labels, model = held.pop("labels"), Model(entry["open"], folder)
        count = len(next(iter(held.values())))
        outputs = np.concatenate(
            [
                model({name: rows[start : start + CHUNK] for name, rows in held.items()})
                for start in range(0, count, CHUNK)
            ]
        )
        metric, score = _SCORES[entry["model"]]
        rows.append(
            {"model": entry["model"], "recipe": entry["recipe"], "metric": metric,
             "score": score(outputs, labels)}
        )  # fmt: skip
    return rows


def spearman(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Rank correlation of cosines (first half of the rows with the second) and human scores."""
    half = len(labels)
    cosine = (outputs[:half] * outputs[half:]).sum(1)

    def ranks(values: np.ndarray) -> np.ndarray:
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        return (np.cumsum(counts) - (counts - 1) / 2)[inverse]

    return float(np.corrcoef(ranks(cosine), ranks(labels))[0, 1])


def nats(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative log likelihood of the next tokens."""
    logits = outputs.astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    picked = np.take_along_axis(logits, labels[..., None], -1)[..., 0]
    return float((np.log(np.exp(logits).sum(-1)) - picked).mean())


_SCORES: dict[str, tuple[str, Callable[[np.ndarray, np.ndarray], float]]] = {
    "minilm": ("Spearman, STS-B", spearman),
    "stories260k": ("nats per token", nats),
}


def time_rows(
    plan: dict[str, Any],
    folder: Path,
    shapes: Mapping[str, Sequence[tuple[int, int]]],
    rounds: int,
) -> list[dict[str, Any]]:
    """Milliseconds by contender, for each model and shape."""
    from .clock import milliseconds
    from .torch_models import recorded

    rows = []
    for model, sizes in shapes.items():
        entries = [entry for entry in plan["models"] if entry["model"] == model]
        loaded = {
            (entry["recipe"], kind): Model(entry[kind], folder)
            for entry in entries
            for kind in ("open", "graph")
            if entry.get(kind, {}).get("library") is not None
        }
        for batch, tokens in dict.fromkeys((*sizes, tuple(plan["graph"]))) if loaded else ():
            inputs = _inputs(model, batch, tokens, plan["width"])
            eager = _torch(model, batch, tokens, plan)
            runs: dict[str, Callable[[], Any]] = {
                "torch fp16": eager,
                "torch fp16, CUDA graph": recorded(eager),
            }
            for (recipe, kind), one in loaded.items():
                if kind == "graph" and [batch, tokens] != list(plan["graph"]):
                    continue
                tensors = one.upload(inputs)
                name = recipe + (", CUDA graph" if kind == "graph" else "")
                runs[name] = lambda one=one, tensors=tensors: one.enqueue(tensors)
            rows.append(
                {"model": model, "batch": batch, "tokens": tokens,
                 "milliseconds": milliseconds(runs, rounds)}
            )  # fmt: skip
    return rows


def _inputs(model: str, batch: int, tokens: int, width: int) -> dict[str, np.ndarray]:
    if model == "gpt":
        from .gpt import block_inputs

        return block_inputs(batch, tokens, width)
    ids = np.random.default_rng(0).integers(5, VOCABULARY, (batch, tokens))
    return {"input_ids": ids, "attention_mask": np.ones((batch, tokens), np.int64)}


def _torch(model: str, batch: int, tokens: int, plan: dict[str, Any]) -> Callable[[], Any]:
    from . import torch_models

    if model == "gpt":
        return torch_models.gpt_block(batch, tokens, width=plan["width"], heads=plan["heads"])
    return torch_models.sentence_encoder(batch, tokens)
