"""Which kernels are worth measuring: the cost models' best, no two too alike, and a random share.

Models rank well and are wrong in places, so most trials go to their favourites; as variants of one
tile cost about the same by a model, each favourite makes those that differ from it in one field
less attractive. The random share finds what the models are blind to.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from ..architecture import Architecture
from ..dispatch import Choice, choose
from ..problem import Linear
from ..template import Template
from .sizes import fields_of

#: Share of the trials that is random.
_RANDOM = 0.25
#: What is that many times slower by the model is not tried at random.
_HOPELESS = 4.0
#: A model's time counts that much more for each choice already taken that is nearly the same.
_ALIKE = 0.1


def candidates(
    problem: Linear,
    architecture: Architecture,
    rows: int,
    options: Sequence[Template],
    limit: int,
    seed: int = 0,
) -> list[Choice]:
    """What to measure, first what is used where nothing was measured.

    Args:
        problem: the product.
        architecture: what kernels are for.
        rows: how many.
        options: templates that take the product.
        limit: how many candidates at most, at least 1.
        seed: of the random share; equal arguments give equal candidates.
    """
    first = choose(problem, architecture, rows, options)
    others = [
        Choice(template, sizes, template.seconds(problem, architecture, rows, sizes))
        for template in options
        for sizes in template.space(problem, architecture)
    ]
    others = [choice for choice in others if choice.label != first.label]
    others.sort(key=lambda choice: choice.seconds)
    lucky = int((limit - 1) * _RANDOM)
    taken = _favourites(first, others, limit - 1 - lucky)
    names = {choice.label for choice in taken}
    rest = [
        choice
        for choice in others
        if choice.label not in names and choice.seconds <= _HOPELESS * taken[0].seconds
    ]
    dice = random.Random(f"{seed} {problem.key} {architecture.name} {rows}")
    return taken + dice.sample(rest, min(lucky, len(rest)))


def _favourites(first: Choice, others: Sequence[Choice], count: int) -> list[Choice]:
    """`first`, the best of every template, and the best that are not too alike."""
    taken, left = [first], list(others[: 64 * max(count, 1)])
    costs = [choice.seconds for choice in left]
    fields = [_fields(choice) for choice in left]
    missing = {choice.template.name for choice in others} - {first.template.name}

    def take(place: int) -> None:
        mine = fields.pop(place)
        taken.append(left.pop(place))
        costs.pop(place)
        for other, theirs in enumerate(fields):
            if _nearly(mine, theirs):
                costs[other] *= 1 + _ALIKE

    for other, theirs in enumerate(fields):
        if _nearly(_fields(first), theirs):
            costs[other] *= 1 + _ALIKE
    for choice in others:
        if choice.template.name in missing and len(taken) <= count:
            missing.remove(choice.template.name)
            if choice in left:
                take(left.index(choice))
            else:
                taken.append(choice)
    while left and len(taken) <= count:
        take(min(range(len(left)), key=costs.__getitem__))
    return taken


def _fields(choice: Choice) -> dict[str, Any]:
    return {"template": choice.template.name, **fields_of(choice.sizes)}


def _nearly(one: dict[str, Any], other: dict[str, Any]) -> bool:
    if one["template"] != other["template"]:
        return False
    return sum(one[name] != value for name, value in other.items()) <= 1
