"""Ranges, scales and zero points as a table and a JSON file in the words of AIMET."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from .files import write_file
from .options import Options
from .progress import Progress, quiet


@dataclasses.dataclass(frozen=True)
class Encoding:
    """One quantized value."""

    name: str
    low: float
    high: float
    scale: float
    zero_point: int


@dataclasses.dataclass(frozen=True)
class Encodings:
    """All quantized values of a model, and the data they were calibrated on."""

    activations: tuple[Encoding, ...]
    source: str
    samples: int

    def as_dict(self) -> dict[str, Any]:
        """The JSON file's content."""
        return {
            "version": "1.0",
            "calibration": {"source": self.source, "samples": self.samples},
            "activation_encodings": {
                e.name: [
                    {
                        "bitwidth": 8,
                        "dtype": "int",
                        "is_symmetric": "False",
                        "min": e.low,
                        "max": e.high,
                        "scale": e.scale,
                        "offset": e.zero_point - 128,
                    }
                ]
                for e in self.activations
            },
        }


def calibrate_model(
    model: Any,
    options: Options,
    calibration: Any,
    out: Path | None = None,
    progress: Progress = quiet,
) -> Encodings:
    """Calibrate a model with the recipe's passes and observers.

    Args:
        model: as for `compile`.
        options: recipe, observer, seed.
        calibration: sample inputs.
        out: a JSON file to write, or None.

    Raises:
        FewbitsError: ``no-calibration`` and whatever is wrong with model or data;
            ``unknown-option`` for a recipe that doesn't quantize.
    """
    from ..passes.quantize.quantize import Quantize
    from .driver import compress_until

    state, module, pass_ = compress_until(model, options, calibration, "quantize", progress)
    assert isinstance(pass_, Quantize)
    progress.phase("observe")
    plan, parameters = pass_.plan(module, state.context)
    grid = pass_.grid()
    activations = tuple(
        Encoding(
            name,
            (grid.minimum - p.zero_point) * p.scale,
            (grid.maximum - p.zero_point) * p.scale,
            p.scale,
            p.zero_point,
        )
        for name, p in ((name, parameters[name]) for name in plan.quantized)
    )
    source = state.context.calibration
    found = Encodings(
        activations, state.calibration_source or "", (source.total or 0) if source else 0
    )
    if out is not None:
        write_file(out, json.dumps(found.as_dict(), indent=2, ensure_ascii=False) + "\n")
    return found
