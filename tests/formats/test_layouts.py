"""Granularity and sparsity: rows and masks there and back, and what cannot be."""

import math

import numpy as np
import pytest
from fewbits.errors import FewbitsError
from fewbits.formats.granularity import (
    PerBlock,
    PerChannel,
    PerGroup,
    PerTensor,
    PerToken,
    parse_granularity,
)
from fewbits.formats.sparsity import Bitmap, Dense, NofM, Rows, parse_sparsity
from hypothesis import given, settings
from hypothesis import strategies as st

SHAPES = st.lists(st.integers(0, 6), min_size=1, max_size=4).map(tuple)
ANY = [PerTensor(), PerChannel(), PerChannel(-1), PerGroup(4), PerGroup(3, 0), PerBlock(5),
       PerToken()]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(SHAPES, st.sampled_from(ANY))
def test_rows_there_and_back(shape, granularity):
    x = np.arange(1, math.prod(shape) + 1, dtype=np.float32).reshape(shape)
    rows = granularity.rows(x)
    if not (x.size == 0 and isinstance(granularity, PerChannel | PerToken | PerGroup)):
        assert rows.shape[0] == math.prod(granularity.scale_shape(shape))
    assert sorted(rows[rows != 0]) == x.reshape(-1).tolist()
    if x.size:
        assert np.array_equal(granularity.from_rows(rows, shape), x)


@pytest.mark.parametrize("granularity", ANY, ids=str)
def test_the_text_reads_back(granularity):
    assert parse_granularity(str(granularity)) == granularity


def test_groups_are_neighbours_along_the_axis():
    x = np.arange(24).reshape(4, 6)
    along_last, along_first = PerGroup(4).rows(x), PerGroup(3, 0).rows(x)
    assert along_last[:2].tolist() == [[0, 1, 2, 3], [4, 5, 0, 0]]
    assert PerGroup(4).scale_shape((4, 6)) == (4, 2)
    # Scales of [2, 6]: row 1 is group 0 of column 1.
    assert PerGroup(3, 0).scale_shape((4, 6)) == (2, 6)
    assert along_first[1].tolist() == [1, 7, 13]
    assert along_first[6].tolist() == [18, 0, 0]


@pytest.mark.parametrize(
    "text", ["", "row", "group{size=0}", "group{sizes=3}", "tensor{axis=1}", "block{size=-4}",
             "group{size=99999999999}", "channel{axis}", "group{size=2147483648}"],
)  # fmt: skip
def test_impossible_granularities_are_refused(text):
    with pytest.raises(FewbitsError) as caught:
        parse_granularity(text)
    assert caught.value.code == "bad-granularity"


@pytest.mark.parametrize("granularity", [PerChannel(2), PerGroup(4, -3)])
def test_a_missing_axis_is_refused(granularity):
    with pytest.raises(FewbitsError, match="no axis"):
        granularity.scale_shape((3, 4))


@settings(max_examples=120, deadline=None)
@given(st.sampled_from([Bitmap(), Rows(), Dense()]), SHAPES, st.integers(0, 2**32))
def test_any_mask_comes_back(sparsity, shape, seed):
    mask = sparsity.complete(np.random.default_rng(seed).random(shape) < 0.4)
    arrays = sparsity.describe(mask)
    assert np.array_equal(sparsity.restore(arrays, shape), mask)


@settings(max_examples=120, deadline=None)
@given(st.integers(2, 17), st.data())
def test_n_of_m_masks_come_back_completed(m, data):
    n = data.draw(st.integers(1, m - 1))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    keep = rng.random((3, 4, m)).argsort(axis=-1) < rng.integers(0, n + 1, (3, 4, 1))
    mask = keep.reshape(3, 4 * m)
    sparsity = NofM(n, m)
    complete = sparsity.complete(mask)
    assert (complete | ~mask).all()
    assert (complete.reshape(-1, m).sum(axis=1) == n).all()
    arrays = sparsity.describe(complete)
    assert np.array_equal(sparsity.restore(arrays, mask.shape), complete)
    assert sparsity.metadata_bits(arrays, mask.shape) == 12 * n * math.ceil(math.log2(m))


def test_places_of_two_in_four():
    mask = np.array([[True, False, False, True, False, True, True, False]])
    assert NofM(2, 4).describe(mask)["places"].tolist() == [0b10_01_11_00]


@pytest.mark.parametrize("text", ["dense", "bitmap", "rows", "2:4", "4:8", "1:16"])
def test_sparsity_text_reads_back(text):
    assert parse_sparsity(text).name == text


@pytest.mark.parametrize("text", ["4:4", "0:4", "5:4", "2:1000", "sparse", "2:", "1:257"])
def test_impossible_sparsities_are_refused(text):
    with pytest.raises(FewbitsError) as caught:
        parse_sparsity(text)
    assert caught.value.code == "bad-sparsity"


def test_n_of_m_refuses_dense_groups_and_odd_axes():
    with pytest.raises(FewbitsError, match="more than 2"):
        NofM(2, 4).complete(np.array([True, True, True, False]))
    with pytest.raises(FewbitsError, match="divides"):
        NofM(2, 4).complete(np.ones((4, 6), bool))


@pytest.mark.parametrize(
    ("columns", "ends", "shape"),
    [
        ([0, 9], [1, 2], (2, 4)),  # a column outside
        ([0, 0], [2, 2], (2, 4)),  # twice the same
        ([0, 1], [2, 1], (2, 4)),  # ends that descend
        ([0, 1], [1, 3], (2, 4)),  # more than there are
        ([0, 1], [1, 2], (3, 4)),  # too few rows
        ([], [0], (1, 1 << 40)),  # memory out of nothing
    ],
)
def test_hostile_row_indices_are_refused(columns, ends, shape):
    arrays = {"columns": np.array(columns, np.uint16), "ends": np.array(ends, np.uint32)}
    with pytest.raises(FewbitsError):
        Rows().restore(arrays, shape)


def test_hostile_places_are_refused():
    for places in ([0b11_11], [0b00_01], [0, 0]):
        with pytest.raises(FewbitsError):
            NofM(2, 4).restore({"places": np.array(places, np.uint8)}, (4,))
    with pytest.raises(FewbitsError):
        NofM(2, 4).restore({"places": np.zeros(1, np.uint8)}, (1 << 40,))
    with pytest.raises(FewbitsError):
        Bitmap().restore({"bitmap": np.zeros(1, np.uint8)}, (1 << 40,))
