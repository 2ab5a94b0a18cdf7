"""What is said about a compilation: the manifest and the interface."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from .. import __version__
from .artifact import MANIFEST_VERSION, Port, sha256

if TYPE_CHECKING:
    from .driver import Compilation


def ports(state: Compilation) -> tuple[list[Port], list[Port]]:
    """The interface: names and real dtypes of the ONNX model, codes of the product."""
    assert state.product is not None
    inputs, outputs = (
        [
            Port(
                info.name,
                value.shape,
                value.dtype,
                None if value.meaning is None else value.meaning[0],
                0 if value.meaning is None else value.meaning[1],
                info.dtype,
            )
            for info, value in zip(infos, values, strict=True)
        ]
        for infos, values in (
            (state.imported.inputs, state.product.inputs),
            (state.imported.outputs, state.product.outputs),
        )
    )
    return inputs, outputs


def table_rows(state: Compilation) -> dict[str, object]:
    """Rows for the generated README's table."""
    return {"recipe": state.recipe.name, "fewbits": __version__}


def describe(
    state: Compilation, inputs: list[Port], outputs: list[Port], *, kept: bool = True
) -> dict[str, Any]:
    """The manifest, as far as it is known before anything is built; `kept`: the float model is."""
    assert state.product is not None
    return {
        "fewbits": {"version": __version__, "manifest": MANIFEST_VERSION},
        "model": {
            "name": state.name,
            "sha256": sha256(state.imported.onnx_model.SerializeToString(deterministic=True)),
            "opset": state.imported.opset,
            "kept": kept,
        },
        "target": state.target.name,
        "board": state.options.board,
        "recipe": {
            "name": state.recipe.name,
            "passes": [str(pass_) for pass_ in state.recipe.build()],
        },
        "seed": state.options.seed,
        "calibration": _describe_calibration(state),
        "inputs": [dataclasses.asdict(port) for port in inputs],
        "outputs": [dataclasses.asdict(port) for port in outputs],
        **state.product.describe(),
        "notes": [*state.imported.notes, *(_note_text(n) for n in state.context.notes)],
    }


def _note_text(note: Any) -> str:
    place = f"{note.layer}: " if note.layer else ""
    return f"{note.pass_name}: {place}{note.message}"


def _describe_calibration(state: Compilation) -> dict[str, Any] | None:
    if state.calibration is None:
        return None
    digest, samples = [], 0
    for batch in state.calibration():
        samples += len(next(iter(batch.values())))
        digest += [sha256(batch[key].tobytes()) for key in sorted(batch)]
    return {
        "source": state.calibration_source,
        "samples": samples,
        "sha256": sha256("".join(digest).encode()),
    }
