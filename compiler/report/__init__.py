"""The report of a compiled model: where flash, RAM, instructions and error go."""

from .write import write_report

__all__ = ["write_report"]
