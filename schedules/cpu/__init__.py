"""Loops for CPUs: float operators here, few-bit kernels in the files named after them."""

from .machine import Machine
from .module import schedule_module
from .tile import Tile, default_tile

__all__ = ["Machine", "Tile", "default_tile", "schedule_module"]
