"""The folder of a sweep: one small JSON file for each cell that has ended, called by its key.

Whatever ends a sweep, cells that had ended before are there. A folder can serve many plans: each
finds its own cells in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import FewbitsError
from ..files import write_file

MARKER = "sweep.json"
_CELLS = "cells"
#: What is tried again by the next run; the others follow from the cell alone.
_PASSING = frozenset({"failed"})


class Store:
    """Outcomes by key.

    Args:
        folder: made if missing.

    Raises:
        FewbitsError: ``output-exists`` where the folder holds something that is no sweep.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        foreign = folder.exists() and not folder.is_dir()
        if folder.is_dir() and not (folder / MARKER).is_file():
            foreign = any(folder.iterdir())
        if foreign:
            raise FewbitsError(
                "output-exists",
                "this is not a folder of an earlier sweep",
                where=str(folder),
                hint="choose another folder",
            )

    def begin(self, plan: Mapping[str, Any]) -> None:
        """Mark the folder as a sweep's, and keep the plan."""
        text = json.dumps({"fewbits": "sweep", "plan": plan}, indent=2, default=str) + "\n"
        write_file(self.folder / MARKER, text)

    def get(self, key: str) -> dict[str, Any] | None:
        """The outcome of a cell that has ended for good; None where it is still to be run."""
        outcome = self.last(key)
        return None if outcome is None or outcome["status"] in _PASSING else outcome

    def last(self, key: str) -> dict[str, Any] | None:
        """The last outcome, whatever it was. A file that is damaged counts as none."""
        try:
            outcome = json.loads((self.folder / _CELLS / f"{key}.json").read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return outcome if isinstance(outcome, dict) and "status" in outcome else None

    def put(self, key: str, description: Mapping[str, Any], outcome: Mapping[str, Any]) -> None:
        """Keep an outcome, whole or not at all."""
        content = {"cell": description, **outcome}
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        write_file(self.folder / _CELLS / f"{key}.json", text)
