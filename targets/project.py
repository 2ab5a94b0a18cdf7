"""Writes a folder all at once or not at all.

Whatever goes wrong on the way, Ctrl-C included, the folder that was there before is still there and
nothing lies around. A folder that fewbits did not write is never replaced unless told to.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from ..errors import FewbitsError

MANIFEST = "manifest.json"
"""The file that marks a folder as written by fewbits: a JSON object with the key ``"fewbits"``."""


def write_project(files: Mapping[str, str | bytes], folder: Path, *, force: bool = False) -> None:
    """Writes `files` (contents by path relative to the folder) as the whole of `folder`.

    Text is written in UTF-8 with ``\\n`` line ends. Only a folder with a `MANIFEST` among its files
    counts as an output of fewbits when it is to be replaced later.

    Raises:
        FewbitsError: ``output-exists``, ``output-not-writable`` (see `output_folder`).
        ValueError: a path is absolute or leaves the folder.
    """
    for path in files:
        pure = PurePosixPath(path)
        if not path or pure.is_absolute() or ".." in pure.parts or "\\" in path:
            raise ValueError(f"{path!r} is not a path inside the project")
    with output_folder(folder, force=force) as staging:
        for path, contents in files.items():
            file = staging / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(contents.encode("utf-8") if isinstance(contents, str) else contents)


@contextlib.contextmanager
def output_folder(folder: Path, *, force: bool = False) -> Iterator[Path]:
    """A new folder to write into, which becomes `folder` when the ``with`` block ends well.

    It lies beside `folder`, so that becoming it is a rename. An earlier output of fewbits is
    replaced whole, as is an empty folder; where `folder` is a symbolic link, what it points to is.
    When the block raises, all is as before.

    Args:
        folder: where the result goes; missing parents are made.
        force: replace a folder that fewbits did not write, too.

    Raises:
        FewbitsError: ``output-exists``: the folder holds something else than an earlier output,
            or is a file. ``output-not-writable``: the system does not let us write there.
    """
    target = folder.resolve()
    check_replaceable(target, force=force)
    made: list[Path] = []
    staging: Path | None = None
    try:
        try:
            _make_parents(target.parent, made)
            staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
            staging.chmod(0o777 & ~_umask())
        except OSError as error:
            raise _not_writable(target, error) from error
        yield staging
        check_replaceable(target, force=force)
        try:
            _replace(target, staging)
        except OSError as error:
            raise _not_writable(target, error) from error
    except BaseException:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
        for parent in reversed(made):
            with contextlib.suppress(OSError):  # something else has been put there meanwhile
                parent.rmdir()
        raise


def check_replaceable(folder: Path, *, force: bool = False) -> None:
    """Refuses a folder that `output_folder` would not replace, before any work is done.

    Raises:
        FewbitsError: ``output-exists``.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FewbitsError(
            "output-exists",
            "the output folder is a file",
            where=str(folder),
            hint="choose another --out",
        )
    protected = folder == Path.home() or folder == Path(folder.anchor)
    if protected or not (force or _is_ours(folder) or not any(folder.iterdir())):
        raise FewbitsError(
            "output-exists",
            "the output folder exists and was not written by fewbits",
            where=str(folder),
            hint="choose another --out" + ("" if protected else ", or --force to replace it"),
        )


def _is_ours(folder: Path) -> bool:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and "fewbits" in manifest


def _replace(target: Path, staging: Path) -> None:
    """Renames `staging` to `target`; what was there goes, or comes back if that fails."""
    if not target.exists():
        staging.rename(target)
        return
    holder = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent))
    old = holder / target.name
    try:
        target.rename(old)
        staging.rename(target)
    except BaseException:
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(holder, ignore_errors=True)
        raise
    shutil.rmtree(holder, ignore_errors=True)


def _make_parents(folder: Path, made: list[Path]) -> None:
    """Makes the folder and its missing parents, and adds them to `made`, outermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        made.append(path)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _not_writable(folder: Path, error: OSError) -> FewbitsError:
    return FewbitsError(
        "output-not-writable",
        f"cannot write the output folder: {error.strerror or error}",
        where=str(folder),
        hint="choose another --out",
    )
