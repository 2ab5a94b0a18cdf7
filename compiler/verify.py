"""Does the product do what was promised? Checked on golden samples before anything is kept."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..targets.base import Golden, Product
from .artifact import Artifact, Port
from .data import random_batches
from .execution import encode_batch, runner_of
from .symbols import batch_of

if TYPE_CHECKING:
    from tvm import ir

    from .driver import Compilation

#: Samples that the oracle evaluates at once.
CHUNK = 64


class Oracle:
    """What a product computes, evaluated with the exact meanings of its operators."""

    def __init__(self, module: ir.IRModule) -> None:
        from ..ops.evaluate import Evaluator

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
    """A few samples as codes with the oracle's outputs: shipped with the product.

    With symbolic sizes, as many as the first batches have of equal shapes.
    """
    count = state.options.golden
    if not count:
        return None
    source = state.calibration or random_batches(state.imported.inputs, count, state.options.seed)
    taken: list[list[np.ndarray]] = []
    have = 0
    for batch in source():
        codes = encode_batch(batch, inputs)
        if taken and [a.shape[1:] for a in codes] != [a.shape[1:] for a in taken[0]]:
            break
        taken.append([array[: count - have] for array in codes])
        have += len(taken[-1][0])
        if have >= count:
            break
    arrays = [np.concatenate(parts) for parts in zip(*taken, strict=True)]
    return arrays, oracle(arrays)


def verify_golden(
    state: Compilation, folder: Path, manifest: dict[str, Any], golden: Golden | None
) -> dict[str, Any]:
    """Run the product on the golden samples, strictly; cost and distance from float.

    Raises:
        FewbitsError: ``not-exact`` when product and oracle disagree: a defect of fewbits.
    """
    if golden is None:
        return {}
    product = state.product
    assert product is not None
    inputs, expected = golden
    ports = [Port.from_dict(port) for port in manifest["inputs"]]
    runner = runner_of(Artifact(folder, manifest), strict=True)
    run, difference = None, 0.0
    for index, sample in enumerate(_calls(inputs, ports)):
        run = runner.run(sample)
        wanted = expected if batch_of(ports) is not None else [e[index] for e in expected]
        for port, got, want in zip(manifest["outputs"], run.outputs, wanted, strict=True):
            found = distance(got, want)
            difference = max(difference, found)
            if found > product.float_match:
                raise product.disagreement(str(port["name"]), index, got, want, found)
    assert run is not None
    layers = manifest["layers"]
    if run.instructions is not None:
        for layer, count in zip(layers, run.per_layer, strict=True):
            layer["instructions"] = count
    noise = layer_noise(state.reference, product, inputs, manifest)
    for layer in layers:
        layer["snr_db"] = noise.get(layer["name"])
    return product.verified(run, len(inputs[0]), difference)


def _calls(codes: Sequence[np.ndarray], ports: Sequence[Port]) -> Iterator[list[np.ndarray]]:
    """The arrays of each call: a batch at once, or sample by sample."""
    if batch_of(ports) is not None:
        yield list(codes)
        return
    for index in range(len(codes[0])):
        yield [array[index] for array in codes]


def distance(got: np.ndarray, want: np.ndarray) -> float:
    """Length of the difference over the length of `want`; integers are equal (0) or not (inf).

    Infinite and undefined values have to agree in place and sign.
    """
    got = got.reshape(want.shape)
    if want.dtype.kind != "f":
        return 0.0 if np.array_equal(got, want) else np.inf
    finite = np.isfinite(want)
    if not np.array_equal(got[~finite], want[~finite], equal_nan=True):
        return np.inf
    one, other = (array[finite].astype(np.float64) for array in (got, want))
    if not np.isfinite(one).all():
        return np.inf
    difference, length = np.linalg.norm(one - other), np.linalg.norm(other)
    # Results near zero are differences of larger numbers: an absolute bound holds there.
    return float(difference / max(length, 0.1 * np.sqrt(max(other.size, 1))))


def same(got: np.ndarray, want: np.ndarray, float_match: float = 1e-4) -> bool:
    """Equal codes; float results may differ by so much of their length."""
    return distance(got, want) <= float_match


def layer_noise(
    reference: ir.IRModule,
    model: Product,
    codes: Sequence[np.ndarray],
    manifest: Mapping[str, Any],
) -> dict[str, float]:
    """Signal to noise ratio in dB of every integer layer against the float value it stands for."""
    from ..ops.evaluate import Evaluator
    from ..passes.rewrite import Rewriter, operator_of

    stands_for: dict[str, str] = {}
    for var, value in Rewriter(model.module).bindings:
        operator = operator_of(value)
        if operator is not None and operator.startswith("fewbits.") and _stands(value):
            stands_for[var.name] = str(value.attrs["stands_for"])
    if not stands_for:
        return {}
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


def _stands(call: Any) -> bool:
    """Whether the operator says which float value its codes approximate."""
    return "stands_for" in map(str, call.attrs.keys())


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
