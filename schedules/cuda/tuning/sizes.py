"""Sizes as text, and back: records name a choice field by field."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any

from ..architecture import Architecture
from ..problem import Linear
from ..template import Template


def fields_of(sizes: Any) -> dict[str, int | str | bool]:
    """A choice as plain values, e.g. ``{"rows": 64, "columns": 128}``."""
    return dataclasses.asdict(sizes)


def sizes_from(
    template: Template, problem: Linear, architecture: Architecture, fields: Mapping[str, Any]
) -> Any:
    """The choice of a template's space that has these fields, or None where there is none.

    Nothing is made of the fields themselves: they may come from anybody.
    """
    return _offered(template, problem, architecture).get(_text(fields))


@functools.lru_cache(maxsize=16)
def _offered(template: Template, problem: Linear, architecture: Architecture) -> dict[str, Any]:
    return {_text(fields_of(s)): s for s in template.space(problem, architecture)}


def _text(fields: Mapping[str, Any]) -> str:
    return json.dumps(dict(fields), sort_keys=True)
