"""Sample inputs in all their forms, damaged ones among them; files that are whole or not there."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from fewbits.compiler.data import check_batch, load_arrays, open_batches, save_arrays
from fewbits.compiler.files import write_file
from fewbits.compiler.options import parse_size
from fewbits.compiler.recipe import load_recipe
from fewbits.errors import FewbitsError


@dataclasses.dataclass
class Info:
    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"


INPUTS = [Info("x", (1, 2, 3)), Info("n", (1,), "int64")]
X = np.arange(24, dtype="float32").reshape(4, 2, 3)
N = np.arange(4)


def total(source, **options):
    batches = list(open_batches(source, INPUTS, **options)())
    return {key: np.concatenate([batch[key] for batch in batches]) for key in ("x", "n")}


class Reader:
    """onnxruntime's interface."""

    def __init__(self):
        self.rest = [{"x": X[i : i + 1], "n": N[i : i + 1]} for i in range(4)]

    def get_next(self):
        return self.rest.pop(0) if self.rest else None


def test_every_source_gives_the_same(tmp_path):
    np.savez(tmp_path / "all.npz", x=X, n=N)
    singles = tmp_path / "npy"
    singles.mkdir()
    np.save(singles / "x.npy", X)
    np.save(singles / "n.npy", N)
    several = tmp_path / "npz"
    several.mkdir()
    for index in range(4):
        np.savez(several / f"{index}.npz", x=X[index : index + 1], n=N[index : index + 1])
    (several / "readme.txt").write_text("not data")
    sources = [
        {"x": X, "n": N}, {"x": X[:, None], "n": N[:, None]}, {"x": X.astype("f8"), "n": N},
        [{"x": X[i][None], "n": N[i : i + 1]} for i in range(4)],
        ({"x": X[i : i + 1], "n": N[i : i + 1]} for i in range(4)), Reader(),
        tmp_path / "all.npz", str(tmp_path / "all.npz"), singles, several,
    ]  # fmt: skip
    for source in sources:
        open_again = open_batches(source, INPUTS)
        for _ in range(2):  # a stream that can be read once only is kept
            got = list(open_again())
            np.testing.assert_array_equal(np.concatenate([b["x"] for b in got]), X)
            np.testing.assert_array_equal(np.concatenate([b["n"] for b in got]), N)
            assert all(b["x"].dtype == "float32" for b in got)


def test_limit():
    pieces = [{"x": X[:3], "n": N[:3]}, {"x": X[3:], "n": N[3:]}]
    for limit in (1, 3, 4, 9):
        assert len(total(pieces, limit=limit)["x"]) == min(limit, 4)


def test_single_samples_of_the_models_own_shape():
    batch = check_batch({"x": X[:1], "n": N[:1], "labels": [3]}, INPUTS, "here")
    assert batch["x"].shape == (1, 2, 3) and "labels" not in batch
    assert check_batch({"x": X[0][None], "n": 5 * N[1:2]}, INPUTS, "here")["n"][0] == 5


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        ({"x": X}, "missing-input"),
        ({"x": X, "n": N, "m": N}, "unknown-input"),
        ({"x": X, "n": N[:2]}, "wrong-shape"),
        ({"x": X[0, 0], "n": N}, "wrong-shape"),
        ({"x": X, "n": N + 0.5}, "wrong-dtype"),
        ({"x": X > 3, "n": N}, "wrong-dtype"),
        ({"x": "text", "n": N}, "wrong-shape"),
        ({"x": X, "n": np.array([2**63] * 4, "u8")}, "wrong-dtype"),
    ],
)
def test_what_does_not_fit(raw, code):
    with pytest.raises(FewbitsError) as caught:
        check_batch(raw, INPUTS, "here")
    assert caught.value.code == code and caught.value.where and caught.value.hint


def test_no_source_at_all():
    with pytest.raises(FewbitsError) as caught:
        open_batches(42, INPUTS)
    assert caught.value.code == "bad-data"


def test_damaged_files_are_told(tmp_path):
    path = tmp_path / "data.npz"
    np.savez_compressed(path, x=X, n=N)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole[: random.integers(len(whole) + 1)])
        for _ in range(random.integers(0, 8)):
            if damaged:
                damaged[random.integers(len(damaged))] = random.integers(256)
        path.write_bytes(damaged)
        try:
            load_arrays(path)
        except FewbitsError as error:
            assert error.code == "bad-data"


def test_pickles_are_not_opened(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(FewbitsError) as caught:
        load_arrays(tmp_path / "x.npy")
    assert caught.value.code == "bad-data"


def test_saved_arrays_come_back_whatever_their_names(tmp_path):
    names = ["x", "file", "allow_pickle", "a/b", "ü 模", "it's", "", "arr_0", "a.npy"]
    arrays = {name: X + index for index, name in enumerate(names)}
    for path in (tmp_path / "a.npz", tmp_path / "new" / "b.npz"):
        save_arrays(path, arrays)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "new" / "b.npz").read_bytes()
    back = load_arrays(tmp_path / "a.npz")
    for name, array in arrays.items():
        key = name.removesuffix(".npy") if name not in back else name
        np.testing.assert_array_equal(back[key], array)


def test_files_are_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "file"
    write_file(path, "größe\n")
    assert path.read_bytes() == "größe\n".encode()

    def fail(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_file(path, fail)
    assert [p.name for p in path.parent.iterdir()] == ["file"]
    assert path.read_text("utf-8") == "größe\n"
    with pytest.raises(FewbitsError):
        write_file(tmp_path / "new", b"")


@pytest.mark.parametrize(
    ("text", "size"),
    [("131072", 131072), ("128K", 131072), ("128 KiB", 131072), ("0.5m", 524288), ("1MB", 2**20)],
)
def test_sizes(text, size):
    assert parse_size(text, "--ram") == size


def test_options_on_top_of_a_recipe_keep_what_it_says(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("passes: ['quantize{strategy=tensor; percentile=99.0}', canonicalize]")
    recipe = load_recipe(path).with_options({"quantize": {"activation_observer": "mse"}})
    quantize, _ = recipe.build()
    assert str(quantize) == "quantize{activation_observer=mse; percentile=99.0; strategy=tensor}"
    again = tmp_path / "again.yaml"
    again.write_text(recipe.to_yaml())
    assert load_recipe(again).build() == recipe.build()
