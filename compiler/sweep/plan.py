"""What a sweep is to try, checked: models, formats, bits, blocks, solvers, recipes, targets.

    models: [lm-12k.onnx, {path: lm-28k.onnx, evaluation: other.npz}]
    formats: [int, fp, quantile]
    bits: [3, 4, 8, 16]
    blocks: [none, 256, 64]
    solvers: [rtn, gptq]
    options: {ignore: [head]}

Formats, bits, blocks and solvers are multiplied; recipes come on top. Everything is tried on every
model for every target.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import pydantic
import yaml

from ...errors import FewbitsError, nearest
from .formats import check_family

Metric = Literal["auto", "nats", "accuracy", "cosine", "sqnr_db"]
_LARGEST_FILE = 1 << 20
_BLOCK = re.compile(r"none|channel|g?[1-9]\d{0,6}")
_STRICT = pydantic.ConfigDict(extra="forbid", frozen=True)


class ModelEntry(pydantic.BaseModel):
    """One model of a sweep.

    Attributes:
        path: ONNX file.
        name: how tables call it; the file's name without extension by default.
        calibration: sample inputs; ``calibration.npz`` beside the model by default, if there.
        evaluation: inputs and ``labels``; ``eval.npz`` beside the model by default.
        family: models of one family are drawn together; all are one family by default.
        bind: sizes of symbolic dimensions; those of the evaluation set by default.
    """

    model_config = _STRICT

    path: Path
    name: str = ""
    calibration: Path | None = None
    evaluation: Path | None = None
    family: str = ""
    bind: dict[str, int] = {}


class SweepPlan(pydantic.BaseModel):
    """A checked plan.

    Attributes:
        models: files or entries.
        formats: families (``int``) that are combined with `bits`, or whole names (``nf4``).
        bits: widths, 2 to 8, or 16 for half-precision floats.
        blocks: ``none`` (one scale for a tensor), ``channel`` (one per output), ``64`` (one for 64
            values in memory order), ``g64`` (for 64 along the sum).
        solvers: of ``quantize_weights``.
        recipes: names or files of whole recipes.
        backends: inference backends whose rules to quantize under (`targets/constraints.py`), or
            ``all``.
        observers: of activations, for each backend; its own by default.
        algorithms: passes before quantization that each backend is tried with; ``none`` for none.
        targets: to compile for and measure latency on; empty for quality alone.
        options: more options of ``quantize_weights`` in all cells of the grid.
        before, after: passes around it, as in a recipe.
        metric: what quality means; ``auto``: nats per token for token labels, accuracy for class
            labels, cosine to the float model without labels.
        size: which bits budgets count: ``total``, or ``body`` without embeddings and head.
        samples: most calibration samples.
        limit: most evaluation samples.
        seed: of every random choice.
    """

    model_config = _STRICT

    models: tuple[ModelEntry, ...] = pydantic.Field(min_length=1)
    formats: tuple[str, ...] = ()
    bits: tuple[int, ...] = ()
    blocks: tuple[str, ...] = ("64",)
    solvers: tuple[str, ...] = ("rtn",)
    recipes: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()
    observers: tuple[str, ...] = ()
    algorithms: tuple[str, ...] = ("none",)
    targets: tuple[str, ...] = ()
    options: dict[str, Any] = {}
    before: tuple[str | dict[str, dict[str, Any] | None], ...] = ("canonicalize",)
    after: tuple[str | dict[str, dict[str, Any] | None], ...] = ()
    metric: Metric = "auto"
    size: Literal["total", "body"] = "total"
    samples: int | None = pydantic.Field(None, ge=1)
    limit: int | None = pydantic.Field(None, ge=1)
    seed: int = 0

    @pydantic.field_validator("models", mode="before")
    @classmethod
    def _paths_are_entries(cls, value: Any) -> Any:
        entries = value if isinstance(value, list | tuple) else [value]
        return [{"path": e} if isinstance(e, str | Path) else e for e in entries]

    @pydantic.field_validator(
        "formats",
        "blocks",
        "solvers",
        "recipes",
        "targets",
        "backends",
        "observers",
        "algorithms",
        mode="before",
    )
    @classmethod
    def _texts(cls, value: Any) -> Any:
        # YAML reads 64 as a number and `none` in some spellings as nothing.
        entries = value if isinstance(value, list | tuple) else [value]
        return ["none" if e is None else str(e) if isinstance(e, int) else e for e in entries]

    @pydantic.field_validator("blocks")
    @classmethod
    def _blocks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for block in value:
            if not _BLOCK.fullmatch(block):
                raise ValueError(f"{block!r} is no block: none, channel, 64 or g64")
        return value

    @pydantic.field_validator("bits")
    @classmethod
    def _bits(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        for bits in value:
            if bits != 16 and not 2 <= bits <= 8:
                raise ValueError(f"{bits} bits: from 2 to 8, or 16")
        return value


def load_plan(path: str | Path) -> SweepPlan:
    """A plan from a YAML file; paths in it are relative to the file.

    Raises:
        FewbitsError: ``bad-plan`` for what is no plan, unknown keys with the nearest known one;
            ``unknown-format``.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise _bad("the file is over 1 MB", str(path))
        raw = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise _bad(f"cannot read the plan: {error}", str(path)) from error
    if not isinstance(raw, dict):
        raise _bad("a plan is a mapping with `models`", str(path))
    return make_plan(raw, str(path), path.parent)


