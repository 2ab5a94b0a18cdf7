"""`fewbits quantize`: a compressed model as a file for others to run, checked before it is told.

An ``.onnx`` file is run in onnxruntime and compared with what the module means; a ``.safetensors``
file, for formats that ONNX has no form for, is read back and compared.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import FewbitsError
from .data import Source, random_batches
from .driver import Compilation, compress
from .files import write_file
from .options import Options
from .progress import Progress, quiet
from .symbols import concrete, sizes_of

if TYPE_CHECKING:
    import onnx

#: The largest ``ModelProto``, in bytes, that protobuf can write.
LARGEST_PROTO = 2**31 - 1
#: How many samples the written file is run on.
CHECKED_SAMPLES = 4
SUFFIXES = (".onnx", ".safetensors")


@dataclasses.dataclass(frozen=True)
class Agreement:
    """The written file against the meaning of the compressed module.

    Attributes:
        samples: how many were run.
        largest_difference: of any element of any output.
        snr_db: the module's outputs over the difference; None where nothing differs.
    """

    samples: int
    largest_difference: float
    snr_db: float | None


@dataclasses.dataclass(frozen=True)
class Quantized:
    """What was written.

    Attributes:
        out: the file, or None after a dry run.
        recipe: its name.
        bytes: of the file.
        float_bytes: of the model that came in.
        calibration: where the data came from, or None.
        tensors: number of stored tensors of a safetensors file, else None.
        agreement: see `Agreement`; None where nothing was run.
        notes: what a user should know.
    """

    out: str | None
    recipe: str
    bytes: int
    float_bytes: int
    calibration: str | None
    tensors: int | None
    agreement: Agreement | None
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return dataclasses.asdict(self)


def quantize_model(
    model: str | Path,
    out: Path,
    options: Options,
    calibration: Source | str | None = None,
    *,
    opset: int = 21,
    matmul_nbits: bool = False,
    dry_run: bool = False,
    progress: Progress = quiet,
) -> Quantized:
    """Compress a model and write it, as ONNX or as a file of tensors, as `out`'s suffix says.

    Symbolic dimensions stay symbolic where all of the recipe's passes can do with that.

    Args:
        model: path of the ONNX model.
        out: ``.onnx`` or ``.safetensors``.
        options: recipe, seed, bindings ...; the target means nothing here.
        calibration: see `data`; the written file is checked on these samples, else on random ones.
        opset: of the ONNX file.
        matmul_nbits: see `exporter.export_onnx`.
        dry_run: write nothing.
        progress: told about phases.

    Raises:
        FewbitsError: ``unknown-option`` for another suffix; ``output-exists`` for the model itself;
            ``unsupported-operator`` for what ONNX cannot say; ``model-too-large``;
            ``onnxruntime-failed``; whatever `driver.compress` raises.
    """
    if out.is_dir():
        raise FewbitsError(
            "output-not-writable",
            f"{str(out)!r} is a folder",
            where="--out",
            hint="name a file in it, .onnx or .safetensors",
        )
    if out.suffix not in SUFFIXES:
        raise FewbitsError(
            "unknown-option",
            f"cannot write a {out.suffix or 'nameless'} file",
            where="--out",
            hint="name a .onnx file, or .safetensors for all weights in any format",
        )
    if out.resolve() == Path(model).resolve():
        raise FewbitsError(
            "output-exists",
            "the output is the model itself",
            where=str(out),
            hint="give another --out",
        )
    # No product is built: the CPU is the target whose modules may be anything.
    options = dataclasses.replace(options, target="cpu", board=None)
    state = compress(model, options, calibration, progress)
    progress.phase("export")
    if out.suffix == ".onnx":
        data, agreement = _onnx_file(state, opset, matmul_nbits, progress)
        size, tensors = len(data), None
        if not dry_run:
            write_file(out, data)
    else:
        size, tensors = _safetensors_file(state, None if dry_run else out)
        agreement = None
    return Quantized(
        out=None if dry_run else str(out),
        recipe=state.recipe.name,
        bytes=size,
        float_bytes=Path(model).stat().st_size,
        calibration=state.calibration_source,
        tensors=tensors,
        agreement=agreement,
        notes=[note.message for note in state.context.notes],
    )


def export_state(state: Compilation, opset: int, matmul_nbits: bool = False) -> onnx.ModelProto:
    """The compressed module as ONNX.

    Raises:
        FewbitsError: as `exporter.export_onnx`, with the way out as the hint.
    """
    from .exporter import export_onnx

    assert state.compressed is not None
    try:
        return export_onnx(
            state.compressed, opset=opset, name=state.imported.name, matmul_nbits=matmul_nbits
        )
    except FewbitsError as error:
        if error.code != "unsupported-operator":
            raise
        hint = "write --out model.safetensors, which holds every format, or try a newer --opset"
        raise FewbitsError(error.code, error.message, where=error.where, hint=hint) from error


def _onnx_file(
    state: Compilation, opset: int, matmul_nbits: bool, progress: Progress
) -> tuple[bytes, Agreement]:
    exported = export_state(state, opset, matmul_nbits)
    size = exported.ByteSize()
    if size > LARGEST_PROTO:
        raise FewbitsError(
            "model-too-large",
            f"one ONNX file cannot hold {size:,} bytes",
            hint="write --out model.safetensors",
        )
    data = exported.SerializeToString(deterministic=True)
    progress.phase("run in onnxruntime")
    return data, compare_with_onnxruntime(data, state)


def compare_with_onnxruntime(data: bytes, state: Compilation) -> Agreement:
    """Run a few samples in onnxruntime and in the evaluator.

    Raises:
        FewbitsError: ``onnxruntime-failed``.
    """
    import onnxruntime
    import torch

    from ..ops.evaluate import Evaluator

    assert state.compressed is not None
    evaluator = Evaluator(state.compressed)
    options = onnxruntime.SessionOptions()
    # onnxruntime fuses int8 weights with products, and rounds activations unless told not to.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    options.log_severity_level = 3
    samples, largest, signal, noise = 0, 0.0, 0.0, 0.0
    try:
        session = onnxruntime.InferenceSession(data, options, ["CPUExecutionProvider"])
        for feed in itertools.islice(_feeds(state), CHECKED_SAMPLES):
            got = session.run(None, feed)
            wanted = evaluator({key: torch.from_numpy(array) for key, array in feed.items()})
            samples += 1
            for theirs, ours in zip(got, wanted.values(), strict=True):
                want = ours.numpy().astype(np.float64)
                # Masks may hold infinities, on both sides alike.
                error = np.where(theirs == want, 0.0, np.asarray(theirs, np.float64) - want)
                largest = max(largest, float(np.abs(error).max(initial=0.0)))
                signal += float(np.square(np.where(np.isfinite(want), want, 0)).sum())
                noise += float(np.square(error).sum())
    except FewbitsError:
        raise
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise FewbitsError(
            "onnxruntime-failed",
            f"onnxruntime cannot run the compressed model: {str(error)[:300]}",
            hint="another --opset or another version of onnxruntime may; or write .safetensors",
        ) from error
    snr = 10 * np.log10(signal / noise) if noise > 0 and signal > 0 else None
    return Agreement(samples, largest, None if snr is None else float(snr))


def _feeds(state: Compilation) -> Iterator[dict[str, np.ndarray]]:
    """Single samples in the shapes that the model's inputs have."""
    inputs = state.imported.inputs
    source = state.calibration or random_batches(inputs, CHECKED_SAMPLES, state.options.seed)
    for batch in source():
        infos = concrete(inputs, sizes_of(inputs, batch, "the calibration data"))
        for index in range(len(next(iter(batch.values()), ()))):
            yield {
                info.name: np.ascontiguousarray(
                    batch[info.name][index].reshape(info.shape), info.dtype
                )
                for info in infos
            }


def _safetensors_file(state: Compilation, out: Path | None) -> tuple[int, int]:
    """Write all tensors and read them back; their bytes and number."""
    from ..formats.storage import load_tensors, save_tensors, take_apart
    from .exporter import stored_tensors

    assert state.compressed is not None
    tensors = stored_tensors(state.compressed)
    if out is None:
        parts = (take_apart(tensor)[1].values() for tensor in tensors.values())
        return sum(array.nbytes for arrays in parts for array in arrays), len(tensors)
    extra = {"model": state.imported.name, "recipe": state.recipe.name}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.is_dir():
            raise IsADirectoryError(21, "this is a folder")
        save_tensors(out, tensors, extra)
    except OSError as error:
        raise FewbitsError(
            "output-not-writable",
            f"cannot write the file: {error.strerror or error}",
            where=str(out),
            hint="choose another place",
        ) from error
    for name, tensor in load_tensors(out).items():
        if not np.array_equal(tensor.decode(), tensors[name].decode()):
            raise FewbitsError("internal", f"tensor {name!r} reads back differently")
    return out.stat().st_size, len(tensors)
