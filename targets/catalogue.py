"""All targets of all families, none of them loaded before it is asked for.

A family is a package with a module ``target`` that has ``TARGETS``, a dictionary by name.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from ..errors import FewbitsError, nearest
from .base import Target

#: In the order in which they are listed.
FAMILIES = ("mcu", "cpu", "cuda")


def all_targets() -> Iterator[Target]:
    """Every target, family by family."""
    for family in FAMILIES:
        module = importlib.import_module(f".{family}.target", __package__)
        yield from module.TARGETS.values()


def get_target(name: str) -> Target:
    """The target of that name.

    Raises:
        FewbitsError: ``unknown-target``, with the nearest known name.
    """
    known = {target.name: target for target in all_targets()}
    if name not in known:
        raise FewbitsError("unknown-target", f"unknown target {name!r}", hint=nearest(name, known))
    return known[name]