def make_plan(raw: dict[Any, Any], where: str | None = None, folder: Path = Path()) -> SweepPlan:
    """A plan from plain data.

    Args:
        raw: keys and values as in a file.
        where: what errors name.
        folder: what relative paths of models and data are relative to.

    Raises:
        FewbitsError: as `load_plan`.
    """
    _check_keys(raw, SweepPlan, where)
    models = raw.get("models") or []
    for entry in models if isinstance(models, list | tuple) else [models]:
        if isinstance(entry, dict):
            _check_keys(entry, ModelEntry, where)
    try:
        plan = SweepPlan.model_validate(raw)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise _bad(f"{place}: {first['msg'].removeprefix('Value error, ')}", where) from error
    families = [family for family in plan.formats if check_family(family)]
    if families and not plan.bits:
        raise _bad(f"formats {', '.join(families)} need `bits`", where, "bits: [3, 4, 8]")
    if not (plan.formats or plan.recipes or plan.backends or 16 in plan.bits):
        raise _bad("there is nothing to try", where, "give formats and bits, recipes or backends")
    placed = tuple(_placed(model, folder) for model in plan.models)
    names = [model.name for model in placed]
    for name in names:
        if names.count(name) > 1:
            raise _bad(f"two models are called {name!r}", where, "give one a `name`")
    return plan.model_copy(update={"models": placed})


def _placed(entry: ModelEntry, folder: Path) -> ModelEntry:
    path = folder / entry.path
    beside = path.parent / "calibration.npz"
    calibration = folder / entry.calibration if entry.calibration else None
    if calibration is None and beside.is_file():
        calibration = beside
    evaluation = folder / entry.evaluation if entry.evaluation else path.parent / "eval.npz"
    for file, what in ((path, "model"), (calibration, "calibration"), (evaluation, "evaluation")):
        if file is not None and not file.exists():
            raise FewbitsError(
                "no-such-file",
                f"no {what} at {str(file)!r}",
                where=entry.name or str(entry.path),
                hint="a sweep needs inputs and `labels` to measure quality with: `evaluation:`"
                if what == "evaluation"
                else "paths are relative to the plan",
            )
    return entry.model_copy(
        update={
            "path": path,
            "name": entry.name or path.stem,
            "calibration": calibration,
            "evaluation": evaluation,
        }
    )


def _check_keys(raw: dict[Any, Any], model: type[pydantic.BaseModel], where: str | None) -> None:
    for key in raw:
        if key not in model.model_fields:
            what = "plan" if model is SweepPlan else "model"
            raise _bad(f"a {what} has no {key!r}", where, nearest(str(key), model.model_fields))


def _bad(message: str, where: str | None, hint: str = "see docs/sweep.md") -> FewbitsError:
    return FewbitsError("bad-plan", message, where=where, hint=hint)
