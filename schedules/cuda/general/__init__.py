"""Everything that is no product of matrices gets its threads here."""

from .function import schedule_function
from .module import schedule_module

__all__ = ["schedule_function", "schedule_module"]
