"""Mixed precision: which layer gets which format under a budget (spec 11, 15).

Every layer is compressed alone in every candidate format, and the damage to the model's outputs is
measured. Damages of small errors add up, so the best assignment under a budget of bits or bit
operations is a 0/1 linear program, which HiGHS solves exactly. The answer is an ordinary recipe.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..errors import FewbitsError
from .options import Options
from .progress import Progress, quiet
from .recipe import Recipe

if TYPE_CHECKING:
    from tvm import ir

    from ..formats.compressed import CompressedTensor
    from ..passes.calibration import Calibration
    from ..passes.layers import Layer

Budget = Literal["bits", "bytes", "bops"]
BUDGETS: tuple[Budget, ...] = ("bits", "bytes", "bops")
#: Bits of a weight that stays float.
FLOAT_BITS = 32
_CANDIDATE = re.compile(r"(?P<format>.+?)-(?P<strategy>[gb])(?P<size>\d{1,7})")


@dataclasses.dataclass(frozen=True)
class Candidate:
    """How to store a weight: ``int4-g64``, ``nf4-b64``, ``int8`` (per channel), ``float``.

    Attributes:
        text: as written.
        options: of the pass ``quantize_weights``; empty for ``float``.
    """

    text: str
    options: dict[str, Any]

    def compress(self, weight: np.ndarray) -> CompressedTensor | None:
        """The weight rounded to nearest; None for ``float``."""
        from ..formats.compress import compress
        from ..formats.parse import parse_format
        from ..passes.weights.options import WeightOptions

        if not self.options:
            return None
        words = WeightOptions(**self.options)
        return compress(
            weight.reshape(weight.shape[0], -1),
            parse_format(words.format_name),
            granularity=words.granularity(),
            scale_storage=words.scale_storage,
        )


def parse_candidate(text: str) -> Candidate:
    """A candidate from its text.

    Raises:
        FewbitsError: ``bad-format`` for a format that does not exist.
    """
    from ..formats.parse import parse_format

    if text == "float":
        return Candidate(text, {})
    match = _CANDIDATE.fullmatch(text)
    options: dict[str, Any] = {"format": text, "strategy": "channel"}
    if match is not None:
        strategy = "group" if match["strategy"] == "g" else "block"
        options = {"format": match["format"], "strategy": strategy}
        options["group_size"] = int(match["size"])
    parse_format(options["format"])
    return Candidate(text, {**options, "scale_storage": "float16"})


@dataclasses.dataclass(frozen=True)
class Choice:
    """One layer's format.

    Attributes:
        layer, candidate: names.
        damage: squared error of the model's outputs over their squared size, this layer alone.
        bits: of the weight, scales and other metadata included.
        weights: number of weights.
        macs: multiply-accumulates of the layer.
    """

    layer: str
    candidate: str
    damage: float
    bits: int
    weights: int
    macs: int


@dataclasses.dataclass(frozen=True)
class Found:
    """The best assignment.

    Attributes:
        choices: one per layer, in the model's order.
        cost: of the assignment, in the budget's unit.
        budget: what was allowed.
        predicted: sum of the layers' damages.
        measured: damage with all layers compressed at once.
        table: every layer in every candidate format.
        recipe: what to compile with.
    """

    choices: tuple[Choice, ...]
    cost: float
    budget: float
    predicted: float
    measured: float
    table: tuple[Choice, ...]
    recipe: Recipe

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        plain = dataclasses.asdict(dataclasses.replace(self, recipe=Recipe(passes=())))
        return {**plain, "recipe": self.recipe.to_yaml()}


def search_recipe(
    model: Any,
    candidates: Sequence[str],
    budget: float,
    kind: Budget = "bits",
    calibration: Any = None,
    options: Options | None = None,
    activation_bits: int = FLOAT_BITS,
    progress: Progress = quiet,
) -> Found:
    """The recipe of least damage whose cost stays within a budget.

    Args:
        model: as for `compile`.
        candidates: texts as of `Candidate`; at least one.
        budget: average ``bits`` per weight, ``bytes`` of all weights together, or ``bops``: bit
            operations, MACs times weight bits times activation bits.
        kind: the budget's unit.
        calibration: sample inputs; the damage is measured on them.
        options: bindings, seed, samples.
        activation_bits: of what the weights multiply, for ``bops``.
        progress: told about layers.

    Raises:
        FewbitsError: ``no-calibration``; ``bad-budget`` where not even the smallest candidates fit.
    """
    from ..passes.layers import find_layers
    from ..passes.macs import macs
    from .driver import compress

    parsed = [parse_candidate(text) for text in dict.fromkeys(candidates)]
    if not parsed:
        raise FewbitsError("bad-budget", "no candidates to choose from", hint="int8 int4-g64")
    if kind not in BUDGETS or not budget > 0:
        raise FewbitsError(
            "bad-budget", f"no budget of {budget} {kind}", hint=f"a number of {', '.join(BUDGETS)}"
        )
    chosen = dataclasses.replace(options or Options(), recipe="float", pass_options={})
    state = compress(model, chosen, calibration, progress)
    data = state.context.calibration
    if data is None:
        raise FewbitsError(
            "no-calibration", "damage is measured on sample inputs", hint="give --calibration"
        )
    assert state.compressed is not None
    data.progress = None
    module = state.compressed
    layers = [layer for layer in find_layers(module) if layer.tensor is None]
    if not layers:
        raise FewbitsError("unknown-layer", "the model has no layers with float weights")
    weights = sum(int(np.prod(layer.shape)) for layer in layers)
    work = macs(module)
    study = _Study(module, data)
    progress.phase("compress one layer at a time")
    table = []
    for done, layer in enumerate(layers, 1):
        table += [study.choice(layer, candidate, work.get(layer.name, 0)) for candidate in parsed]
        progress.samples(done, len(layers))
    costs = np.array([_cost(choice, kind, activation_bits) for choice in table], np.float64)
    limit = budget * weights if kind == "bits" else budget
    picked = _assign(table, costs, limit, len(parsed), kind)
    choices = tuple(table[index] for index in picked)
    by_text = {candidate.text: candidate for candidate in parsed}
    cost = float(costs[picked].sum())
    return Found(
        choices=choices,
        cost=cost / weights if kind == "bits" else cost,
        budget=budget,
        predicted=sum(choice.damage for choice in choices),
        measured=study.damage(
            {
                choice.layer: by_text[choice.candidate].compress(layer.weight)
                for choice, layer in zip(choices, layers, strict=True)
            }
        ),
        table=tuple(table),
        recipe=_recipe(choices, by_text, f"{budget:g} {kind}"),
    )


def _cost(choice: Choice, kind: Budget, activation_bits: int) -> float:
    if kind == "bops":
        return choice.macs * activation_bits * choice.bits / max(choice.weights, 1)
    return choice.bits / 8 if kind == "bytes" else float(choice.bits)


def _assign(
    table: Sequence[Choice], costs: np.ndarray, limit: float, options: int, kind: Budget
) -> list[int]:
    """Indices into `table`, one per layer: least damage, cost within the limit (0/1 program)."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    layers = len(table) // options
    least = costs.reshape(layers, options).min(axis=1).sum()
    if least > limit:
        raise FewbitsError(
            "bad-budget",
            f"the smallest candidates need {least:.4g}, the budget is {limit:.4g} "
            f"({'bits' if kind == 'bits' else kind} of all layers)",
            hint="allow more, or add candidates of fewer bits",
        )
    damages = np.array([choice.damage for choice in table])
    # Numbers near 1 for the solver: costs as shares of the limit, damages of the largest damage.
    rows = np.repeat(np.arange(layers), options)
    one_each = csr_array((np.ones(len(table)), (rows, np.arange(len(table)))))
    result = milp(
        damages / max(damages.max(), 1e-300),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint((costs / limit)[None, :], -np.inf, 1.0),
        ],
        integrality=np.ones(len(table)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 1e-6, "time_limit": 60.0},
    )
    if result.x is None:
        raise FewbitsError(
            "bad-budget", f"no assignment found: {result.message}", hint="allow a larger budget"
        )
    return [int(i) for i in np.flatnonzero(np.round(result.x))]


