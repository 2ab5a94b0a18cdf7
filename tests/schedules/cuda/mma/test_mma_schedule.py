"""The product as a schedule: its meaning on the CPU, its machine code, and its search space."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tvm
from fewbits.errors import FewbitsError
from fewbits.schedules.cuda.architecture import SM_80, SM_89
from fewbits.schedules.cuda.epilogue import plain, scaled
from fewbits.schedules.cuda.mma.meaning import meaning
from fewbits.schedules.cuda.mma.scheduled import (
    Decisions,
    fixed_rows_kernel,
    product,
    schedule,
    searchable,
)
from fewbits.schedules.cuda.mma.search import builder, launchable, space_generator
from fewbits.schedules.cuda.problem import Linear
from fewbits.schedules.cuda.weight_format import Dense
from fewbits.targets.cuda.machine_code import report
from fewbits.targets.cuda.toolchain import disassembler, find_nvcc
from tvm import s_tir
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms

ROWS, OUTPUTS, INPUTS = 64, 96, 128
TILES = Decisions(rows=(2, 1, 2), columns=(1, 3, 2), depth=(2, 2))


def tools() -> bool:
    try:
        find_nvcc()
    except FewbitsError:
        return False
    return disassembler("cuobjdump") is not None and disassembler("nvdisasm") is not None


def linear(dtype: str, inputs: int = INPUTS) -> Linear:
    epilogue = scaled("float32") if dtype == "int8" else plain("float32", "float32")
    return Linear(inputs, OUTPUTS, dtype, Dense(dtype), epilogue)


def run(function: object, *arrays: np.ndarray) -> np.ndarray:
    library = tvm.tirx.build(tvm.IRModule({"main": function}), target="llvm")
    result = tvm.runtime.tensor(np.zeros((ROWS, OUTPUTS), "float32"))
    library["main"](*(tvm.runtime.tensor(a) for a in arrays), result)
    return result.numpy()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_any_sampled_schedule_means_the_product(seed: int) -> None:
    random = np.random.default_rng(seed)
    function = product(linear("int8"), ROWS)
    sch = s_tir.Schedule(tvm.IRModule({"main": function}), seed=seed, debug_mask=0)
    schedule(sch, "int8")
    x = random.integers(-128, 128, (ROWS, INPUTS), dtype=np.int8)
    w = random.integers(-128, 128, (OUTPUTS, INPUTS), dtype=np.int8)
    # Powers of two: the scaled sums are exact.
    rows = np.exp2(random.integers(-3, 4, ROWS)).astype(np.float32)
    columns = np.exp2(random.integers(-3, 4, OUTPUTS)).astype(np.float32)
    expected = (x.astype(np.int64) @ w.T.astype(np.int64)) * rows[:, None] * columns
    np.testing.assert_array_equal(run(meaning(function, sch), x, w, rows, columns), expected)


def test_decisions_mean_the_same_as_samples() -> None:
    random = np.random.default_rng(0)
    function = product(linear("float16"), ROWS)
    sch = s_tir.Schedule(tvm.IRModule({"main": function}), debug_mask=0)
    schedule(sch, "float16", Decisions(TILES.rows, TILES.columns, (4, 2)))
    assert [list(map(int, d)) for d in sch.trace.decisions.values()] == [
        [2, 1, 2],
        [1, 3, 2],
        [4, 2],
    ]
    x = random.integers(-8, 8, (ROWS, INPUTS)).astype(np.float16)
    w = random.integers(-8, 8, (OUTPUTS, INPUTS)).astype(np.float16)
    expected = x.astype(np.float32) @ w.astype(np.float32).T
    np.testing.assert_array_equal(run(meaning(function, sch), x, w), expected)


def test_refuses_what_tiles_do_not_fill() -> None:
    assert searchable(linear("int8"), ROWS)
    assert not searchable(linear("int8"), ROWS + 1)
    with pytest.raises(ValueError, match="whole tiles"):
        product(linear("int8", INPUTS + 16), ROWS)


def test_too_many_threads_are_not_launchable() -> None:
    function = product(Linear(64, 1024, "int8", Dense("int8"), plain("int32", "int32")), 256)
    for decisions, expected in (
        (Decisions((4, 2, 2), (16, 2, 2), (1, 2)), True),
        (Decisions((1, 16, 1), (16, 4, 1), (1, 2)), False),
    ):
        sch = s_tir.Schedule(tvm.IRModule({"main": function}), debug_mask=0)
        schedule(sch, "int8", decisions)
        assert launchable(sch.mod["main"], SM_80) is expected


@pytest.mark.skipif(not tools(), reason="there is no nvcc, or no disassembler")
@pytest.mark.parametrize("dtype", ["int8", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_machine_code_is_tensor_cores_without_a_stack(dtype: str) -> None:
    depth = (4, 2) if dtype.endswith("16") else TILES.depth
    decisions = Decisions(TILES.rows, TILES.columns, depth)
    code = report(fixed_rows_kernel(linear(dtype), ROWS, SM_89, decisions, f"fixed_{dtype}"))
    machine = {"int8": "IMMA", "float16": "HMMA", "bfloat16": "HMMA"}.get(dtype, "QMMA")
    assert code.count(machine) > 0
    assert code.count("LDSM") > 0
    assert (code.stack, code.spill) == (0, 0)


@derived_object
class Future(ms.runner.PyRunnerFuture):
    """A measurement that is there at once."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def done(self) -> bool:
        return True

    def result(self) -> ms.runner.RunnerResult:
        return ms.runner.RunnerResult([self.seconds], None)


@derived_object
class Weigh(ms.runner.PyRunner):
    """Takes the size of what was built for its time: no GPU is needed."""

    def run(self, runner_inputs: list[ms.runner.RunnerInput]) -> list[ms.runner.RunnerFuture]:
        return [Future(Path(i.artifact_path).stat().st_size * 1e-9) for i in runner_inputs]


@pytest.mark.skipif(not tools(), reason="there is no nvcc")
def test_a_search_builds_all_its_samples(tmp_path: Path) -> None:
    problem = Linear(1024, 512, "int8", Dense("int8"), plain("int32", "int32"))
    database = ms.tune_tir(
        mod=tvm.IRModule({"main": product(problem, 512)}),
        target=SM_80.tvm_target(),
        work_dir=str(tmp_path),
        max_trials_global=4,
        num_trials_per_iter=4,
        builder=builder(),
        runner=Weigh(),
        space=space_generator("int8", SM_80),
        cost_model="random",
        strategy="replay-trace",
        num_tuning_cores=1,
        seed=1,
    )
    records = database.get_all_tuning_records()
    assert len(records) == 4
    assert all(float(record.run_secs[0]) < 1 for record in records)
