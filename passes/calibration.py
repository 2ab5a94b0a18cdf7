"""Calibration: streams samples through a module and shows chosen values to observers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
from tvm import ir

from ..errors import FewbitsError
from ..ops.evaluate import Evaluator
from .observers import Observer

Batch = Mapping[str, np.ndarray]


@dataclasses.dataclass
class Calibration:
    """Samples, read anew each time they are needed; activations are never kept.

    Attributes:
        batches: opens the stream; each batch maps input names to arrays whose first axis counts
            samples.
        source: where the samples come from, for reports (``"random"`` is marked there).
        total: how many samples there are, for progress; None if that is not known.
        chunk: samples evaluated at once; bounds the memory.
        progress: called with the number of samples done so far and `total`, or None.
    """

    batches: Callable[[], Iterable[Batch]]
    source: str
    total: int | None = None
    chunk: int = 32
    progress: Callable[[int, int | None], None] | None = None

    def observe(
        self, module: ir.IRModule, names: Iterable[str], make: Callable[[str], Observer]
    ) -> dict[str, Observer]:
        """One observer per name (of a variable or an input), having seen all samples.

        `make` gives a fresh observer for a name.

        Raises:
            FewbitsError: ``not-finite`` for a value that overflows or is undefined on some sample.
        """
        observers = {name: make(name) for name in names}
        for values in self.run(module, observers):
            for name, observer in observers.items():
                if not np.isfinite(values[name]).all():
                    raise FewbitsError(
                        "not-finite",
                        "the value becomes NaN or infinite on the calibration data",
                        where=name,
                        hint="check that the data is preprocessed as in training, or keep the "
                        "layer float",
                    )
                observer.update(values[name])
        return observers

    def run(self, module: ir.IRModule, names: Iterable[str]) -> Iterator[dict[str, np.ndarray]]:
        """The values called `names` (and the outputs), chunk by chunk, first axis = samples."""
        evaluator = Evaluator(module)
        wanted = list(names)
        done = 0
        for piece in self.pieces():
            for values in evaluator.batched(piece, wanted, chunk=self.chunk):
                known = {name: tensor.numpy() for name, tensor in values.items()}
                known.update({key: piece[key] for key in evaluator.input_names})
                yield known
            done += len(next(iter(piece.values())))
            if self.progress is not None:
                self.progress(done, self.total)

    def pieces(self) -> Iterator[Batch]:
        """The samples, at most `chunk` at a time."""
        for batch in self.batches():
            count = len(next(iter(batch.values())))
            for start in range(0, count, self.chunk):
                yield {key: array[start : start + self.chunk] for key, array in batch.items()}