def _recipe(choices: Sequence[Choice], candidates: dict[str, Candidate], budget: str) -> Recipe:
    """One ``quantize_weights`` per format that was chosen, for the layers that chose it."""
    passes: list[str | dict[str, dict[str, Any] | None]] = ["canonicalize"]
    for text, candidate in candidates.items():
        names = [choice.layer for choice in choices if choice.candidate == text]
        if candidate.options and names:
            passes.append({"quantize_weights": {**candidate.options, "targets": names}})
    return Recipe(description=f"mixed precision within {budget}", passes=tuple(passes))


class _Study:
    """Measures the outputs of modules with some layers compressed against the float module's."""

    def __init__(self, module: ir.IRModule, data: Calibration) -> None:
        from ..ops.evaluate import output_names

        self.module = module
        self.data = data
        self.names = output_names(module)
        self.reference = self._outputs(module)
        self.signal = sum(float((v.astype(np.float64) ** 2).sum()) for v in self.reference)

    def _outputs(self, module: ir.IRModule) -> list[np.ndarray]:
        return [v[name] for v in self.data.run(module, []) for name in self.names]

    def choice(self, layer: Layer, candidate: Candidate, macs: int) -> Choice:
        """One layer in one format."""
        weights = int(np.prod(layer.shape))
        tensor = candidate.compress(layer.weight)
        if tensor is None:
            return Choice(layer.name, candidate.text, 0.0, weights * FLOAT_BITS, weights, macs)
        damage = self.damage({layer.name: tensor})
        return Choice(layer.name, candidate.text, damage, tensor.total_bits, weights, macs)

    def damage(self, tensors: dict[str, CompressedTensor | None]) -> float:
        """Squared error of the outputs over their squared size, with these layers' weights."""
        from ..passes.layers import Replacement, replace_layers

        def shrink(layer: Layer) -> Replacement | None:
            tensor = tensors.get(layer.name)
            return None if tensor is None else Replacement(tensor.decode().reshape(layer.shape))

        got = self._outputs(replace_layers(self.module, shrink))
        pairs = zip(got, self.reference, strict=True)
        noise = sum(float(((g.astype(np.float64) - w) ** 2).sum()) for g, w in pairs)
        return noise / max(self.signal, 1e-300)
