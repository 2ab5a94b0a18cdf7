"""The native half of the emulator: counting and checking at the speed of the emulation.

`tracer.c` is compiled for the host once, by the compiler that also builds firmware, and cached
under a hash of its text. Unicorn calls it directly.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from unicorn import arm_const, unicorn_const
from unicorn.unicorn_py3.unicorn import Uc, uclib

from .target import get_target
from .toolchain import build, cache_folder, compiler_version

_SOURCE = Path(__file__).with_name("tracer.c")
_PROBLEMS = ("", "limit", "outside-code", "unaligned", "guard-read", "guard-write", "undefined")


class _Range(ctypes.Structure):
    _fields_ = (
        ("start", ctypes.c_uint64),
        ("end", ctypes.c_uint64),
        ("writable", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
    )


class _State(ctypes.Structure):
    """`fb_tracer` of tracer.c."""

    _fields_ = (
        ("code_start", ctypes.c_uint64),
        ("code_end", ctypes.c_uint64),
        ("code", ctypes.c_void_p),
        ("executed", ctypes.c_void_p),
        ("block_size", ctypes.c_void_p),
        ("block_count", ctypes.c_void_p),
        ("owner", ctypes.c_void_p),
        ("region", ctypes.c_void_p),
        ("total", ctypes.c_uint64),
        ("limit", ctypes.c_uint64),
        ("trap", ctypes.c_uint64),
        ("stop", ctypes.c_void_p),
        ("read_register", ctypes.c_void_p),
        ("write_register", ctypes.c_void_p),
        ("ranges", ctypes.c_void_p),
        ("ranges_count", ctypes.c_uint64),
        ("bad_address", ctypes.c_uint64),
        ("bad_size", ctypes.c_uint64),
        ("bad_pc", ctypes.c_uint64),
        ("current", ctypes.c_uint32),
        ("riscv", ctypes.c_uint32),
        ("alignment", ctypes.c_uint32),
        ("problem", ctypes.c_uint32),
        ("pc", ctypes.c_int32),
        ("epsr", ctypes.c_int32),
        ("armv6m", ctypes.c_uint32),
    )


class Tracer:
    """Counts instructions and checks memory accesses of one emulated machine.

    Args:
        engine: the machine; its memory is mapped, nothing has been run.
        code: addresses of the code.
        text: the bytes of the code.
        riscv: RISC-V encoding; otherwise Thumb.
        armv6m: refuse instructions that Armv6-M lacks.
        pc: the emulator's name of the program counter.
        trap: the address at which a call ends.
        alignment: 0 checks nothing, 1 multiword accesses, 2 every access.
        check_memory: call the tracer for memory accesses at all.
    """

    def __init__(
        self,
        engine: Uc,
        code: range,
        text: bytes,
        *,
        riscv: bool,
        armv6m: bool,
        pc: int,
        trap: int,
        alignment: int,
        check_memory: bool,
    ) -> None:
        halfwords = (len(code) + 1) // 2
        self.executed = np.zeros(halfwords, np.uint64)
        self._block_size = np.zeros(halfwords, np.uint32)
        self._block_count = np.zeros(halfwords, np.uint32)
        self._owner = np.zeros(halfwords, np.uint16)
        self.region = np.zeros(1, np.uint64)
        self._text = np.frombuffer(text + b"\0\0\0\0", np.uint8).copy()
        self._ranges: ctypes.Array[_Range] | None = None
        self.code = code
        self._state = _State(
            code_start=code.start,
            code_end=code.stop,
            code=self._text.ctypes.data,
            executed=self.executed.ctypes.data,
            block_size=self._block_size.ctypes.data,
            block_count=self._block_count.ctypes.data,
            owner=self._owner.ctypes.data,
            region=self.region.ctypes.data,
            trap=trap,
            stop=_address(uclib.uc_emu_stop),
            read_register=_address(uclib.uc_reg_read),
            write_register=_address(uclib.uc_reg_write),
            riscv=int(riscv),
            armv6m=int(armv6m),
            alignment=alignment,
            pc=pc,
            epsr=arm_const.UC_ARM_REG_EPSR,
        )
        library = _library()
        self._hook(engine, unicorn_const.UC_HOOK_BLOCK, library.fb_on_block)
        if check_memory:
            kinds = unicorn_const.UC_HOOK_MEM_READ | unicorn_const.UC_HOOK_MEM_WRITE
            self._hook(engine, kinds, library.fb_on_access)

    def _hook(self, engine: Uc, kinds: int, function: object) -> None:
        handle = ctypes.c_size_t()
        status = uclib.uc_hook_add(
            engine._uch,
            ctypes.byref(handle),
            kinds,
            ctypes.cast(function, ctypes.c_void_p),  # pyright: ignore[reportArgumentType]
            ctypes.byref(self._state),
            ctypes.c_uint64(1),
            ctypes.c_uint64(0),
        )
        if status != unicorn_const.UC_ERR_OK:
            raise RuntimeError(f"uc_hook_add failed with status {status}")

    def set_regions(self, count: int, owners: Sequence[tuple[int, int, int]]) -> None:
        """Divides the code: ``(address, size, region)``, regions from 0 to `count` - 1.

        Code that no region owns belongs to whichever region called it.
        """
        self._owner[:] = 0
        for address, size, region in owners:
            first = (address - self.code.start) // 2
            self._owner[first : first + (size + 1) // 2] = region
        self.region = np.zeros(count, np.uint64)
        self._state.region = self.region.ctypes.data

    def set_ranges(self, ranges: Sequence[tuple[int, int, bool]]) -> None:
        """Allows memory accesses only to ``(address, size, writable)``; none allows all."""
        array = (_Range * len(ranges))()
        for item, (address, size, writable) in zip(array, ranges, strict=True):
            item.start, item.end, item.writable = address, address + size, int(writable)
        self._ranges = array
        self._state.ranges = ctypes.addressof(array)
        self._state.ranges_count = len(ranges)

    def start(self, limit: int) -> None:
        """Sets all counters to zero; the run may take `limit` instructions."""
        self.executed[:] = 0
        self.region[:] = 0
        self._state.total = 0
        self._state.limit = limit
        self._state.current = 0
        self._state.problem = 0

    @property
    def total(self) -> int:
        """Instructions executed since `start`."""
        return self._state.total

    @property
    def current(self) -> int:
        """The region that was executed last."""
        return self._state.current

    @property
    def problem(self) -> str:
        """Why the run was stopped: ``"limit"``, ``"outside-code"``, ``"unaligned"``,
        ``"guard-read"``, ``"guard-write"``, ``"undefined"``, or ``""``."""
        return _PROBLEMS[self._state.problem]

    @property
    def bad_access(self) -> tuple[int, int, int]:
        """Address and size of the access that is the problem, and its instruction's address."""
        return self._state.bad_address, self._state.bad_size, self._state.bad_pc


def _address(function: object) -> int:
    value = ctypes.cast(function, ctypes.c_void_p).value  # pyright: ignore[reportArgumentType]
    assert value is not None
    return value


@functools.lru_cache
def _library() -> ctypes.CDLL:
    """The compiled tracer, built on first use."""
    key = hashlib.sha256(_SOURCE.read_bytes() + compiler_version().encode()).hexdigest()[:16]
    suffix = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
    path = cache_folder() / "tracer" / f"{key}{suffix}"
    if not path.exists():
        build([_SOURCE], get_target("c"), path, shared=True)
    return ctypes.CDLL(str(path))
