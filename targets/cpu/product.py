"""A model as a shared library: the CPU family's side of `targets.base`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tvm import ir

from ...schedules.tuning.choices import Choices, Recorded
from ..base import Golden, Request
from ..vm.integers import in_integers
from ..vm.layers import layer_rows
from ..vm.link import link
from ..vm.product import LIBRARY, LibraryProduct, save_golden
from .pipeline import choose_kernels, lower_to_tir, make_executable
from .target import CpuTarget, required_features, tvm_target
from .tuning import layers_of, recorded

#: How far results may be from the oracle's, as a share of an output's length: in float, sums have
#: another order; where activations are rounded to few bits, that may tip one to the next level.
FLOAT_MATCH = 1e-4
ROUNDED_MATCH = 3e-2

_README = """\
# Running {library} from C

`run.c` loads the library with TVM's runtime, reads and writes `.npy` files, and needs nothing else.

```sh
P=$(python -c "import tvm, pathlib; print(pathlib.Path(tvm.__file__).parent.parent)")
python -m ziglang cc -O2 -I $P/tvm_ffi/include run.c -o run \\
    -L $P/tvm_ffi/lib -L $P/tvm/lib -ltvm_ffi -Wl,--no-as-needed -ltvm_runtime \\
    -Wl,-rpath,$P/tvm_ffi/lib -Wl,-rpath,$P/tvm/lib
./run{call}
```

Any C compiler does. To ship the program, ship `libtvm_ffi.so` and `libtvm_runtime.so` with it. The
results should be those in `../golden/output_*.npy`. Inputs and outputs are codes: `manifest.json`
has the scale and zero point of each, where they are not the values themselves.
"""

_EXAMPLES = Path(__file__).parent / "examples"


class CpuProduct(LibraryProduct):
    """A module lowered to TIR.

    Attributes:
        target: the kind of CPU.
        choices: what decided about the sizes of kernels; None: their rules.
        chosen: the module with kernels chosen, before everything became loops.
        lowered: loops only.
    """

    def __init__(
        self, module: ir.IRModule, target: CpuTarget, choices: Choices | None = None
    ) -> None:
        model = in_integers(module)
        super().__init__(model)
        self.target = target
        self.choices = choices
        self.tvm_target = tvm_target(target)
        self.chosen = choose_kernels(self.module, self.tvm_target, choices)
        self.lowered = lower_to_tir(self.chosen, self.tvm_target, choices)
        self.float_match = ROUNDED_MATCH if model.rounds else FLOAT_MATCH

    def layers(self) -> list[dict[str, Any]]:
        """Rows whose kernel says whether its sizes were measured to be best."""
        rows = layer_rows(self.module, self.chosen)
        if isinstance(self.choices, Recorded):
            tuned = set(layers_of(self.module, self.choices.tuned))
            for row in rows:
                row["kernel"] += ", tuned" if row["name"] in tuned else ""
        return rows

    def describe(self) -> dict[str, Any]:
        """The library's needs, exact sizes of the weights, a row per layer with weights."""
        return {
            "machine": self.target.architecture,
            "mcpu": str(self.tvm_target.attrs["mcpu"]),
            "features": required_features(self.target),
            "tuning": self._tuning(),
            **super().describe(),
        }

    def _tuning(self) -> dict[str, int]:
        """How many kernels could have records, have them, and lines of records without sense."""
        if not isinstance(self.choices, Recorded):
            return {"kernels": 0, "tuned": 0, "ignored_lines": 0}
        mine = self.choices
        return {"kernels": mine.count, "tuned": len(mine.tuned), "ignored_lines": mine.lost}

    def emit(self, folder: Path, golden: Golden | None, rows: Mapping[str, object]) -> None:
        """Golden samples and a C program that runs the library."""
        del rows
        shutil.copytree(_EXAMPLES, folder / "examples")
        each = "" if any(isinstance(p.shape[0], str) for p in self.inputs if p.shape) else " --each"
        files = " ".join(f"../golden/input_{index}.npy" for index in range(len(self.inputs)))
        text = _README.format(library=LIBRARY, call=f"{each} ../{LIBRARY} output_ {files}")
        (folder / "examples" / "README.md").write_text(text, "utf-8")
        save_golden(folder, golden)

    def build(self, folder: Path, layers: list[dict[str, Any]]) -> dict[str, Any]:
        """Machine code and weights in one file.

        Raises:
            FewbitsError: ``compiler-missing``, ``compiler-failed``.
        """
        del layers
        executable = make_executable(self.lowered, self.tvm_target)
        library = folder / LIBRARY
        link(executable, self.target.architecture, library)
        return {"library_bytes": library.stat().st_size}


def make_product(module: ir.IRModule, target: CpuTarget, request: Request) -> CpuProduct:
    """Integers where everything can be, kernels, loops."""
    return CpuProduct(module, target, recorded(target, request.tuning))
