"""The report (being written)."""

from pathlib import Path
from typing import Any


def write_report(folder: Path, manifest: dict[str, Any]) -> None:
    """Nothing yet."""
