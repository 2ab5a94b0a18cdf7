"""Sample inputs: calibration data, evaluation sets and inputs to run, checked against the model.

A set is read from an ``.npz`` file whose keys are input names, from a folder of ``.npy`` files
(named as inputs) and ``.npz`` files, from any iterable of dicts, from a dict of arrays, or from an
onnxruntime ``CalibrationDataReader``. Arrays either have a first axis that counts samples, each of
the model's input shape without its batch axis of 1, or are single inputs of exactly the model's
shape.
"""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast, runtime_checkable

import numpy as np

from ..errors import FewbitsError, nearest
from .files import write_file
from .symbols import Shaped, concrete, sizes_of

Batch = dict[str, np.ndarray]


@runtime_checkable
class CalibrationDataReader(Protocol):
    """onnxruntime's interface: ``get_next`` gives a dict per call and None at the end."""

    def get_next(self) -> Mapping[str, np.ndarray] | None: ...  # noqa: D102


Source = (
    str
    | Path
    | Mapping[str, np.ndarray]
    | Iterable[Mapping[str, np.ndarray]]
    | CalibrationDataReader
)

#: What numpy and zipfile raise on files that are something else, cut off or damaged.
_UNREADABLE = (
    ValueError, OSError, EOFError, MemoryError, NotImplementedError, RuntimeError, KeyError,
    zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError, SyntaxError,
)  # fmt: skip

_HINT = "an .npz file with one array per model input, first axis = samples"


def open_batches(
    source: Source, inputs: Sequence[Shaped], *, limit: int | None = None
) -> Callable[[], Iterator[Batch]]:
    """A function that opens the stream of checked batches anew each time it is called.

    Args:
        source: see the module's text.
        inputs: the model's inputs.
        limit: at most so many samples.

    Raises:
        FewbitsError: ``no-such-file``, ``bad-data``, ``unknown-input``, ``missing-input``,
            ``wrong-shape``, ``wrong-dtype``, ``empty-data``; problems in later batches are raised
            while reading.
    """
    reader = _reader(source)

    def batches() -> Iterator[Batch]:
        remaining = limit
        seen = 0
        for number, raw in enumerate(reader()):
            batch = check_batch(raw, inputs, f"batch {number}")
            count = len(next(iter(batch.values()))) if batch else 0
            if remaining is not None:
                batch = {key: array[:remaining] for key, array in batch.items()}
                remaining -= min(count, remaining)
            seen += count
            if count:
                yield batch
            if remaining == 0:
                break
        if not seen:
            raise FewbitsError(
                "empty-data", "the data holds no samples", where=_text(source), hint=_HINT
            )

    return batches


def check_batch(raw: Mapping[str, Any], inputs: Sequence[Shaped], where: str) -> Batch:
    """The arrays of one batch as the model wants them, first axis = samples.

    Symbolic dimensions take the sizes that the arrays have, the same in all inputs.

    Raises:
        FewbitsError: as in `open_batches`.
    """
    inputs = concrete(inputs, sizes_of(inputs, raw, where))
    names = [info.name for info in inputs]
    for key in raw:
        if key not in names and key != "labels":
            raise FewbitsError(
                "unknown-input",
                f"the data has {key!r}, which is no input of the model",
                where=where,
                hint=nearest(str(key), names),
            )
    batch: Batch = {}
    for info in inputs:
        if info.name not in raw:
            raise FewbitsError(
                "missing-input",
                f"the data lacks the input {info.name!r}",
                where=where,
                hint=f"the model's inputs: {', '.join(names)}",
            )
        batch[info.name] = _check_array(np.asarray(raw[info.name]), info, where)
    counts = {key: len(array) for key, array in batch.items()}
    if len(set(counts.values())) > 1:
        raise FewbitsError(
            "wrong-shape",
            f"inputs have different numbers of samples: {counts}",
            where=where,
            hint="the first axis of every array counts the same samples",
        )
    return batch


def _check_array(array: np.ndarray, info: Shaped, where: str) -> np.ndarray:
    place = f"{where}, input {info.name!r}"
    sample = info.shape[1:] if info.shape and info.shape[0] == 1 else info.shape
    if array.shape[1:] == sample and array.ndim == len(sample) + 1:
        pass
    elif array.shape in (info.shape, sample):
        array = array[None]
    elif array.shape[1:] == info.shape:
        array = array.reshape(len(array), *sample)
    else:
        raise FewbitsError(
            "wrong-shape",
            f"shape {array.shape} does not fit the model's {info.shape}",
            where=place,
            hint=f"expected (samples, {', '.join(map(str, sample))})",
        )
    wanted = np.dtype(info.dtype)
    both_float = array.dtype.kind == "f" and wanted.kind == "f"
    both_integer = array.dtype.kind in "iu" and wanted.kind in "iu"
    if array.dtype != wanted and not both_float and not both_integer:
        raise FewbitsError(
            "wrong-dtype",
            f"dtype {array.dtype} where the model wants {wanted}",
            where=place,
            hint=f"convert it: array.astype('{wanted}'), with the model's own preprocessing",
        )
    if array.dtype != wanted and both_integer and array.size:
        limits = np.iinfo(wanted)
        if array.min() < limits.min or array.max() > limits.max:
            raise FewbitsError(
                "wrong-dtype", f"values do not fit {wanted}", where=place, hint="check the data"
            )
    with np.errstate(over="ignore"):
        array = array.astype(wanted)
    if wanted.kind == "f" and not np.isfinite(array).all():
        raise FewbitsError(
            "bad-data",
            f"NaN, infinite values, or values beyond {wanted}",
            where=place,
            hint="clean the data first",
        )
    return array


