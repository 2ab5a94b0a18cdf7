"""From the text form of a number format to the format: what recipes, files and the CLI read."""

from __future__ import annotations

from ..errors import FewbitsError, nearest
from .base import NumberFormat
from .binary import BinaryCoding
from .codebook import Codebook
from .dynamic import DynamicTree
from .flint import Flint, PowerOfTwo
from .floating import Float
from .integer import Integer
from .logarithmic import Logarithmic

# A new family is a new entry here: each turns a name it knows into a format.
FAMILIES = (Integer, Float, Codebook, DynamicTree, Flint, PowerOfTwo, Logarithmic, BinaryCoding)

_EXAMPLES = (
    "int8", "int8-narrow", "int4", "uint4", "fp8_e4m3fn", "fp8_e5m2", "fp6_e3m2", "fp6_e2m3",
    "fp4_e2m1", "nf4", "af4", "fp4-bnb", "quantile4", "dynamic8", "udynamic8", "dynamic4",
    "flint4", "uflint4", "pot4", "upot4", "log8x16", "bcq3",
)  # fmt: skip


def parse_format(text: str) -> NumberFormat:
    """The format whose `name` is `text`; for every format ``parse_format(f.name) == f``.

    Raises:
        FewbitsError: ``unknown-format`` with the nearest known name, or ``bad-format`` where the
            name is right and its numbers are impossible.
    """
    for family in FAMILIES:
        found = family.parse(text)
        if found is not None:
            return found
    short = text if len(text) <= 40 else f"{text[:37]}..."
    raise FewbitsError(
        "unknown-format", f"no number format is called {short!r}", hint=nearest(short, _EXAMPLES)
    )
