"""QDQ form to integer form: every quantize whose producers are known becomes integer operators."""

from .convert import integer_only

__all__ = ["integer_only"]
