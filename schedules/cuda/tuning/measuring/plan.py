"""What is to be measured, as a JSON file beside the libraries."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: The plan's name in its folder, and that of the records that measuring writes.
PLAN, RECORDS = "plan.json", "records.jsonl"
#: The name of every candidate's function in its library.
ENTRY = "candidate"
_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Argument:
    """An array that a kernel gets.

    Attributes:
        shape, dtype: of the array.
        fill: what it holds, as `contents.array` reads it.
    """

    shape: tuple[int, ...]
    dtype: str
    fill: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A kernel to try.

    Attributes:
        template: who made it.
        sizes: the choice, field by field.
        library: file in the plan's folder.
    """

    template: str
    sizes: Mapping[str, int | str | bool]
    library: str

    @property
    def title(self) -> str:
        """For people: ``mma rows=64 columns=64``."""
        return " ".join([self.template, *(f"{k}={v}" for k, v in self.sizes.items())])


@dataclasses.dataclass(frozen=True)
class Case:
    """One product with one number of rows.

    Attributes:
        problem: the product's key.
        architecture: what the libraries are compiled for.
        rows: of x.
        bucket: which numbers of rows the result is for.
        arguments: of every candidate, in order; the last is the result.
        tolerance: how far results may be from the first candidate's, as a share of the largest;
            0: not at all.
        candidates: the first is what is used where nothing was measured.
        layers: names of the layers that compute it.
        calls: how many they are.
    """

    problem: str
    architecture: str
    rows: int
    bucket: int
    arguments: tuple[Argument, ...]
    tolerance: float
    candidates: tuple[Candidate, ...]
    layers: tuple[str, ...] = ()
    calls: int = 1

    def runs_on(self, capability: tuple[int, int]) -> bool:
        """Whether a GPU of this compute capability runs the libraries' machine code."""
        digits = self.architecture.removeprefix("sm_").rstrip("a")
        mine = (int(digits[:-1]), int(digits[-1]))
        if self.architecture.endswith("a"):
            return capability == mine
        return capability[0] == mine[0] and capability >= mine


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything to measure.

    Attributes:
        cases: those with most work first.
        seed: of the arguments' contents.
    """

    cases: tuple[Case, ...]
    seed: int = 0

    def save(self, folder: Path) -> None:
        """Write the plan into a folder."""
        text = json.dumps({"version": _VERSION, **dataclasses.asdict(self)}, indent=1)
        (folder / PLAN).write_text(text + "\n", encoding="utf-8")


def load(folder: Path) -> Plan:
    """The plan in a folder.

    Raises:
        ValueError: there is none, or it is of another version, or damaged.
    """
    try:
        content = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        if content.pop("version") != _VERSION:
            raise ValueError(f"{PLAN} was written by another version of fewbits")
        return Plan(tuple(_case(case) for case in content["cases"]), int(content["seed"]))
    except (OSError, KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder} holds no {PLAN} that can be read: {error}") from error


def _case(content: dict[str, Any]) -> Case:
    arguments = tuple(
        Argument(tuple(int(n) for n in one["shape"]), str(one["dtype"]), dict(one["fill"]))
        for one in content["arguments"]
    )
    candidates = tuple(
        Candidate(str(one["template"]), dict(one["sizes"]), Path(one["library"]).name)
        for one in content["candidates"]
    )
    rest = {**content, "arguments": arguments, "candidates": candidates}
    return Case(**{**rest, "layers": tuple(content["layers"])})
