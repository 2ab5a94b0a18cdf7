"""The emulator's tensor instructions as a library of their own, called through ctypes."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fewbits.targets.cuda.emulator as emulator
import numpy as np
import pytest
from fewbits.schedules.cuda.intrinsics.swizzle import TENSOR_MAP_SWIZZLES
from fewbits.targets.mcu.toolchain import compiler_command, run_command

SOURCES = Path(emulator.__path__[0]) / "tensor"

TYPES = ("f16", "bf16", "tf32", "f32", "f64", "e4m3", "e5m2", "s8", "u8", "s4", "u4", "b1", "s32")


class InstructionError(Exception):
    """What an instruction found wrong."""


def _numbers(*names: str) -> list[tuple[str, Any]]:
    return [(name, ctypes.c_int32) for name in names]


class _Mma(ctypes.Structure):
    _fields_ = [
        *_numbers("m", "n", "k", "a", "b", "c", "d"),
        *_numbers("saturate", "xor_popc", "sparse", "selector"),
    ]


class _Wgmma(ctypes.Structure):
    _fields_ = [
        *_numbers("n", "k", "a", "b", "d", "saturate", "scale_d", "scale_a", "scale_b"),
        *_numbers("trans_a", "trans_b", "sparse", "selector"),
    ]


class _Shared(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_void_p), ("size", ctypes.c_uint64)]


_AT = ctypes.CFUNCTYPE(
    ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_bool
)


class _Global(ctypes.Structure):
    _fields_ = [("context", ctypes.c_void_p), ("at", _AT)]


def pointer(array: np.ndarray | None) -> ctypes.c_void_p:
    """An array's address."""
    return ctypes.c_void_p(None if array is None else array.ctypes.data)


class Memory:
    """Device memory: arrays at addresses, bounds checked."""

    BASE = 0x7F0000001000

    def __init__(self) -> None:
        self._arrays: list[tuple[int, np.ndarray]] = []

    def add(self, address: int, array: np.ndarray) -> int:
        """Puts an array at an address."""
        self._arrays.append((address, array))
        return address

    def structure(self) -> _Global:
        """The C structure; its callback lives as long as it does."""

        def at(_: Any, address: int, size: int, write: bool) -> int | None:
            del write
            for start, array in self._arrays:
                if start <= address and address + size <= start + array.nbytes:
                    return array.ctypes.data + address - start
            return None

        return _Global(None, _AT(at))


