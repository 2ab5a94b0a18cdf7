"""The one exception fewbits raises for whatever a user can put right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FewbitsError(Exception):
    """A problem the user can act on: what is wrong, where in the model, and what to do.

    Attributes:
        code: stable, greppable identifier in kebab case, e.g. ``"unsupported-operator"``.
        message: one sentence that says what is wrong.
        where: the place (node, tensor, file, option), or None when there is no single place.
        hint: what to do about it, or None.
    """

    def __init__(
        self, code: str, message: str, *, where: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"[{self.code}] {self.message}"
        if self.where:
            text += f"\n  where: {self.where}"
        if self.hint:
            text += f"\n  hint: {self.hint}"
        return text

    def as_dict(self) -> dict[str, str | None]:
        """The error as plain data, for ``--json``."""
        return {
            "code": self.code,
            "message": self.message,
            "where": self.where,
            "hint": self.hint,
        }


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint listing the known names, the closest spelling of `name` first."""
    names = sorted(known)
    close = [n for n in names if n.lower() == name.lower()]
    close = close or difflib.get_close_matches(name, names, n=1)
    listing = ", ".join(names)
    return f"did you mean {close[0]!r}? known: {listing}" if close else f"known: {listing}"
