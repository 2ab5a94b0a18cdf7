"""The stored form of a binary-coded weight (spec 5), shared by all kernels of its product.

A weight is a sum of a few scales with signs, and an offset where the format has one. Each plane of
signs is a stream of its own. A word has the signs of 32 neighbouring inputs of one output, and four
words of four outputs follow each other, so a lane loads 16 bytes whichever kernel it works for:
lanes of a look-up take neighbouring words of the same outputs, lanes of a tensor core's operand the
rows that belong to them.

In a word input 2m lies at bit m and input 2m + 1 at bit m + 16: a mask takes a pair of neighbours
out as tensor cores want them, and a byte still holds eight inputs, as tables want them.

Scales are relative to a power of two per output, the factor, which multiplies finished sums; so
they fit float16 whatever their magnitude.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ....errors import FewbitsError
from ....formats.binary import BinaryCoding
from ....formats.compressed import CompressedTensor
from ....formats.granularity import PerBlock, PerChannel, PerGroup, PerTensor
from ....formats.sparsity import Dense
from ..weight_format import Array, WeightFormat

ScaleType = Literal["float16", "float32"]

#: Inputs whose signs are a word.
WORD = 32
#: Outputs of a vector of words, and how far they are from each other.
VECTOR, APART = 4, 8
#: Outputs that are stored together.
TILE = VECTOR * APART
#: The shortest groups.
_SHORTEST = 16
#: What `StoredScales.values` gives for a scale of 0.
_NOTHING = 2.0**-126


@dataclasses.dataclass(frozen=True)
class BinaryCoded(WeightFormat):
    """Planes of signs, with scales per plane and output or group of inputs.

    `pack` takes a `CompressedTensor` [outputs, inputs] that `of` gives this layout for.

    Attributes:
        bits: planes, 1 to 8.
        group: inputs that share scales: 16 or a multiple of 32; None where an output has its own.
        scale: dtype of scales and offsets.
        offsets: groups (outputs, where there are no groups) have one.
    """

    bits: int
    group: int | None = None
    scale: ScaleType = "float16"
    offsets: bool = False

    @staticmethod
    def of(tensor: CompressedTensor) -> BinaryCoded:
        """The layout of a tensor.

        Raises:
            FewbitsError: ``no-layout`` where there is none, with the reason; ``not-a-number`` where
                a scale or an offset is NaN or infinite.
        """
        reason = refusal(tensor)
        if reason is not None:
            raise FewbitsError("no-layout", reason, hint="the tensor can be decoded to float16")
        relative, _ = _relative(tensor)
        exact = relative.astype(np.float16).astype(np.float64) == relative
        scale: ScaleType = "float16" if exact.all() else "float32"
        return BinaryCoded(
            tensor.number_format.bits, _group_of(tensor), scale, tensor.offsets is not None
        )

    @property
    def key(self) -> str:
        """``binary3-g64-float16``."""
        group = [] if self.group is None else [f"g{self.group}"]
        parts = [f"binary{self.bits}", *group, self.scale]
        return "-".join(parts + (["offsets"] if self.offsets else []))

    @property
    def terms(self) -> int:
        """Numbers of a group: its planes' scales, and its offset."""
        return self.bits + self.offsets

    def groups(self, inputs: int) -> int:
        """Groups of an output."""
        return 1 if self.group is None else -(-inputs // self.group)

    def arrays(self, outputs: int, inputs: int) -> tuple[Array, ...]:
        """Signs, factors, scales.

        Outputs are padded to 32 and inputs to 32. Signs lie by tile of outputs, output modulo 8,
        plane, word, and output: [tiles, 8, bits, words, 4]; scales, the offset after them, by tile,
        output modulo 8, group, and output: [tiles, 8, groups, terms, 4].
        """
        rows, words = padded(outputs, inputs)
        return (
            Array("signs", (rows * words * self.bits,), "uint32"),
            Array("factors", (rows,), "float32"),
            Array("scales", (rows * self.groups(inputs) * self.terms,), self.scale),
        )

    def pack(self, weight: Any) -> Sequence[np.ndarray]:
        """The arrays of a `CompressedTensor`.

        Raises:
            FewbitsError: ``no-layout`` where its layout is another one; those of `of`.
        """
        tensor: CompressedTensor = weight
        found = BinaryCoded.of(tensor)
        if found != dataclasses.replace(self, scale=found.scale) or self.scale < found.scale:
            raise FewbitsError("no-layout", f"the tensor's layout is {found.key}, not {self.key}")
        outputs, inputs = tensor.shape
        rows, words = padded(outputs, inputs)
        codes = np.pad(tensor.codes(), ((0, rows - outputs), (0, words * WORD - inputs)))
        planes = [_into_words(~(codes >> np.uint8(plane)) & 1) for plane in range(self.bits)]
        signs = _by_tile(np.stack(planes, axis=1))
        relative, factors = _relative(tensor)
        padding = ((0, rows - outputs), (0, 0), (0, 0))
        scales = _by_tile(np.pad(relative, padding)).astype(self.scale)
        factors = np.pad(factors, (0, rows - outputs)).astype(np.float32)
        return [signs, factors, scales]

    def decoded(self, arrays: Sequence[np.ndarray], outputs: int, inputs: int) -> np.ndarray:
        """float64 [outputs, inputs]: the tensor's own values."""
        rows, words = padded(outputs, inputs)
        signs, factors, scales = (np.asarray(array).reshape(-1) for array in arrays)
        planes = _from_words(_by_output(signs, rows, self.bits, words))[..., :inputs]
        terms = _by_output(scales.astype(np.float64), rows, self.groups(inputs), self.terms)
        wide = np.repeat(terms, self.group or inputs, axis=1)[:, :inputs]
        values = (wide[..., : self.bits].transpose(0, 2, 1) * (1.0 - 2.0 * planes)).sum(axis=1)
        if self.offsets:
            values = values + wide[..., -1]
        return (values * factors.astype(np.float64)[:, None])[:outputs]


def refusal(tensor: CompressedTensor) -> str | None:
    """Why there is no layout for a tensor, or None."""
    if not isinstance(tensor.number_format, BinaryCoding):
        return f"{tensor.number_format.name} is no binary coding"
    if len(tensor.shape) != 2:
        return f"a weight has outputs and inputs, not the shape {tensor.shape}"
    if 0 in tensor.shape:
        return "a weight without elements needs no kernel"
    if not isinstance(tensor.sparsity, Dense):
        return f"a {tensor.sparsity.name} weight does not store every code"
    granularity, inputs = tensor.granularity, tensor.shape[1]
    if isinstance(granularity, PerTensor) or granularity in (PerChannel(0), PerChannel(-2)):
        return None
    if isinstance(granularity, PerGroup) and granularity.axis in (1, -1):
        size = granularity.size
    elif isinstance(granularity, PerBlock):
        size = granularity.size
        if size % inputs == 0:
            return None
        if inputs % size:
            return f"blocks of {size} end inside rows of {inputs}"
    else:
        return f"scales per {granularity} are no factor of an output or of a group of inputs"
    if size < inputs and size % _SHORTEST:
        return f"groups of {size} inputs are no multiple of {_SHORTEST}"
    return None


def padded(outputs: int, inputs: int) -> tuple[int, int]:
    """Outputs, and words of inputs, as stored."""
    return -(-outputs // TILE) * TILE, -(-inputs // WORD)


def input_of(byte: int, bit: Any) -> Any:
    """Which of a word's inputs has its sign at this bit of this byte."""
    return WORD // 2 * (byte % 2) + 2 * bit + byte // 2


def _group_of(tensor: CompressedTensor) -> int | None:
    """Inputs that share scales, as kernels count them."""
    size = getattr(tensor.granularity, "size", None)
    if size is None or size >= tensor.shape[1]:
        return None
    return size if size % WORD == 0 else math.gcd(size, WORD)


def _relative(tensor: CompressedTensor) -> tuple[np.ndarray, np.ndarray]:
    """Scales and offsets [outputs, groups, terms] over a power of two per output, and the powers.

    Raises:
        FewbitsError: ``not-a-number``.
    """
    outputs, inputs = tensor.shape
    bits = tensor.number_format.bits
    stored = tensor.scales.values().astype(np.float64)
    scales = np.where(np.isnan(stored) | (stored > _NOTHING), stored, 0.0)
    terms = scales.reshape(-1, bits)
    if tensor.offsets is not None:
        terms = np.concatenate([terms, tensor.offsets.reshape(-1, 1)], axis=1)
    if not np.isfinite(terms).all():
        raise FewbitsError("not-a-number", "a scale of a binary-coded weight is not finite")
    size, group = getattr(tensor.granularity, "size", None), _group_of(tensor)
    if isinstance(tensor.granularity, PerTensor):
        terms = np.broadcast_to(terms, (outputs, *terms.shape))
    elif isinstance(tensor.granularity, PerBlock) and size is not None and size >= inputs:
        terms = np.repeat(terms, size // inputs, axis=0)[:outputs, None]
    else:
        terms = terms.reshape(outputs, -1, terms.shape[1])
    if size is not None and group is not None:
        terms = np.repeat(terms, size // group, axis=1)[:, : -(-inputs // group)]
    largest = np.abs(terms).max(axis=(1, 2))
    powers = np.exp2(np.frexp(largest)[1].astype(np.float64))
    return terms / powers[:, None, None], powers


def _into_words(signs: npt.NDArray[np.integer]) -> npt.NDArray[np.uint32]:
    """Bits [outputs, inputs] as words [outputs, words]."""
    pairs = signs.astype(np.uint32).reshape(signs.shape[0], -1, WORD // 2, 2)
    places = np.arange(WORD, dtype=np.uint32).reshape(2, WORD // 2).T
    return (pairs << places).sum(axis=(2, 3), dtype=np.uint32)


def _from_words(words: np.ndarray) -> np.ndarray:
    """The way back: [..., words] as [..., inputs]."""
    places = np.arange(WORD, dtype=np.uint32).reshape(2, WORD // 2).T
    bits = (words[..., None, None] >> places) & np.uint32(1)
    return bits.reshape(*words.shape[:-1], -1)


def _by_tile(values: np.ndarray) -> np.ndarray:
    """[outputs, a, b] as kernels read it, flat: [tiles, 8, a, b, 4]."""
    outputs, a, b = values.shape
    split = values.reshape(outputs // TILE, VECTOR, APART, a, b)
    return np.ascontiguousarray(split.transpose(0, 2, 3, 4, 1)).reshape(-1)


def _by_output(flat: np.ndarray, outputs: int, a: int, b: int) -> np.ndarray:
    """The way back: [outputs, a, b]."""
    split = flat.reshape(outputs // TILE, APART, a, b, VECTOR)
    return split.transpose(0, 4, 1, 2, 3).reshape(outputs, a, b)
