"""What an ELF file says about itself: sizes, symbols, segments, and the flat binary in it.

Sizes come from the linked file and not from a linker's map, because every linker prints a
different map, and because the file is what is flashed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from ...errors import FewbitsError

_WRITE, _ALLOC, _EXECUTE = 1, 2, 4


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Bytes of a linked program: code, constants, initialized and zeroed variables."""

    text: int
    rodata: int
    data: int
    bss: int

    @property
    def flash(self) -> int:
        """Bytes that are stored on the chip: code, constants, and the initial values of `data`."""
        return self.text + self.rodata + self.data

    @property
    def ram(self) -> int:
        """Bytes of static variables; the stack is not among them."""
        return self.data + self.bss


@dataclasses.dataclass(frozen=True)
class Symbol:
    """A named place in a program.

    Attributes:
        name: as in the symbol table.
        section: the section's name, or ``""`` for an absolute value.
        address: where it is (for Thumb functions without the mode bit), or the absolute value.
        size: in bytes; 0 when the table does not say.
        kind: ``"function"``, ``"object"`` or ``"label"``.
        file: the source file of a local symbol, None for a global one.
    """

    name: str
    section: str
    address: int
    size: int
    kind: str
    file: str | None


@dataclasses.dataclass(frozen=True)
class Segment:
    """A piece of memory as the loader sees it.

    Attributes:
        address: where it is while the program runs.
        load_address: where its initial bytes are stored (flash).
        data: the initial bytes.
        size: bytes in memory; what lies behind `data` is zero.
        writable: belongs to RAM.
    """

    address: int
    load_address: int
    data: bytes
    size: int
    writable: bool


@dataclasses.dataclass(frozen=True)
class Image:
    """The parts of an ELF file that matter to an emulator; `code` is the range of its text."""

    entry: int
    code: range
    segments: tuple[Segment, ...]
    symbols: dict[str, Symbol]


@contextmanager
def _opened(elf: Path) -> Iterator[ELFFile]:
    try:
        with elf.open("rb") as file:
            yield ELFFile(file)
    except (ELFError, OSError) as error:
        raise FewbitsError(
            "bad-elf", f"cannot read the ELF file: {error}", where=str(elf)
        ) from error


def sizes(elf: Path) -> Sizes:
    """Sizes of the program by the flags of its sections.

    Raises:
        FewbitsError: ``bad-elf`` for a file that is missing or is no ELF file.
    """
    total = {"text": 0, "rodata": 0, "data": 0, "bss": 0}
    with _opened(elf) as file:
        for section in file.iter_sections():
            flags = section["sh_flags"]
            if not flags & _ALLOC:
                continue
            if section["sh_type"] == "SHT_NOBITS":
                kind = "bss"
            elif flags & _EXECUTE:
                kind = "text"
            else:
                kind = "data" if flags & _WRITE else "rodata"
            total[kind] += section["sh_size"]
    return Sizes(**total)


def symbols(elf: Path) -> dict[str, Symbol]:
    """The symbols of a program by name, in the order of their addresses.

    Where several files have a static symbol of one name, the first keeps it and the others are
    listed as ``name@file``.

    Raises:
        FewbitsError: ``bad-elf`` for a file that is missing or is no ELF file.
    """
    with _opened(elf) as file:
        return _symbols(file)


