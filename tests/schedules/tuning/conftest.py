"""Makes this folder's helpers importable, and gives a bench without a clock."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fewbits.schedules.tuning.bench import Bench
from tuning_fakes import TARGET, FakeBuilder, FakeRunner


@pytest.fixture
def fake_bench(tmp_path: Path) -> Callable[..., Bench]:
    """``fake_bench(answer, broken)``: a bench that measures what `answer` says."""

    def make(
        answer: Callable[[int, int], float | str], broken: frozenset[int] = frozenset()
    ) -> Bench:
        return Bench(TARGET, tmp_path, FakeBuilder(broken), FakeRunner(answer), 1)

    return make