class Tensor:
    """The C functions; an error text is raised as `Error`."""

    Error = InstructionError

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))

    def call(self, name: str, *arguments: Any) -> None:
        """Calls a function that returns an error text."""
        function = getattr(self._library, name)
        function.restype = ctypes.c_char_p
        text = function(*arguments)
        if text is not None:
            raise InstructionError(text.decode())

    def movmatrix(self, registers: np.ndarray) -> np.ndarray:
        """d of a."""
        result = np.zeros(32, np.uint32)
        function = self._library.fb_movmatrix
        function.restype = None
        function(pointer(result), pointer(np.ascontiguousarray(registers)))
        return result

    def pending_count(self, state: int) -> int:
        """mbarrier.pending_count."""
        function = self._library.fb_mbarrier_pending_count
        function.restype = ctypes.c_uint32
        return function(ctypes.c_uint64(state))

    @staticmethod
    def shared(memory: np.ndarray) -> Any:
        """Bytes as a block's shared memory, by reference."""
        return ctypes.byref(_Shared(memory.ctypes.data, memory.nbytes))

    def mma(
        self,
        shape: tuple[int, int, int],
        types: Sequence[str],
        a: np.ndarray,
        b: np.ndarray,
        c: np.ndarray,
        metadata: np.ndarray | None = None,
        **flags: int,
    ) -> np.ndarray:
        """d of mma.sync; types are d's, a's, b's, c's; fragments uint32 [registers, 32]."""
        d, left, right, start = (TYPES.index(name) for name in types)
        m, n, k = shape
        op = _Mma(m=m, n=n, k=k, a=left, b=right, c=start, d=d, **flags)
        counts = (ctypes.c_int32 * 4)()
        self.call("fb_mma_registers", ctypes.byref(op), counts)
        assert [a.shape, b.shape, c.shape] == [(count, 32) for count in counts[:3]]
        result = np.zeros((counts[3], 32), np.uint32)
        self.call(
            "fb_mma_sync",
            ctypes.byref(op),
            pointer(result),
            pointer(a),
            pointer(b),
            pointer(c),
            pointer(metadata),
        )
        return result

    def wgmma(
        self,
        n: int,
        k: int,
        types: Sequence[str],
        shared: np.ndarray,
        a: np.ndarray | int,
        b: int,
        d: np.ndarray,
        metadata: np.ndarray | None = None,
        **flags: int,
    ) -> np.ndarray:
        """d of wgmma; fragments uint32 [registers, 128], descriptors as numbers."""
        fields = {"scale_d": 1, "scale_a": 1, "scale_b": 1, **flags}
        total, left, right = (TYPES.index(name) for name in types)
        op = _Wgmma(n=n, k=k, a=left, b=right, d=total, **fields)
        counts = (ctypes.c_int32 * 2)()
        self.call("fb_wgmma_registers", ctypes.byref(op), counts)
        assert d.shape == (counts[1], 128)

        def warps(fragment: np.ndarray) -> tuple[list[np.ndarray], Any]:
            pieces = [np.ascontiguousarray(fragment[..., 32 * i : 32 * i + 32]) for i in range(4)]
            return pieces, (ctypes.c_void_p * 4)(*(piece.ctypes.data for piece in pieces))

        result, result_pointers = warps(d)
        descriptor = a if isinstance(a, int) else 0
        held, a_pointers = warps(a) if isinstance(a, np.ndarray) else ([], None)
        assert not held or held[0].shape == (counts[0], 32)
        codes, code_pointers = warps(metadata) if metadata is not None else ([], None)
        self.call(
            "fb_wgmma_mma_async",
            ctypes.byref(op),
            self.shared(shared),
            result_pointers,
            a_pointers,
            ctypes.c_uint64(descriptor),
            ctypes.c_uint64(b),
            code_pointers,
        )
        del held, codes
        return np.concatenate(result, axis=-1)

    def tensor_map(
        self,
        data_type: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        box: tuple[int, ...],
        *,
        steps: tuple[int, ...] | None = None,
        address: int = Memory.BASE,
        span: int = 16,
        interleave: int = 0,
        swizzle_field: int | None = None,
        promotion: int = 0,
        fill: int = 0,
    ) -> np.ndarray:
        """Encoded; innermost dimension first."""
        storage = np.zeros(192, np.uint8)
        start = -storage.ctypes.data % 64
        found = storage[start : start + 128]
        rank = len(shape)
        self.call(
            "fb_tensor_map_encode",
            ctypes.c_void_p(found.ctypes.data),
            data_type,
            rank,
            ctypes.c_uint64(address),
            (ctypes.c_uint64 * rank)(*shape),
            (ctypes.c_uint64 * max(1, rank - 1))(*strides),
            (ctypes.c_uint32 * rank)(*box),
            (ctypes.c_uint32 * rank)(*(steps or (1,) * rank)),
            interleave,
            TENSOR_MAP_SWIZZLES[span] if swizzle_field is None else swizzle_field,
            promotion,
            fill,
        )
        return found

    def tma(
        self,
        name: str,
        encoded: np.ndarray,
        where: tuple[int, ...],
        memory: Any,
        shared: np.ndarray,
        address: int,
        reduction: int | None = None,
    ) -> int:
        """Runs load, store or reduce; the bytes of a load."""
        count = ctypes.c_uint32()
        extra = [ctypes.byref(count)] if name == "load" else []
        self.call(
            f"fb_tma_{name}",
            ctypes.c_void_p(encoded.ctypes.data),
            len(where),
            (ctypes.c_int32 * len(where))(*where),
            *([] if reduction is None else [reduction]),
            ctypes.byref(memory.structure()),
            self.shared(shared),
            ctypes.c_uint32(address),
            *extra,
        )
        return count.value


@pytest.fixture(scope="session")
def tensor(tmp_path_factory: pytest.TempPathFactory) -> Tensor:
    """The instructions, compiled with every warning and undefined behaviour as errors."""
    library = tmp_path_factory.mktemp("tensor") / "libtensor.so"
    flags = ["-std=c11", "-O1", "-shared", "-fPIC", "-mcpu=baseline", "-Wall", "-Wextra", "-Werror"]
    flags += ["-fsanitize=undefined", "-fno-sanitize-recover=all", "-fsanitize-trap=all"]
    sources = [str(path) for path in sorted(SOURCES.glob("*.c"))]
    run_command([*compiler_command(None), *flags, *sources, "-o", str(library), "-lm"])
    return Tensor(library)


@pytest.fixture
def memory() -> Memory:
    """Empty device memory."""
    return Memory()


@pytest.fixture
def rng() -> np.random.Generator:
    """The same numbers each time."""
    return np.random.default_rng(20)
