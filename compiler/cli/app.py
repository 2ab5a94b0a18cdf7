"""The verbs and their options; the work is done elsewhere."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ... import __version__
from .output import console, print_json, print_table, progress, reporting
from .search import search
from .sweep import sweep
from .tune import tune

if TYPE_CHECKING:
    from ..options import Options

app = typer.Typer(
    name="fewbits",
    help="ONNX in, few-bit binary out.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Model = Annotated[Path, typer.Argument(help="ONNX model, float or quantized.", show_default=False)]
Folder = Annotated[
    Path, typer.Argument(help="Folder that `fewbits compile` wrote.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Seed = Annotated[int, typer.Option(help="Seed of every random choice.")]
Bind = Annotated[
    list[str], typer.Option("--bind", help="Size of a symbolic dimension, NAME=SIZE; repeatable.")
]
CalibrationOption = Annotated[
    str | None,
    typer.Option(
        "--calibration",
        "-c",
        help="Sample inputs: an .npz (keys are input names), a folder of .npy/.npz, or `random`.",
    ),
]
RecipeOption = Annotated[str, typer.Option("--recipe", "-r", help="Name or path of a recipe.")]
TargetOption = Annotated[str, typer.Option("--target", "-t", help="See `fewbits targets`.")]
Samples = Annotated[
    int | None, typer.Option("--samples", min=1, help="Use at most so many calibration samples.")
]
CacheFolder = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        help="Folder of solved layers, from which a killed run goes on. [default: $FEWBITS_CACHE "
        "or the user's cache folder]",
    ),
]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Keep no solved layers.")]
KeepFloat = Annotated[
    list[str],
    typer.Option(
        "--keep-float",
        help="Layer to keep float: name, wildcard, re:pattern or operator; repeatable.",
    ),
]
Observer = Annotated[
    str | None,
    typer.Option("--observer", help="minmax, moving, percentile, mse or entropy."),
]


def _pass_options(keep_float: list[str], observer: str | None) -> dict[str, dict[str, Any]]:
    options: dict[str, Any] = {}
    if keep_float:
        options["ignore"] = keep_float
    if observer:
        options["activation_observer"] = observer
    return {"quantize": options} if options else {}


def _cache(folder: Path | None, none: bool) -> Path | None:
    from ...passes.cache import default_folder

    return None if none else folder or default_folder()


def _tuning(folder: Path | None, none: bool) -> Path | None:
    from ...schedules.tuning.folder import default_folder

    return None if none else folder or default_folder()


def _compression(
    recipe: str,
    seed: int,
    bind: list[str],
    samples: int | None,
    keep_float: list[str],
    observer: str | None,
) -> Options:
    """The options of verbs that compress a model and don't build it."""
    from ..options import Options, parse_bindings

    return Options(
        recipe=recipe,
        seed=seed,
        bind=parse_bindings(bind),
        samples=samples,
        pass_options=_pass_options(keep_float, observer),
    )


