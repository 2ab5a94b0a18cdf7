"""A model as a shared library for GPUs: the CUDA family's side of `targets.base`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tvm import ir

from ...errors import FewbitsError
from ...schedules.cuda.tuning.recorded import Recorded
from ..base import Golden, Request
from ..cpu.target import this_machine
from ..vm.integers import in_integers
from ..vm.layers import layer_rows
from ..vm.link import link
from ..vm.product import LIBRARY, LibraryProduct, save_golden
from .checks import check_scales, check_weights, overflowing
from .pipeline import choose_kernels, lower_to_tir, make_executable
from .target import CudaTarget
from .tuning import recorded

#: How far results may be from the oracle's, as a share of an output's length, by the type that
#: activations are stored in. The oracle rounds none of them.
FLOAT_MATCH = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 8e-2}
#: The same where activations are rounded to few bits: what half moves may tip to the next level.
ROUNDED_MATCH = {"float32": 3e-2, "float16": 6e-2, "bfloat16": 1.5e-1}


class CudaProduct(LibraryProduct):
    """A module lowered to TIR for each architecture.

    Attributes:
        target: the set of architectures.
        architectures: the newest first.
        float_type: how activations are stored.
        recorded: which kernels were measured to be best; None where nobody asks.
        chosen: by architecture, the module with kernels chosen.
        lowered: by architecture, loops only.
    """

    def __init__(
        self,
        module: ir.IRModule,
        target: CudaTarget,
        float_type: str,
        recorded: Recorded | None = None,
    ) -> None:
        model = in_integers(module)
        super().__init__(model)
        check_scales(self.module)
        self._golden: Golden | None = None
        self.target = target
        self.architectures = target.architectures()
        self.float_type = float_type
        self.recorded = recorded
        check_weights(self.module, self.float_type)
        self.chosen = [
            choose_kernels(
                self.module,
                architecture,
                "float32" if self.quantization else float_type,
                recorded,
            )
            for architecture in self.architectures
        ]
        self.lowered = [lower_to_tir(chosen) for chosen in self.chosen]
        self.float_match = (ROUNDED_MATCH if model.rounds else FLOAT_MATCH)[self.float_type]

    def layers(self) -> list[dict[str, Any]]:
        """Rows whose kernel is the newest architecture's; ``kernels`` has each one's."""
        tables = [layer_rows(self.module, chosen.module) for chosen in self.chosen]
        rows = tables[0]
        for place, row in enumerate(rows):
            row["kernels"] = {
                chosen.architecture.name: table[place]["kernel"]
                for chosen, table in zip(self.chosen, tables, strict=True)
            }
        return rows

    def describe(self) -> dict[str, Any]:
        """What the library needs, exact sizes of the weights, a row per layer with weights."""
        return {
            "machine": this_machine(),
            "architectures": [architecture.name for architecture in self.architectures],
            "float": self.float_type,
            "tuning": self._tuning(),
            **super().describe(),
        }

    def _tuning(self) -> dict[str, int]:
        """How many products there are, how many have a measured kernel, records without sense."""
        mine = self.recorded
        if mine is None:
            return {"kernels": 0, "tuned": 0, "ignored_lines": 0}
        return {"kernels": mine.asked, "tuned": mine.answered, "ignored_lines": mine.lost}

    def emit(self, folder: Path, golden: Golden | None, rows: Mapping[str, object]) -> None:
        """Golden samples."""
        del rows
        self._golden = golden
        save_golden(folder, golden)

    def build(self, folder: Path, layers: list[dict[str, Any]]) -> dict[str, Any]:
        """Machine code and weights in one file.

        Raises:
            FewbitsError: ``compiler-missing``, ``compiler-failed``.
        """
        del layers
        lowered = {
            graph_of(chosen.architecture.name): plain
            for chosen, plain in zip(self.chosen, self.lowered, strict=True)
        }
        kernels = {k.name: k for chosen in self.chosen for k in chosen.kernels}
        executable = make_executable(lowered, list(kernels.values()), self.architectures)
        library = folder / LIBRARY
        link(executable, this_machine(), library)
        return {"library_bytes": library.stat().st_size}

    def disagreement(
        self, name: str, index: int, got: np.ndarray, want: np.ndarray, found: float
    ) -> FewbitsError:
        """Numbers that only the library has no room for are the type's fault."""
        if self.float_type != "float32" and self._golden is not None:
            error = overflowing(self.module, self._golden[0], self.float_type)
            if error is not None:
                return error
        return super().disagreement(name, index, got, want, found)


def graph_of(architecture: str) -> str:
    """The name of an architecture's graph in a library."""
    return f"main_{architecture}"


def make_product(module: ir.IRModule, target: CudaTarget, request: Request) -> CudaProduct:
    """Integers where everything can be, kernels for each architecture, loops."""
    float_type = request.float_type or target.float_types[0]
    return CudaProduct(module, target, float_type, recorded(request.tuning))
