"""Does the product do what was promised? Exact against the oracle, close to the float model."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import FewbitsError
from ..targets.mcu.program import Buffer
from ..targets.mcu.runner import Runner, Signature, make_runner
from ..targets.mcu.target import get_target
from .artifact import Artifact, Port
from .data import Batch, check_batch, load_arrays, random_batches
from .progress import Progress, quiet

if TYPE_CHECKING:
    from tvm import ir

    from ..targets.mcu.integer import IntegerModel
    from .driver import Compilation

Golden = tuple[list[np.ndarray], list[np.ndarray]]

#: Samples that the oracle evaluates at once.
CHUNK = 64


class Oracle:
    """The integer module, evaluated with the exact meanings of its operators."""

    def __init__(self, model: IntegerModel | ir.IRModule) -> None:
        from ..ops.evaluate import Evaluator

        module = getattr(model, "module", model)
        self.evaluator = Evaluator(module)

    def __call__(self, codes: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Output codes for input codes; first axes count samples (batch axis after it kept)."""
        named = dict(zip(self.evaluator.input_names, codes, strict=True))
        pieces = [
            [values[name].numpy() for name in self.evaluator.output_names]
            for values in self.evaluator.batched(named, chunk=CHUNK)
        ]
        return [np.concatenate(parts) for parts in zip(*pieces, strict=True)]


def encode_batch(batch: Batch, ports: Sequence[Port]) -> list[np.ndarray]:
    """Codes of real samples in the order of the ports, each ``[samples, *port.shape]``."""
    return [
        port.to_codes(batch[port.name]).reshape(len(batch[port.name]), *port.shape)
        for port in ports
    ]


def golden_samples(state: Compilation, oracle: Oracle, inputs: Sequence[Port]) -> Golden | None:
    """A few samples as codes with the oracle's outputs: shipped with the firmware."""
    count = state.options.golden
    if not count:
        return None
    source = state.calibration or random_batches(state.imported.inputs, count, state.options.seed)
    taken: list[list[np.ndarray]] = []
    have = 0
    for batch in source():
        codes = encode_batch(batch, inputs)
        taken.append([array[: count - have] for array in codes])
        have += len(taken[-1][0])
        if have >= count:
            break
    arrays = [np.concatenate(parts) for parts in zip(*taken, strict=True)]
    return arrays, oracle(arrays)


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


def verify_golden(
    state: Compilation,
    folder: Path,
    manifest: dict[str, Any],
    golden: Golden | None,
    oracle: Oracle,
) -> dict[str, Any]:
    """Run the firmware on the golden samples, strictly; cost and distance from float.

    Raises:
        FewbitsError: ``not-exact`` when the firmware and the oracle disagree: a defect of fewbits.
    """
    if golden is None:
        return {}
    inputs, expected = golden
    runner = runner_of(folder, manifest, strict=True)
    run = None
    for index in range(len(inputs[0])):
        run = runner.run([array[index] for array in inputs])
        for port, got, want in zip(
            manifest["outputs"], run.outputs, [e[index] for e in expected], strict=True
        ):
            if not same(got, want):
                raise FewbitsError(
                    "not-exact",
                    f"the firmware's output {port['name']!r} differs from the oracle on sample "
                    f"{index}",
                    hint="this is a defect of fewbits: please report it with the model",
                )
    assert run is not None
    layers = manifest["layers"]
    if run.instructions is not None:
        for layer, count in zip(layers, run.per_layer, strict=True):
            layer["instructions"] = count
    noise = layer_noise(state.reference, state.integer, inputs, manifest)
    for layer in layers:
        layer["snr_db"] = noise.get(layer["name"])
    return {
        "instructions_per_inference": run.instructions,
        "stack_bytes": run.stack_bytes,
        "golden": {"samples": len(inputs[0]), "exact": True},
    }


def same(got: np.ndarray, want: np.ndarray) -> bool:
    """Equal codes; float results of float islands may differ in their last bits."""
    if got.dtype.kind == "f":
        return bool(np.allclose(got, want, rtol=1e-4, atol=1e-5, equal_nan=True))
    return bool(np.array_equal(got.reshape(want.shape), want))


def layer_noise(
    reference: ir.IRModule,
    model: IntegerModel | None,
    codes: Sequence[np.ndarray],
    manifest: Mapping[str, Any],
) -> dict[str, float]:
    """Signal to noise ratio in dB of every integer layer against the float value it stands for."""
    from ..ops.evaluate import Evaluator
    from ..passes.rewrite import Rewriter, operator_of

    assert model is not None
    stands_for: dict[str, str] = {}
    for var, value in Rewriter(model.module).bindings:
        operator = operator_of(value)
        if operator is not None and operator.startswith("fewbits."):
            stands_for[var.name] = str(value.attrs["stands_for"])
    floats = Evaluator(reference)
    known = {var.name for var, _ in Rewriter(reference).bindings}
    stands_for = {layer: name for layer, name in stands_for.items() if name in known}
    integer = Evaluator(model.module)
    ports = [Port.from_dict(port) for port in manifest["inputs"]]
    real = [port.to_real(array) for port, array in zip(ports, codes, strict=True)]
    wanted = set(stands_for.values())
    float_values = _values(floats, real, wanted)
    integer_values = _values(integer, codes, set(stands_for))
    result = {}
    for layer, name in stands_for.items():
        scale, zero_point = model.quantization[layer]
        got = (integer_values[layer].astype(np.float64) - zero_point) * scale
        want = float_values[name].astype(np.float64)
        if got.size != want.size:
            continue
        noise, signal = _noise(got, want), _power(want)
        if signal > 0 and noise > 0:
            result[layer] = round(float(10 * np.log10(signal / noise)), 2)
    return result


