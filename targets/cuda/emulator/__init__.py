"""A GPU in software: the libraries that TVM's CUDA runtime calls, over an interpreter of PTX."""

from .install import Checks, Statistics, fault, install, reporting, reset, statistics
from .machine import LaunchError, TensorMap, launch

__all__ = [
    "Checks",
    "LaunchError",
    "Statistics",
    "TensorMap",
    "fault",
    "install",
    "launch",
    "reporting",
    "reset",
    "statistics",
]
