"""The cells of a plan: one model, one recipe, one target, and a name that says all of it.

A cell's key is a hash of everything that its result follows from: the files' contents, the recipe,
the options and the sources that compress. So a result is found again wherever it was made, and a
change of anything makes another cell.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ... import __version__
from ..recipe import Recipe, load_recipe
from .formats import HALF, check_family, format_name
from .plan import ModelEntry, SweepPlan

_ROOT = Path(__file__).resolve().parents[2]
#: Sources that decide what a recipe makes of a model, and how that is measured.
_SOURCES = (
    *("formats", "ops", "passes", "compiler/importer"),
    *(f"compiler/sweep/{name}.py" for name in ("work", "quality", "sizes", "latency")),
)
FLOAT = "float32"


@dataclasses.dataclass(frozen=True)
class Labels:
    """Where a cell lies on the axes of the plan, for tables and plots.

    Attributes:
        recipe: name of a whole recipe, ``grid``, or ``float32`` for the model as it is.
        family: of formats.
        format: the format's name.
        bits: of a code.
        block: as in the plan.
        solver: as in the plan.
    """

    recipe: str
    family: str = ""
    format: str = ""
    bits: int | None = None
    block: str = ""
    solver: str = ""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One thing to try.

    Attributes:
        model: file, data and dimensions.
        recipe: the passes.
        labels: its place on the axes.
        target: to compile for; empty for none.
        samples, limit, seed, metric: see `SweepPlan`.
    """

    model: ModelEntry
    recipe: Recipe
    labels: Labels
    target: str
    samples: int | None
    limit: int | None
    seed: int
    metric: str

    @functools.cached_property
    def key(self) -> str:
        """Hash of what the result follows from."""
        content = {
            "model": _model_digest(self.model.path),
            "calibration": digest_of(self.model.calibration),
            "evaluation": digest_of(self.model.evaluation),
            "bind": self.model.bind,
            "passes": [str(pass_) for pass_ in self.recipe.build()],
            "target": self.target,
            "samples": self.samples,
            "limit": self.limit,
            "seed": self.seed,
            "metric": self.metric,
            "sources": _sources_digest(),
            "version": __version__,
        }
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def describe(self) -> dict[str, Any]:
        """The cell as plain data: what a worker needs, and what tables say of it."""
        model = self.model
        return {
            "key": self.key,
            "model": model.name,
            "model_family": model.family,
            "path": str(model.path.resolve()),
            "calibration": str(model.calibration.resolve()) if model.calibration else None,
            "evaluation": str(model.evaluation.resolve()) if model.evaluation else None,
            "bind": model.bind,
            "passes": [str(pass_) for pass_ in self.recipe.build()],
            **dataclasses.asdict(self.labels),
            "target": self.target,
            "samples": self.samples,
            "limit": self.limit,
            "seed": self.seed,
            "metric": self.metric,
        }


def cells_of(plan: SweepPlan) -> list[Cell]:
    """All cells of a plan, model by model; what occurs twice is there once.

    Raises:
        FewbitsError: as `load_recipe` and `Recipe.build`: a wrong option is found before any work.
    """
    recipes = list(_recipes(plan))
    for recipe, _ in recipes:
        recipe.build()
    cells: dict[tuple[str, str], Cell] = {}
    for model, target, (recipe, labels) in itertools.product(
        plan.models, plan.targets or ("",), recipes
    ):
        cell = Cell(model, recipe, labels, target, plan.samples, plan.limit, plan.seed, plan.metric)
        cells.setdefault((model.name, cell.key), cell)
    return list(cells.values())


def _recipes(plan: SweepPlan) -> Iterator[tuple[Recipe, Labels]]:
    around = (list(plan.before), list(plan.after))
    yield Recipe(name=FLOAT, passes=("canonicalize",)), Labels(FLOAT, FLOAT, FLOAT, 32)
    for name in plan.recipes:
        recipe = load_recipe(name)
        yield recipe, Labels(recipe.name)
    yield from _under_backends(plan)
    if HALF in plan.bits:
        labels = Labels("grid", "float16", "float16", HALF)
        options = {
            k: v for k, v in plan.options.items() if k in ("targets", "ignore", "embeddings")
        }
        yield _around(around, {"half_weights": options}), labels
    for family in plan.formats:
        widths = plan.bits if check_family(family) else (None,)
        for bits, block, solver in itertools.product(widths, plan.blocks, plan.solvers):
            if bits == HALF:
                continue
            name = format_name(family, bits)
            if name is not None:
                options = {"format": name, **_granularity(block), "solver": solver, **plan.options}
                width = bits if bits is not None else _width(name)
                labels = Labels("grid", family, name, width, block, solver)
                yield _around(around, {"quantize_weights": options}), labels


def _under_backends(plan: SweepPlan) -> Iterator[tuple[Recipe, Labels]]:
    """The same algorithms under the rules of each inference backend (spec 11)."""
    from ...targets.constraints import BACKENDS, get_backend, recipe_passes

    names = [b.name for b in BACKENDS] if "all" in plan.backends else plan.backends
    for name, observer, algorithm in itertools.product(
        names, plan.observers or (None,), plan.algorithms
    ):
        backend = get_backend(name)
        first = () if algorithm == "none" else (algorithm,)
        recipe = Recipe(name=name, passes=tuple(recipe_passes(backend, observer, first)))
        solver = observer or backend.activation_observer
        labels = Labels("backend", name, name, backend.weights.bits, "", solver)
        if algorithm != "none":
            labels = dataclasses.replace(labels, solver=f"{algorithm} {solver}")
        yield recipe, labels


def _around(around: tuple[list[Any], list[Any]], middle: dict[str, Any]) -> Recipe:
    return Recipe(name="grid", passes=(*around[0], middle, *around[1]))


def _width(name: str) -> int:
    from ...formats.parse import parse_format

    return parse_format(name).bits


def _granularity(block: str) -> dict[str, Any]:
    if block in ("none", "channel"):
        return {"strategy": "tensor" if block == "none" else "channel"}
    strategy = "group" if block.startswith("g") else "block"
    return {"strategy": strategy, "group_size": int(block.removeprefix("g"))}


@functools.lru_cache(maxsize=256)
def digest_of(path: Path | None) -> str | None:
    """SHA-256 of a file, or of a folder's files with their names."""
    if path is None:
        return None
    digest = hashlib.sha256()
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    for file in files:
        if file.is_file():
            digest.update(file.relative_to(path).as_posix().encode())
            with file.open("rb") as stream:
                while piece := stream.read(1 << 20):
                    digest.update(piece)
    return digest.hexdigest()


@functools.lru_cache(maxsize=256)
def _model_digest(path: Path) -> list[str | None]:
    """Digests of the ONNX file and, in order of their names, of its external data."""
    import onnx
    from google.protobuf.message import DecodeError
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError:
        return [digest_of(path)]  # the importer says what is wrong with it
    tensors = [t for t in model.graph.initializer if uses_external_data(t)]
    beside = sorted({ExternalDataInfo(tensor).location for tensor in tensors})
    files = [path, *(path.parent / name for name in beside)]
    return [digest_of(file) if file.is_file() else None for file in files]


@functools.cache
def _sources_digest() -> str:
    digest = hashlib.sha256()
    for name in _SOURCES:
        source = _ROOT / name
        for file in sorted(source.rglob("*.py")) if source.is_dir() else [source]:
            digest.update(file.relative_to(_ROOT).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()
