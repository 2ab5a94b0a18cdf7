"""Results of tuning on GPUs: a text file for each architecture, a line of JSON for each result.

Records come from the user's folder and with the package (`schedules/cuda/records`), which hold
what was measured on cards that its makers had. Files may come from anybody: a line that makes no
sense is left out and counted, and sizes are only ever compared with those that a template offers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import pydantic

from ...tuning.lines import read_lines, replace_lines
from ..architecture import ARCHITECTURES
from ..dispatch import BOUNDS

_LONGEST = 1 << 16
_Name = Annotated[str, pydantic.Field(min_length=1, max_length=200)]
_Field = Annotated[str, pydantic.Field(min_length=1, max_length=64)]
_Count = Annotated[int, pydantic.Field(ge=1, le=1 << 31)]
_Size = Annotated[int, pydantic.Field(strict=True, ge=-(1 << 31), le=1 << 31)]
_Time = Annotated[float, pydantic.Field(gt=0, le=3600, allow_inf_nan=False)]
_Word = Annotated[str, pydantic.Field(max_length=64)]

#: What the emulated GPU calls itself: its times mean nothing, so its records are only its own.
EMULATED = "fewbits emulated GPU"


class Record(pydantic.BaseModel):
    """One result.

    Attributes:
        version: of this form.
        problem: the product's key.
        architecture: what was compiled for.
        card: the GPU's name.
        bucket: which numbers of rows it is for: one of `dispatch.BOUNDS`.
        rows: what was measured.
        template: whose kernel was fastest.
        sizes: its sizes.
        seconds: of one call, the median, with the weights not in the cache.
        model_seconds: of what the cost models would have chosen.
        trials: how many kernels were measured.
        date: of the measurement, ``2026-01-31``.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    problem: Annotated[str, pydantic.Field(min_length=1, max_length=_LONGEST)]
    architecture: _Name
    card: _Name
    bucket: _Count
    rows: _Count
    template: _Name
    sizes: Annotated[
        dict[_Field, pydantic.StrictBool | _Size | _Word], pydantic.Field(max_length=32)
    ]
    seconds: _Time
    model_seconds: _Time
    trials: _Count
    date: Annotated[str, pydantic.Field(pattern=r"^\d{4}-\d\d-\d\d$")]

    @property
    def place(self) -> tuple[str, str, str, int]:
        """What two records contradict each other about: the later one holds."""
        return self.problem, self.architecture, self.card, self.bucket

    @property
    def emulated(self) -> bool:
        """Whether no real GPU was measured."""
        return self.card.startswith(EMULATED)

    def line(self) -> str:
        """The record as a line of a file."""
        return json.dumps(self.model_dump(), sort_keys=True, ensure_ascii=False)


def parsed(line: str) -> Record | None:
    """A line as a record, or None where it makes no sense."""
    if len(line) > 2 * _LONGEST:
        return None
    try:
        record = Record.model_validate_json(line)
    except pydantic.ValidationError:
        return None
    known = record.architecture in ARCHITECTURES and record.bucket in BOUNDS
    return record if known else None


def records_in(path: Path) -> tuple[list[Record], int]:
    """A file's records, and how many of its lines make no sense.

    Raises:
        FewbitsError: ``unreadable-file``.
    """
    found = [parsed(line) for line in read_lines(path)]
    records = [record for record in found if record is not None]
    return records, len(found) - len(records)


def bucket_of(rows: int) -> int:
    """The bucket that a number of rows falls into; all beyond the largest are one."""
    return next((bound for bound in BOUNDS if rows <= bound), BOUNDS[-1])


def shipped_file(architecture: str) -> Path:
    """The records that came with the package; the file may be missing."""
    return Path(__file__).resolve().parent.parent / "records" / f"{architecture}.jsonl"


class Store:
    """The user's records in a folder."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def path(self, architecture: str) -> Path:
        """An architecture's file."""
        return self.folder / f"cuda-{architecture}.jsonl"

    def read(self, architecture: str) -> tuple[list[Record], int]:
        """The records of an architecture in order, and how many lines make no sense.

        Raises:
            FewbitsError: ``unreadable-file``.
        """
        records, lost = records_in(self.path(architecture))
        mine = [record for record in records if record.architecture == architecture]
        return mine, lost + len(records) - len(mine)

    def find(self, place: tuple[str, str, str, int]) -> Record | None:
        """The record of a problem, architecture, card and bucket."""
        for record in reversed(self.read(place[1])[0]):
            if record.place == place:
                return record
        return None

    def add(self, *records: Record) -> None:
        """Keep records in place of earlier ones of the same places.

        Raises:
            FewbitsError: ``output-not-writable``, ``unreadable-file``.
        """
        for architecture in dict.fromkeys(record.architecture for record in records):
            new = {r.place: r for r in records if r.architecture == architecture}

            def lines(name: str = architecture, new: dict[tuple[str, str, str, int], Record] = new):
                kept = [old for old in self.read(name)[0] if old.place not in new]
                return [record.line() for record in [*kept, *new.values()]]

            replace_lines(self.path(architecture), lines)
