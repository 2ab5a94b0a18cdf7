"""Tuning for the CUDA targets: records that a compilation uses, and candidates as libraries."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ...errors import FewbitsError
from ...ops.symbolic import evaluate, symbols
from ...schedules.cuda.architecture import ARCHITECTURES, Architecture
from ...schedules.cuda.dispatch import Choice
from ...schedules.cuda.problem import Linear
from ...schedules.cuda.templates import suitable
from ...schedules.cuda.tuning import measuring
from ...schedules.cuda.tuning.arguments import arguments, has_recipe, tolerance
from ...schedules.cuda.tuning.candidates import candidates
from ...schedules.cuda.tuning.measuring.plan import ENTRY, Candidate, Case
from ...schedules.cuda.tuning.recorded import Recorded
from ...schedules.cuda.tuning.records import Store, bucket_of, records_in, shipped_file
from ...schedules.cuda.tuning.sizes import fields_of
from ..cpu.target import this_machine
from ..vm.link import link
from .compile import compile_kernels
from .devices import found_device
from .patterns import LayerProduct

#: The package that measures, beside the libraries.
MEASURING = "measuring"

#: Told how many of how many libraries are built.
Steps = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True, eq=False)
class Workload:
    """A product with a number of rows, wherever it is in a model.

    Attributes:
        problem: the product.
        architecture: what for.
        rows: of x.
        layers: that compute it.
        arrays: one layer's weight, where it cannot be made up.
    """

    problem: Linear
    architecture: Architecture
    rows: int
    layers: tuple[str, ...]
    arrays: tuple[np.ndarray, ...] = ()

    @property
    def bucket(self) -> int:
        """Which numbers of rows its result is for."""
        return bucket_of(self.rows)

    @property
    def work(self) -> int:
        """Multiplications of all its layers."""
        return self.rows * self.problem.inputs * self.problem.outputs * len(self.layers)

    def place(self, card: str) -> tuple[str, str, str, int]:
        """Where its record is kept: `Record.place`."""
        return self.problem.key, self.architecture.name, card, self.bucket


def recorded(folder: Path | None) -> Recorded | None:
    """Records from a folder and those of the package, or None where none are wanted.

    Raises:
        FewbitsError: ``unreadable-file``; ``wrong-machine`` for a driver that is too old.
    """
    if folder is None:
        return None
    device = found_device()
    found, lost = [], 0
    for name in ARCHITECTURES:
        for records, ignored in (records_in(shipped_file(name)), Store(folder).read(name)):
            found += records
            lost += ignored
    return Recorded(found, None if device is None else device.name, lost)


def workloads(
    products: Mapping[Architecture, Sequence[LayerProduct]], bindings: Sequence[Mapping[str, int]]
) -> list[Workload]:
    """What there is to tune in a model, those with most work first.

    Args:
        products: of a model's layers, by architecture.
        bindings: sizes of the model's open dimensions.
    """
    found: dict[tuple[str, str, int], tuple[LayerProduct, Architecture, int]] = {}
    layers: dict[tuple[str, str, int], list[str]] = {}
    for architecture, mine in products.items():
        for product in mine:
            if not tunable(product):
                continue
            for binding in bindings:
                rows = rows_of(product, binding)
                key = product.problem.key, architecture.name, bucket_of(rows)
                found.setdefault(key, (product, architecture, rows))
                if product.layer not in layers.setdefault(key, []):
                    layers[key].append(product.layer)
    rows_first = [
        Workload(
            product.problem,
            architecture,
            rows,
            tuple(layers[key]),
            () if has_recipe(product.problem) else product.arrays or (),
        )
        for key, (product, architecture, rows) in found.items()
    ]
    return sorted(rows_first, key=lambda workload: -workload.work)


def tunable(product: LayerProduct) -> bool:
    """Whether a product's weight can be made up, or is known."""
    return has_recipe(product.problem) or product.arrays is not None


def rows_of(product: LayerProduct, binding: Mapping[str, int]) -> int:
    """The number of a product's rows where the open dimensions have these sizes."""
    sizes = {symbol: binding[symbol.name] for symbol in symbols([product.rows])}
    return int(evaluate(product.rows, sizes))


