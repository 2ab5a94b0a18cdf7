"""Writes single files whole or not at all; folders are `targets.project.output_folder`'s."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from ..errors import FewbitsError


def write_file(path: Path, content: str | bytes | Callable[[BinaryIO], None]) -> None:
    """Write a file beside its place and rename it, making missing folders.

    Args:
        path: where the file goes; an earlier file there is replaced.
        content: text (written as UTF-8), bytes, or a function that writes to the open file.

    Raises:
        FewbitsError: ``output-not-writable``; what stood there is still there then.
    """
    if path.is_dir():
        raise FewbitsError(
            "output-not-writable", "this is a folder", where=str(path), hint="name a file"
        )
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}-", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode("utf-8") if isinstance(content, str) else content)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise FewbitsError(
            "output-not-writable",
            f"cannot write the file: {error.strerror or error}",
            where=str(path),
            hint="choose another place",
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
