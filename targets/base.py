"""What a target is to the compiler: how a compressed module becomes a product, and how that runs.

The driver walks the same road for every family of targets and asks the target at each bend:

    product = target.lower(module, request)      # the target's own passes, kernels chosen
    product.check_budgets()
    product.emit(folder, golden, rows)           # sources, examples
    figures = product.build(folder)              # the binary, with its sizes
    runner = target.open(folder, manifest)       # what was built, as a function of arrays
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from ..errors import FewbitsError

if TYPE_CHECKING:
    from tvm import ir

#: Families of targets: which report, which manifest.
Kind = Literal["mcu", "cpu", "cuda"]

#: DLPack's number of the GPUs that CUDA knows.
_DLPACK_CUDA = 2

#: Sizes of a tensor; a symbolic one is the dimension's name.
Shape = tuple[int | str, ...]

#: Codes of golden samples in the order of the inputs, and of the outputs they must give.
Golden = tuple[list[np.ndarray], list[np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Request:
    """What a target may be told besides the module.

    Attributes:
        name: of the model.
        board: name of a board, whose memories are budgets.
        ram, flash: budgets in bytes.
        compiler: a compiler to use instead of the default.
        tuning: the folder with records of tuned kernels, or None to use none.
        float_type: how floats are stored between operators, one of the target's `float_types`;
            None for the first.
    """

    name: str
    board: str | None = None
    ram: int | None = None
    flash: int | None = None
    compiler: str | None = None
    tuning: Path | None = None
    float_type: str | None = None


@dataclasses.dataclass(frozen=True)
class Value:
    """An input or output of a product.

    Attributes:
        shape: of one call, symbolic dimensions by name.
        dtype: of the codes that the product takes or gives.
        meaning: scale and zero point of the codes; None where they are the values themselves.
    """

    shape: Shape
    dtype: str
    meaning: tuple[float, int] | None


@dataclasses.dataclass(frozen=True)
class Run:
    """One inference: output codes, and what it took (None where nothing is counted).

    `per_layer` holds the instructions of each layer in order; what the plan itself takes is the
    rest of `instructions`.
    """

    outputs: tuple[np.ndarray, ...]
    instructions: int | None = None
    per_layer: tuple[int, ...] = ()
    stack_bytes: int | None = None


class Runner(abc.ABC):
    """Runs one model again and again."""

    @abc.abstractmethod
    def run(self, inputs: Sequence[np.ndarray]) -> Run:
        """One inference on codes, shaped as the product's inputs."""

    def run_tensors(self, tensors: Sequence[Any]) -> list[Any]:
        """One inference on tensors in a GPU's memory, which stay there.

        Raises:
            FewbitsError: ``wrong-device`` for products that run elsewhere.
        """
        del tensors
        raise FewbitsError(
            "wrong-device",
            "this product does not run on GPUs, but a tensor lies on one",
            hint="give numpy arrays",
        )


class Product(abc.ABC):
    """A model lowered for a target.

    Attributes:
        module: what the product computes; the oracle evaluates it.
        quantization: scale and zero point of int8 values by variable name.
        inputs, outputs: the interface, in the model's order.
        float_match: how closely floating-point outputs must agree with the oracle: the largest
            length of the difference, as a share of the output's own. Integers agree exactly.
    """

    module: ir.IRModule
    quantization: Mapping[str, tuple[float, int]]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    float_match: float = 1e-4

    @abc.abstractmethod
    def check_budgets(self) -> None:
        """Refuse, before anything is printed or built, what exceeds the budgets.

        Raises:
            FewbitsError: ``over-budget``.
        """

    @abc.abstractmethod
    def describe(self) -> dict[str, Any]:
        """The manifest's entries about the product: interface names, sizes, ``layers``."""

    @abc.abstractmethod
    def emit(self, folder: Path, golden: Golden | None, rows: Mapping[str, object]) -> None:
        """Write everything but binaries into an existing folder.

        Args:
            folder: where.
            golden: samples to ship.
            rows: lines for tables in generated READMEs.
        """

    @abc.abstractmethod
    def build(self, folder: Path, layers: list[dict[str, Any]]) -> dict[str, Any]:
        """Build in a folder that `emit` has filled; what the manifest says about the result.

        Args:
            folder: where.
            layers: the manifest's layers, to which figures may be added.

        Raises:
            FewbitsError: ``compiler-failed``, ``compiler-missing``, ``over-budget``.
        """

    @abc.abstractmethod
    def references(self, reference: ir.IRModule) -> dict[str, ir.IRModule]:
        """Modules that later checks compare with, by the name of their file.

        Args:
            reference: the float module.
        """

    @abc.abstractmethod
    def verified(self, run: Run, samples: int, difference: float) -> dict[str, Any]:
        """What the manifest says about golden samples that agreed with the oracle.

        Args:
            run: the last call.
            samples: how many were run.
            difference: the largest from the oracle, as a share of an output's length.
        """

    def disagreement(
        self, name: str, index: int, got: np.ndarray, want: np.ndarray, found: float
    ) -> FewbitsError:
        """What is wrong where the product and the oracle disagree: ``not-exact``.

        Args:
            name: of the output.
            index: of the sample.
            got: the product's output.
            want: the oracle's.
            found: how far they are apart, as a share of the output's length.
        """
        del got, want
        return FewbitsError(
            "not-exact",
            f"output {name!r} differs from the oracle on sample {index}"
            + (f" by {found:.2g} of its length" if found < np.inf else ""),
            hint="this is a defect of fewbits: please report it with the model",
        )

    @abc.abstractmethod
    def plan(self) -> dict[str, Any]:
        """What is known of sizes without building, for ``--dry-run``."""


class Target(abc.ABC):
    """Something that models are compiled for.

    Attributes:
        name: as in ``--target``.
        description: one line for ``fewbits targets``.
        kind: the family: which report, which manifest.
        keeps_symbols: whether modules may keep symbolic dimensions.
        oracle: which of `Product.references` is the module that the product computes.
        float_types: how floats may be stored between operators; the first by default.
    """

    name: str
    description: str
    kind: ClassVar[Kind]
    keeps_symbols: ClassVar[bool] = False
    oracle: ClassVar[str]
    float_types: ClassVar[tuple[str, ...]] = ("float32",)

    @abc.abstractmethod
    def lower(self, module: ir.IRModule, request: Request) -> Product:
        """The target's own passes on a compressed module, and its choice of kernels.

        Raises:
            FewbitsError: ``no-kernel`` and others for what the target cannot run.
        """

    @abc.abstractmethod
    def open(
        self,
        folder: Path,
        manifest: Mapping[str, Any],
        *,
        strict: bool = False,
        threads: int | None = None,
    ) -> Runner:
        """What was built in a folder, ready to run.

        Args:
            folder: an artifact's.
            manifest: its manifest.
            strict: refuse whatever is not quite right (the emulator: accesses outside of the
                model's memory).
            threads: how many to compute with, where the target has any.

        Raises:
            FewbitsError: ``no-such-file``, ``wrong-machine`` and others.
        """

    @property
    def runs_here(self) -> bool:
        """Whether this machine can run what is built, itself or in an emulator."""
        return True

    @property
    def absence(self) -> str:
        """Why `runs_here` is false, in words."""
        return f"{self.name} is not this machine"


def on_gpu(value: Any) -> bool:
    """Whether a value is a tensor in the memory of an NVIDIA GPU, by DLPack's words."""
    device = getattr(value, "__dlpack_device__", None)
    return device is not None and int(device()[0]) == _DLPACK_CUDA
