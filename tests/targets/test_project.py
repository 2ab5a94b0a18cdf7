"""Output folders appear whole or not at all, and nothing of the user's is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fewbits.errors import FewbitsError
from fewbits.targets import project
from fewbits.targets.project import output_folder, write_project

FILES: dict[str, str | bytes] = {
    "manifest.json": json.dumps({"fewbits": "0.1.0"}),
    "a/b.c": "int x;\n",
    "blob.bin": b"\x00\xff",
}


def tree(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


def test_files_are_written_as_they_are(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    write_project(FILES, out)
    assert (out / "a" / "b.c").read_bytes() == b"int x;\n"
    assert (out / "blob.bin").read_bytes() == b"\x00\xff"
    assert tree(tmp_path / "deep") == {"out", *(f"out/{n}" for n in ("a", *FILES))}


def test_earlier_output_is_replaced_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_project({**FILES, "old.c": ""}, out)
    write_project(FILES, out)
    assert tree(tmp_path) == {"out", *(f"out/{n}" for n in ("a", *FILES))}


def test_empty_folder_is_used(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    write_project(FILES, out)
    assert (out / "blob.bin").exists()


@pytest.mark.parametrize("manifest", [None, "{}", "not json", "[]", '"fewbits"'])
def test_foreign_folder_is_kept(tmp_path: Path, manifest: str | None) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    if manifest is not None:
        (out / "manifest.json").write_text(manifest)
    before = tree(tmp_path)
    with pytest.raises(FewbitsError) as caught:
        write_project(FILES, out)
    assert caught.value.code == "output-exists"
    assert tree(tmp_path) == before
    write_project(FILES, out, force=True)
    assert not (out / "thesis.tex").exists()


def test_file_in_the_way_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("mine")
    with pytest.raises(FewbitsError, match="is a file"):
        write_project(FILES, out, force=True)
    assert out.read_text() == "mine"


def test_home_is_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(FewbitsError):
        write_project(FILES, tmp_path, force=True)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, OSError])
@pytest.mark.parametrize("earlier", [False, True])
def test_interrupted_writing_leaves_what_was_there(
    tmp_path: Path, error: type[BaseException], earlier: bool
) -> None:
    out = tmp_path / "new" / "out"
    if earlier:
        write_project({**FILES, "old.c": "old"}, out)
    before = tree(tmp_path)
    with pytest.raises(error), output_folder(out) as staging:
        (staging / "half.c").write_text("int")
        raise error
    assert tree(tmp_path) == before


def test_interrupted_renaming_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    write_project({**FILES, "old.c": "old"}, out)
    before = tree(tmp_path)
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if self.name.startswith(".out-") and Path(target).name == "out":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(project.Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_project(FILES, out)
    assert tree(tmp_path) == before


def test_link_keeps_pointing_to_the_replaced_folder(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    write_project(FILES, real)
    link.symlink_to(real)
    write_project({**FILES, "new.c": ""}, link)
    assert link.is_symlink()
    assert (real / "new.c").exists()


def test_folder_under_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FewbitsError) as caught:
        write_project(FILES, tmp_path / "file" / "out")
    assert caught.value.code == "output-not-writable"


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "", "a\\x"])
def test_paths_stay_inside(tmp_path: Path, path: str) -> None:
    with pytest.raises(ValueError, match="not a path inside"):
        write_project({path: ""}, tmp_path / "out")
    assert tree(tmp_path) == set()
