"""Files of records, a line each: read as far as they make sense, replaced in one step."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ...errors import FewbitsError
from .folder import VARIABLE

#: Files of records are small; what is larger is something else.
_LARGEST = 256 << 20


def read_lines(path: Path) -> list[str]:
    """The lines of a file that are not blank; none where there is no file.

    Raises:
        FewbitsError: ``unreadable-file``.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise OSError(f"larger than {_LARGEST >> 20} MiB")
        text = path.read_bytes().decode("utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise FewbitsError(
            "unreadable-file",
            f"cannot read tuning records: {error.strerror or error}",
            where=str(path),
            hint=f"name another folder, or set {VARIABLE}=off",
        ) from error
    # Other characters that end lines for `splitlines` may stand in a JSON text.
    return [line for line in text.split("\n") if line.strip()]


def replace_lines(path: Path, change: Callable[[], Sequence[str]]) -> None:
    """Write a file anew in one step; processes take turns in its folder.

    Args:
        path: the file; its folder is made.
        change: gives the new lines, called while no other process writes.

    Raises:
        FewbitsError: ``output-not-writable``; what `change` raises.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.parent):
            lines = change()
            handle, name = tempfile.mkstemp(prefix=".records-", dir=path.parent)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    file.write("".join(f"{line}\n" for line in lines))
                Path(name).replace(path)
            finally:
                Path(name).unlink(missing_ok=True)
    except OSError as error:
        raise FewbitsError(
            "output-not-writable",
            f"cannot keep tuning records: {error.strerror or error}",
            where=str(path.parent),
            hint="choose another folder with --database",
        ) from error


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
