"""Output folders appear whole or not at all, and never replace what fewbits did not write."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from types import TracebackType

from ..errors import FewbitsError
from .artifact import MANIFEST


class ArtifactWriter:
    """A context manager: write into `folder`, then `commit`; otherwise nothing is left behind.

    Args:
        out: where the folder is to appear.
        force: replace a folder even if fewbits did not write it.

    Raises:
        FewbitsError: ``output-exists``, ``output-unwritable``; nothing has been written then.
    """

    def __init__(self, out: Path, force: bool = False) -> None:
        self.out = out.absolute()
        if not force:
            _check_replaceable(self.out)
        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self.folder = Path(tempfile.mkdtemp(prefix=f".{self.out.name}-", dir=self.out.parent))
        except OSError as error:
            raise FewbitsError(
                "output-unwritable", f"cannot write here: {error}", where=str(out)
            ) from error
        self.folder.chmod(0o755)

    def commit(self) -> None:
        """Put the folder in its place; what stood there is gone only when the new one is."""
        old = self.folder.with_name(self.folder.name + ".old")
        if self.out.exists():
            self.out.rename(old)
        try:
            self.folder.rename(self.out)
        except OSError:
            if old.exists():
                old.rename(self.out)
            raise
        _remove(old)

    def __enter__(self) -> ArtifactWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _remove(self.folder)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    elif path.exists():
        path.unlink()


def _check_replaceable(out: Path) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    hint = "choose another folder, or add --force to replace it"
    if not out.is_dir():
        raise FewbitsError("output-exists", f"{out.name!r} is a file", where=str(out), hint=hint)
    try:
        known = "fewbits" in json.loads((out / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError, TypeError):
        known = False
    if not known:
        raise FewbitsError(
            "output-exists",
            f"{out.name!r} holds something that fewbits did not write",
            where=str(out),
            hint=hint,
        )
