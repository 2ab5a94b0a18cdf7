"""Does the firmware do what was promised? Checked on golden samples before anything is written."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import FewbitsError
from .artifact import Port
from .data import random_batches
from .execution import encode_batch, runner_of

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