def _version(value: bool) -> None:
    if value:
        console.print(f"fewbits {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """ONNX in, few-bit binary out."""


@app.command("compile")
def compile_(
    model: Model,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    target: TargetOption = "cortex-m4",
    recipe: RecipeOption = "int8",
    calibration: CalibrationOption = None,
    board: Annotated[
        str | None, typer.Option(help="Board: gives target, memories and linker script.")
    ] = None,
    ram: Annotated[str | None, typer.Option(help="RAM budget, e.g. 128K.")] = None,
    flash: Annotated[str | None, typer.Option(help="Flash budget, e.g. 512K.")] = None,
    cc: Annotated[
        str | None, typer.Option("--cc", help="GNU (cross) compiler instead of zig cc.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The model's name in C.")] = None,
    bind: Bind = [],  # noqa: B006  (typer reads the default)
    keep_float: KeepFloat = [],  # noqa: B006
    observer: Observer = None,
    samples: Samples = None,
    cache: CacheFolder = None,
    no_cache: NoCache = False,
    data: Annotated[
        Path | None, typer.Option("--data", help="Evaluation set: verify with it as well.")
    ] = None,
    golden: Annotated[int, typer.Option(help="Golden vectors to ship.")] = 4,
    keep_model: Annotated[
        bool, typer.Option(help="Keep the float model for `fewbits verify` to compare with.")
    ] = True,
    to: Annotated[str, typer.Option(help="Last phase.")] = "verify",
    dump_ir: Annotated[
        Path | None, typer.Option("--dump-ir", help="Write the module after every phase.")
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace a folder fewbits did not write.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Plan memory and kernels, write nothing.")
    ] = False,
    tuning: Annotated[
        Path | None,
        typer.Option(
            "--tuning",
            help="Folder of tuned kernels (`fewbits tune`). [default: $FEWBITS_TUNING or the "
            "user's data folder]",
        ),
    ] = None,
    no_tuning: Annotated[bool, typer.Option("--no-tuning", help="Use no tuned kernels.")] = False,
    float_type: Annotated[
        str | None,
        typer.Option(
            "--float",
            help="GPUs: how floats are stored between operators: float16, bfloat16 or float32. "
            "[default: float16]",
        ),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Compile a model to firmware or a library: compress, build, run, verify, report."""
    with reporting(as_json):
        from ..driver import compile as compile_model
        from ..options import Options, parse_bindings, parse_size
        from . import show

        options = Options(
            target=target,
            recipe=recipe,
            board=board,
            ram=parse_size(ram, "--ram") if ram else None,
            flash=parse_size(flash, "--flash") if flash else None,
            compiler=cc,
            name=name,
            seed=seed,
            bind=parse_bindings(bind),
            samples=samples,
            cache=_cache(cache, no_cache),
            pass_options=_pass_options(keep_float, observer),
            tuning=_tuning(tuning, no_tuning),
            float_type=float_type,
            golden=golden,
            keep_model=keep_model,
            to="lower" if dry_run else to,
            dump_ir=dump_ir,
            force=force,
        )
        with progress(as_json) as listener:
            result = compile_model(
                model,
                None if dry_run else out,
                options,
                calibration,
                listener,
                evaluation=None if dry_run else data,
            )
        show.compiled(result, as_json)


@app.command()
def quantize(
    model: Model,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The .onnx or .safetensors file to write.")
    ],
    recipe: RecipeOption = "int8",
    calibration: CalibrationOption = None,
    bind: Bind = [],  # noqa: B006
    keep_float: KeepFloat = [],  # noqa: B006
    observer: Observer = None,
    samples: Samples = None,
    cache: CacheFolder = None,
    no_cache: NoCache = False,
    opset: Annotated[int, typer.Option(help="Opset of the file.")] = 21,
    matmul_nbits: Annotated[
        bool, typer.Option("--matmul-nbits", help="Use onnxruntime's MatMulNBits where it fits.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing.")] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Compress a model, write it as ONNX or all its weights as safetensors, and check the file."""
    with reporting(as_json):
        from ..quantized import quantize_model
        from . import show

        options = _compression(recipe, seed, bind, samples, keep_float, observer)
        options = dataclasses.replace(options, cache=_cache(cache, no_cache))
        with progress(as_json) as listener:
            found = quantize_model(
                model,
                out,
                options,
                calibration,
                opset=opset,
                matmul_nbits=matmul_nbits,
                dry_run=dry_run,
                progress=listener,
            )
        show.quantized(found, as_json)


@app.command()
def inspect(
    model: Model,
    target: TargetOption = "cortex-m4",
    bind: Bind = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Show interface, layers, MACs and what would run in integers."""
    with reporting(as_json):
        from ..inspection import inspect_model
        from ..options import parse_bindings
        from . import show

        with progress(as_json) as listener:
            found = inspect_model(model, target, parse_bindings(bind), listener)
        show.inspected(found, as_json)


@app.command()
def calibrate(
    model: Model,
    calibration: CalibrationOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="JSON file for `quantize{encodings=...}`.")
    ] = None,
    recipe: RecipeOption = "int8",
    bind: Bind = [],  # noqa: B006
    observer: Observer = None,
    samples: Samples = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Show the range, scale and zero point of every value that would be quantized."""
    with reporting(as_json):
        from ..encodings import calibrate_model
        from . import show

        options = _compression(recipe, seed, bind, samples, [], observer)
        with progress(as_json) as listener:
            found = calibrate_model(model, options, calibration, out, listener)
        show.calibrated(found, out, as_json)


@app.command()
def sensitivity(
    model: Model,
    calibration: CalibrationOption = None,
    recipe: RecipeOption = "int8",
    bind: Bind = [],  # noqa: B006
    observer: Observer = None,
    samples: Samples = None,
    top: Annotated[int, typer.Option(min=1, help="How many layers the exclude list names.")] = 3,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Rank layers by the damage of quantizing each alone, with a ready exclude list."""
    with reporting(as_json):
        from ..sensitivity import rank_layers
        from . import show

        options = _compression(recipe, seed, bind, samples, [], observer)
        with progress(as_json) as listener:
            ranking = rank_layers(model, options, calibration, listener)
        show.ranked(ranking, top, as_json)


