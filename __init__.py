"""fewbits: ONNX in, few-bit binary out.

    import fewbits

    artifact = fewbits.compile("model.onnx", "build", target="cortex-m4", calibration="data.npz")
    model = fewbits.load("build")
    outputs = model(input=array)        # runs the firmware in the emulator

Nothing heavy is imported before it is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .compiler.api import LoadedModel, compile, load, quantize
    from .compiler.recipe import Recipe
    from .errors import FewbitsError
    from .targets.base import Target

__all__ = [
    "FewbitsError",
    "LoadedModel",
    "Recipe",
    "Target",
    "__version__",
    "compile",
    "load",
    "quantize",
]

_PLACES = {
    "compile": ("compiler.api", "compile"),
    "load": ("compiler.api", "load"),
    "quantize": ("compiler.api", "quantize"),
    "LoadedModel": ("compiler.api", "LoadedModel"),
    "Recipe": ("compiler.recipe", "Recipe"),
    "Target": ("targets.base", "Target"),
    "FewbitsError": ("errors", "FewbitsError"),
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    module, attribute = _PLACES[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
