"""nvcc is found wherever it is, in the order that is documented, and errors say what to install."""

from __future__ import annotations

from pathlib import Path

import pytest
from fewbits import FewbitsError
from fewbits.targets.cuda import toolchain


def _program(folder: Path, release: str, name: str = "nvcc") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release X, V{release}'\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A machine without any nvcc."""
    monkeypatch.delenv(toolchain.VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr(toolchain, "_pip_folders", lambda name: [])
    monkeypatch.setattr(toolchain, "_SYSTEM", tmp_path / "no-toolkit")
    toolchain._find_nvcc.cache_clear()
    return monkeypatch


@pytest.fixture(autouse=True)
def _forget_afterwards():
    yield
    toolchain._find_nvcc.cache_clear()


def test_nothing_installed_says_what_to_install(bare: pytest.MonkeyPatch) -> None:
    with pytest.raises(FewbitsError) as caught:
        toolchain.find_nvcc()
    assert caught.value.code == "compiler-missing"
    assert "pip install 'fewbits[cuda]'" in str(caught.value.hint)


def test_order_is_variable_pip_path_toolkit(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    places = ["variable", "pip", "path", "toolkit"]
    releases = {place: f"13.{number}.1" for number, place in enumerate(places)}
    for place in places:
        _program(tmp_path / place, releases[place])
    bare.setattr(toolchain, "_missing_parts", lambda nvcc: [])
    steps = {
        "toolkit": lambda: bare.setattr(toolchain, "_SYSTEM", tmp_path / "toolkit"),
        "path": lambda: bare.setenv("PATH", str(tmp_path / "path")),
        "pip": lambda: bare.setattr(toolchain, "_pip_folders", lambda name: [tmp_path / "pip"]),
        "variable": lambda: bare.setenv(toolchain.VARIABLE, str(tmp_path / "variable" / "nvcc")),
    }
    for place, step in steps.items():
        step()
        toolchain._find_nvcc.cache_clear()
        assert toolchain.find_nvcc().release == releases[place]


def test_a_compiler_that_is_too_old_is_passed_over(
    bare: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _program(tmp_path / "path", "11.8.89")
    bare.setenv("PATH", str(tmp_path / "path"))
    with pytest.raises(FewbitsError, match=r"11\.8\.89"):
        toolchain.find_nvcc()
    _program(tmp_path / "toolkit", "12.0.1")
    bare.setattr(toolchain, "_SYSTEM", tmp_path / "toolkit")
    toolchain._find_nvcc.cache_clear()
    assert toolchain.find_nvcc().version == (12, 0)


def test_pips_compiler_without_its_parts_is_passed_over(
    bare: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = tmp_path / "nvidia" / "cu13"
    _program(root / "bin", "13.0.88")
    _program(root / "bin", "", "ptxas")
    bare.setattr(toolchain, "_pip_folders", lambda name: [root / name])
    with pytest.raises(FewbitsError, match="lacks nvvm/bin/cicc, include/cuda_runtime"):
        toolchain.find_nvcc()
    for part in ("nvvm/bin/cicc", "include/cuda_runtime.h", "include/crt/host_config.h"):
        (root / part).parent.mkdir(parents=True, exist_ok=True)
        (root / part).write_text("")
    toolchain._find_nvcc.cache_clear()
    assert toolchain.find_nvcc().path == root / "bin" / "nvcc"


def test_the_hosts_compiler_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("NVCC_CCBIN", raising=False)
    with pytest.raises(FewbitsError, match="no gcc") as caught:
        toolchain.check_host_compiler()
    assert "apt install g++" in str(caught.value.hint)
    _program(tmp_path, "", "my-gcc")
    monkeypatch.setenv("NVCC_CCBIN", "my-gcc")
    toolchain.check_host_compiler()


@pytest.mark.parametrize("chosen", ["/nowhere/nvcc", "no-such-nvcc"])
def test_a_wrong_choice_names_the_variable(bare: pytest.MonkeyPatch, chosen: str) -> None:
    bare.setenv(toolchain.VARIABLE, chosen)
    with pytest.raises(FewbitsError) as caught:
        toolchain.find_nvcc()
    assert (caught.value.code, caught.value.where) == ("compiler-missing", toolchain.VARIABLE)


def test_a_program_that_does_not_run_is_no_compiler(
    bare: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = _program(tmp_path / "path", "13.0.1")
    broken.write_text("#!/bin/sh\nexit 3\n")
    bare.setenv("PATH", str(tmp_path / "path"))
    with pytest.raises(FewbitsError, match="does not run"):
        toolchain.find_nvcc()


def test_scripts_that_only_call_nvcc_lead_to_it(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = _program(tmp_path / "cuda" / "bin", "13.0.88")
    script = tmp_path / "path" / "nvcc"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {program} "$@"\n')
    script.chmod(0o755)
    bare.setenv("PATH", f"{script.parent}:/bin:/usr/bin")
    nvcc = toolchain.find_nvcc()
    assert nvcc.path == program
    assert nvcc.part("ptxas") == program.parent.resolve() / "ptxas"


def test_a_tool_that_fails_is_quoted(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\nfor i in $(seq 100); do echo line $i; done\nexit 7\n")
    tool.chmod(0o755)
    with pytest.raises(FewbitsError) as caught:
        toolchain.run_tool([tool, "-x"], tmp_path)
    assert caught.value.code == "compiler-failed"
    assert "status 7" in caught.value.message
    assert "line 100" in caught.value.message
    assert "line 60\n" not in caught.value.message
    assert caught.value.where == "tool -x"
