"""Compressed tensors: decoding, exact sizes, files, and bad input."""

import dataclasses
import json

import numpy as np
import pytest
from fewbits.errors import FewbitsError
from fewbits.formats.adaptive import ant_candidates, compress_adaptive
from fewbits.formats.affine import AffineFormat
from fewbits.formats.codebook import Codebook
from fewbits.formats.compress import compress
from fewbits.formats.compressed import CompressedTensor
from fewbits.formats.granularity import PerBlock, PerChannel, PerGroup, PerTensor, PerToken
from fewbits.formats.integer import Integer
from fewbits.formats.parse import parse_format
from fewbits.formats.scales import STORAGES, store_scales
from fewbits.formats.sparsity import Bitmap, NofM, Rows
from fewbits.formats.storage import load_tensors, save_tensors
from safetensors.numpy import save_file

RNG = np.random.default_rng(0)
W = RNG.standard_normal((24, 40)).astype(np.float32)


def test_per_channel_integers_are_the_rule_of_the_int8_road():
    tensor = compress(W, Integer(8, narrow=True), granularity=PerChannel(0))
    affine = AffineFormat(8, symmetric=True, narrow=True)
    scales = np.array([affine.parameters(float(r.min()), float(r.max())).scale for r in W])
    assert np.array_equal(tensor.scales.values(), scales.astype(np.float32))
    codes = affine.encode(W, scales[:, None], 0)
    assert np.array_equal(tensor.codes().view(np.int8), codes)


def test_affine_integers_are_the_rule_of_the_int8_road():
    x = np.abs(W) - 0.3
    tensor = compress(x, Integer(8), method="affine")
    affine = AffineFormat(8)
    one = affine.parameters(float(x.min()), float(x.max()))
    assert tensor.zero_points is not None
    assert int(tensor.zero_points.view(np.int8)) == one.zero_point
    codes = affine.encode(x, np.float32(one.scale), one.zero_point)
    assert np.array_equal(tensor.codes().view(np.int8), codes)
    # Zero stays exact.
    assert compress(np.array([0.0, 5, 9]), Integer(4, False), method="affine").decode()[0] == 0


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("name", ["int4", "nf4", "fp8_e4m3fn", "dynamic8", "bcq3"])
def test_values_are_near_whatever_stores_the_scales(name, storage):
    tensor = compress(W, parse_format(name), granularity=PerGroup(16), scale_storage=storage)
    error = np.linalg.norm(tensor.decode() - W) / np.linalg.norm(W)
    assert error < {4: 0.22, 3: 0.36, 8: 0.06}[tensor.number_format.bits]


@pytest.mark.parametrize(
    ("granularity", "scales"),
    [(PerTensor(), 1), (PerChannel(1), 40), (PerGroup(16), 24 * 3), (PerBlock(64), 15),
     (PerToken(), 24)],
)  # fmt: skip
def test_exact_sizes(granularity, scales):
    tensor = compress(W, parse_format("int3"), granularity=granularity, scale_storage="float16")
    assert tensor.code_bits == 24 * 40 * 3
    assert tensor.metadata_bits == 16 * scales
    assert tensor.total_bits == tensor.code_bits + tensor.metadata_bits
    assert tensor.packed.nbytes == tensor.code_bits / 8
    assert tensor.bits_per_value == tensor.total_bits / 960


def test_sizes_of_the_other_parts():
    affine = compress(W, Integer(4), granularity=PerGroup(8), method="affine")
    assert affine.metadata_bits == 24 * 5 * (32 + 4)
    binary = compress(W, parse_format("bcq3"), granularity=PerGroup(8), scale_storage="float16")
    assert binary.metadata_bits == 24 * 5 * 3 * 16
    assert binary.code_bits == 960 * 3
    double = compress(W, parse_format("nf4"), granularity=PerBlock(2), scale_storage="double")
    assert double.metadata_bits == 480 * 8 + 2 * 32 + 32
    own = compress(W, Codebook.from_quantiles(W, 4))
    assert own.metadata_bits == 32 + 16 * 32


@pytest.mark.parametrize(
    ("sparsity", "metadata"),
    [(NofM(2, 4), 960), (Bitmap(), 960), (Rows(), 480 * 16 + 24 * 32)],
)
def test_sparse_tensors_store_what_is_kept(sparsity, metadata):
    order = np.abs(W).reshape(-1, 4).argsort(axis=1).argsort(axis=1)
    mask = (order >= 2).reshape(W.shape)
    tensor = compress(W, Integer(8), granularity=PerChannel(), sparsity=sparsity, mask=mask)
    assert tensor.code_bits == 480 * 8
    assert tensor.metadata_bits == 24 * 32 + metadata
    assert np.array_equal(tensor.mask(), mask)
    decoded = tensor.decode()
    assert (decoded[~mask] == 0).all()
    assert np.abs(decoded - W)[mask].max() < np.abs(W).max() / 128


