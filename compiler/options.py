"""What `compile` can be asked for, in one immutable object."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import FewbitsError, nearest
from ..schedules.tuning.folder import default_folder
from .recipe import Recipe

#: The road, in order; ``--to`` stops after one of them.
PHASES = ("import", "compress", "lower", "emit", "build", "verify")


@dataclasses.dataclass(frozen=True)
class Options:
    """Everything that decides the product, apart from model and data.

    Attributes:
        target: name of the target; a board implies one.
        recipe: name or path of a recipe, or the recipe itself.
        board: name of a board: its memories become the budgets, its memory map the linker script.
        ram, flash: budgets in bytes; None for the board's, or no limit.
        compiler: a GNU (cross) compiler instead of the default.
        name: of the model in C; None to take it from the file.
        seed: of every random choice.
        bind: sizes of symbolic dimensions.
        samples: how many calibration samples to use at most.
        pass_options: options of passes on top of the recipe's, by pass name.
        cache: folder where solved layers are kept, so that a run that was killed goes on; None to
            keep nothing.
        tuning: folder with records of tuned kernels; None to use none. By default the one that
            `fewbits tune` writes.
        float_type: how floats are stored between operators: ``float16``, ``bfloat16`` or
            ``float32``; None for the target's default.
        golden: how many golden vectors to ship.
        keep_model: put the float model into the product's folder, so that `verify` can compare
            with it.
        to: the last phase.
        dump_ir: a folder for the module after every phase.
        force: overwrite an output folder that fewbits did not write.
    """

    target: str = "cortex-m4"
    recipe: str | Path | Recipe = "int8"
    board: str | None = None
    ram: int | None = None
    flash: int | None = None
    compiler: str | None = None
    name: str | None = None
    seed: int = 0
    bind: Mapping[str, int] = dataclasses.field(default_factory=dict)
    samples: int | None = None
    pass_options: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    cache: Path | None = None
    tuning: Path | None = dataclasses.field(default_factory=default_folder)
    float_type: str | None = None
    golden: int = 4
    keep_model: bool = True
    to: str = "verify"
    dump_ir: Path | None = None
    force: bool = False

    def __post_init__(self) -> None:
        if self.to not in PHASES:
            raise FewbitsError(
                "unknown-option",
                f"no phase {self.to!r}",
                where="--to",
                hint=nearest(self.to, PHASES),
            )
        if not 0 <= self.golden <= 1000:
            raise FewbitsError(
                "unknown-option",
                f"{self.golden} golden vectors cannot be shipped",
                where="--golden",
                hint="between 0 and 1000; 4 is the default",
            )
        for option, size in (("--ram", self.ram), ("--flash", self.flash)):
            if size is not None and size <= 0:
                raise FewbitsError(
                    "unknown-option",
                    "a budget is more than nothing",
                    where=option,
                    hint="write 128K or 131072",
                )

    def reaches(self, phase: str) -> bool:
        """Whether the road goes as far as this phase."""
        return PHASES.index(phase) <= PHASES.index(self.to)


_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kKmM]?)(i?[bB]?)\s*")


def parse_size(text: str, option: str) -> int:
    """Bytes from ``131072``, ``128K``, ``128 KiB`` or ``1M`` (K = 1024).

    Raises:
        FewbitsError: ``unknown-option``.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise FewbitsError(
            "unknown-option", f"{text!r} is not a size", where=option, hint="write 128K or 131072"
        )
    factor = {"": 1, "k": 1024, "m": 1024 * 1024}[match.group(2).lower()]
    return int(float(match.group(1)) * factor)


def parse_bindings(texts: list[str]) -> dict[str, int]:
    """``["T=128"]`` to ``{"T": 128}``.

    Raises:
        FewbitsError: ``unknown-option``.
    """
    bound: dict[str, int] = {}
    for text in texts:
        name, equals, value = text.rpartition("=")
        if not equals or not name or not value.isdigit() or not 0 < int(value) < 2**31:
            raise FewbitsError(
                "unknown-option",
                f"{text!r} does not bind a dimension",
                where="--bind",
                hint="write NAME=SIZE, e.g. --bind T=128",
            )
        bound[name] = int(value)
    return bound
