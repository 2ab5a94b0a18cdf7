"""Tuning of a model's products on GPUs: compile candidates here, measure here or elsewhere.

The steps are functions of their own: the machine that compiles may have no GPU, and the one that
has one no compiler: `build_plan`, `measure_plan`, `merge_records`. `tune_cuda` is all at once.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FewbitsError
from . import driver
from .data import Source
from .options import Options
from .progress import Progress, quiet
from .tuning import Plan, kept_going
from .tuning_sizes import bindings_of

if TYPE_CHECKING:
    from ..schedules.cuda.tuning.measuring.measure import Settings
    from ..schedules.cuda.tuning.measuring.plan import Plan as Cases
    from ..schedules.cuda.tuning.records import Record


@dataclasses.dataclass(frozen=True)
class Built:
    """Candidates as libraries.

    Attributes:
        folder: where they are, with the plan and what measures it.
        kernels: how many libraries.
        cases: products and numbers of rows.
        failures: candidates that could not be built, and why.
        untuned: layers whose weights are known at run time only.
    """

    folder: Path
    kernels: int
    cases: int
    failures: Mapping[str, str]
    untuned: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Measured:
    """What came of one product with one number of rows.

    Attributes:
        problem: the product's key.
        layers: that compute it.
        rows: measured.
        record: the result; None where nothing could be measured.
        known: whether it was in the database before.
        failures: candidates that failed, and why.
    """

    problem: str
    layers: tuple[str, ...]
    rows: int
    record: Record | None
    known: bool
    failures: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        record = None if self.record is None else self.record.model_dump()
        return {**dataclasses.asdict(dataclasses.replace(self, record=None)), "record": record}


@dataclasses.dataclass(frozen=True)
class CudaTuning:
    """What came of a plan.

    Attributes:
        database: the folder with the records.
        card: the GPU's name.
        rows: the cases that are finished.
        total: how many the plan has for this GPU.
        interrupted: whether the user stopped it.
    """

    database: Path
    card: str
    rows: tuple[Measured, ...]
    total: int
    interrupted: bool


def build_plan(
    model: Any,
    options: Options,
    plan: Plan,
    folder: Path,
    calibration: Source | str | None = None,
    progress: Progress = quiet,
    card: str | None = None,
) -> Built:
    """Compile the candidates of a model's products into a folder. Needs no GPU.

    Args:
        model: path, bytes or ``ModelProto``.
        options: as for compiling; the target has to be a GPU.
        plan: how to tune; what its database has for `card` is left out, but with `again`.
        folder: is made; libraries and a plan of an earlier run are replaced.
        calibration: as for compiling.
        progress: told about phases and steps.
        card: the GPU's name where it is known.

    Raises:
        FewbitsError: as `driver.compress`; ``wrong-target``, ``unknown-dimension``,
            ``compiler-missing``, ``output-not-writable``.
    """
    from ..schedules.cuda.tuning.measuring.plan import Plan as Cases
    from ..schedules.cuda.tuning.records import Store
    from ..targets.cuda.product import make_product
    from ..targets.cuda.target import CudaTarget
    from ..targets.cuda.tuning import build_cases, copy_measuring, tunable, workloads

    options = dataclasses.replace(options, to="compress", tuning=None)
    state = driver.compress(model, options, calibration, progress)
    target = state.target
    if not isinstance(target, CudaTarget):
        raise FewbitsError(
            "wrong-target", f"{target.name!r} is no GPU", where="--target", hint="use cuda"
        )
    assert state.compressed is not None
    progress.phase("lower")
    product = make_product(state.compressed, target, driver.request_of(state))
    bindings = bindings_of(state.imported.inputs, product.module, plan.sizes)
    products = {chosen.architecture: chosen.products for chosen in product.chosen}
    work = workloads(products, bindings)
    if card is not None and not plan.again:
        store = Store(plan.database)
        work = [one for one in work if store.find(one.place(card)) is None]
    progress.phase(f"compile candidates of {len(work)} products")
    cases, failures = build_cases(work, folder, plan.trials, options.seed, progress.samples)
    copy_measuring(folder)
    Cases(tuple(cases), options.seed).save(folder)
    libraries = {c.library for case in cases for c in case.candidates}
    untuned = {
        one.layer: None for chosen in product.chosen for one in chosen.products if not tunable(one)
    }
    return Built(folder, len(libraries), len(cases), failures, tuple(untuned))


def measure_plan(
    folder: Path,
    database: Path,
    *,
    again: bool = False,
    tracker: tuple[str, int, str] | None = None,
    progress: Progress = quiet,
    settings: Settings | None = None,
) -> CudaTuning:
    """Measure what `build_plan` made, on this machine's GPU or a tracker's; keep the records.

    Args:
        folder: of the plan.
        database: folder of records; each is kept as soon as it is known.
        again: measure what has a record, too.
        tracker: host, port and key of a TVM tracker.
        progress: told about phases and steps.
        settings: how to measure, instead of the usual.

    Raises:
        FewbitsError: ``bad-plan``, ``no-gpu``, ``output-not-writable``.
    """
    from ..schedules.cuda.tuning.measuring.measure import Session
    from ..schedules.cuda.tuning.measuring.plan import load
    from ..schedules.cuda.tuning.measuring.process import WorkerLost
    from ..schedules.cuda.tuning.records import Record, Store

    try:
        plan = load(folder)
    except ValueError as error:
        raise FewbitsError(
            "bad-plan",
            str(error),
            where=str(folder),
            hint="make it with `fewbits tune --build-only`",
        ) from error
    settings = dataclasses.replace(settings or _settings(), tracker=tracker)
    store = Store(database)
    progress.phase("open the GPU")
    try:
        session = Session(folder, plan, settings)
    except WorkerLost as error:
        raise FewbitsError(
            "no-gpu",
            f"nothing can be measured: {error}",
            hint="measure on a machine with a GPU: `python -m measuring` in the plan's folder",
        ) from error
    rows: list[Measured] = []
    with session, kept_going() as state:
        mine = [n for n, case in enumerate(plan.cases) if case.runs_on(session.capability)]
        left = []
        for number in mine:
            known = None if again else store.find(_place(plan, number, session.card))
            if known is None:
                left.append(number)
            else:
                rows.append(_row(plan, number, known, known=True))

        def steps(number: int, done: int, total: int) -> None:
            if done == 1:
                case = plan.cases[number]
                progress.phase(f"{left.index(number) + 1}/{len(left)} {title_of(case.problem)}")
            progress.samples(done, total)

        for outcome in session.measure(left, steps):
            record = Record(**outcome.record) if outcome.record else None
            if record is not None:
                store.add(record)
            rows.append(_row(plan, outcome.case, record, failures=outcome.failures))
    return CudaTuning(store.folder, session.card, tuple(rows), len(mine), state.interrupted)


def tune_cuda(
    model: Any,
    options: Options,
    plan: Plan,
    calibration: Source | str | None = None,
    progress: Progress = quiet,
    settings: Settings | None = None,
) -> tuple[Built, CudaTuning]:
    """Compile candidates, measure them here or on a tracker's machine, keep the records.

    Raises:
        FewbitsError: as `build_plan` and `measure_plan`.
    """
    from ..targets.cuda.devices import device_or_error

    card = None if plan.tracker is not None else device_or_error().name
    with tempfile.TemporaryDirectory(prefix="fewbits-tune-") as name:
        folder = Path(name)
        built = build_plan(model, options, plan, folder, calibration, progress, card)
        measured = measure_plan(
            folder, plan.database, again=plan.again, tracker=plan.tracker, progress=progress,
            settings=settings,
        )  # fmt: skip
        return built, measured


def merge_records(file: Path, database: Path) -> tuple[int, int]:
    """Take a file of records into a database; later ones take the place of earlier ones.

    Args:
        file: what measuring wrote elsewhere.
        database: folder of records.

    Returns:
        How many records there were, and how many lines make no sense.

    Raises:
        FewbitsError: ``no-such-file``, ``unreadable-file``, ``output-not-writable``.
    """
    from ..schedules.cuda.tuning.records import Store, records_in

    if not file.is_file():
        raise FewbitsError("no-such-file", "there is no such file", where=str(file))
    records, lost = records_in(file)
    Store(database).add(*records)
    return len(records), lost


def title_of(problem: str) -> str:
    """A product's key without what follows it."""
    return problem.partition(" -> ")[0]


def _settings() -> Settings:
    from ..schedules.cuda.tuning.measuring.measure import Settings
    from ..targets.cuda.driver import requested_emulator
    from ..targets.cuda.measuring import PREPARE

    if requested_emulator() is None:
        return Settings(prepare=PREPARE)
    # No clock is warmed, no cache is flushed, and a run takes what it takes.
    return Settings(rounds=2, repeats=1, warm=0.0, flush=0, patience=600.0, prepare=PREPARE)


def _place(plan: Cases, number: int, card: str) -> tuple[str, str, str, int]:
    case = plan.cases[number]
    return case.problem, case.architecture, card, case.bucket


def _row(
    plan: Cases,
    number: int,
    record: Record | None,
    *,
    known: bool = False,
    failures: Mapping[str, str] | None = None,
) -> Measured:
    case = plan.cases[number]
    return Measured(case.problem, case.layers, case.rows, record, known, failures or {})
