"""A GPU for tests: the machine's, else the emulated one.

What is compiled here is kept from run to run, in a folder of its own: entries are found by the
sources that they come from. Nothing else of the cache is kept.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs
import pytest
from fewbits.targets.cuda import testing


@pytest.fixture(autouse=True)
def _kept_between_runs(_users_folders: None) -> None:
    cache = Path(os.environ["FEWBITS_CACHE"])
    cache.mkdir(parents=True, exist_ok=True)
    for name in ("cuda", "zig"):
        kept = Path(platformdirs.user_cache_dir("fewbits-tests")) / name
        kept.mkdir(parents=True, exist_ok=True)
        if not (cache / name).exists():
            (cache / name).symlink_to(kept)


@pytest.fixture
def gpu(request: pytest.FixtureRequest, _kept_between_runs: None) -> testing.Gpu:
    """sm_90a, or what ``@pytest.mark.parametrize("gpu", ["sm_80"], indirect=True)`` says."""
    architecture = getattr(request, "param", "sm_90a")
    reason = testing.unavailable(architecture)
    if reason is not None:
        pytest.skip(reason)
    return testing.open_gpu(architecture)