def _symbols(file: ELFFile) -> dict[str, Symbol]:
    table = file.get_section_by_name(".symtab")
    if not isinstance(table, SymbolTableSection):
        return {}
    thumb = file["e_machine"] == "EM_ARM"
    found: list[Symbol] = []
    source: str | None = None
    for entry in table.iter_symbols():
        kind = entry["st_info"]["type"]
        if kind == "STT_FILE":
            source = entry.name
            continue
        index = entry["st_shndx"]
        if index == "SHN_UNDEF" or kind == "STT_SECTION" or not entry.name:
            continue
        if entry.name.startswith(("$", ".L")):  # mapping symbols and compiler labels
            continue
        section = file.get_section(index).name if isinstance(index, int) else ""
        address = entry["st_value"]
        if kind == "STT_FUNC" and thumb:
            address &= ~1
        found.append(
            Symbol(
                name=entry.name,
                section=section,
                address=address,
                size=entry["st_size"],
                kind={"STT_FUNC": "function", "STT_OBJECT": "object"}.get(kind, "label"),
                file=source if entry["st_info"]["bind"] == "STB_LOCAL" else None,
            )
        )
    result: dict[str, Symbol] = {}
    for symbol in sorted(found, key=lambda item: (item.file is not None, item.address, item.name)):
        name = symbol.name if symbol.name not in result else f"{symbol.name}@{symbol.file}"
        count = 2
        while name in result:
            name, count = f"{symbol.name}@{symbol.file}:{count}", count + 1
        result[name] = symbol
    return dict(sorted(result.items(), key=lambda item: (item[1].address, item[0])))


def load(elf: Path) -> Image:
    """Entry point, loadable segments and symbols of a program.

    Raises:
        FewbitsError: ``bad-elf`` for a file that is missing or is no ELF file.
    """
    with _opened(elf) as file:
        text = [
            (section["sh_addr"], section["sh_addr"] + section["sh_size"])
            for section in file.iter_sections()
            if section["sh_flags"] & _EXECUTE
        ]
        if not text:
            raise FewbitsError("bad-elf", "the ELF file has no code", where=str(elf))
        code = range(min(start for start, _ in text), max(end for _, end in text))
        return Image(file["e_entry"], code, tuple(_segments(file)), _symbols(file))


def _segments(file: ELFFile) -> Iterator[Segment]:
    for segment in file.iter_segments():
        header: Any = segment.header
        if header["p_type"] == "PT_LOAD" and header["p_memsz"]:
            yield Segment(
                address=header["p_vaddr"],
                load_address=header["p_paddr"],
                data=segment.data(),
                size=header["p_memsz"],
                writable=bool(header["p_flags"] & 2),
            )


def write_binary(elf: Path, out: Path) -> int:
    """Writes the flat image that a flash programmer takes, and returns its first address.

    Gaps between segments are filled with 0xFF, the value of erased flash.

    Raises:
        FewbitsError: ``bad-elf`` for a file without loadable bytes, or one whose bytes are spread
            over more than 256 MiB (a program linked for no particular board).
    """
    with _opened(elf) as file:
        pieces = sorted(
            (segment.load_address, segment.data) for segment in _segments(file) if segment.data
        )
    if not pieces:
        raise FewbitsError("bad-elf", "the ELF file has nothing to load", where=str(elf))
    first = pieces[0][0]
    end = max(address + len(data) for address, data in pieces)
    if end - first > 256 << 20:
        raise FewbitsError(
            "bad-elf",
            f"the program is spread over {end - first} bytes of addresses",
            where=str(elf),
            hint="link it for a board (--board)",
        )
    image = bytearray(b"\xff" * (end - first))
    for address, data in pieces:
        image[address - first : address - first + len(data)] = data
    out.write_bytes(image)
    return first


def format_map(elf: Path) -> str:
    """A map for people: sections and symbols with address and size, in a fixed order."""
    with _opened(elf) as file:
        rows = [
            (section["sh_addr"], section["sh_size"], section.name)
            for section in file.iter_sections()
            if section["sh_flags"] & _ALLOC and section["sh_size"]
        ]
        table = _symbols(file)
    lines = ["address      bytes  section / symbol"]
    for address, size, name in rows:
        lines.append(f"{address:08x} {size:9d}  {name}")
        lines.extend(
            f"{symbol.address:08x} {symbol.size:9d}    {label}"
            for label, symbol in table.items()
            if symbol.section == name and symbol.size
        )
    return "\n".join(lines) + "\n"
