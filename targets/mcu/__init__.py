"""Microcontrollers: integer-only Relax to C firmware."""
