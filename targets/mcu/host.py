"""Calls functions of a C library built for this machine, in a process of its own.

The counterpart of `Emulator` for the target ``c``: the same methods, real addresses, no counting.
The library is loaded by a child process, so that a crash of generated code is an error like any
other and not the end of the compiler.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ...errors import FewbitsError

_LIMIT_SECONDS = 600.0
_CHILD = f"from {__name__} import serve; serve()"


class HostRunner:
    """One loaded library. Use it as a context manager, or `close` it."""

    def __init__(self, library: Path) -> None:
        """Loads a shared library that `toolchain.build` made with ``shared=True``.

        Raises:
            FewbitsError: ``bad-library``.
        """
        self._library = library
        self._child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(library.absolute())],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            self._request("load")
        except FewbitsError as error:
            self.close()
            raise FewbitsError("bad-library", error.message, where=str(library)) from error

    def symbol(self, name: str) -> int:
        """The address of a function or variable.

        Raises:
            FewbitsError: ``unknown-symbol``.
        """
        return self._request("symbol", name)

    def allocate(self, size: int, alignment: int = 16) -> int:
        """Memory of the child process that stays until `release`; its address."""
        return self._request("allocate", size, alignment)

    def place(self, data: bytes | np.ndarray, alignment: int = 16) -> int:
        """`allocate` and `write` in one step; the address."""
        raw = data.tobytes() if isinstance(data, np.ndarray) else data
        address = self.allocate(len(raw), alignment)
        self.write(address, raw)
        return address

    def release(self) -> None:
        """Takes back everything `allocate` and `place` gave."""
        self._request("release")

    def write(self, address: int, data: bytes | bytearray | memoryview | np.ndarray) -> None:
        """Copies bytes (of an array: its elements in C order) into the child's memory."""
        self._request(
            "write", address, data.tobytes() if isinstance(data, np.ndarray) else bytes(data)
        )

    def read(self, address: int, size: int) -> bytes:
        """Copies bytes out of the child's memory."""
        return self._request("read", address, size)

    def call(self, function: str, *arguments: int) -> int:
        """Calls a C function with pointers (integers beyond 32 bits) and ``int`` arguments.

        Returns:
            The value as a signed 32-bit integer.

        Raises:
            FewbitsError: ``unknown-symbol``; ``host-crash`` when the child dies or does not answer
                within ten minutes. The runner is closed then.
        """
        return self._request("call", function, arguments)

    def close(self) -> None:
        """Ends the child process."""
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._child.kill()
        self._child.wait()

    def __enter__(self) -> HostRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_child"):
            self.close()

    def _request(self, *request: object) -> Any:
        assert self._child.stdin is not None and self._child.stdout is not None
        watchdog = threading.Timer(_LIMIT_SECONDS, self._child.kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            pickle.dump(request, self._child.stdin)
            self._child.stdin.flush()
            problem, value = pickle.load(self._child.stdout)
        except (OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
            status = self._child.poll() if self._child.stdin.closed else self._child.wait()
            self.close()
            raise FewbitsError(
                "host-crash",
                f"the generated code crashed on this machine ({_describe(status)})",
                where=f"{self._library}, {' '.join(str(word) for word in request[:2])}",
                hint="please report the model; a sanitizer build shows the place",
            ) from error
        finally:
            watchdog.cancel()
        if problem:
            raise FewbitsError(problem, str(value), where=str(self._library))
        return value


def _describe(status: int | None) -> str:
    if status is not None and status < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-status).name
    return f"status {status}"


def serve() -> None:
    """The child process: one request, one answer, until the parent goes away."""
    # What the library prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _serve(sys.argv[1], sys.stdin.buffer, answers)


def _serve(library: str, requests: BinaryIO, answers: BinaryIO) -> None:
    loaded: ctypes.CDLL | None = None
    memory: list[ctypes.Array[ctypes.c_char]] = []

    def answer(kind: str, *words: Any) -> Any:
        nonlocal loaded
        if kind == "load":
            loaded = ctypes.CDLL(library)
            return None
        if kind == "release":
            memory.clear()
            return None
        if kind == "allocate":
            size, alignment = words
            memory.append(ctypes.create_string_buffer(size + alignment))
            return -(-ctypes.addressof(memory[-1]) // alignment) * alignment
        if kind == "write":
            return ctypes.memmove(words[0], words[1], len(words[1])) and None
        if kind == "read":
            return ctypes.string_at(*words)
        function = getattr(loaded, words[0])
        if kind == "symbol":
            return ctypes.cast(function, ctypes.c_void_p).value
        function.restype = ctypes.c_int32
        return function(
            *(
                ctypes.c_int32(word) if -(1 << 31) <= word < 1 << 32 else ctypes.c_void_p(word)
                for word in words[1]
            )
        )

    while True:
        try:
            request = pickle.load(requests)
        except EOFError:
            return
        try:
            reply = ("", answer(*request))
        except AttributeError as error:
            reply = ("unknown-symbol", str(error))
        except OSError as error:
            reply = ("bad-library", str(error))
        pickle.dump(reply, answers)
        answers.flush()
