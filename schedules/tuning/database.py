"""Results of tuning on disk: a text file for each kind of CPU, a line of JSON for each result.

Files are meant to be read, kept with a project, copied between machines and joined (`cat` does).
A line that makes no sense, or was written by a later version, is left out and counted; where lines
contradict each other the last one holds.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from tvm import target as tvm_target

from .choices import Sizes
from .lines import read_lines, replace_lines

_Positive = Annotated[int, pydantic.Field(ge=1, le=1 << 20)]
_Time = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]


@dataclasses.dataclass(frozen=True)
class Cpu:
    """What decides which sizes are best, apart from the workload.

    Attributes:
        name: LLVM's name.
        features: how it differs from others of that name, as LLVM writes it.
        cores: that compute together; 0 where the target does not say.
    """

    name: str
    features: tuple[str, ...]
    cores: int

    @classmethod
    def of(cls, target: tvm_target.Target, cores: int) -> Cpu:
        """The CPU of an ``llvm`` target."""
        features = sorted(str(feature) for feature in target.attrs.get("mattr", []))
        return cls(str(target.attrs.get("mcpu", "")), tuple(features), cores)

    @property
    def key(self) -> str:
        """A file's name: ``znver5-2cores-4f0c21d8``."""
        digest = hashlib.sha256("\n".join([self.name, *self.features]).encode()).hexdigest()[:8]
        cores = f"{self.cores}cores" if self.cores else "any"
        return f"{re.sub('[^A-Za-z0-9.]+', '-', self.name)}-{cores}-{digest}"


class Record(pydantic.BaseModel):
    """One result.

    Attributes:
        version: of this form.
        workload: the workload's key.
        title: the workload for people.
        facts: the workload itself.
        cpu: the CPU's key.
        bindings: sizes of symbolic dimensions that were measured; at least one set, maybe empty.
        rule: the sizes by rule.
        rule_us: microseconds with them, for each binding.
        sizes: the best sizes.
        best_us: microseconds with them.
        trials: how many sizes were tried.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    workload: str
    title: str
    facts: dict[str, Any]
    cpu: str
    bindings: Annotated[tuple[dict[str, _Positive], ...], pydantic.Field(min_length=1)]
    rule: tuple[_Positive, ...]
    rule_us: tuple[_Time, ...]
    sizes: tuple[_Positive, ...]
    best_us: tuple[_Time, ...]
    trials: int

    @property
    def speedup(self) -> float:
        """How many times as fast as by rule, the geometric mean over the bindings."""
        product = 1.0
        for rule, best in zip(self.rule_us, self.best_us, strict=True):
            product *= rule / best
        return product ** (1 / len(self.rule_us))

    def line(self) -> str:
        """The record as a line of a file."""
        return json.dumps(self.model_dump(), sort_keys=True, ensure_ascii=False)


class Database:
    """Records in a folder."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def path(self, cpu: Cpu) -> Path:
        """The file of a CPU."""
        return self.folder / f"{cpu.key}.jsonl"

    def read(self, cpu: Cpu) -> tuple[list[Record], int]:
        """The records for a CPU in order, and how many lines make no sense.

        Raises:
            FewbitsError: ``unreadable-file``.
        """
        records: list[Record] = []
        lost = 0
        for line in read_lines(self.path(cpu)):
            record = _parsed(line)
            if record is None or record.cpu != cpu.key:
                lost += 1
            else:
                records.append(record)
        return records, lost

    def sizes(self, cpu: Cpu) -> dict[str, Sizes]:
        """The best sizes for a CPU by the workload's key; the last record of each holds."""
        return {record.workload: record.sizes for record in self.read(cpu)[0]}

    def find(self, cpu: Cpu, workload: str, bindings: Sequence[dict[str, int]]) -> Record | None:
        """The last record of a workload with the same bindings."""
        for record in reversed(self.read(cpu)[0]):
            if record.workload == workload and list(record.bindings) == list(bindings):
                return record
        return None

    def add(self, cpu: Cpu, record: Record) -> None:
        """Keep a record in place of an earlier one of the same workload and bindings.

        The file is replaced in one step, and processes take turns.

        Raises:
            FewbitsError: ``output-not-writable``.
        """

        def lines() -> list[str]:
            kept = [
                other.line()
                for other in self.read(cpu)[0]
                if (other.workload, other.bindings) != (record.workload, record.bindings)
            ]
            return [*kept, record.line()]

        replace_lines(self.path(cpu), lines)


def _parsed(line: str) -> Record | None:
    try:
        record = Record.model_validate_json(line)
    except pydantic.ValidationError:
        return None
    counts = {len(record.bindings), len(record.rule_us), len(record.best_us)}
    same = len(counts) == 1 and len(record.rule) == len(record.sizes)
    return record if same else None
