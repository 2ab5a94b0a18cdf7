"""Fat binaries: what nvcc packs machine code and PTX of several architectures into.

NVIDIA documents the format nowhere; what is here was seen in files of CUDA 12 and 13. A file is a
header of 16 bytes (magic, version, the header's size, bytes that follow) and entries, each with a
header of its own: kind, version, the header's size, bytes that follow, ..., the architecture's
number, and flags, among them compression and the letter after the number.
"""

from __future__ import annotations

import dataclasses
import re
import struct
from collections.abc import Sequence
from typing import Literal

from ...errors import FewbitsError

MAGIC = 0xBA55ED50

_HEADER = struct.Struct("<IHHQ")
_ENTRY = struct.Struct("<HHIQ")
_NUMBER_AT = 28
_FLAGS_AT = 40
_ENTRY_HEADER = 64
_KINDS: dict[int, Literal["ptx", "elf"]] = {1: "ptx", 2: "elf"}
_LZ4, _ZSTD = 0x2000, 0x8000
_SPECIFIC, _FAMILY = 0x100000, 0x200000
# Far more than nvcc writes.
_MOST_ENTRIES = 1024


@dataclasses.dataclass(frozen=True)
class Entry:
    """Code for one architecture.

    Attributes:
        kind: ``ptx`` (text) or ``elf`` (machine code).
        number: the architecture's, e.g. 90 for ``sm_90a``.
        letter: ``a``: runs on exactly this architecture; ``f``: on its family; or nothing.
        content: the text, or the ELF file; None where it is compressed.
    """

    kind: Literal["ptx", "elf"]
    number: int
    letter: Literal["", "a", "f"]
    content: bytes | None

    @property
    def architecture(self) -> str:
        """As nvcc writes it, e.g. ``"sm_90a"``."""
        return f"sm_{self.number}{self.letter}"


def is_fatbin(data: bytes) -> bool:
    """Whether bytes begin as a fat binary does."""
    return len(data) >= _HEADER.size and _HEADER.unpack_from(data)[0] == MAGIC


def entries(data: bytes) -> list[Entry]:
    """What a fat binary holds; bytes after its end do not matter.

    Raises:
        FewbitsError: ``bad-fatbin``.
    """
    if not is_fatbin(data):
        raise _bad("it does not begin with a fat binary's header")
    _, version, header, size = _HEADER.unpack_from(data)
    if version != 1 or header < _HEADER.size or header + size > len(data):
        raise _bad("its header contradicts its size")
    found: list[Entry] = []
    at, end = header, header + size
    while at < end:
        if len(found) == _MOST_ENTRIES:
            raise _bad(f"it has more than {_MOST_ENTRIES} entries")
        if end - at < _ENTRY_HEADER:
            raise _bad(f"its entry {len(found)} has no room for a header")
        kind, _, entry_header, entry_size = _ENTRY.unpack_from(data, at)
        if entry_header < _ENTRY_HEADER or entry_header + entry_size > end - at:
            raise _bad(f"its entry {len(found)} leaves the file")
        (number,) = struct.unpack_from("<I", data, at + _NUMBER_AT)
        (flags,) = struct.unpack_from("<Q", data, at + _FLAGS_AT)
        start = at + entry_header
        at = start + entry_size
        if kind not in _KINDS:
            continue
        content = None if flags & (_LZ4 | _ZSTD) else data[start:at]
        if content is not None and kind == 1:
            content = content.rstrip(b"\0")
        letter = "a" if flags & _SPECIFIC else "f" if flags & _FAMILY else ""
        found.append(Entry(_KINDS[kind], number, letter, content))
    return found


def ptx_for(found: Sequence[Entry], capability: int, specific: bool = True) -> str | None:
    """The PTX that a device would translate: its own, else the latest that is not later than it.

    Args:
        found: of one fat binary.
        capability: the device's, without the dot: 90.
        specific: whether the device has what an ``a`` after the number stands for.

    Returns:
        None where there is none.

    Raises:
        FewbitsError: ``bad-fatbin`` where the one to take is compressed, or no text.
    """
    fitting = [
        entry
        for entry in found
        if entry.kind == "ptx"
        and (
            entry.number <= capability
            if not entry.letter
            else entry.number == capability and (specific or entry.letter == "f")
        )
    ]
    if not fitting:
        return None
    best = max(fitting, key=lambda entry: (entry.number, entry.letter == "a"))
    if best.content is None:
        raise _bad(f"its PTX for {best.architecture} is compressed (nvcc --no-compress)")
    try:
        return best.content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _bad(f"its PTX for {best.architecture} is no text") from error


def capability(architecture: str) -> tuple[int, bool]:
    """``"sm_90a"`` as the number and whether a letter follows.

    Raises:
        FewbitsError: ``bad-architecture``.
    """
    match = re.fullmatch(r"sm_([1-9]\d{1,2})(a?)", architecture)
    if match is None:
        raise FewbitsError(
            "bad-architecture",
            f"there is no GPU architecture {architecture!r}",
            hint="it is written like sm_80, sm_89, or sm_90a",
        )
    return int(match.group(1)), bool(match.group(2))


def _bad(why: str) -> FewbitsError:
    return FewbitsError(
        "bad-fatbin", f"the GPU's code cannot be read: {why}", hint="compile the model again"
    )
