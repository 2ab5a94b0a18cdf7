"""Which libraries an ELF library needs, changed in a copy of it.

The loader finds what a library needs by name, among what the process has loaded and then on the
machine. Under another name it finds ours, and ours alone.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping

from elftools.elf.elffile import ELFFile


def rename_needed(library: bytes, names: Mapping[str, str]) -> bytes:
    """An ELF library that needs others instead, under names of the same lengths.

    Versions of symbols that bear the name of a library are renamed with it.

    Raises:
        ValueError: a name is not there, or not once.
    """
    content = bytearray(library)
    with io.BytesIO(library) as stream:
        sections = {section.name: section for section in ELFFile(stream).iter_sections()}
        places = {
            name: (sections[name]["sh_offset"], sections[name]["sh_size"])
            for name in (".dynstr", ".gnu.version_r")
        }
    for old, new in names.items():
        words = (b"\0" + name.encode() + b"\0" for name in (old, new))
        hashes = (struct.pack("<I", _elf_hash(name)) for name in (old, new))
        swaps = ((".dynstr", *words, 1), (".gnu.version_r", *hashes, 0))
        for section, before, after, least in swaps:
            start, size = places[section]
            count = content.count(before, start, start + size)
            if len(before) != len(after) or count > 1 or count < least:
                raise ValueError(f"{old} cannot become {new}")
            if count:
                at = content.index(before, start, start + size)
                content[at : at + len(before)] = after
    return bytes(content)


def _elf_hash(name: str) -> int:
    """The hash of a version's name, as the ELF specification has it."""
    value = 0
    for byte in name.encode():
        value = (value << 4) + byte
        high = value & 0xF0000000
        value = (value ^ (high >> 24)) & ~high
    return value & 0xFFFFFFFF
