"""What the doctor finds here, and what it says about installations that lack something."""

import importlib.metadata

from fewbits.compiler import doctor
from fewbits.targets.mcu import tracer


def by_name() -> dict[str, doctor.Check]:
    return {check.name: check for check in doctor.check()}


def test_this_installation_is_healthy():
    checks = by_name()
    assert [c.name for c in checks.values() if not c.ok] == []
    assert checks["apache-tvm-ffi"].detail == "0.1.14.post1"
    assert "instructions emulated" in checks["firmware"].detail
    assert "loaded and run" in checks["library"].detail and "threads" in checks["cpu"].detail
    assert all(c.ok or c.hint for c in checks.values())


def test_a_linker_that_fails_is_found(monkeypatch):
    from fewbits.errors import FewbitsError
    from fewbits.targets.vm import link

    def fail(*_: object) -> None:
        raise FewbitsError("compiler-failed", "no linker today")

    monkeypatch.setattr(link, "link", fail)
    found = by_name()["library"]
    assert not found.ok and "no linker today" in found.detail and found.hint


def test_wrong_and_missing_packages_are_named(monkeypatch):
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "onnx":
            raise importlib.metadata.PackageNotFoundError(name)
        return "0.1.15" if name == "apache-tvm-ffi" else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    checks = by_name()
    assert not checks["onnx"].ok and checks["onnx"].hint == "pip install onnx"
    assert "0.1.14.post1 is needed" in checks["apache-tvm-ffi"].detail
    assert checks["apache-tvm"].ok


def test_a_cache_that_cannot_be_written_is_found(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEWBITS_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(tracer, "_library", tracer._library.__wrapped__)  # not the loaded one
    checks = by_name()
    assert not checks["cache"].ok
    assert "FEWBITS_CACHE" in str(checks["cache"].hint)
    assert not checks["firmware"].ok


def test_optional_tools_are_no_fault(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    checks = by_name()
    for name in ("arm-none-eabi-gcc", "nvcc"):
        assert checks[name].ok and checks[name].hint
        assert checks[name].detail == "not found (optional)"
