"""What a process that measures needs of fewbits, where it has it: the emulated GPU.

It may have TVM's runtime only, so nothing of TVM is imported here.
"""

from __future__ import annotations

import ctypes

from . import driver

#: ``module:function`` that a measuring process calls before it loads TVM.
PREPARE = f"{__name__}:prepare"


def prepare() -> ctypes.CDLL | None:
    """Load TVM's CUDA runtime over what the machine has, or the emulator where it is asked for.

    Returns:
        Functions in the place of CUDA's run-time library, or None for NVIDIA's.

    Raises:
        FewbitsError: as `driver.prepare`.
    """
    driver.prepare()
    return driver.replacement()
