"""The command line. Nothing heavy is imported until a verb needs it."""

from .app import app, main

__all__ = ["app", "main"]
