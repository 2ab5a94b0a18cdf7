"""Building: every target compiles, equal sources give equal bytes, failures say why."""

import shutil
import subprocess
from pathlib import Path

import pytest
from fewbits.errors import FewbitsError
from fewbits.targets.mcu import toolchain
from fewbits.targets.mcu.elf import format_map, load, sizes, symbols, write_binary
from fewbits.targets.mcu.startup import (
    GENERIC,
    Memory,
    MemoryMap,
    linker_script,
    startup_sources,
)
from fewbits.targets.mcu.target import TARGETS, get_target

SOURCE = """
#include <stdint.h>
#include "three.h"
const int8_t table[100] = {1, 2, SEVEN};
static int32_t counter = 5;
static int32_t zeroed[25];
int32_t look(int i) { zeroed[i & 3] += counter++; return table[i] + zeroed[i & 3]; }
int32_t unused(int a) { return a * THREE; }
"""
BARE = [name for name, target in TARGETS.items() if target.family != "host"]


def project(folder: Path) -> Path:
    (folder / "headers").mkdir(parents=True)
    (folder / "headers" / "three.h").write_text("#define THREE 3\n")
    source = folder / "look.c"
    source.write_text(SOURCE)
    return source


def compile_look(folder: Path, target: str, **options) -> toolchain.BuildResult:
    source = project(folder)
    return toolchain.build(
        [source],
        get_target(target),
        folder / "out" / "look.elf",
        include=[folder / "headers"],
        defines=["SEVEN=7"],
        shared=target == "c",
        **options,
    )


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_compiles(tmp_path, target):
    result = compile_look(tmp_path, target)
    assert result.elf.stat().st_size > 0
    assert result.compiler.startswith("zig cc ")
    assert "look" in symbols(result.elf)
    assert "look" in result.map.read_text()


def test_sizes_are_those_of_the_objects(tmp_path):
    result = compile_look(tmp_path, "cortex-m4", roots=("look", "table"))
    table = symbols(result.elf)
    assert (table["table"].section, table["table"].size) == (".rodata", 100)
    assert (table["zeroed"].section, table["zeroed"].kind) == (".bss", "object")
    assert table["counter"].file == "look.c"
    assert table["look"].kind == "function" and table["look"].address % 2 == 0
    assert 100 <= result.sizes.rodata <= 104
    assert result.sizes.data == 4
    assert result.sizes.flash == result.sizes.text + result.sizes.rodata + 4
    assert result.sizes.ram == 4 + result.sizes.bss
    assert sizes(result.elf) == result.sizes
    assert table["look"].size <= result.sizes.text < 120


def test_roots_decide_what_stays(tmp_path):
    kept = compile_look(tmp_path / "all", "cortex-m3")
    dropped = compile_look(tmp_path / "some", "cortex-m3", roots=("look",))
    assert "unused" in symbols(kept.elf)
    assert "unused" not in symbols(dropped.elf)


@pytest.mark.parametrize("target", ["cortex-m0plus", "rv32imc", "c"])
def test_equal_sources_give_equal_bytes(tmp_path, target):
    first = compile_look(tmp_path / "one", target)
    second = compile_look(tmp_path / "another" / "folder", target)
    assert first.elf.read_bytes() == second.elf.read_bytes()
    assert first.map.read_bytes() == second.map.read_bytes()
    assert str(tmp_path).encode() not in first.elf.read_bytes()


def test_small_code_keeps_its_symbols(tmp_path):
    result = compile_look(tmp_path, "cortex-m4", optimize="-Os")
    assert "look" in symbols(result.elf)


def test_a_failing_compiler_is_quoted_and_nothing_is_written(tmp_path):
    source = tmp_path / "bad.c"
    source.write_text("int broken(void) { return undeclared_name; }\n")
    out = tmp_path / "out" / "bad.elf"
    with pytest.raises(FewbitsError) as caught:
        toolchain.build([source], get_target("cortex-m4"), out)
    assert caught.value.code == "compiler-failed"
    assert "undeclared_name" in caught.value.message
    assert "bad.c" in str(caught.value.where)
    assert list(out.parent.iterdir()) == []


