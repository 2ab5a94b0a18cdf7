"""Solutions of layers, kept on disk so that a run that was killed goes on where it stopped.

An entry's key says all that decides its content: the weight, the options, the version of the
solvers, the model, the calibration data, and the keys of the layers that were compressed before
it, as a layer's inputs depend on them. Wrong entries therefore cannot be found, and any number of
runs may share a folder. Entries are written in one step; what is damaged counts as missing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tvm import ir, relax

from ..errors import FewbitsError
from ..formats.plain import StoredTensor
from ..formats.storage import load_extra, load_tensors, save_tensors
from .calibration import Batch

#: Raised whenever a solver's results change; older entries are not found any more.
SOLVER_VERSION = 2
#: The variable that moves the default folder.
VARIABLE = "FEWBITS_CACHE"

_WEIGHT = "weight"
_FACTS = "facts"


def default_folder() -> Path:
    """``$FEWBITS_CACHE``, or the user's cache folder as the system has it."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("fewbits", appauthor=False))


class SolutionCache:
    """Stored weights with facts about them, by key."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def get(self, key: str) -> tuple[StoredTensor, dict[str, Any]] | None:
        """The entry, or None where there is none.

        Raises:
            FewbitsError: ``bad-file`` for an entry that is damaged.
        """
        path = self._path(key)
        if not path.is_file():
            return None
        tensors, facts = load_tensors(path), load_extra(path).get(_FACTS)
        if set(tensors) != {_WEIGHT} or facts is None:
            raise FewbitsError("bad-file", "not a solution of a layer", where=str(path))
        try:
            return tensors[_WEIGHT], dict(json.loads(facts))
        except ValueError as error:
            raise FewbitsError("bad-file", "not a solution of a layer", where=str(path)) from error

    def put(self, key: str, tensor: StoredTensor, facts: Mapping[str, Any]) -> None:
        """Write an entry; `facts` are anything that JSON can hold.

        Raises:
            FewbitsError: ``output-not-writable``.
        """
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_tensors(path, {_WEIGHT: tensor}, {_FACTS: json.dumps(dict(facts))})
        except OSError as error:
            raise FewbitsError(
                "output-not-writable",
                f"cannot keep solved layers: {error}",
                where=str(self.folder),
                hint="choose another folder with --cache, or none with --no-cache",
            ) from error

    def _path(self, key: str) -> Path:
        return self.folder / "solutions" / key[:2] / f"{key}.safetensors"


def key_of(*parts: str | bytes | np.ndarray) -> str:
    """A hash of texts and arrays, each with its length or shape."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).tobytes())
        else:
            raw = part.encode() if isinstance(part, str) else part
            digest.update(f"{len(raw)}:".encode() + raw)
    return digest.hexdigest()


def module_key(module: ir.IRModule) -> str:
    """A hash of the program and all its constants."""
    arrays: list[np.ndarray] = []

    def visit(expression: Any) -> None:
        if isinstance(expression, ir.GenericConst):
            arrays.append(expression.value.numpy())
        elif isinstance(expression, relax.Tuple):
            for field in expression.fields:
                visit(field)
        elif isinstance(expression, relax.Call):
            for argument in expression.args:
                visit(argument)

    for block in module["main"].body.blocks:
        for binding in block.bindings:
            visit(binding.value)
    return key_of(module.script(show_meta=False), *arrays)


def data_key(batches: Iterable[Batch]) -> str:
    """A hash of calibration samples."""
    return key_of(*(key_of(*(x for name in sorted(b) for x in (name, b[name]))) for b in batches))