def test_zeros_added_to_fill_a_group_stay_zero():
    mask = np.zeros(W.shape, bool)
    mask[:, ::4] = True
    before = W.copy()
    decoded = compress(W, Integer(8), sparsity=NofM(2, 4), mask=mask).decode()
    assert (decoded[~mask] == 0).all()
    assert np.array_equal(W, before)


@pytest.mark.parametrize("name", ["int4", "nf4", "fp8_e4m3fn", "quantile4", "pot4", "bcq2"])
@pytest.mark.parametrize("storage", STORAGES)
def test_zero_and_tiny_blocks(name, storage):
    x = np.zeros((4, 8), np.float32)
    x[1], x[2, 0] = 1e-30, 1e-42
    decoded = compress(
        x, parse_format(name), granularity=PerChannel(), scale_storage=storage
    ).decode()
    assert np.isfinite(decoded).all()
    # float16 has no smaller scale than 6e-8; powers of two are coarse.
    assert np.abs(decoded).max() <= (1e-5 if storage == "float16" else 2e-30)


def test_huge_values_keep_float32_scales_and_refuse_float16():
    x = np.array([3e38, -1e38, 0], np.float32)
    assert np.allclose(compress(x, parse_format("nf4")).decode(), x, rtol=0.2)
    with pytest.raises(FewbitsError, match="float16"):
        compress(x, parse_format("nf4"), scale_storage="float16")


def test_power_of_two_scales_never_clip():
    stored = store_scales([0.5, 0.51, 1e-45, 2.0**127], "e8m0")
    assert stored.values().tolist() == [0.5, 1.0, 2.0**-126, 2.0**127]
    assert stored.bits == 32


@pytest.mark.parametrize("scale", [np.nan, np.inf, -1.0])
def test_a_scale_that_is_none_is_refused(scale):
    with pytest.raises(FewbitsError):
        store_scales([scale])


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,), (2, 3, 5, 7)])
def test_odd_shapes(shape):
    x = RNG.standard_normal(shape)
    for granularity in (PerTensor(), PerBlock(4)):
        tensor = compress(x, Integer(5), granularity=granularity)
        assert tensor.decode().shape == shape


@pytest.mark.parametrize(
    ("x", "name", "options", "code"),
    [
        ([np.nan, 1], "int4", {}, "not-a-number"),
        ([np.inf, 1], "nf4", {}, "not-a-number"),
        ([-1.0, 1], "uint4", {}, "unsigned-format"),
        ([1.0], "nf4", {"method": "affine"}, "bad-method"),
        ([1.0], "bcq2", {"method": "absmax"}, "bad-method"),
        ([1.0], "int4", {"granularity": PerChannel(3)}, "bad-granularity"),
        ([1.0], "int4", {"sparsity": NofM()}, "bad-sparsity"),
        ([1.0] * 4, "int4", {"sparsity": NofM()}, "bad-sparsity"),
        ([1.0], "int4", {"mask": np.array([True])}, "bad-sparsity"),
        ([1.0], "int4", {"importance": [-1.0]}, "bad-importance"),
        ([1.0], "int4", {"scale_storage": "float8"}, "bad-scales"),
    ],
)
def test_bad_input_is_refused(x, name, options, code):
    with pytest.raises(FewbitsError) as caught:
        compress(np.array(x, np.float32), parse_format(name), **options)
    assert caught.value.code == code


def test_parts_that_contradict_each_other_are_refused():
    tensor = compress(W, Integer(4), granularity=PerGroup(8))
    for change in (
        {"shape": (1 << 40, 8)},
        {"shape": (-24, -40)},
        {"packed": tensor.packed[:-1]},
        {"granularity": PerGroup(4)},
        {"zero_points": np.zeros(3, np.uint8)},
        {"number_format": parse_format("nf4"), "zero_points": np.zeros((24, 5), np.uint8)},
        {"offsets": np.zeros((24, 5), np.float32)},
    ):
        with pytest.raises(FewbitsError):
            dataclasses.replace(tensor, **change)


