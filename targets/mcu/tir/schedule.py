"""Schedules for one core, little memory and no caches worth tuning for."""

from __future__ import annotations

from tvm import tirx


def schedule(function: tirx.PrimFunc) -> tirx.PrimFunc:
    return function
