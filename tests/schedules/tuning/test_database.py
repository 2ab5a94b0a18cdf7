"""Records on disk: written, read, joined, damaged."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
from fewbits import FewbitsError
from fewbits.schedules.tuning.database import Cpu, Database, Record
from fewbits.schedules.tuning.folder import VARIABLE, default_folder
from tvm.target import Target

CPU = Cpu("znver5", ("-a", "-b"), 2)


def record(workload: str = "w", **changes: Any) -> Record:
    fields: dict[str, Any] = {
        "workload": workload, "title": "product", "facts": {"kind": "ü"}, "cpu": CPU.key,
        "bindings": ({"N": 1},), "rule": (8, 3, 64), "rule_us": (20.0,), "sizes": (6, 4, 66),
        "best_us": (10.0,), "trials": 4,
    }  # fmt: skip
    return Record(**{**fields, **changes})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    database = Database(tmp_path / "new" / "folder")
    assert database.read(CPU) == ([], 0)
    database.add(CPU, record("a"))
    database.add(CPU, record("b"))
    assert database.read(CPU) == ([record("a"), record("b")], 0)
    assert database.sizes(CPU) == {"a": (6, 4, 66), "b": (6, 4, 66)}
    assert database.read(Cpu("znver5", ("-a", "-b"), 4)) == ([], 0)
    assert {path.name for path in database.folder.iterdir()} == {f"{CPU.key}.jsonl", ".lock"}


def test_the_same_measurement_replaces_and_another_is_added(tmp_path: Path) -> None:
    database = Database(tmp_path)
    database.add(CPU, record(sizes=(1, 1, 1)))
    database.add(CPU, record(bindings=({"N": 8},), sizes=(2, 2, 2)))
    database.add(CPU, record(sizes=(3, 3, 3)))
    assert [r.sizes for r in database.read(CPU)[0]] == [(2, 2, 2), (3, 3, 3)]
    assert database.sizes(CPU) == {"w": (3, 3, 3)}
    assert database.find(CPU, "w", [{"N": 8}]) == record(bindings=({"N": 8},), sizes=(2, 2, 2))
    assert database.find(CPU, "w", [{"N": 9}]) is None


def test_files_can_be_joined(tmp_path: Path) -> None:
    one, two = Database(tmp_path / "one"), Database(tmp_path / "two")
    one.add(CPU, record("a"))
    two.add(CPU, record("a", sizes=(1, 1, 1)))
    two.add(CPU, record("b"))
    text = one.path(CPU).read_text("utf-8") + two.path(CPU).read_text("utf-8")
    one.path(CPU).write_text(text, "utf-8")
    assert one.sizes(CPU) == {"a": (1, 1, 1), "b": (6, 4, 66)}


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2}, {"sizes": [0, 1, 1]}, {"sizes": [1, 1]}, {"sizes": "8x3"},
        {"rule_us": [0.0]}, {"rule_us": [float("nan")]}, {"best_us": [1.0, 1.0]},
        {"bindings": []}, {"cpu": "other"}, {"more": 1},
    ],
)  # fmt: skip
def test_lines_without_sense_are_left_out_and_counted(tmp_path: Path, change: Any) -> None:
    database = Database(tmp_path)
    database.add(CPU, record("good"))
    bad = {**record("bad").model_dump(), **change}
    with database.path(CPU).open("a") as file:
        file.write(json.dumps(bad) + "\n")
    assert database.read(CPU) == ([record("good")], 1)


def test_torn_and_binary_lines(tmp_path: Path) -> None:
    database = Database(tmp_path)
    database.add(CPU, record("a"))
    whole = database.path(CPU).read_bytes()
    database.path(CPU).write_bytes(whole[:30] + b"\n\n\xff\x00\xfe\n" + whole)
    assert database.read(CPU) == ([record("a")], 2)
    database.add(CPU, record("b"))
    assert database.read(CPU) == ([record("a"), record("b")], 0)


def _add_many(folder: str, name: str) -> None:
    for number in range(5):
        Database(folder).add(CPU, record(f"{name}{number}"))


def test_processes_do_not_lose_each_others_records(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_add_many, args=(str(tmp_path), n)) for n in "xyz"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert len(Database(tmp_path).sizes(CPU)) == 15


def test_places_that_cannot_be_written_or_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FewbitsError) as error:
        Database(tmp_path / "file").add(CPU, record())
    assert error.value.code == "output-not-writable"
    database = Database(tmp_path)
    database.path(CPU).mkdir()
    with pytest.raises(FewbitsError) as error:
        database.read(CPU)
    assert error.value.code == "unreadable-file"


def test_cpus_have_different_files() -> None:
    names = {
        Cpu.of(Target({"kind": "llvm", "mcpu": mcpu, "mattr": mattr}), cores).key
        for mcpu in ("x86-64-v3", "x86-64-v4")
        for mattr in (["+avx512vnni"], ["-pku", "+avx512vnni"])
        for cores in (0, 2)
    }
    assert len(names) == 8
    assert Cpu("weird / name", (), 2).key.startswith("weird-name-2cores-")


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert default_folder() == tmp_path
    monkeypatch.setenv(VARIABLE, "off")
    assert default_folder() is None
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "fewbits" / "tuning"


def test_speedup_is_a_mean_over_sizes() -> None:
    both = record(bindings=({"N": 1}, {"N": 2}), rule_us=(10.0, 10.0), best_us=(5.0, 20.0))
    assert both.speedup == pytest.approx(1.0)
