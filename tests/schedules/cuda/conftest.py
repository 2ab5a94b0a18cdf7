"""A GPU for tests: the machine's, else the emulated one.

What is compiled here is kept from run to run, in a folder of its own: entries are found by their
content.
"""

from __future__ import annotations

import platformdirs
import pytest
from fewbits.targets.cuda import testing


@pytest.fixture(autouse=True)
def _kept_between_runs(_users_folders: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWBITS_CACHE", platformdirs.user_cache_dir("fewbits-tests"))


@pytest.fixture
def gpu(request: pytest.FixtureRequest, _kept_between_runs: None) -> testing.Gpu:
    """sm_90a, or what ``@pytest.mark.parametrize("gpu", ["sm_80"], indirect=True)`` says."""
    architecture = getattr(request, "param", "sm_90a")
    reason = testing.unavailable(architecture)
    if reason is not None:
        pytest.skip(reason)
    return testing.open_gpu(architecture)
