"""Recipes: which passes run, in order, with which options. A recipe is a short YAML file.

    description: int8 weights and activations, integer arithmetic only
    passes:
      - canonicalize
      - quantize: {activation_observer: mse}

Built-in recipes lie in ``recipes/`` and are chosen by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic
import yaml

from ..errors import FewbitsError, nearest
from ..passes.base import Pass, make_pass

_FOLDER = Path(__file__).parent / "recipes"
_LARGEST_FILE = 1 << 20


class Recipe(pydantic.BaseModel):
    """A checked recipe.

    Attributes:
        name: how it was asked for.
        description: one line for ``fewbits recipes``.
        passes: each a name, ``name{option=value}``, or a mapping of one name to its options.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    name: str = ""
    description: str = ""
    passes: tuple[str | dict[str, dict[str, Any] | None], ...]

    def build(self) -> list[Pass]:
        """The pass objects.

        Raises:
            FewbitsError: ``unknown-pass``, ``unknown-option``, with the nearest known name.
        """
        built = []
        for entry in self.passes:
            if isinstance(entry, str):
                built.append(make_pass(entry))
                continue
            if len(entry) != 1:
                raise FewbitsError(
                    "bad-recipe",
                    f"a pass is one name with its options, not {sorted(entry)}",
                    where=self.name,
                    hint="write each pass as its own list item",
                )
            name, options = next(iter(entry.items()))
            built.append(make_pass(name, options or {}))
        return built

    def with_options(self, changes: Mapping[str, Mapping[str, Any]]) -> Recipe:
        """The same recipe with options of passes added or replaced, by pass name.

        Raises:
            FewbitsError: ``unknown-pass`` where the recipe has no pass of that name.
        """
        passes: list[str | dict[str, dict[str, Any] | None]] = []
        unused = set(changes)
        for entry in self.passes:
            name, old = _name_and_options(entry)
            if name in changes:
                unused.discard(name)
                passes.append({name: {**old, **changes[name]}})
            else:
                passes.append(entry)
        if unused:
            name = sorted(unused)[0]
            raise FewbitsError(
                "unknown-pass",
                f"recipe {self.name!r} has no pass {name!r}",
                hint="use a recipe that quantizes",
            )
        return self.model_copy(update={"passes": tuple(passes)})

    def to_yaml(self) -> str:
        """The recipe as a file that `load_recipe` reads."""
        plain = {"description": self.description, "passes": list(self.passes)}
        return yaml.safe_dump(plain, sort_keys=False)


def _name_and_options(
    entry: str | Mapping[str, Mapping[str, Any] | None],
) -> tuple[str, Mapping[str, Any]]:
    if isinstance(entry, str):
        return entry.split("{")[0].strip(), make_pass(entry).options() if "{" in entry else {}
    name = next(iter(entry), "")
    return name, entry.get(name) or {}


def recipe_names() -> list[str]:
    """Names of the built-in recipes."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def load_recipe(source: str | Path | Recipe) -> Recipe:
    """A built-in recipe by name, or a recipe file by path.

    Raises:
        FewbitsError: ``unknown-recipe``, ``bad-recipe``.
    """
    if isinstance(source, Recipe):
        return source
    text = str(source)
    path = Path(source)
    if text in recipe_names():
        path = _FOLDER / f"{text}.yaml"
    elif not (path.suffix in (".yaml", ".yml") and path.is_file()):
        raise FewbitsError(
            "unknown-recipe",
            f"no recipe {text!r}",
            hint=f"{nearest(text, recipe_names())}; or give the path of a .yaml file",
        )
    return _parse(path)


def _parse(path: Path) -> Recipe:
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise FewbitsError(
                "bad-recipe",
                "the file is over 1 MB",
                where=str(path),
                hint="`fewbits recipes int8` prints one to start from",
            )
        raw = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise FewbitsError(
            "bad-recipe",
            f"cannot read the recipe: {error}",
            where=str(path),
            hint="`fewbits recipes int8` prints one to start from",
        ) from error
    if not isinstance(raw, dict):
        raise FewbitsError(
            "bad-recipe",
            "a recipe is a mapping with `passes`",
            where=str(path),
            hint="passes: [canonicalize, quantize]",
        )
    for key in raw:
        if key not in Recipe.model_fields:
            raise FewbitsError(
                "bad-recipe",
                f"a recipe has no {key!r}",
                where=str(path),
                hint=nearest(str(key), Recipe.model_fields),
            )
    try:
        return Recipe.model_validate({"name": path.stem, **raw})
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise FewbitsError(
            "bad-recipe", f"{place}: {first['msg']}", where=str(path), hint="see docs/recipes.md"
        ) from error