def test_warnings_are_errors(tmp_path):
    source = tmp_path / "warn.c"
    source.write_text("int f(void) { int unused_here; return 0; }\n")
    with pytest.raises(FewbitsError, match="unused_here"):
        toolchain.build([source], get_target("cortex-m4"), tmp_path / "warn.elf")


def test_a_missing_compiler_is_named(tmp_path):
    source = project(tmp_path)
    with pytest.raises(FewbitsError) as caught:
        toolchain.build(
            [source], get_target("cortex-m4"), tmp_path / "x.elf", compiler="no-such-gcc"
        )
    assert caught.value.code == "compiler-missing"
    assert "no-such-gcc" in caught.value.message


def test_a_program_too_big_for_the_memory_does_not_link(tmp_path):
    source = tmp_path / "big.c"
    source.write_text("char big[3000]; char *f(void) { return big; }\n")
    script = tmp_path / "small.ld"
    small = MemoryMap(Memory(0x0800_0000, 65536), Memory(0x2000_0000, 4096), stack=2048)
    script.write_text(linker_script(get_target("cortex-m3"), small))
    with pytest.raises(FewbitsError, match="RAM is too small"):
        toolchain.build(
            [source], get_target("cortex-m3"), tmp_path / "big.elf", linker_script=script
        )


def test_the_binary_is_flash_as_the_programmer_writes_it(tmp_path):
    target = get_target("cortex-m4")
    source = tmp_path / "main.c"
    source.write_text("volatile int answer = 0x12345678; int main(void) { return answer; }\n")
    elf = toolchain.build(
        [source, *startup_sources(target)], target, tmp_path / "main.elf", roots=()
    ).elf
    start = write_binary(elf, tmp_path / "main.bin")
    image = (tmp_path / "main.bin").read_bytes()
    assert start == GENERIC["arm"].flash.base
    assert 0 <= len(image) - sizes(elf).flash < 16  # alignment between the sections
    assert int.from_bytes(image[:4], "little") == GENERIC["arm"].ram.end
    reset = symbols(elf)["Reset_Handler"].address
    assert int.from_bytes(image[4:8], "little") == reset | 1
    assert image.endswith(bytes.fromhex("78563412"))
    assert "Reset_Handler" in format_map(elf)


def test_no_elf_file_is_an_error(tmp_path):
    path = tmp_path / "text.elf"
    path.write_text("hello")
    for function in (load, sizes, symbols):
        with pytest.raises(FewbitsError) as caught:
            function(path)
        assert caught.value.code == "bad-elf"


@pytest.mark.parametrize("target", BARE)
def test_a_gnu_compiler_builds_too(tmp_path, target):
    gcc = get_target(target).gcc
    if shutil.which(gcc) is None:
        pytest.skip(f"{gcc} is not installed")
    result = compile_look(tmp_path, target, compiler=gcc)
    assert "look" in symbols(result.elf)
    assert result.sizes.text > 0


def test_sanitizers_need_a_system_compiler_and_report(tmp_path):
    compiler = toolchain.system_compiler()
    if compiler is None:
        pytest.skip("neither clang nor gcc is installed")
    source = tmp_path / "over.c"
    source.write_text(
        "#include <stdlib.h>\nvolatile int size = 4;\n"
        "int main(void) { volatile char *p = malloc((size_t)size); p[size] = 1; return 0; }\n"
    )
    elf = toolchain.build(
        [source],
        get_target("c"),
        tmp_path / "over",
        compiler=compiler,
        sanitize=("address", "undefined"),
    ).elf
    done = subprocess.run([str(elf)], capture_output=True, text=True)
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
