"""Fat binaries: what is in them, which PTX a device takes, hostile bytes give errors."""

from __future__ import annotations

import struct

import pytest
from fewbits import FewbitsError
from fewbits.targets.cuda.fatbin import MAGIC, capability, entries, is_fatbin, ptx_for
from hypothesis import given
from hypothesis import strategies as st

_FLAGS = {"": 0x11, "a": 0x100011, "f": 0x200011}


def _entry(kind: int, number: int, letter: str = "", content: bytes = b"", flags: int = 0) -> bytes:
    padded = content + b"\0" * (-len(content) % 8)
    header = struct.pack("<HHIQ", kind, 0x0101, 64, len(padded)) + b"\0" * 12
    header += struct.pack("<I", number) + b"\0" * 8
    header += struct.pack("<Q", _FLAGS[letter] | flags) + b"\0" * 16
    assert len(header) == 64
    return header + padded


def _file(*parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack("<IHHQ", MAGIC, 1, 16, len(body)) + body


def test_entries_in_order_without_padding() -> None:
    data = _file(_entry(2, 90, "a", b"\x7fELF...."), _entry(1, 90, "a", b"//ptx"))
    elf, ptx = entries(data + b"what follows does not matter")
    assert (elf.kind, elf.architecture, elf.content) == ("elf", "sm_90a", b"\x7fELF....")
    assert (ptx.kind, ptx.architecture, ptx.content) == ("ptx", "sm_90a", b"//ptx")


@pytest.mark.parametrize(
    ("held", "device", "taken"),
    [
        (["80"], (90, True), "80"),
        (["80", "89", "90a"], (90, True), "90a"),
        (["80", "89", "90a"], (90, False), "89"),
        (["90", "90a"], (90, True), "90a"),
        (["80", "89", "90a"], (80, False), "80"),
        (["80", "89", "90a"], (86, False), "80"),
        (["89", "90a"], (80, False), None),
        (["90a"], (100, True), None),
        (["90f"], (90, False), "90f"),
        ([], (90, True), None),
    ],
)
def test_a_device_takes_its_own_or_the_latest_earlier(
    held: list[str], device: tuple[int, bool], taken: str | None
) -> None:
    parts = [
        _entry(1, int(name.rstrip("af")), name.lstrip("0123456789"), name.encode()) for name in held
    ]
    assert ptx_for(entries(_file(*parts)), *device) == taken


@pytest.mark.parametrize("flag", [0x2000, 0x8000])
def test_compressed_code_is_recognized(flag: int) -> None:
    found = entries(_file(_entry(1, 80, content=b"....", flags=flag)))
    assert found[0].content is None
    with pytest.raises(FewbitsError, match="compressed"):
        ptx_for(found, 80)


def test_kinds_that_are_not_known_are_passed_over() -> None:
    assert [entry.number for entry in entries(_file(_entry(64, 80), _entry(1, 90)))] == [90]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x7fELF",
        _file()[:-1],
        struct.pack("<IHHQ", MAGIC, 2, 16, 0),
        struct.pack("<IHHQ", MAGIC, 1, 8, 8),
        struct.pack("<IHHQ", MAGIC, 1, 16, 1 << 63),
        _file(b"\1\0"),
        _file(_entry(1, 80)[:-1]),
        _file(_entry(1, 80), struct.pack("<HHIQ", 1, 0x101, 64, 1 << 62) + b"\0" * 48),
        _file(struct.pack("<HHIQ", 1, 0x101, 0, 0) + b"\0" * 48),
        _file(*[_entry(1, 80)] * 1025),
    ],
)
def test_damaged_files_are_errors(data: bytes) -> None:
    with pytest.raises(FewbitsError) as caught:
        entries(data)
    assert caught.value.code == "bad-fatbin"


_WHOLE = _file(_entry(2, 90, "a", b"\x7fELF" * 9), _entry(1, 90, "a", b"// text"))


@given(st.dictionaries(st.integers(0, len(_WHOLE) - 1), st.integers(0, 255), max_size=6))
def test_changed_bytes_give_entries_inside_the_file_or_an_error(changes: dict[int, int]) -> None:
    data = bytearray(_WHOLE)
    for place, byte in changes.items():
        data[place] = byte
    try:
        found = entries(bytes(data))
    except FewbitsError as error:
        assert error.code == "bad-fatbin"
    else:
        assert sum(len(entry.content or b"") for entry in found) <= len(data)


@given(st.binary(max_size=200))
def test_any_bytes_after_the_magic_are_read_safely(tail: bytes) -> None:
    data = struct.pack("<I", MAGIC) + tail
    assert is_fatbin(data) == (len(data) >= 16)
    try:
        entries(data)
    except FewbitsError as error:
        assert error.code == "bad-fatbin"


def test_names_of_architectures() -> None:
    assert capability("sm_90a") == (90, True)
    assert capability("sm_80") == (80, False)
    for wrong in ("90a", "sm_9", "sm_90b", "sm_90A", "compute_90", "sm_080"):
        with pytest.raises(FewbitsError) as caught:
            capability(wrong)
        assert caught.value.code == "bad-architecture"
