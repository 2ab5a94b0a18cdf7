"""A family of number formats and a width, as the name of one format: ``int`` and 4 as ``int4``.

The scaling study (spec 1) compares families across widths, so its axes are the two apart; a whole
format name is a family of one.
"""

from __future__ import annotations

import re

from ...errors import FewbitsError, nearest
from ...formats.parse import parse_format

#: Families whose names are the word and the width.
_PLAIN = ("int", "nf", "af", "quantile", "dynamic", "flint", "pot", "bcq")
#: The usual split into exponent and mantissa for each width.
_USUAL_SPLITS = {3: "e2m0", 4: "e2m1", 5: "e2m2", 6: "e3m2", 7: "e3m3", 8: "e4m3fn"}
_EXPONENT = re.compile(r"fp-e([1-7])")
FAMILIES = (*_PLAIN, "fp", "fp-e2", "fp-e3", "fp-e4", "ant")
#: Weights of 16 bits are half-precision floats, whatever the family.
HALF = 16


def format_name(family: str, bits: int | None) -> str | None:
    """The format of that family and width; None where the family has none so wide.

    Args:
        family: of `FAMILIES`, or a format's whole name, which takes no width.
        bits: 2 to 8.

    Raises:
        FewbitsError: ``unknown-format`` for what is neither a family nor a format.
    """
    exponent = _EXPONENT.fullmatch(family)
    if bits is None:
        return parse_format(family).name
    if family == "ant":
        return f"ant{bits}"
    if exponent:
        # One bit is the sign's; a split without mantissa is still a format.
        mantissa = bits - 1 - int(exponent.group(1))
        name = f"fp{bits}_e{exponent.group(1)}m{mantissa}" if mantissa >= 0 else None
    elif family == "fp":
        name = f"fp{bits}_{_USUAL_SPLITS[bits]}" if bits in _USUAL_SPLITS else None
    else:
        name = f"{family}{bits}"
    if name is None:
        return None
    try:
        return parse_format(name).name
    except FewbitsError:
        return None


def check_family(family: str) -> bool:
    """Whether this is a family (True) or the name of one format (False).

    Raises:
        FewbitsError: ``unknown-format`` for what is neither.
    """
    if family in FAMILIES or _EXPONENT.fullmatch(family):
        return True
    try:
        parse_format(family)
    except FewbitsError as error:
        if error.code != "unknown-format":
            raise
        raise FewbitsError(
            "unknown-format",
            f"{family[:40]!r} is neither a family of formats nor a format",
            hint=nearest(family, FAMILIES),
        ) from error
    return False
