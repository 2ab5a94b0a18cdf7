"""CUDA source as TVM prints it, made to stand in one file with the sources of other kernels."""

from __future__ import annotations

import itertools
import re

_KERNEL = re.compile(r'^extern "C"', re.MULTILINE)
_DYNAMIC = re.compile(r"^\s*extern __shared__ .*?(\w+)\[\];", re.MULTILINE)


def separated(source: str) -> str:
    """The source with each kernel's dynamic shared memory under a name of its own.

    Such arrays are external to C++, so one name means one type in the whole file, whereas TVM
    names them within a kernel.
    """
    starts = [match.start() for match in _KERNEL.finditer(source)] + [len(source)]
    parts = [source[: starts[0]]]
    for number, (start, end) in enumerate(itertools.pairwise(starts)):
        part = source[start:end]
        for name in dict.fromkeys(_DYNAMIC.findall(part)):
            part = re.sub(rf"\b{name}\b", f"{name}_of_{number}", part)
        parts.append(part)
    return "".join(parts)
