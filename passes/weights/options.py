"""How one weight is compressed, in the words of recipes, and what those words stand for.

Users know these words from other tools: ``strategy``, ``group_size``, ``symmetric``, ``num_bits``
with ``type``. They are checked here, once, and everything after sees formats and granularities.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import pydantic

from ...errors import FewbitsError, nearest
from ...formats.adaptive import ant_candidates
from ...formats.base import NumberFormat
from ...formats.granularity import Granularity, PerBlock, PerChannel, PerGroup, PerTensor
from ...formats.parse import parse_format
from ...formats.scales import ScaleStorage
from ...formats.sparsity import NofM, parse_sparsity
from ...formats.vectors import Vectors
from ..solvers.options import SolverName, SolverOptions

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    T = TypeVar("T", bound=DataclassInstance)

STRATEGIES = ("tensor", "channel", "group", "block")
_ADAPTIVE = "ant"
#: Number formats of ``type`` and ``num_bits``; ``{}`` is the number of bits.
_TYPES = {
    "int": "int{}",
    "uint": "uint{}",
    "float": "fp{}",
    "fp": "fp{}",
    "nf": "nf{}",
    "af": "af{}",
    "quantile": "quantile{}",
    "dynamic": "dynamic{}",
    "flint": "flint{}",
    "pot": "pot{}",
    "bcq": "bcq{}",
    "ant": "ant{}",
}
#: The usual split into exponent and mantissa for each width.
_SPLITS = {3: "e2m0", 4: "e2m1", 5: "e2m2", 6: "e2m3", 7: "e3m3", 8: "e4m3fn"}


@dataclasses.dataclass(frozen=True)
class WeightOptions:
    """How a layer's weight is compressed; an entry of `QuantizeWeights.overrides` changes some.

    Attributes:
        format: a number format (docs/formats.md), or ``ant4``: the best of integer, power of two
            and flint for each tensor.
        num_bits, type: instead of `format`: ``num_bits: 4`` with ``type: int`` (the default),
            ``float``, ``nf``, ``flint`` ...
        strategy: values that share a scale: ``tensor``, ``channel`` (an output channel),
            ``group`` (neighbours along the sum), ``block`` (neighbours in memory).
        group_size: of groups and blocks; what is left over makes a shorter last one.
        solver: how codes are found, see docs/compression.md.
        scale_method: ``absmax`` or ``mse`` (searched); None for the solver's own.
        scale_storage: ``float32``, ``float16``, ``bfloat16``, ``e8m0``, ``double``.
        symmetric: no zero points. Integers can also be stored with them.
        sparsity: share of zeros (``0.5``) or a pattern (``"2:4"``: 2 of 4 are kept;
            ``"8x1@0.9"``: 90 % of the vectors of 8 outputs are zero); None for a dense weight.
        activation_order: GPTQ goes from the most to the least excited column.
        damping: added to the Hessian's diagonal, as a share of its mean.
        compensate: aim at the float model's outputs: a layer also makes up for what compression
            did to its inputs. Needs data with every solver.
    """

    format: str | None = None
    num_bits: int | None = None
    type: str | None = None
    strategy: str = "group"
    group_size: int = 128
    solver: SolverName = "rtn"
    scale_method: Literal["absmax", "mse"] | None = None
    scale_storage: ScaleStorage = "float16"
    symmetric: bool = True
    sparsity: float | str | None = None
    activation_order: bool = False
    damping: float = 0.01
    compensate: bool = False

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise _unknown("strategy", self.strategy, STRATEGIES)
        if self.format is not None and (self.num_bits is not None or self.type is not None):
            raise FewbitsError(
                "unknown-option",
                f"format {self.format} and num_bits or type are two answers to one question",
                hint="give one of them",
            )
        if self.type is not None and self.type not in _TYPES:
            raise _unknown("type", self.type, tuple(_TYPES))
        self.solver_options()

    @property
    def format_name(self) -> str:
        """The format, however it was asked for."""
        if self.format is not None:
            return self.format
        kind, bits = self.type or "int", 4 if self.num_bits is None else self.num_bits
        if kind in ("float", "fp") and bits in _SPLITS:
            return f"fp{bits}_{_SPLITS[bits]}"
        return _TYPES[kind].format(bits)

    @property
    def is_adaptive(self) -> bool:
        """Whether each tensor chooses among `candidates`."""
        return _adaptive_bits(self.format_name) is not None

    def candidates(self) -> tuple[NumberFormat, ...]:
        """The number formats that a tensor may take; one, unless `is_adaptive`.

        Raises:
            FewbitsError: ``unknown-format``, ``bad-format``.
        """
        bits = _adaptive_bits(self.format_name)
        return (parse_format(self.format_name),) if bits is None else ant_candidates(bits)

    def granularity(self) -> Granularity:
        """Which values share a scale, of a weight as rows of what is summed over.

        Raises:
            FewbitsError: ``bad-granularity`` for an impossible size.
        """
        if self.strategy == "group":
            return PerGroup(self.group_size, -1)
        if self.strategy == "block":
            return PerBlock(self.group_size)
        return PerChannel(0) if self.strategy == "channel" else PerTensor()

    def solver_options(self) -> tuple[SolverOptions, ...]:
        """What solvers are asked for, one entry per candidate format.

        Raises:
            FewbitsError: ``bad-solver``, ``bad-sparsity`` for what does not go together.
        """
        return tuple(
            SolverOptions(
                self.solver,
                number_format,
                granularity=self.granularity(),
                scale_storage=self.scale_storage,
                symmetric=self.symmetric,
                sparsity=read_sparsity(self.sparsity),
                scale_method=self.scale_method,
                activation_order=self.activation_order,
                damping=self.damping,
            )
            for number_format in self.candidates()
        )

    def changed(self, changes: Mapping[str, Any], where: str) -> WeightOptions:
        """These options with some of them changed.

        Raises:
            FewbitsError: ``unknown-option`` for a name or value that makes no sense.
        """
        known = tuple(field.name for field in dataclasses.fields(self))
        base = self
        if {"format", "num_bits", "type"} & set(changes):
            base = dataclasses.replace(self, format=None, num_bits=None, type=None)
        return check_overrides(base, changes, where, known)


def check_overrides(base: T, changes: Mapping[str, Any], where: str, known: Sequence[str]) -> T:
    """A dataclass with some fields changed, their types checked.

    Raises:
        FewbitsError: ``unknown-option`` for a name that is not `known` or a value of a wrong type.
    """
    for key in changes:
        if key not in known:
            raise FewbitsError(
                "unknown-option",
                f"overrides have no {key!r}",
                where=where,
                hint=nearest(str(key), known),
            )
    fields = {field.name: getattr(base, field.name) for field in dataclasses.fields(base)}
    try:
        return pydantic.TypeAdapter(type(base)).validate_python({**fields, **changes})
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise FewbitsError(
            "unknown-option", f"overrides, {place}: {first['msg']}", where=where
        ) from error


def read_sparsity(sparsity: float | str | None) -> float | NofM | Vectors | None:
    """A share of zeros, n:m or vectors as recipes write it.

    Raises:
        FewbitsError: ``bad-sparsity``.
    """
    if sparsity is None or isinstance(sparsity, float | int):
        return sparsity
    pattern = parse_sparsity(sparsity)
    if isinstance(pattern, Vectors) and pattern.share is not None:
        return pattern
    if not isinstance(pattern, NofM):
        raise FewbitsError(
            "bad-sparsity", f"{sparsity!r} does not say how many values are kept",
            hint="a share of zeros such as 0.5, or a pattern such as 2:4 or 8x1@0.9",
        )  # fmt: skip
    return pattern


def _adaptive_bits(name: str) -> int | None:
    bits = name.removeprefix(_ADAPTIVE)
    if bits == name or not bits.isdigit():
        return None
    if not 3 <= int(bits) <= 8:
        raise FewbitsError("bad-format", f"ant formats have 3 to 8 bits, not {bits}")
    return int(bits)


def _unknown(option: str, value: str, known: tuple[str, ...]) -> FewbitsError:
    return FewbitsError("unknown-option", f"there is no {option} {value!r}",
                        hint=nearest(value, known))  # fmt: skip