def _examples() -> dict[str, CompressedTensor]:
    mask = np.tile([True, False, False, True], (24, 10))
    return {
        "layer/weight": compress(W, Integer(4), granularity=PerGroup(16), method="affine"),
        "binary": compress(W, parse_format("bcq3"), granularity=PerChannel()),
        "double": compress(W, parse_format("nf4"), granularity=PerBlock(2), scale_storage="double"),
        "bf16": compress(W, parse_format("fp6_e3m2"), scale_storage="bfloat16"),
        "e8m0": compress(W, parse_format("fp4_e2m1"), granularity=PerGroup(32),
                         scale_storage="e8m0"),
        "sparse24": compress(W, Integer(8), sparsity=NofM(), mask=mask),
        "rows": compress(W, Integer(3), sparsity=Rows(), mask=mask),
        "own table": compress(W, Codebook.from_quantiles(W, 4)),
        "scalar": compress(np.float32(3), Integer(8)),
    }  # fmt: skip


def test_files_come_back_equal_and_are_as_small_as_told(tmp_path):
    path = tmp_path / "weights.safetensors"
    tensors = _examples()
    save_tensors(path, tensors)
    loaded = load_tensors(path)
    assert list(loaded) == list(tensors)
    for name, tensor in tensors.items():
        assert np.array_equal(loaded[name].decode(), tensor.decode()), name
        assert np.array_equal(loaded[name].codes(), tensor.codes()), name
        assert loaded[name].number_format == tensor.number_format
        assert loaded[name].granularity == tensor.granularity
        assert loaded[name].total_bits == tensor.total_bits
    assert [p.name for p in tmp_path.iterdir()] == ["weights.safetensors"]
    save_tensors(path, {"w": compress(np.tile(W, (40, 40)), parse_format("nf4"))})
    assert path.stat().st_size < 40 * 40 * 960 / 2 + 1000


def test_damaged_and_hostile_files_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_tensors(path, {"w": compress(W, Integer(8))})
    good = path.read_bytes()
    with pytest.raises(FewbitsError):
        load_tensors(tmp_path / "missing")
    for bad in (b"", good[:50], good[:-10], b"\xff" * 64):
        path.write_bytes(bad)
        with pytest.raises(FewbitsError) as caught:
            load_tensors(path)
        assert caught.value.code == "bad-file"
    save_file({"a": np.zeros(3)}, path)
    with pytest.raises(FewbitsError, match="no compressed tensors"):
        load_tensors(path)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [1 << 40, 1 << 20]}, {"shape": [-1]}, {"shape": "x"}, {"shape": [1.5]},
        {"format": "int99"}, {"format": 3}, {"granularity": "group{size=0}"},
        {"sparsity": "2:4"}, {"parts": ["codes"]}, {"parts": ["elsewhere"]},
        {"scales": {"storage": "float9", "shape": []}},
        {"scales": {"storage": "float32", "shape": [7]}}, {"scales": None},
    ],
)  # fmt: skip
def test_a_hostile_description_is_refused(change, tmp_path):
    path = tmp_path / "weights.safetensors"
    description = {
        "format": "int8", "shape": [4], "granularity": "tensor", "sparsity": "dense",
        "scales": {"storage": "float32", "shape": []}, "parts": ["codes", "scales/scales"],
    }  # fmt: skip
    text = json.dumps({"version": 1, "tensors": {"w": description | change}})
    arrays = {"w/codes": np.zeros(4, np.uint8), "w/scales/scales": np.ones((), np.float32)}
    save_file(arrays, path, metadata={"fewbits": text})
    with pytest.raises(FewbitsError) as caught:
        load_tensors(path)
    assert caught.value.code == "bad-file"


def test_ant_chooses_by_the_shape_of_the_values():
    uniform = RNG.uniform(-1, 1, 4096)
    heavy = RNG.standard_t(5, 4096)
    for x, wanted in ((uniform, "int4"), (heavy, "flint4"), (2.0 ** RNG.integers(-6, 1, 999),
                                                             "pot4")):  # fmt: skip
        choice = compress_adaptive(x, ant_candidates(4), low=0.3)
        assert choice.tensor.number_format.name == wanted
        assert min(choice.errors, key=choice.errors.__getitem__) == wanted
        error = ((choice.tensor.decode() - x) ** 2).sum()
        assert error == pytest.approx(choice.errors[wanted], rel=1e-3, abs=1e-9)


def test_ant_takes_one_type_and_many_scales():
    choice = compress_adaptive(W, ant_candidates(4), granularity=PerChannel())
    assert choice.tensor.scales.shape == (24,)
    assert list(choice.errors) == ["int4", "pot4", "flint4"]
    assert [c.name for c in ant_candidates(8)] == ["int8"]
    with pytest.raises(FewbitsError):
        compress_adaptive(W, ant_candidates(4, signed=False))
