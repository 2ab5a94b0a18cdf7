"""The table of boards, and that a program for each starts from reset."""

import pytest
from fewbits.errors import FewbitsError
from fewbits.targets.mcu.boards import BOARDS, get_board
from fewbits.targets.mcu.emulator import Emulator
from fewbits.targets.mcu.startup import linker_script, startup_sources
from fewbits.targets.mcu.toolchain import build

MAIN = """
static volatile int zeroed[10];
static volatile int filled[4] = {1, 2, 3, 4};
int main(void)
{
    int sum = 0;
    for (int i = 0; i < 10; ++i) sum += zeroed[i];
    for (int i = 0; i < 4; ++i) sum += filled[i];
    zeroed[0] = 1;
    return sum + 30;
}
"""


@pytest.mark.parametrize("name", BOARDS)
def test_the_table_is_sane(name):
    board = BOARDS[name]
    assert board.name == name and board.title and board.chip
    assert board.target.family in ("arm", "riscv")
    assert 16 * 1024 <= board.flash.size <= 16 << 20
    assert 8 * 1024 <= board.ram.size <= 16 << 20
    assert board.flash.base % 256 == 0 and board.ram.base % 4096 == 0
    assert board.flash.end <= board.ram.base or board.ram.end <= board.flash.base
    assert 10_000_000 <= board.clock <= 600_000_000


def test_every_bare_target_has_a_board():
    assert {board.target_name for board in BOARDS.values()} == {
        "cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "rv32imc",
    }  # fmt: skip


def test_names_are_forgiving():
    assert get_board("NUCLEO_F446RE") is BOARDS["nucleo-f446re"]
    with pytest.raises(FewbitsError, match="nucleo-f446r") as caught:
        get_board("nucleo-f446r")
    assert caught.value.code == "unknown-board"
    assert "did you mean 'nucleo-f446re'" in str(caught.value.hint)


@pytest.mark.parametrize(
    "name", ["nucleo-f446re", "nucleo-h743zi", "nrf5340dk", "bluepill", "pico", "redv", "esp32-c3"]
)
def test_a_program_runs_from_reset(tmp_path, name):
    board = get_board(name)
    (tmp_path / "main.c").write_text(MAIN)
    script = tmp_path / "board.ld"
    script.write_text(linker_script(board.target, board.memory_map(stack=1024)))
    elf = build(
        [tmp_path / "main.c", *startup_sources(board.target)],
        board.target,
        tmp_path / "main.elf",
        linker_script=script,
        roots=(),
    ).elf
    core = Emulator(elf, board.target, guard=True, check_alignment=True)
    assert (core.memory.flash, core.memory.ram) == (board.flash, board.ram)
    first = core.boot()
    assert first.value == 40
    assert core.boot().instructions == first.instructions
