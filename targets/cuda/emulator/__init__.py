"""A GPU in software: the libraries that TVM's CUDA runtime calls, over an interpreter of PTX."""

from .install import Checks, Statistics, fault, install, reporting, reset, statistics

__all__ = ["Checks", "Statistics", "fault", "install", "reporting", "reset", "statistics"]
