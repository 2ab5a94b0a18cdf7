"""Converters by family of operators; `convert.py` merges their tables."""
