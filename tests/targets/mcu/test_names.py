"""Whatever a model calls things, the generated C stays C."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fewbits.targets.mcu.names import (
    MAX_IDENTIFIER,
    RESERVED,
    Names,
    c_string,
    comment,
    identifier,
    markdown,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

STRICT = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wtrigraphs", "-trigraphs"]
HOSTILE = [
    "",
    "int",
    "class",
    "NULL",
    "main",
    "3x3",
    "__init__",
    "a b",
    'quote"quote',
    "line\nline",
    "carriage\r\n",
    "*/ int evil; /*",
    "/*",
    "*" + "\\\n" + "/ int evil;",
    "??/",
    "*??/\n/ int evil;",
    "ends with \\",
    "ünïcödé",
    "🦊",
    "\u202eright to left",
    "\ud800 lone surrogate",
    "nul\0nul",
    "%s%n",
    "x" * 10_000,
]


def compiler() -> list[str]:
    native = shutil.which("gcc") or shutil.which("clang")
    return [native] if native else [sys.executable, "-m", "ziglang", "cc"]


def assert_compiles(text: str, folder: Path) -> None:
    source = folder / "names.c"
    source.write_text(text, encoding="ascii")
    done = subprocess.run(
        [*compiler(), *STRICT, "-c", str(source), "-o", str(folder / "names.o")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr + text


def program(texts: list[str]) -> str:
    """A C file that uses each text as an identifier, in a comment and as a string."""
    names = Names()
    lines: list[str] = []
    for text in texts:
        name = names.unique(text)
        size = min(len(text.encode("utf-8", "surrogatepass")), 1000) + 1
        lines += [
            f"/* {comment(text)} */",
            f"/* {comment(text)}\n * {comment(text)} */",
            f"extern const char {name}[];",
            f"const char {name}[] = {c_string(text)};",
            f"typedef char size_of_{name}[sizeof({c_string(text)}) == {size} ? 1 : -1];",
        ]
    return "\n".join([*lines, "typedef int end;"]) + "\n"


def test_hostile_names_compile_under_strict_flags(tmp_path: Path) -> None:
    assert_compiles(program(HOSTILE * 2), tmp_path)


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(
        st.text(max_size=30) | st.text("*/\\?\n\" ('!<>-=", max_size=12) | st.sampled_from(HOSTILE),
        min_size=10,
        max_size=30,
    )
)
def test_any_names_compile(tmp_path: Path, texts: list[str]) -> None:
    assert_compiles(program(texts), tmp_path)


@given(st.text() | st.sampled_from(HOSTILE))
def test_identifier_is_plain_short_and_not_reserved(text: str) -> None:
    name = identifier(text)
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name)
    assert "__" not in name
    assert len(name) <= MAX_IDENTIFIER
    assert name not in RESERVED


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("conv1", "conv1"),
        ("model/conv_1/Relu:0", "model_conv_1_Relu_0"),
        ("3x3", "x3x3"),
        ("int", "int_"),
        ("", "model"),
        ("日本", "model"),
    ],
)
def test_identifier_resembles_its_text(text: str, expected: str) -> None:
    assert identifier(text) == expected


def test_long_names_that_differ_at_the_end_stay_different() -> None:
    assert identifier("x" * 10_000 + "a") != identifier("x" * 10_000 + "b")


@given(st.lists(st.text(max_size=5) | st.sampled_from(["a", "A", "a_2", "a 2", "int", "int_"])))
def test_names_are_unique_in_any_case_and_repeatable(texts: list[str]) -> None:
    first, second = Names(["taken"]), Names(["taken"])
    given_out = [first.unique(text) for text in texts]
    assert given_out == [second.unique(text) for text in texts]
    folded = [name.lower() for name in given_out]
    assert len(set(folded)) == len(folded)
    assert "taken" not in folded


@given(st.text() | st.sampled_from(HOSTILE))
def test_comment_is_one_ascii_line_that_cannot_end_a_comment(text: str) -> None:
    line = comment(text)
    assert line.isascii()
    assert line.isprintable()
    assert "*/" not in line
    assert "/*" not in line
    assert "??" not in line


@given(st.text(max_size=40) | st.sampled_from(HOSTILE))
def test_markdown_leaves_no_markup(text: str) -> None:
    cell = markdown(text)
    assert "\n" not in cell
    assert "<" not in cell
    assert not re.search(r"(?<!\\)[|`]", cell.replace("\\\\", ""))
