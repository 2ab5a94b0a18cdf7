"""One cell, from files to figures: what a worker does, in whatever process or machine it lives.

A worker gets plain data and gives plain data, so any executor can carry both.
"""

from __future__ import annotations

import dataclasses
import functools
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import FewbitsError

#: Samples that are evaluated at once.
CHUNK = 32


def run_cell(description: Mapping[str, Any]) -> dict[str, Any]:
    """What became of a cell, given as `Cell.describe`; never raises but on Ctrl-C.

    Returns:
        ``status``: ``done`` (with ``result``), ``refused`` (a `FewbitsError`: this combination
        cannot be) or ``failed`` (anything else); ``error`` for the last two; ``seconds``.
    """
    start = time.perf_counter()
    outcome: dict[str, Any]
    try:
        outcome = {"status": "done", "result": _measure(description)}
    except FewbitsError as error:
        outcome = {"status": "refused", "error": error.as_dict()}
    except MemoryError:
        outcome = failure("out-of-memory", "the worker's memory was not enough")
    except Exception as error:  # one cell's defect must not end the sweep; it is in the table
        places = traceback.extract_tb(error.__traceback__)
        where = f"{Path(places[-1].filename).name}:{places[-1].lineno}" if places else None
        outcome = failure("internal", f"{type(error).__name__}: {str(error)[:300]}", where)
    return {**outcome, "seconds": round(time.perf_counter() - start, 3)}


def failure(code: str, message: str, where: str | None = None) -> dict[str, Any]:
    """The outcome of a cell that failed for no reason of its own."""
    error = {"code": code, "message": message, "where": where, "hint": "run the sweep again"}
    return {"status": "failed", "error": error}


def _measure(cell: Mapping[str, Any]) -> dict[str, Any]:
    from ..driver import compress
    from ..options import Options
    from .quality import choose_metric, is_class_labels, measure, plain
    from .sizes import measure_sizes

    inputs, labels = _evaluation(cell["evaluation"], cell["limit"])
    bind = cell["bind"] or _sizes_of(cell["path"], tuple((k, v.shape) for k, v in inputs.items()))
    options = Options(
        target=cell["target"] or Options.target,
        recipe=_recipe(cell),
        seed=cell["seed"],
        bind=bind,
        samples=cell["samples"],
    )
    state = compress(cell["path"], options, cell["calibration"])
    assert state.compressed is not None
    wanted = _float_outputs(
        cell["path"], tuple(sorted(bind.items())), cell["evaluation"], cell["limit"]
    )
    quality = measure(_chunks(state.compressed, inputs, wanted, labels))
    metric = choose_metric(cell["metric"], quality, labels)
    classes = wanted.shape[-1]
    labelled = labels is not None and is_class_labels(labels, wanted)
    sizes = measure_sizes(state.compressed, classes if labelled else None)
    result = {
        "metric": metric,
        "quality": quality.of(metric),
        **plain(quality),
        **dataclasses.asdict(sizes),
    }
    if cell["target"]:
        from .latency import measure_latency

        result |= measure_latency(cell["path"], options, cell["calibration"], inputs)
    return result


def _recipe(cell: Mapping[str, Any]) -> Any:
    from ..recipe import Recipe

    return Recipe(name=cell["recipe"], passes=tuple(cell["passes"]))


@functools.lru_cache(maxsize=2)
def _evaluation(path: str, limit: int | None) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """The inputs and labels of an evaluation set."""
    from ..data import load_arrays

    arrays = {key: array[:limit] for key, array in load_arrays(path).items() if array.ndim}
    labels = arrays.pop("labels", None)
    return arrays, labels


@functools.lru_cache(maxsize=8)
def _sizes_of(path: str, shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> dict[str, int]:
    """Sizes of the symbolic dimensions that are no batch, as the evaluation set has them."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load(path, load_external_data=False).graph
    except DecodeError:
        return {}
    sizes: dict[str, int] = {}
    known = dict(shapes)
    for tensor in graph.input:
        dims = tensor.type.tensor_type.shape.dim
        if tensor.name in known and len(known[tensor.name]) == len(dims):
            pairs = list(zip(dims, known[tensor.name], strict=True))[1:]
            sizes |= {dim.dim_param: size for dim, size in pairs if dim.dim_param}
    return sizes


@functools.lru_cache(maxsize=1)
def _float_outputs(
    path: str, bind: tuple[tuple[str, int], ...], evaluation: str, limit: int | None
) -> np.ndarray:
    """onnxruntime's first output of the given model. Cells come model by model, so one is kept."""
    import onnxruntime

    inputs, _ = _evaluation(evaluation, limit)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    for name, size in bind:
        options.add_free_dimension_override_by_name(name, size)
    try:
        session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        batched = not isinstance(session.get_inputs()[0].shape[0], int)
        count = len(next(iter(inputs.values())))
        step = CHUNK if batched else 1
        pieces = []
        for start in range(0, count, step):
            feed = {key: array[start : start + step] for key, array in inputs.items()}
            pieces.append(np.asarray(session.run(None, feed)[0]))
    except Exception as error:  # its exceptions have no common base
        raise FewbitsError(
            "onnxruntime-failed",
            f"onnxruntime cannot run the float model: {str(error)[:300]}",
            where=path,
            hint="quality is measured against it",
        ) from error
    return np.concatenate(pieces)


def _chunks(
    module: Any, inputs: Mapping[str, np.ndarray], wanted: np.ndarray, labels: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """Outputs of the oracle, the float model's, and labels, chunk by chunk."""
    from ...ops.evaluate import Evaluator

    evaluator = Evaluator(module)
    start = 0
    for values in evaluator.batched(inputs, chunk=CHUNK):
        got = values[evaluator.output_names[0]].numpy()
        end = start + len(got)
        piece = wanted[start:end]
        yield got.reshape(piece.shape), piece, None if labels is None else labels[start:end]
        start = end
