"""The road of a model, top to bottom: import, compress, lower, emit, build, verify."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import FewbitsError
from ..targets.base import Product, Request, Target
from ..targets.catalogue import get_target
from ..targets.project import check_replaceable, output_folder
from .artifact import MANIFEST, Artifact, file_hashes, manifest_text
from .data import Batch, Source, load_arrays, open_batches, random_batches
from .description import describe, ports, table_rows
from .files import write_file
from .options import Options
from .progress import Progress, layer_progress, quiet
from .recipe import Recipe, load_recipe
from .reference import write_reference

if TYPE_CHECKING:
    from tvm import ir

    from ..passes.base import Pass, PassContext
    from .importer import ImportedModel

#: How many samples `--calibration random` makes.
RANDOM_SAMPLES = 16


@dataclasses.dataclass
class Compilation:
    """What is known so far; later phases fill the later fields.

    Attributes:
        options: what was asked for.
        recipe: the resolved recipe.
        target: what the product is for.
        name: of the model in the product.
        imported: the model as imported.
        context: calibration, seed and the passes' notes.
        reference: the float module that results are compared with.
        compressed: the module after the recipe's passes.
        product: the target's own form of it, ready to be built.
    """

    options: Options
    recipe: Recipe
    target: Target
    name: str
    imported: ImportedModel
    context: PassContext
    calibration: Callable[[], Iterator[Batch]] | None
    calibration_source: str | None
    reference: ir.IRModule
    compressed: ir.IRModule | None = None
    product: Product | None = None


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

    # Sizes stay open where the target can run any, and every pass can work on them.
    dynamic = target.keeps_symbols and all(pass_.keeps_symbols for pass_ in passes)
    imported = import_onnx(model, bind=options.bind, dynamic=dynamic)
    _dump(options, "0-import", imported.module)
    batches, source = _calibration(calibration, imported, options)
    context = PassContext(seed=options.seed, cache=options.cache)
    if batches is not None:
        # Reading everything once finds what is wrong with the data before any work is done.
        total = sum(len(next(iter(batch.values()))) for batch in batches())
        context.calibration = Calibration(batches, source or "", total)
    state = Compilation(
        options=options,
        recipe=recipe,
        target=target,
        name=options.name or _model_name(model, imported.name),
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
        state.context.progress = layer_progress(pass_.name, progress)
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
    evaluation: str | Path | Mapping[str, np.ndarray] | None = None,
) -> Artifact | Compilation:
    """ONNX in, a folder with the product, manifest and report out.

    Args:
        model: path, bytes or ``ModelProto``.
        out: the folder to write; None to stop before anything is written (``options.to`` must then
            be a phase before ``emit``).
        options: see `Options`.
        calibration: sample inputs, see `data`.
        progress: told about phases.
        evaluation: a set to verify with, as in `verify.evaluate_artifact`.

    Returns:
        The artifact; or the unfinished compilation when ``options.to`` is before ``build``.

    Raises:
        FewbitsError: whatever the user can put right. Nothing is written then.
    """
    options = options or Options()
    if options.reaches("emit"):
        if out is None:
            raise FewbitsError(
                "unknown-option", "compiling needs an output folder", hint="give --out build/"
            )
        check_replaceable(Path(out).resolve(), force=options.force)
    if isinstance(evaluation, str | Path):
        evaluation = load_arrays(evaluation)
    state = compress(model, options, calibration, progress)
    if not options.reaches("lower"):
        return state
    assert state.compressed is not None
    progress.phase("lower")
    state.product = state.target.lower(state.compressed, request_of(state))
    _dump(options, "8-lowered", state.product.module)
    state.product.check_budgets()
    if not options.reaches("emit"):
        return state
    assert out is not None
    with output_folder(Path(out), force=options.force) as folder:
        progress.phase("emit")
        manifest = _finish(state, folder, progress)
        write_file(folder / MANIFEST, manifest_text(manifest))
        if evaluation is not None and options.reaches("verify"):
            evaluate_and_keep(Artifact(folder, manifest), evaluation, None, progress)
    return Artifact(Path(out), manifest)


def evaluate_and_keep(
    artifact: Artifact,
    data: str | Path | Mapping[str, np.ndarray],
    limit: int | None,
    progress: Progress,
) -> None:
    """Verify with an evaluation set, and keep the result in manifest and report.

    Raises:
        FewbitsError: as `verify.evaluate_artifact`.
    """
    from .evaluation import evaluate_artifact
    from .report import write_report

    progress.phase("run the evaluation set")
    found = evaluate_artifact(artifact, data, limit=limit, progress=progress)
    artifact.manifest["evaluation"] = found.as_dict()
    artifact.manifest["score"] = found.score
    artifact.save_manifest()
    write_report(artifact.folder, artifact.manifest)


def _finish(state: Compilation, folder: Path, progress: Progress) -> dict[str, Any]:
    """Emit, build, run and describe the product in a folder."""
    from .report import write_report
    from .verify import Oracle, golden_samples, verify_golden

    options, product = state.options, state.product
    assert product is not None
    inputs, outputs = ports(state)
    golden = golden_samples(state, Oracle(product.module), inputs)
    product.emit(folder, golden, table_rows(state))
    whole = _float_model(state)
    write_reference(folder, whole, product.references(state.reference))
    manifest = describe(state, inputs, outputs, kept=whole is not None)
    if options.reaches("build"):
        progress.phase("build")
        manifest.update(product.build(folder, manifest["layers"]))
    if options.reaches("verify"):
        if state.target.runs_here:
            progress.phase("verify")
            manifest.update(verify_golden(state, folder, manifest, golden))
        else:
            manifest["notes"].append(f"not run: {state.target.absence}")
        write_report(folder, manifest)
    manifest["files"] = file_hashes(folder)
    return manifest


def _float_model(state: Compilation) -> Any:
    """The float model, if it is to be kept; None where its weights are in files of their own."""
    model = state.imported.onnx_model
    elsewhere = any(t.data_location == t.EXTERNAL for t in model.graph.initializer)
    return None if elsewhere or not state.options.keep_model else model


def request_of(state: Compilation) -> Request:
    """What the target is told besides the module."""
    options = state.options
    return Request(
        state.name, options.board, options.ram, options.flash, options.compiler, options.tuning,
        options.float_type,
    )  # fmt: skip


def _target(options: Options) -> Target:
    if options.board is None:
        target = get_target(options.target)
    else:
        from ..targets.mcu.boards import get_board

        target = get_target(get_board(options.board).target_name)
    if options.float_type is not None and options.float_type not in target.float_types:
        raise FewbitsError(
            "unknown-option",
            f"{target.name} does not store floats as {options.float_type!r}",
            where="--float",
            hint=f"one of: {', '.join(target.float_types)}",
        )
    return target


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
        write_file(options.dump_ir / f"{name}.py", module.script(show_meta=False))
