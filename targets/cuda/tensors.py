"""Tensors of others, borrowed for a call and given back, by DLPack."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from typing import Any

from ...errors import FewbitsError
from ..base import on_gpu

#: From such an address on, kernels read many bytes at once.
ALIGNMENT = 64


def borrowed(tensor: Any, device: Any) -> Any:
    """A TVM tensor over the same memory; a copy where elements are out of line.

    Raises:
        FewbitsError: ``wrong-device`` for memory elsewhere than on `device`.
    """
    import tvm
    import tvm_ffi

    if not on_gpu(tensor) or int(tensor.__dlpack_device__()[1]) != device.index:
        raise FewbitsError(
            "wrong-device",
            "a tensor lies elsewhere than on the library's GPU",
            hint=f"give tensors on cuda:{device.index}, or numpy arrays",
        )
    if hasattr(tensor, "contiguous"):
        tensor = tensor.contiguous()
    view: Any = tvm_ffi.from_dlpack(tensor, require_contiguous=True)
    if _byte_offset(view) == 0:
        try:
            return tvm_ffi.from_dlpack(tensor, require_alignment=ALIGNMENT, require_contiguous=True)
        except (RuntimeError, ValueError, BufferError):
            pass  # from an address that kernels do not read from: copied
    copy = tvm.runtime.empty(tuple(view.shape), str(view.dtype), device)
    view.copyto(copy)
    return copy


class _Tensor(ctypes.Structure):
    """DLPack's ``DLTensor``."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32 * 2),
        ("ndim", ctypes.c_int32),
        ("dtype", ctypes.c_uint32),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
    )


def _byte_offset(view: Any) -> int:
    """Where a tensor's elements begin in its memory. Compiled code reads from the memory's start:
    torch gives the address of the first element as such, but others need not."""
    capsule = view.__dlpack__()
    content = ctypes.pythonapi.PyCapsule_GetPointer
    content.restype, content.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return int(_Tensor.from_address(content(capsule, b"dltensor")).byte_offset)


def given_back(results: Sequence[Any], like: Sequence[Any]) -> list[Any]:
    """Results as the caller's kind of tensor: torch's for torch's, else as they are."""
    torch = sys.modules.get("torch")
    if torch is not None and any(isinstance(tensor, torch.Tensor) for tensor in like):
        return [torch.from_dlpack(result) for result in results]
    return list(results)


def stream_of(tensors: Sequence[Any]) -> int:
    """The stream on which the caller works: torch's current one, else the default one."""
    torch = sys.modules.get("torch")
    if torch is not None:
        for tensor in tensors:
            if isinstance(tensor, torch.Tensor):
                return int(torch.cuda.current_stream(tensor.device).cuda_stream)
    return 0
