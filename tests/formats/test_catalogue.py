"""The catalogue and the documentation list every family, and nothing that is not so."""

import re
from pathlib import Path

from fewbits.formats.catalogue import FORMATS, LIBRARY
from fewbits.formats.parse import FAMILIES, parse_format

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "formats.md"
ROW = re.compile(r"^\| `([^`]+)` \| (\d) \| (\d+) \| (\S+) \| (\S+) \| (\S+) \| (yes|no) \|", re.M)


def test_every_family_is_listed_by_names_that_read_back():
    listed = [f for f in FORMATS if f.used_for == LIBRARY]
    assert {type(parse_format(f.name)) for f in listed} == set(FAMILIES)
    for row in listed:
        assert parse_format(row.name).bits == row.bits
    names = [f.name for f in FORMATS]
    assert len(set(names)) == len(names)


def test_the_documented_ranges_are_those_of_the_formats():
    rows = ROW.findall(DOCUMENT.read_text(encoding="utf-8"))
    assert {type(parse_format(name)) for name, *_ in rows} == set(FAMILIES)
    for name, bits, count, lowest, highest, smallest, zero in rows:
        number_format = parse_format(name)
        levels = number_format.levels()
        positive = levels[levels > 0][0]
        told = (int(bits), int(count), lowest, highest, smallest, zero == "yes")
        assert told == (
            number_format.bits, len(levels), f"{levels[0]:.6g}", f"{levels[-1]:.6g}",
            f"{positive:.4g}", bool((levels == 0).any()),
        ), name  # fmt: skip