def random_batches(
    inputs: Sequence[Shaped], samples: int, seed: int
) -> Callable[[], Iterator[Batch]]:
    """Standard normal (or, for integers, zero and one) samples: to try things out, not to ship."""

    known = concrete(inputs)

    def batches() -> Iterator[Batch]:
        generator = np.random.default_rng(seed)
        for _ in range(samples):
            batch: Batch = {}
            for info in known:
                shape = (1, *(info.shape[1:] if info.shape[:1] == (1,) else info.shape))
                dtype = np.dtype(info.dtype)
                if dtype.kind == "f":
                    batch[info.name] = generator.standard_normal(shape).astype(dtype)
                else:
                    batch[info.name] = generator.integers(0, 2, shape).astype(dtype)
            yield batch

    return batches


def load_arrays(path: str | Path) -> Batch:
    """All arrays of an ``.npz`` file or a folder, as they are.

    Raises:
        FewbitsError: ``no-such-file``, ``bad-data``.
    """
    arrays: Batch = {}
    for batch in _read_path(Path(path)):
        for key, array in batch.items():
            if key in arrays:
                arrays[key] = _joined(arrays[key], array, key, str(path))
            else:
                arrays[key] = array
    return arrays


def _joined(first: np.ndarray, second: np.ndarray, key: str, where: str) -> np.ndarray:
    if first.shape[1:] != second.shape[1:] or not (first.ndim and second.ndim):
        raise FewbitsError(
            "wrong-shape",
            f"files hold {key!r} in shapes {first.shape} and {second.shape}",
            where=where,
            hint=f"expected {_HINT}",
        )
    return np.concatenate([first, second])


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an ``.npz`` file, the same bytes for the same arrays, whatever their names.

    Raises:
        FewbitsError: ``output-not-writable``.
    """

    def write(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for key, array in arrays.items():
                # A fixed date; the names that `np.savez` takes for options are no exception here.
                entry = zipfile.ZipInfo(f"{key}.npy", (1980, 1, 1, 0, 0, 0))
                with archive.open(entry, "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)

    write_file(path, write)


def _reader(source: Source) -> Callable[[], Iterable[Mapping[str, np.ndarray]]]:
    if isinstance(source, str | Path):
        path = Path(source)
        if not path.exists():
            raise FewbitsError(
                "no-such-file", f"no data at {str(path)!r}", hint=f"expected {_HINT}"
            )
        return lambda: _read_path(path)
    if isinstance(source, Mapping):
        whole = cast("Mapping[str, np.ndarray]", source)
        return lambda: [whole]
    if isinstance(source, CalibrationDataReader):
        # It can be read once only, so what it gives is kept.
        kept: list[Mapping[str, np.ndarray]] = []
        while (batch := source.get_next()) is not None:
            kept.append(batch)
        return lambda: kept
    if isinstance(source, Iterator):
        kept = list(source)
        return lambda: kept
    if isinstance(source, Iterable):
        return lambda: source
    raise FewbitsError(
        "bad-data", f"cannot read samples from a {type(source).__name__}", hint=_HINT
    )


def _read_path(path: Path) -> Iterator[Batch]:
    if not path.exists():
        raise FewbitsError("no-such-file", f"no data at {str(path)!r}", hint=f"expected {_HINT}")
    if not path.is_dir():
        yield _read_file(path)
        return
    single: Batch = {}
    for file in sorted(path.iterdir()):
        if file.suffix == ".npz":
            yield _read_file(file)
        elif file.suffix == ".npy":
            single.update(_read_file(file))
    if single:
        yield single


def _read_file(file: Path) -> Batch:
    try:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {file.stem: loaded}
        with loaded:
            return {key: loaded[key] for key in loaded.files}
    except _UNREADABLE as error:
        raise FewbitsError(
            "bad-data",
            f"cannot read {file.name}: {error}",
            where=str(file),
            hint=f"expected {_HINT}",
        ) from error


def _text(source: Source) -> str:
    return str(source) if isinstance(source, str | Path) else type(source).__name__