@app.command()
def run(
    folder: Folder,
    input_: Annotated[Path, typer.Option("--input", "-i", help="Inputs: .npz or folder.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The .npz file to write.")
    ] = None,
    raw: Annotated[bool, typer.Option(help="Codes in and out instead of real values.")] = False,
    as_json: Json = False,
) -> None:
    """Run a compiled model on inputs, in the emulator or on this machine."""
    with reporting(as_json):
        from . import show

        with progress(as_json) as listener:
            outputs, instructions = show.run_folder(folder, input_, output, raw, listener)
        show.ran(outputs, instructions, output, as_json)


@app.command()
def verify(
    folder: Folder,
    data: Annotated[
        Path, typer.Option("--data", "-d", help="Inputs by name and `labels`: .npz or folder.")
    ],
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many samples.")] = None,
    as_json: Json = False,
) -> None:
    """Check a compiled model on an evaluation set: accuracy, exactness, distance from float."""
    with reporting(as_json):
        from ..artifact import open_artifact
        from . import show

        with progress(as_json) as listener:
            artifact = show.verified(open_artifact(folder), data, limit, listener)
        show.evaluation(artifact, as_json)


@app.command()
def report(
    folder: Folder,
    as_json: Json = False,
) -> None:
    """Show where bytes, instructions and error go; write report.html anew."""
    with reporting(as_json):
        from ..artifact import open_artifact
        from ..report import write_report
        from . import show

        artifact = open_artifact(folder)
        write_report(artifact.folder, artifact.manifest)
        show.compiled(artifact, as_json)


@app.command()
def targets(as_json: Json = False) -> None:
    """List targets and boards."""
    with reporting(as_json):
        from ...targets.catalogue import all_targets
        from ...targets.mcu.boards import BOARDS

        known = list(all_targets())
        if as_json:
            print_json(
                {
                    "targets": {t.name: t.description for t in known},
                    "boards": {
                        b.name: {
                            "title": b.title,
                            "target": b.target_name,
                            "flash": b.flash.size,
                            "ram": b.ram.size,
                            "clock": b.clock,
                        }
                        for b in BOARDS.values()
                    },
                }
            )
            return
        print_table("Targets", ["name", "what"], ((t.name, t.description) for t in known))
        console.print()
        print_table(
            "Boards",
            ["name", "what", "target", "flash KiB", "RAM KiB", "MHz"],
            (
                (b.name, b.title, b.target_name, b.flash.size // 1024, b.ram.size // 1024,
                 b.clock // 1_000_000)
                for b in BOARDS.values()
            ),
            text=frozenset({"name", "what", "target"}),
        )  # fmt: skip


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this recipe as a file.")] = None,
    as_json: Json = False,
) -> None:
    """List recipes, or print one to start your own from."""
    with reporting(as_json):
        from ..recipe import load_recipe, recipe_names

        if name is not None:
            recipe = load_recipe(name)
            if as_json:
                print_json(recipe.model_dump())
            else:
                console.print(recipe.to_yaml(), end="", markup=False, highlight=False)
            return
        known = [load_recipe(n) for n in recipe_names()]
        if as_json:
            print_json({r.name: r.description for r in known})
        else:
            print_table(None, ["name", "what"], ((r.name, r.description) for r in known))


@app.command()
def formats(as_json: Json = False) -> None:
    """List number formats."""
    with reporting(as_json):
        from ...formats.catalogue import FORMATS

        rows = [(f.name, f.bits, f.used_for, f.description) for f in FORMATS]
        if as_json:
            print_json(
                [dict(zip(("name", "bits", "used_for", "what"), r, strict=True)) for r in rows]
            )
        else:
            print_table(
                None, ["name", "bits", "used for", "what"], rows,
                text=frozenset({"name", "used for", "what"}),
            )  # fmt: skip


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check this machine: versions, compilers, emulator."""
    with reporting(as_json):
        from ..doctor import check

        checks = check()
        if as_json:
            print_json(
                [{"name": c.name, "ok": c.ok, "detail": c.detail, "hint": c.hint} for c in checks]
            )
        else:
            print_table(
                None,
                ["", "what", "detail", "hint"],
                (("✓" if c.ok else "✗", c.name, c.detail, c.hint or "") for c in checks),
                text=frozenset({"what", "detail", "hint"}),
            )
        if not all(c.ok for c in checks):
            raise typer.Exit(1)


app.command()(sweep)
app.command()(search)
app.command()(tune)


def _end(number: int, _: object) -> None:
    """Unwinds, so that what is half written goes away; the status is the shell's for a signal."""
    raise SystemExit(128 + number)


def main() -> None:
    """Entry point of the ``fewbits`` command."""
    signal.signal(signal.SIGTERM, _end)
    app()
