"""Float operators on CPUs."""

from .machine import Machine
from .module import schedule_module

__all__ = ["Machine", "schedule_module"]
