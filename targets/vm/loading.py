"""What is looked at before a library is loaded, and before it is called, for all devices."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import FewbitsError


def built_library(folder: Path, manifest: Mapping[str, Any]) -> Path:
    """The library in an artifact's folder.

    Raises:
        FewbitsError: ``no-such-file``.
    """
    library = folder / manifest["library"]
    if not library.is_file():
        raise FewbitsError(
            "no-such-file",
            f"there is no built library {library.name!r}",
            where=str(library),
            hint="compile again without --to, so that the library is built",
        )
    return library


def check_whole(library: Path, manifest: Mapping[str, Any]) -> None:
    """A damaged library may end the process when it is mapped, so it is never loaded.

    Raises:
        FewbitsError: ``bad-library``.
    """
    wanted = manifest.get("files", {}).get(library.name)
    if wanted is None:  # it has just been built
        return
    digest = hashlib.sha256()
    with library.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != wanted:
        raise FewbitsError(
            "bad-library",
            "the library is not the one that was compiled: its hash is another",
            where=str(library),
            hint="compile the model again",
        )


def not_loadable(library: Path, error: Exception) -> FewbitsError:
    """``bad-library``: TVM's runtime does not take it."""
    return FewbitsError(
        "bad-library",
        f"TVM's runtime cannot load the library: {str(error).strip()[-300:]}",
        where=str(library),
        hint="compile the model again with the installed version",
    )


def check_largest(
    ports: Sequence[Mapping[str, Any]],
    shapes: Sequence[Sequence[int]],
    largest: Mapping[str, int],
) -> None:
    """Sizes that the model has room for.

    Args:
        ports: inputs as in the manifest.
        shapes: of the arrays.
        largest: sizes by the name of the dimension.

    Raises:
        FewbitsError: ``wrong-shape``.
    """
    for port, shape in zip(ports, shapes, strict=True):
        for name, size in zip(port["shape"], shape, strict=True):
            limit = largest.get(name, size)
            if size > limit:
                raise FewbitsError(
                    "wrong-shape",
                    f"dimension {name!r} is {size}, but the model ends at {limit}",
                    where=f"input {port['name']!r}",
                    hint="a table in the model, e.g. of positions, is no longer than that",
                )
