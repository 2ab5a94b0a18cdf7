"""What a pass is: an immutable object whose fields are its only options.

@register_pass
@dataclasses.dataclass(frozen=True)
class Smooth(Pass):
    name: ClassVar[str] = "smooth"
    alpha: float = 0.5

str(Smooth())                     # "smooth{alpha=0.5}"
parse_pass("smooth{alpha=0.7}")   # Smooth(alpha=0.7)
"""

from __future__ import annotations

import abc
import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import pydantic
import yaml

from ..errors import FewbitsError, nearest

if TYPE_CHECKING:
    from tvm import ir

    from .calibration import Calibration


@dataclasses.dataclass(frozen=True)
class Note:
    """Something a user may want to know about what a pass did."""

    pass_name: str
    layer: str | None
    message: str
    data: Mapping[str, Any]


@dataclasses.dataclass
class PassContext:
    """What passes may use besides the module.

    Attributes:
        calibration: samples, or None when none were given.
        seed: of every random choice.
        notes: what the passes reported, in order.
        reference: the float module that `quantize` was given; None before, and for models that
            came quantized.
        cache: folder where solved layers are kept, so that a killed run resumes; None to keep
            nothing.
        progress: told before each layer: its name, how many are done, how many there are.
        device: where solvers compute, ``cpu`` or ``cuda``.
    """

    calibration: Calibration | None = None
    seed: int = 0
    notes: list[Note] = dataclasses.field(default_factory=list)
    reference: ir.IRModule | None = None
    cache: Path | None = None
    progress: Callable[[str, int, int], None] | None = None
    device: str = "cpu"

    def note(self, pass_name: str, layer: str | None, message: str, **data: Any) -> None:
        """Report something for the user."""
        self.notes.append(Note(pass_name, layer, message, data))


@dataclasses.dataclass(frozen=True)
class Pass(abc.ABC):
    """Relax to Relax: a valid module in, a valid module out, the given one untouched.

    Attributes:
        name: in recipes.
        keeps_symbols: whether modules may have symbolic dimensions.
    """

    name: ClassVar[str]
    keeps_symbols: ClassVar[bool] = True

    @abc.abstractmethod
    def apply(self, module: ir.IRModule, context: PassContext) -> ir.IRModule:
        """The transformed module."""

    def options(self) -> dict[str, Any]:
        """The options that differ from their defaults."""
        changed = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                changed[field.name] = list(value) if isinstance(value, tuple) else value
        return changed

    def __str__(self) -> str:
        options = self.options()
        if not options:
            return self.name
        # YAML's flow form, so that strings and lists round-trip.
        texts = (f"{key}={_flow(value)}" for key, value in options.items())
        return f"{self.name}{{{'; '.join(texts)}}}"


_FORM = "write name{option=value; option=value}"

_PASSES: dict[str, type[Pass]] = {}
_P = TypeVar("_P", bound=type[Pass])


def register_pass(cls: _P) -> _P:
    """Class decorator: recipes may name the pass."""
    _PASSES[cls.name] = cls
    return cls


def pass_names() -> list[str]:
    """Names of all registered passes."""
    _load()
    return sorted(_PASSES)


def make_pass(name: str, options: Mapping[str, Any] | None = None) -> Pass:
    """A pass by name (or text form) with its options checked.

    Raises:
        FewbitsError: ``unknown-pass``, ``unknown-option``, with the nearest known name.
    """
    if options is None and "{" in name:
        return parse_pass(name)
    _load()
    if name not in _PASSES:
        raise FewbitsError("unknown-pass", f"no pass {name!r}", hint=nearest(name, _PASSES))
    cls = _PASSES[name]
    options = dict(options or {})
    known = [field.name for field in dataclasses.fields(cls)]
    for key in options:
        if key not in known:
            raise FewbitsError(
                "unknown-option",
                f"pass {name} has no option {key!r}",
                hint=nearest(str(key), known) if known else "it has no options",
            )
    try:
        return pydantic.TypeAdapter(cls).validate_python(options)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise FewbitsError(
            "unknown-option", f"pass {name}, option {place}: {first['msg']}", hint=str(cls())
        ) from error


def parse_pass(text: str) -> Pass:
    """The pass that `str` prints: ``name`` or ``name{option=value; option=value}``."""
    name, brace, rest = text.strip().partition("{")
    if not brace:
        return make_pass(name, {})
    if not rest.endswith("}"):
        raise FewbitsError("bad-recipe", f"no closing brace in {text!r}", hint=_FORM)
    options = {}
    for piece in _options(rest[:-1]):
        key, equals, value = piece.partition("=")
        if not equals:
            raise FewbitsError(
                "bad-recipe", f"{piece!r} is not option=value", where=text, hint=_FORM
            )
        try:
            options[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise FewbitsError(
                "bad-recipe", f"cannot read {value!r}", where=text, hint=_FORM
            ) from error
    return make_pass(name, options)


_PLAIN = re.compile(r"[A-Za-z_][\w.*-]*")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')


def _flow(value: Any) -> str:
    """A value in YAML's flow form on one line; strings are plain or in double quotes."""
    if isinstance(value, str):
        if _PLAIN.fullmatch(value) and yaml.safe_load(value) == value:
            return value
        quoted = json.dumps(value, ensure_ascii=False)
        return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in quoted)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_flow(k)}: {_flow(v)}' for k, v in value.items())}}}"
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()


def _options(text: str) -> list[str]:
    """``a=1; b="x;y"`` in pieces: semicolons in double quotes do not count."""
    masked = _QUOTED.sub(lambda match: "x" * len(match.group()), text)
    pieces, start = [], 0
    for end in [*(m.start() for m in re.finditer(";", masked)), len(text)]:
        pieces.append(text[start:end].strip())
        start = end + 1
    return [piece for piece in pieces if piece]


def _load() -> None:
    """Import the passes, which registers them."""
    from . import catalogue  # noqa: F401
