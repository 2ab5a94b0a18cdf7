"""What is said about a compilation: the manifest, the interface, the reference, the budgets."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from .artifact import MANIFEST_VERSION, Port, sha256

if TYPE_CHECKING:
    from .driver import Compilation


def ports(state: Compilation) -> tuple[list[Port], list[Port]]:
    """The interface: names and real dtypes of the ONNX model, codes of the firmware."""
    assert state.integer is not None and state.firmware is not None
    program = state.firmware.program
    ports: list[list[Port]] = []
    for infos, buffers, known in (
        (state.imported.inputs, program.inputs, state.integer.interface.inputs),
        (state.imported.outputs, program.outputs, state.integer.interface.outputs),
    ):
        ports.append(
            [
                Port(
                    info.name,
                    buffer.shape,
                    buffer.dtype,
                    None if meaning is None else meaning[0],
                    0 if meaning is None else meaning[1],
                    info.dtype,
                )
                for info, buffer, meaning in zip(infos, buffers, known, strict=True)
            ]
        )
    return ports[0], ports[1]


def table_rows(state: Compilation) -> dict[str, object]:
    """Rows for the generated README's table."""
    return {"recipe": state.recipe.name, "fewbits": __version__}


def describe(state: Compilation, inputs: list[Port], outputs: list[Port]) -> dict[str, Any]:
    """The manifest, as far as it is known before anything is built."""
    assert state.firmware is not None and state.integer is not None
    program, plan = state.firmware.program, state.firmware.plan
    floats = [call.layer for call in program.calls if call.note and "float" in call.note]
    return {
        "fewbits": {"version": __version__, "manifest": MANIFEST_VERSION},
        "model": {
            "name": program.name,
            "sha256": sha256(state.imported.onnx_model.SerializeToString(deterministic=True)),
            "opset": state.imported.opset,
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
        "function": f"{state.firmware.interface.model}_run",
        "macs": sum(call.macs for call in program.calls),
        "instructions_per_inference": None,
        "flash_bytes": None,
        "ram_bytes": plan.arena_bytes,
        "text_bytes": None,
        "weights_bytes": state.firmware.constant_bytes,
        "score": None,
        "float_layers": floats,
        "layers": [
            {
                "name": call.layer,
                "operator": call.operator,
                "kernel": call.function,
                "macs": call.macs,
                "live_bytes": live,
                "scratch_bytes": call.scratch,
                "flash_bytes": state.firmware.layer_bytes[index],
                "instructions": None,
                "snr_db": None,
                "note": call.note,
            }
            for index, (call, live) in enumerate(zip(program.calls, plan.live_bytes, strict=True))
        ],
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


def write_reference(state: Compilation, folder: Path) -> None:
    """What `verify` compares with: the float model, and the integer module."""
    import tvm

    assert state.integer is not None
    reference = folder / "reference"
    reference.mkdir()
    (reference / "model.onnx").write_bytes(
        state.imported.onnx_model.SerializeToString(deterministic=True)
    )
    (reference / "float.json").write_text(tvm.ir.save_json(state.reference), "utf-8")
    (reference / "integer.json").write_text(tvm.ir.save_json(state.integer.module), "utf-8")


def check_budgets(state: Compilation, flash_bytes: int, static_ram: int) -> None:
    """Refuse what exceeds ``--ram`` or ``--flash``, or the board's memories.

    Raises:
        FewbitsError: ``over-budget``, with what would fit.
    """
    from ..targets.mcu.boards import BOARDS, get_board
    from ..targets.mcu.memory import check_budget

    assert state.firmware is not None
    board = get_board(state.options.board) if state.options.board else None
    ram = state.options.ram or (board.ram.size if board else None)
    flash = state.options.flash or (board.flash.size if board else None)
    check_budget(
        state.firmware.plan,
        flash_bytes=flash_bytes,
        static_ram_bytes=static_ram,
        ram=ram,
        flash=flash,
        devices=[_Device(b.name, b.ram.size, b.flash.size) for b in BOARDS.values()],
    )


@dataclasses.dataclass(frozen=True)
class _Device:
    """A board as `check_budget` sees it."""

    name: str
    ram: int
    flash: int