def _values(evaluator: Any, inputs: Sequence[np.ndarray], names: set[str]) -> dict[str, np.ndarray]:
    named = dict(zip(evaluator.input_names, inputs, strict=True))
    (values,) = evaluator.batched(named, names, chunk=len(inputs[0]))
    return {name: values[name].numpy() for name in names}


def _noise(got: np.ndarray, want: np.ndarray) -> float:
    """Squared distance of values from those they stand for, whatever order their axes are in.

    Layouts differ from layer to layer (channels last, softmax over the last axis); the order that
    agrees best is the right one. The first two axes count samples and the batch.
    """
    orders = itertools.permutations(range(2, got.ndim)) if 3 < got.ndim < 7 else ()
    moved = (got.transpose(0, 1, *order) for order in orders)
    candidates = [got.reshape(want.shape), *(m for m in moved if m.shape == want.shape)]
    if got.ndim == 5:  # channels first, and then flattened
        candidates.append(got.transpose(0, 1, 4, 2, 3).reshape(want.shape))
    return min(_power(candidate - want) for candidate in candidates)


def _power(values: np.ndarray) -> float:
    """The sum of squares; masked values, which are infinite, left out."""
    return float((values[np.isfinite(values)] ** 2).sum())


# -- evaluation sets --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What `verify` found on an evaluation set.

    Attributes:
        samples: how many were run.
        exact: how many agreed with the oracle bit for bit, in every output.
        score: accuracy against labels, None without labels.
        float_score: the same of onnxruntime's float model.
        snr_db: of the first output against onnxruntime, over all samples.
        agreement: share of samples whose largest output is onnxruntime's.
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
    _samples(checked, "the input")
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
    infos = [Buffer(p.name, p.shape, p.real_dtype) for p in artifact.inputs]
    named = {info.name for info in infos}
    labels = None if "labels" in named else arrays.pop("labels", None)
    batch = check_batch(arrays, infos, "the evaluation set")
    count = _samples(batch, "the evaluation set")
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
    wanted = np.concatenate(list(float_outputs(artifact, batch)))
    wanted = wanted.reshape(real.shape)
    noise = float(((real - wanted).astype(np.float64) ** 2).sum())
    signal = float((wanted.astype(np.float64) ** 2).sum())
    classes = real.ndim == 2 and real.shape[1] > 1
    return Evaluation(
        samples=count,
        exact=exact,
        score=accuracy(real, labels) if classes and labels is not None else None,
        float_score=accuracy(wanted, labels) if classes and labels is not None else None,
        snr_db=float(10 * np.log10(signal / noise)) if noise > 0 and signal > 0 else None,
        agreement=float((real.argmax(1) == wanted.argmax(1)).mean()) if classes else None,
        instructions=(
            (min(instructions), float(np.mean(instructions)), max(instructions))
            if instructions
            else None
        ),
    )


def batch_codes(batch: Batch, artifact: Artifact) -> Batch:
    """The batch as codes, by input name."""
    codes = encode_batch(batch, artifact.inputs)
    return {port.name: array for port, array in zip(artifact.inputs, codes, strict=True)}


def _samples(batch: Mapping[str, np.ndarray], where: str) -> int:
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


def _reference(artifact: Artifact, name: str) -> Path:
    """A file of the artifact's reference.

    Raises:
        FewbitsError: ``not-an-artifact`` when it is missing.
    """
    path = artifact.folder / "reference" / name
    if not path.is_file():
        raise FewbitsError(
            "not-an-artifact",
            f"the artifact lacks reference/{name}",
            where=str(artifact.folder),
            hint="compile the model again",
        )
    return path


def accuracy(outputs: np.ndarray, labels: np.ndarray) -> float | None:
    """Share of rows whose largest output is the label; None where labels are no class numbers."""
    if labels.shape != (len(outputs),) or labels.dtype.kind not in "iu":
        return None
    return float((outputs.argmax(1) == labels).mean())


def _exactness(artifact: Artifact, batch: Batch, codes: Mapping[str, np.ndarray]) -> int:
    import tvm

    from .. import ops  # noqa: F401  (registers the dialect before the module is read)
    from ..ops import integer  # noqa: F401

    path = _reference(artifact, "integer.json")
    try:
        oracle = Oracle(tvm.ir.load_json(path.read_text("utf-8")))
    except (ValueError, TypeError, KeyError, RuntimeError, OSError) as error:
        raise FewbitsError(
            "not-an-artifact",
            f"cannot read the reference: {str(error)[:200]}",
            where=str(path),
            hint="compile the model again",
        ) from error
    expected = oracle(encode_batch(batch, artifact.inputs))
    agree = np.ones(len(expected[0]), bool)
    for port, want in zip(artifact.outputs, expected, strict=True):
        got = codes[port.name].reshape(want.shape)
        agree &= np.array([same(g, w) for g, w in zip(got, want, strict=True)])
    return int(agree.sum())


def float_outputs(artifact: Artifact, batch: Batch) -> Iterator[np.ndarray]:
    """onnxruntime's first output of the float model, sample by sample."""
    import onnxruntime

    path = _reference(artifact, "model.onnx")
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
    for index in range(len(next(iter(batch.values())))):
        feed = {p.name: batch[p.name][index].reshape(p.shape) for p in ports}
        yield np.asarray(session.run(None, feed)[0])
