"""The Python face: the same as the command line, in three lines."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FewbitsError
from . import driver
from .artifact import Artifact, open_artifact
from .data import Source
from .options import Options
from .progress import Progress, quiet

if TYPE_CHECKING:
    import onnx


def _options(given: dict[str, Any]) -> Options:
    from ..errors import nearest

    known = [field.name for field in dataclasses.fields(Options)]
    for name in given:
        if name not in known:
            raise FewbitsError(
                "unknown-option", f"there is no option {name!r}", hint=nearest(name, known)
            )
    return Options(**given)


def compile(
    model: str | Path | bytes | onnx.ModelProto,
    out: str | Path,
    *,
    calibration: Source | str | None = None,
    progress: Progress = quiet,
    **options: Any,
) -> Artifact:
    """Compile a model; the artifact's folder holds sources or a library, and a report.

    Args:
        model: path, bytes or ``ModelProto``; float or quantized.
        out: the folder to write.
        calibration: sample inputs: path of an ``.npz`` or a folder, dict of arrays, iterable of
            dicts, onnxruntime ``CalibrationDataReader``, or ``"random"``.
        progress: told about phases.
        options: fields of `options.Options`, e.g. ``target="cortex-m4"``, ``recipe="int8"``.

    Raises:
        FewbitsError: whatever can be put right. Nothing is written then.
    """
    result = driver.compile(model, out, _options(options), calibration, progress)
    if not isinstance(result, Artifact):
        raise FewbitsError(
            "unknown-option",
            "this stops before there is an artifact",
            where="to",
            hint="use `driver.compile` for unfinished compilations",
        )
    return result


def quantize(
    model: str | Path | bytes | onnx.ModelProto,
    *,
    calibration: Source | str | None = None,
    opset: int = 21,
    matmul_nbits: bool = False,
    progress: Progress = quiet,
    **options: Any,
) -> onnx.ModelProto:
    """Compress a model and give it as ONNX; few-bit weights are DequantizeLinear or tables.

    Symbolic dimensions stay symbolic where all of the recipe's passes can do with that.

    Args:
        model: path, bytes or ``ModelProto``.
        calibration: see `compile`.
        opset: of the result.
        matmul_nbits: use onnxruntime's MatMulNBits where it fits.
        progress: told about phases.
        options: fields of `options.Options`, e.g. ``recipe="w4-g128"``.

    Raises:
        FewbitsError: whatever can be put right.
    """
    from .quantized import export_state

    asked = _options({"target": "cpu", **options})
    return export_state(driver.compress(model, asked, calibration, progress), opset, matmul_nbits)


class LoadedModel:
    """A compiled model as a function: inputs by name, outputs by name, real values.

    The first axis counts samples; a single sample may leave it out. Dimensions that the model
    leaves open may have any size in every call. Threads may call it at the same time.
    """

    def __init__(self, artifact: Artifact, threads: int | None = None) -> None:
        from .execution import runner_of

        self.artifact = artifact
        self.instructions: list[int] = []
        self._runner = runner_of(artifact, threads=threads)
        self._lock = threading.Lock()

    def __call__(self, /, *, raw: bool = False, **inputs: Any) -> dict[str, Any]:
        """Outputs for inputs; codes instead of real values with `raw`.

        `instructions` then holds the instructions of each sample (empty on the host).

        Libraries for GPUs also take tensors that lie on the GPU: torch's, or any that have
        ``__dlpack__``, all of them so and in the model's own shapes and dtypes. Nothing is copied,
        the work is put on the caller's stream (torch's current one), and the outputs lie on the GPU
        as well: torch's tensors for torch's.

        Raises:
            FewbitsError: for names, shapes or dtypes that don't fit.
        """
        from ..targets.base import on_gpu
        from .execution import run_artifact, run_on_gpu

        if any(on_gpu(value) for value in inputs.values()):
            self.instructions = []
            return run_on_gpu(self.artifact, inputs, self._runner, raw=raw)

        # One call after the other: a library spreads each over its own threads.
        with self._lock:
            outputs, self.instructions = run_artifact(
                self.artifact, inputs, raw=raw, runner=self._runner
            )
        return outputs


def load(folder: str | Path, *, threads: int | None = None) -> LoadedModel:
    """The compiled model in a folder.

    Args:
        folder: what `compile` wrote.
        threads: how many a CPU library computes with; None for as many as there are cores, or as
            the environment variable TVM_NUM_THREADS says.

    Raises:
        FewbitsError: ``not-an-artifact``; ``wrong-machine`` for a library that this machine cannot
            run; ``bad-library``; ``unknown-option``.
    """
    return LoadedModel(open_artifact(folder), threads)
