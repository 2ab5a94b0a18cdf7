"""English text that comes with every Python: what the language models are trained on.

The topics of the interactive help and the docstrings of the standard library, about 2 MB. Nothing
is downloaded and nothing is copied into this repository; another Python version has slightly other
text, so figures name the version and the text's hash.
"""

from __future__ import annotations

import ast
import hashlib
import sysconfig
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Printable ASCII, then the newline; everything else reads as a question mark.
VOCABULARY = 96
NEWLINE, UNKNOWN = 95, ord("?") - 32
HELD_OUT_EVERY = 16
_LEAST_CHARACTERS = 60
_NOT_DOCUMENTATION = frozenset({"site-packages", "test", "tests", "idlelib", "lib2to3"})


@dataclass(frozen=True)
class Corpus:
    """Tokens (uint8, below `VOCABULARY`) of whole documents, one after the other.

    Attributes:
        training: what models see.
        held_out: documents that no model sees.
        digest: SHA-256 of both.
    """

    training: np.ndarray
    held_out: np.ndarray
    digest: str


def encode(text: str) -> np.ndarray:
    """Characters to token numbers, uint8."""
    codes = np.frombuffer(text.expandtabs().encode("ascii", "replace"), np.uint8)
    tokens = codes.astype(np.int16) - 32
    tokens[codes == ord("\n")] = NEWLINE
    return np.where((tokens < 0) | (tokens >= VOCABULARY), UNKNOWN, tokens).astype(np.uint8)


def decode(tokens: np.ndarray) -> str:
    """Token numbers to characters."""
    return "".join("\n" if t == NEWLINE else chr(int(t) + 32) for t in tokens)


def documents() -> Iterator[tuple[str, str]]:
    """Name and text of every document, in an order that depends on the names alone."""
    from pydoc_data.topics import topics

    for name in sorted(topics):
        yield f"topic:{name}", topics[name]
    library = Path(sysconfig.get_path("stdlib"))
    for file in sorted(library.rglob("*.py"), key=lambda path: path.relative_to(library).parts):
        name = file.relative_to(library)
        if not _NOT_DOCUMENTATION & set(name.parts):
            yield name.as_posix(), "\n\n".join(_docstrings(file))


def _docstrings(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text and len(text) >= _LEAST_CHARACTERS:
                yield text


def load_corpus() -> Corpus:
    """All documents, each once, about one of `HELD_OUT_EVERY` held out by the hash of its name.

    Documentation repeats itself (methods of the same interface, topics within topics), so
    paragraphs that are in the training text as well, however they are wrapped, are not held out.
    """
    parts: tuple[list[str], list[str]] = ([], [])
    seen: set[str] = set()
    for name, text in documents():
        text = text.strip()
        if text and text not in seen:
            seen.add(text)
            parts[zlib.crc32(name.encode()) % HELD_OUT_EVERY == 0].append(text)
    known = _unwrapped("\n\n".join(parts[0]))
    held_out = (
        paragraph
        for text in parts[1]
        for paragraph in text.split("\n\n")
        if len(paragraph) < _LEAST_CHARACTERS or _unwrapped(paragraph) not in known
    )
    training, held = (encode("\n\n".join(part) + "\n\n") for part in (parts[0], held_out))
    digest = hashlib.sha256(training.tobytes() + held.tobytes()).hexdigest()
    return Corpus(training, held, digest)


def _unwrapped(text: str) -> str:
    return " ".join(text.split())


def windows(tokens: np.ndarray, count: int, length: int) -> np.ndarray:
    """`count` windows of `length` + 1 tokens, evenly spread over the text, int64.

    Raises:
        ValueError: where there is less text than one window.
    """
    if len(tokens) <= length:
        raise ValueError(f"{len(tokens)} tokens are no window of {length + 1}")
    starts = np.linspace(0, len(tokens) - length - 1, count).astype(int)
    return np.stack([tokens[start : start + length + 1] for start in starts]).astype(np.int64)
