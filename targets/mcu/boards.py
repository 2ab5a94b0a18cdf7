"""Development boards by name: which core, how much flash and RAM, at which addresses and clock.

RAM is the largest block that the core reaches without set-up and that starts at `ram`: on chips
with several memories it is less than the figure on the box.
"""

from __future__ import annotations

import dataclasses

from ...errors import FewbitsError, nearest
from .startup import Memory, MemoryMap
from .target import TARGETS, McuTarget

_K = 1024


@dataclasses.dataclass(frozen=True)
class Board:
    """A development board, or one that an emulator imitates.

    Attributes:
        name: as in ``--board``.
        title: the maker's name of the board.
        chip: its microcontroller.
        target_name: the core, a key of `TARGETS`.
        flash: address and size of the program memory.
        ram: address and size of the memory for data and stack.
        clock: highest core clock in Hz.
    """

    name: str
    title: str
    chip: str
    target_name: str
    flash: Memory
    ram: Memory
    clock: int

    @property
    def target(self) -> McuTarget:
        """The core that firmware is compiled for."""
        return TARGETS[self.target_name]

    def memory_map(self, stack: int = 4096) -> MemoryMap:
        """The board's memories for `startup.linker_script`, with `stack` bytes for the stack."""
        return MemoryMap(self.flash, self.ram, stack)


def _board(
    name: str,
    title: str,
    chip: str,
    target: str,
    flash: tuple[int, int],
    ram: tuple[int, int],
    megahertz: int,
) -> Board:
    """A row of the table: memories as (address, size in KiB)."""
    return Board(
        name,
        title,
        chip,
        target,
        Memory(flash[0], flash[1] * _K),
        Memory(ram[0], ram[1] * _K),
        megahertz * 1_000_000,
    )


BOARDS: dict[str, Board] = {
    board.name: board
    for board in (
        _board(
            "nucleo-f446re", "ST NUCLEO-F446RE", "STM32F446RE", "cortex-m4",
            (0x0800_0000, 512), (0x2000_0000, 128), 180,
        ),
        _board(
            "nucleo-l476rg", "ST NUCLEO-L476RG", "STM32L476RG", "cortex-m4",
            (0x0800_0000, 1024), (0x2000_0000, 96), 80,
        ),
        _board(
            "stm32f4discovery", "ST STM32F4DISCOVERY", "STM32F407VG", "cortex-m4",
            (0x0800_0000, 1024), (0x2000_0000, 128), 168,
        ),
        _board(
            "nano33ble", "Arduino Nano 33 BLE Sense", "nRF52840", "cortex-m4",
            (0x0000_0000, 1024), (0x2000_0000, 256), 64,
        ),
        _board(
            "nucleo-h743zi", "ST NUCLEO-H743ZI", "STM32H743ZI", "cortex-m7",
            (0x0800_0000, 2048), (0x2400_0000, 512), 480,
        ),
        _board(
            "nucleo-f767zi", "ST NUCLEO-F767ZI", "STM32F767ZI", "cortex-m7",
            (0x0800_0000, 2048), (0x2000_0000, 512), 216,
        ),
        _board(
            "nrf5340dk", "Nordic nRF5340 DK (application core)", "nRF5340", "cortex-m33",
            (0x0000_0000, 1024), (0x2000_0000, 512), 128,
        ),
        _board(
            "nucleo-u575zi", "ST NUCLEO-U575ZI-Q", "STM32U575ZI", "cortex-m33",
            (0x0800_0000, 2048), (0x2000_0000, 768), 160,
        ),
        _board(
            "bluepill", "STM32F103 Blue Pill", "STM32F103C8", "cortex-m3",
            (0x0800_0000, 64), (0x2000_0000, 20), 72,
        ),
        _board(
            "nucleo-g071rb", "ST NUCLEO-G071RB", "STM32G071RB", "cortex-m0plus",
            (0x0800_0000, 128), (0x2000_0000, 36), 64,
        ),
        _board(
            # Behind the 256 bytes of the second-stage boot loader, which the maker's tools prepend.
            "pico", "Raspberry Pi Pico", "RP2040", "cortex-m0plus",
            (0x1000_0100, 2047), (0x2000_0000, 256), 133,
        ),
        _board(
            "esp32-c3", "Espressif ESP32-C3-DevKitM-1", "ESP32-C3", "rv32imc",
            (0x4200_0000, 4096), (0x3FC8_0000, 320), 160,
        ),
        _board(
            "gd32vf103", "Sipeed Longan Nano", "GD32VF103CB", "rv32imc",
            (0x0800_0000, 128), (0x2000_0000, 32), 108,
        ),
        _board(
            "redv", "SparkFun RED-V RedBoard", "FE310-G002", "rv32imc",
            (0x2001_0000, 4032), (0x8000_0000, 16), 320,
        ),
        _board(
            "lm3s6965evb", "TI LM3S6965EVB (qemu-system-arm -M lm3s6965evb)", "LM3S6965",
            "cortex-m3", (0x0000_0000, 256), (0x2000_0000, 64), 50,
        ),
        _board(
            "mps2-an385", "Arm MPS2 AN385 (qemu-system-arm -M mps2-an385)", "AN385", "cortex-m3",
            (0x0000_0000, 4096), (0x2000_0000, 4096), 25,
        ),
        _board(
            "mps2-an386", "Arm MPS2 AN386 (qemu-system-arm -M mps2-an386)", "AN386", "cortex-m4",
            (0x0000_0000, 4096), (0x2000_0000, 4096), 25,
        ),
        _board(
            "mps2-an500", "Arm MPS2 AN500 (qemu-system-arm -M mps2-an500)", "AN500", "cortex-m7",
            (0x0000_0000, 4096), (0x2000_0000, 4096), 25,
        ),
        _board(
            "qemu-riscv32", "QEMU virt (qemu-system-riscv32 -M virt -bios none)", "virt", "rv32imc",
            (0x8000_0000, 8192), (0x8080_0000, 8192), 25,
        ),
    )
}  # fmt: skip


def get_board(name: str) -> Board:
    """The board of that name; case, spaces and underscores do not matter.

    Raises:
        FewbitsError: ``unknown-board``, with the nearest known name.
    """
    key = name.strip().lower().replace("_", "-").replace(" ", "-")
    if key not in BOARDS:
        raise FewbitsError("unknown-board", f"unknown board {name!r}", hint=nearest(key, BOARDS))
    return BOARDS[key]
