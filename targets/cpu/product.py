"""A model as a shared library: the CPU family's side of `targets.base`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import ir, relax

from ...ops.evaluate import largest_sizes
from ...ops.symbolic import spell
from ...schedules.tuning.choices import Choices, Recorded
from ..base import Golden, Product, Request, Run, Shape, Value
from ..vm.integers import in_integers
from ..vm.layers import layer_rows, weight_bits
from ..vm.link import link
from .pipeline import choose_kernels, lower_to_tir, make_executable
from .target import CpuTarget, required_features, tvm_target
from .tuning import layers_of, recorded

#: The product's file.
LIBRARY = "model.so"

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


class CpuProduct(Product):
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
        self.target = target
        self.choices = choices
        model = in_integers(module)
        self.module = model.module
        self.quantization = model.quantization
        self.tvm_target = tvm_target(target)
        self.chosen = choose_kernels(self.module, self.tvm_target, choices)
        self.lowered = lower_to_tir(self.chosen, self.tvm_target, choices)
        function = self.module["main"]
        self.inputs = tuple(
            Value(shape_of(p.ty), str(p.ty.dtype), meaning)
            for p, meaning in zip(function.params, model.interface.inputs, strict=True)
        )
        result: Any = function.ret_ty
        fields = result.fields if isinstance(result, relax.TupleType) else [result]
        self.outputs = tuple(
            Value(shape_of(field), str(field.dtype), meaning)
            for field, meaning in zip(fields, model.interface.outputs, strict=True)
        )
        self.float_match = ROUNDED_MATCH if model.rounds else FLOAT_MATCH

    def check_budgets(self) -> None:
        """A CPU has no budgets."""

    def references(self, reference: ir.IRModule) -> dict[str, ir.IRModule]:
        """What the library computes; the float model is there as ONNX."""
        del reference
        return {"module": self.module}

    def plan(self) -> dict[str, Any]:
        """Weights and layers."""
        codes, metadata = weight_bits(self.module)
        return {"weight_bytes": (codes + metadata + 7) // 8, "layers": len(self._layers())}

    def _layers(self) -> list[dict[str, Any]]:
        rows = layer_rows(self.module, self.chosen)
        if isinstance(self.choices, Recorded):
            tuned = set(layers_of(self.module, self.choices.tuned))
            for row in rows:
                row["kernel"] += ", tuned" if row["name"] in tuned else ""
        return rows

    def describe(self) -> dict[str, Any]:
        """The library's needs, exact sizes of the weights, a row per layer with weights."""
        codes, metadata = weight_bits(self.module)
        return {
            "library": LIBRARY,
            "machine": self.target.architecture,
            "mcpu": str(self.tvm_target.attrs["mcpu"]),
            "features": required_features(self.target),
            "versions": {"tvm": tvm.__version__},
            "largest_sizes": largest_sizes(self.module),
            "library_bytes": None,
            "weight_bits": {"codes": codes, "metadata": metadata},
            "tuning": self._tuning(),
            "float_match": self.float_match,
            "score": None,
            "layers": self._layers(),
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
        if golden is None:
            return
        (folder / "golden").mkdir()
        for role, arrays in zip(("input", "output"), golden, strict=True):
            for index, array in enumerate(arrays):
                np.save(folder / "golden" / f"{role}_{index}.npy", array)

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

    def verified(self, run: Run, samples: int, difference: float) -> dict[str, Any]:
        """How far the library was from the oracle."""
        del run
        return {
            "golden": {
                "samples": samples,
                "exact": difference == 0,
                "difference": difference,
                "allowed": self.float_match,
            }
        }


def make_product(module: ir.IRModule, target: CpuTarget, request: Request) -> CpuProduct:
    """Integers where everything can be, kernels, loops."""
    return CpuProduct(module, target, recorded(target, request.tuning))


def shape_of(ty: Any) -> Shape:
    """Sizes, symbolic ones by name, computed ones as text."""
    return tuple(
        int(size) if isinstance(size, ir.prim.IntImm) else spell(size) for size in ty.shape.values
    )
