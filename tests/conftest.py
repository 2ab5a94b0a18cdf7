"""What all tests share: golden texts, a GPU, and folders of their own for what users keep."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs
import pytest

if TYPE_CHECKING:
    from fewbits.targets.cuda.testing import Gpu


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="accept generated text as the golden text"
    )


@pytest.fixture(autouse=True)
def _users_folders(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither tuning records nor solved layers of whoever runs the tests are used or changed."""
    monkeypatch.setenv("FEWBITS_TUNING", "off")
    monkeypatch.setenv("FEWBITS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def _kept_between_runs(request: pytest.FixtureRequest, _users_folders: None) -> None:
    """In folders named ``cuda``: what is compiled is kept from run to run, and found by its source.

    Nothing else of the cache is kept.
    """
    if "cuda" not in request.path.parts:
        return
    cache = Path(os.environ["FEWBITS_CACHE"])
    cache.mkdir(parents=True, exist_ok=True)
    for name in ("cuda", "zig"):
        kept = Path(platformdirs.user_cache_dir("fewbits-tests")) / name
        kept.mkdir(parents=True, exist_ok=True)
        if not (cache / name).exists():
            (cache / name).symlink_to(kept)


@pytest.fixture
def gpu(request: pytest.FixtureRequest, _kept_between_runs: None) -> Gpu:
    """The machine's GPU, else the emulated one.

    sm_90a, or what ``@pytest.mark.parametrize("gpu", ["sm_80"], indirect=True)`` says.
    """
    from fewbits.targets.cuda import testing

    architecture = getattr(request, "param", "sm_90a")
    reason = testing.unavailable(architecture)
    if reason is not None:
        pytest.skip(reason)
    return testing.open_gpu(architecture)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``golden(name, text)`` compares text with ``golden/<name>`` beside the test file."""

    def compare(name: str, text: str) -> None:
        path = Path(request.path).parent / "golden" / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.is_file(), f"{path} is missing: run pytest --update-golden"
        assert text == path.read_text(encoding="utf-8")

    return compare
