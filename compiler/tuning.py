"""Tuning of a model's kernels: compress, find what can be tuned, measure, keep the best."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FewbitsError
from . import driver
from .data import Source
from .machines import open_machines
from .options import Options
from .progress import Progress, quiet
from .tuning_sizes import bindings_of

if TYPE_CHECKING:
    from ..schedules.tuning.bench import Bench
    from ..schedules.tuning.choices import Site
    from ..schedules.tuning.database import Cpu, Record
    from ..targets.cpu.product import CpuProduct
    from ..targets.cpu.target import CpuTarget

#: Opens what builds and runs, with a folder for its files; tests bring their own.
OpenBench = Callable[["CpuTarget", Path], "Bench"]


@dataclasses.dataclass(frozen=True)
class Tuned:
    """What came of one workload.

    Attributes:
        title: the workload for people.
        layers: names of the layers that compute it, as far as they have any.
        calls: how many kernels they are.
        record: the result; None where nothing could be measured.
        known: whether it was in the database before.
        failures: sizes that failed, as text, and why.
    """

    title: str
    layers: tuple[str, ...]
    calls: int
    record: Record | None
    known: bool
    failures: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        record = None if self.record is None else self.record.model_dump()
        return {**dataclasses.asdict(dataclasses.replace(self, record=None)), "record": record}


@dataclasses.dataclass(frozen=True)
class TuningResult:
    """What came of a model.

    Attributes:
        database: the file with the records.
        cpu: the CPU's key.
        rows: the workloads that are finished, those with most to do first.
        total: how many workloads the model has.
        ignored_lines: lines of the file that make no sense.
        interrupted: whether the user stopped it.
    """

    database: Path
    cpu: str
    rows: tuple[Tuned, ...]
    total: int
    ignored_lines: int
    interrupted: bool


@dataclasses.dataclass(frozen=True)
class Plan:
    """How to tune.

    Attributes:
        sizes: of symbolic dimensions, one or more each; all combinations are measured.
        trials: sizes to try for each workload, the rule's included.
        again: measure what has a record, too.
        database: the records' folder.
        tracker: host, port and key of a TVM tracker; None for this machine.
    """

    sizes: Mapping[str, Sequence[int]]
    trials: int
    again: bool
    database: Path
    tracker: tuple[str, int, str] | None = None


def tune_model(
    model: Any,
    options: Options,
    plan: Plan,
    calibration: Source | str | None = None,
    progress: Progress = quiet,
    open_bench: OpenBench | None = None,
) -> TuningResult:
    """Tune a model's kernels; every result is kept as soon as it is known.

    Args:
        model: path, bytes or ``ModelProto``.
        options: as for compiling; the target has to be a CPU.
        plan: how to tune.
        calibration: as for compiling.
        progress: told about phases and steps.
        open_bench: what measures, instead of this machine or the tracker.

    Raises:
        FewbitsError: as `driver.compress`; ``wrong-target`` for a target without tuning;
            ``unknown-dimension``; ``tracker-unreachable``.
    """
    from ..schedules.tuning.choices import Collected
    from ..schedules.tuning.database import Database
    from ..targets.cpu.product import CpuProduct
    from ..targets.cpu.target import CpuTarget
    from ..targets.cpu.tuning import cpu_of

    state = driver.compress(
        model, dataclasses.replace(options, to="compress"), calibration, progress
    )
    target = state.target
    if not isinstance(target, CpuTarget):
        raise FewbitsError(
            "wrong-target",
            f"kernels for {target.name!r} have nothing to tune",
            where="--target",
            hint="use cpu, or another target that gives a shared library",
        )
    assert state.compressed is not None
    progress.phase("lower")
    collected = Collected()
    product = CpuProduct(state.compressed, target, collected)
    bindings = bindings_of(state.imported.inputs, product.module, plan.sizes)
    cpu, database = cpu_of(target), Database(plan.database)
    _, lost = database.read(cpu)
    work = sorted(collected.sites.values(), key=lambda sites: -_work(sites, bindings))
    rows: list[Tuned] = []
    with _opened(open_bench, target, plan) as bench, kept_going() as state_of:
        for number, sites in enumerate(work, 1):
            mine = _relevant(sites[0], bindings)
            title = sites[0].workload.title
            progress.phase(f"{number}/{len(work)} {title}")
            before = None if plan.again else database.find(cpu, sites[0].workload.key, mine)
            if before is not None:
                rows.append(_row(product, sites, before, True, {}))
                continue
            rows.append(_tuned(product, sites, bench, cpu, mine, plan, progress))
            record = rows[-1].record
            if record is not None:
                database.add(cpu, record)
    return TuningResult(
        database.path(cpu), cpu.key, tuple(rows), len(work), lost, state_of.interrupted
    )


def _tuned(
    product: CpuProduct, sites: Sequence[Site], bench: Bench, cpu: Cpu,
    bindings: Sequence[dict[str, int]], plan: Plan, progress: Progress,
) -> Tuned:  # fmt: skip
    from ..schedules.tuning.trials import try_sizes

    trial = try_sizes(sites[0], bench, cpu, bindings, plan.trials, progress.samples)
    failures = {str(sizes): reason for sizes, reason in trial.failures.items()}
    return _row(product, sites, trial.record, False, failures)


def _row(
    product: CpuProduct, sites: Sequence[Site], record: Record | None, known: bool,
    failures: Mapping[str, str],
) -> Tuned:  # fmt: skip
    from ..targets.cpu.tuning import layers_of

    layers = tuple(layers_of(product.module, sites))
    calls = sum(site.calls for site in sites)
    return Tuned(sites[0].workload.title, layers, calls, record, known, failures)


@dataclasses.dataclass
class Interruption:
    """Whether the user stopped what was going on."""

    interrupted: bool = False


@contextlib.contextmanager
def kept_going() -> Iterator[Interruption]:
    """Ctrl-C ends the block and is noted; what was found until then stays."""
    state = Interruption()
    try:
        yield state
    except KeyboardInterrupt:
        state.interrupted = True


@contextlib.contextmanager
def _opened(open_bench: OpenBench | None, target: CpuTarget, plan: Plan) -> Iterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="fewbits-tune-") as folder:
        if open_bench is not None:
            yield open_bench(target, Path(folder))
        else:
            yield open_machines(target, Path(folder), plan.tracker)


def _relevant(site: Site, bindings: Sequence[dict[str, int]]) -> list[dict[str, int]]:
    """The bindings without dimensions that do not occur in a kernel."""
    from ..schedules.tuning.sites import dimensions

    names = dimensions(site)
    mine = [{n: binding[n] for n in sorted(binding) if n in names} for binding in bindings]
    return list({str(binding): binding for binding in mine}.values())


def _work(sites: Sequence[Site], bindings: Sequence[Mapping[str, int]]) -> int:
    """Products of all calls with the first binding, about."""
    from ..schedules.tuning.space import bound

    extents = bound(sites[0].extents, bindings[0])
    count = sum(site.calls for site in sites)
    for extent in extents.values():
        count *= extent
    return count
