"""The road of a model, top to bottom: import, compress, lower, emit, build, verify."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__
from ..errors import FewbitsError
from ..targets.mcu.target import McuTarget, get_target
from .artifact import MANIFEST, MANIFEST_VERSION, Artifact, Port, file_hashes, manifest_text, sha256
from .data import Batch, Source, open_batches, random_batches
from .options import Options
from .progress import Progress, quiet
from .recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from tvm import ir

    from ..passes.base import Pass, PassContext
    from ..targets.mcu.firmware import Firmware
    from ..targets.mcu.integer import IntegerModel
    from .importer import ImportedModel

Model = "str | Path | bytes | onnx.ModelProto"

#: How many samples `--calibration random` makes.
RANDOM_SAMPLES = 16


@dataclasses.dataclass
class Compilation:
    """What is known so far; later phases fill the later fields.

    Attributes:
        options: what was asked for.
        recipe: the resolved recipe.
        target: the core.
        imported: the model as imported.
        context: calibration, seed and the passes' notes.
        reference: the float module that int8 results are compared with.
        compressed: the module after the recipe's passes.
        integer: the module that the firmware computes, to the bit.
        firmware: kernel calls, memory plan, C files.
    """

    options: Options
    recipe: Recipe
    target: McuTarget
    imported: ImportedModel
    context: PassContext
    calibration: Callable[[], Iterator[Batch]] | None
    calibration_source: str | None
    reference: ir.IRModule
    compressed: ir.IRModule | None = None
    integer: IntegerModel | None = None
    firmware: Firmware | None = None


def compress(
    model: Any,
    options: Options,
    calibration: Source | str | None = None,
    progress: Progress = quiet,
) -> Compilation:
    """The road up to the compressed module: import, then the recipe's passes in order.

    Args:
        model: path, bytes or ``ModelProto``.
        options: see `Options`.
        calibration: see `data`; ``"random"`` makes random samples; None where none are needed.
        progress: told about phases.

    Raises:
        FewbitsError: whatever is wrong with model, data or options.
    """
    state, passes = _begin(model, options, calibration, progress)
    if options.reaches("compress"):
        state.compressed = _run_passes(state, passes, progress)
    return state


def compress_until(
    model: Any,
    options: Options,
    calibration: Source | str | None,
    stop: str,
    progress: Progress = quiet,
) -> tuple[Compilation, ir.IRModule, Pass]:
    """The road up to the recipe's pass of that name: the module it would get, and the pass.

    Raises:
        FewbitsError: as `compress`; ``unknown-pass`` for a recipe without such a pass.
    """
    state, passes = _begin(model, options, calibration, progress)
    names = [pass_.name for pass_ in passes]
    if stop not in names:
        raise FewbitsError(
            "unknown-pass",
            f"recipe {state.recipe.name!r} has no pass {stop!r}",
            hint="use a recipe that quantizes, e.g. int8",
        )
    position = names.index(stop)
    return state, _run_passes(state, passes[:position], progress), passes[position]


def _begin(
    model: Any, options: Options, calibration: Source | str | None, progress: Progress
) -> tuple[Compilation, list[Pass]]:
    """Check what was asked for, import the model, open the data."""
    target = _target(options)
    recipe = load_recipe(options.recipe)
    if options.pass_options:
        recipe = recipe.with_options(options.pass_options)
    passes = recipe.build()
    progress.phase("import")
    from ..passes.base import PassContext
    from ..passes.calibration import Calibration
    from .importer import import_onnx

    imported = import_onnx(model, bind=options.bind)
    _dump(options, "0-import", imported.module)
    batches, source = _calibration(calibration, imported, options)
    context = PassContext(seed=options.seed)
    if batches is not None:
        # Reading everything once finds what is wrong with the data before any work is done.
        total = sum(len(next(iter(batch.values()))) for batch in batches())
        context.calibration = Calibration(batches, source or "", total)
    state = Compilation(
        options=options,
        recipe=recipe,
        target=target,
        imported=imported,
        context=context,
        calibration=batches,
        calibration_source=source,
        reference=imported.module,
    )
    return state, passes


def _run_passes(state: Compilation, passes: list[Pass], progress: Progress) -> ir.IRModule:
    module = state.imported.module
    for number, pass_ in enumerate(passes, 1):
        progress.phase(str(pass_))
        if state.context.calibration is not None:
            state.context.calibration.progress = progress.samples
        module = pass_.apply(module, state.context)
        _dump(state.options, f"{number}-{pass_.name}", module)
        if pass_.name == "canonicalize":
            state.reference = module
    if state.context.reference is not None:
        state.reference = state.context.reference  # what int8 values are compared with
    return module


def compile(
    model: Any,
    out: str | Path | None,
    options: Options | None = None,
    calibration: Source | str | None = None,
    progress: Progress = quiet,
) -> Artifact | Compilation:
    """ONNX in, a folder with firmware, manifest and report out.

    Args:
        model: path, bytes or ``ModelProto``.
        out: the folder to write; None to stop before anything is written (``options.to`` must then
            be a phase before ``emit``).
        options: see `Options`.
        calibration: sample inputs, see `data`.
        progress: told about phases.

    Returns:
        The artifact; or the unfinished compilation when ``options.to`` is before ``build``.

    Raises:
        FewbitsError: whatever the user can put right. Nothing is written then.
    """
    options = options or Options()
    state = compress(model, options, calibration, progress)
    if not options.reaches("lower"):
        return state
    assert state.compressed is not None
    progress.phase("lower")
    from ..targets.mcu.firmware import make_firmware
    from ..targets.mcu.integer import to_integer

    state.integer = to_integer(state.compressed)
    _dump(options, "8-integer", state.integer.module)
    name = options.name or _model_name(model, state.imported.name)
    state.firmware = make_firmware(state.integer, state.target, name)
    if not options.reaches("emit"):
        return state
    if out is None:
        raise FewbitsError(
            "unknown-option", "compiling needs an output folder", hint="give --out build/"
        )
    from .writing import ArtifactWriter

    with ArtifactWriter(Path(out), force=options.force) as writer:
        progress.phase("emit")
        manifest = _finish(state, writer.folder, progress)
        (writer.folder / MANIFEST).write_text(manifest_text(manifest), "utf-8")
        writer.commit()
    return Artifact(Path(out), manifest)


def _finish(state: Compilation, folder: Path, progress: Progress) -> dict[str, Any]:
    """Emit, build, run and describe the firmware in a folder."""
    from ..targets.mcu.firmware import build_firmware, emit_firmware, map_of
    from .report import write_report
    from .verify import Oracle, golden_samples, verify_golden

    options, integer, firmware = state.options, state.integer, state.firmware
    assert integer is not None and firmware is not None
    oracle = Oracle(integer)
    inputs, outputs = ports(state)
    golden = golden_samples(state, oracle, inputs)
    memory = map_of(options.board)
    emit_firmware(firmware, folder, golden, memory, _info(state))
    _write_reference(state, folder)
    manifest = _describe(state, inputs, outputs)
    if options.reaches("build"):
        progress.phase("build")
        built = build_firmware(firmware, folder, options.compiler, memory)
        manifest.update(built.figures())
        _check_budget(state, built.flash_bytes, built.static_ram_bytes)
        manifest["compiler"] = built.compiler
    if options.reaches("verify"):
        progress.phase("verify")
        manifest.update(verify_golden(state, folder, manifest, golden, oracle))
        write_report(folder, manifest)
    manifest["files"] = file_hashes(folder)
    return manifest


def _target(options: Options) -> McuTarget:
    if options.board is None:
        return get_target(options.target)
    from ..targets.mcu.boards import get_board

    return get_target(get_board(options.board).target_name)


def _calibration(
    source: Source | str | None, imported: ImportedModel, options: Options
) -> tuple[Callable[[], Iterator[Batch]] | None, str | None]:
    if source is None:
        return None, None
    if isinstance(source, str) and source == "random":
        return random_batches(imported.inputs, RANDOM_SAMPLES, options.seed), "random"
    text = Path(source).name if isinstance(source, str | Path) else type(source).__name__
    return open_batches(source, imported.inputs, limit=options.samples), text


def _model_name(model: Any, imported: str) -> str:
    return Path(model).stem if isinstance(model, str | Path) else imported or "model"


def _dump(options: Options, name: str, module: ir.IRModule) -> None:
    if options.dump_ir is not None:
        options.dump_ir.mkdir(parents=True, exist_ok=True)
        (options.dump_ir / f"{name}.py").write_text(module.script(show_meta=False), "utf-8")


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


def _info(state: Compilation) -> dict[str, object]:
    return {"recipe": state.recipe.name, "fewbits": __version__}


def _describe(state: Compilation, inputs: list[Port], outputs: list[Port]) -> dict[str, Any]:
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


def _write_reference(state: Compilation, folder: Path) -> None:
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


def _check_budget(state: Compilation, flash_bytes: int, static_ram: int) -> None:
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


@contextmanager
def temporary_artifact() -> Iterator[Path]:
    """A folder for an artifact that is only looked at (`sensitivity`, tests)."""
    folder = Path(tempfile.mkdtemp(prefix="fewbits-"))
    try:
        yield folder / "artifact"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


__all__ = ["Compilation", "Mapping", "compile", "compress", "np", "temporary_artifact"]