def build_cases(
    work: Sequence[Workload],
    folder: Path,
    trials: int,
    seed: int = 0,
    steps: Steps = lambda *_: None,
) -> tuple[list[Case], dict[str, str]]:
    """Compile the candidates of workloads into libraries, one each.

    Args:
        work: what to tune.
        folder: for libraries; it is made.
        trials: candidates for each workload, at most.
        seed: of the random ones among them.
        steps: told about progress.

    Returns:
        The cases, in the order of `work`, without those of which not even the first candidate
        could be built; and what failed, by the candidate's words.

    Raises:
        FewbitsError: ``compiler-missing``; ``output-not-writable``.
    """
    _make(folder)
    chosen = [
        candidates(
            w.problem, w.architecture, w.rows, suitable(w.problem, w.architecture), trials, seed
        )
        for w in work
    ]
    wanted: dict[str, tuple[Workload, Choice]] = {}
    for workload, choices in zip(work, chosen, strict=True):
        for choice in choices:
            wanted.setdefault(_library(workload, choice), (workload, choice))
    failed: dict[str, str] = {}
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = {
            pool.submit(_build, workload, choice, folder / library): library
            for library, (workload, choice) in wanted.items()
        }
        try:
            for done, job in enumerate(concurrent.futures.as_completed(jobs), 1):
                problem = job.result()
                if problem is not None:
                    failed[jobs[job]] = problem
                steps(done, len(jobs))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    cases = [
        _case(workload, choices, failed, _files(workload, folder))
        for workload, choices in zip(work, chosen, strict=True)
        if _library(workload, choices[0]) not in failed
    ]
    words = {}
    for library, reason in failed.items():
        workload, choice = wanted[library]
        words[f"{choice.label} of {workload.layers[0]}"] = reason
    return cases, words


def copy_measuring(folder: Path) -> None:
    """Put what measures into a folder: it runs there without fewbits, see its docstring.

    Raises:
        FewbitsError: ``output-not-writable``.
    """
    source = Path(measuring.__file__).parent
    _make(folder / MEASURING)
    for file in sorted(source.glob("*.py")):
        shutil.copyfile(file, folder / MEASURING / file.name)


def _library(workload: Workload, choice: Choice) -> str:
    """A candidate's file: the same for the same kernel, whatever the number of rows."""
    words = f"{workload.problem.key} {workload.architecture.name} {choice.label}"
    return f"{hashlib.sha256(words.encode()).hexdigest()[:16]}.so"


def _build(workload: Workload, choice: Choice, path: Path) -> str | None:
    """Compile and link one candidate; why it cannot be, or None."""
    try:
        kernel = choice.template.build(workload.problem, workload.architecture, choice.sizes, ENTRY)
        (module,) = compile_kernels([kernel])
        link(module, this_machine(), path)
    except FewbitsError as error:
        if error.code in ("compiler-missing", "output-not-writable"):
            raise
        return error.message
    except (RuntimeError, ValueError) as error:  # TVM's own
        return str(error).strip().splitlines()[-1][:300] if str(error).strip() else repr(error)
    return None


def _files(workload: Workload, folder: Path) -> list[str]:
    """The arrays as files, each content once."""
    names = []
    for array in workload.arrays:
        content = np.ascontiguousarray(array).tobytes()
        names.append(f"{hashlib.sha256(content).hexdigest()[:16]}.bin")
        (folder / names[-1]).write_bytes(content)
    return names


def _case(
    workload: Workload,
    choices: Iterable[Choice],
    failed: Mapping[str, str],
    files: Sequence[str],
) -> Case:
    built = [choice for choice in choices if _library(workload, choice) not in failed]
    return Case(
        workload.problem.key,
        workload.architecture.name,
        workload.rows,
        workload.bucket,
        arguments(workload.problem, workload.rows, files),
        tolerance(workload.problem),
        tuple(
            Candidate(choice.template.name, fields_of(choice.sizes), _library(workload, choice))
            for choice in built
        ),
        workload.layers,
        len(workload.layers),
    )


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FewbitsError(
            "output-not-writable",
            f"the folder cannot be made: {error.strerror or error}",
            where=str(folder),
            hint="choose another folder",
        ) from error
