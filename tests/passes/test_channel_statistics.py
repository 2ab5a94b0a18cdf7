"""Channel statistics do not depend on how the stream is cut, and the sample is fair."""

from __future__ import annotations

import numpy as np
from fewbits.formats.affine import AffineFormat
from fewbits.passes.channel_statistics import ChannelStatistics

VALUES = np.random.default_rng(0).normal(size=(12, 5, 7)).astype(np.float32)


def seen(cuts: list[int], keep: int = 9) -> ChannelStatistics:
    statistics = ChannelStatistics(1, keep, seed=3)
    for piece in np.split(VALUES, cuts):
        statistics.update(piece)
    return statistics


def test_pieces_give_what_the_whole_gives() -> None:
    whole, pieces = seen([]), seen([0, 1, 5, 11])
    np.testing.assert_array_equal(whole.maxima, np.abs(VALUES).max((0, 1)))
    np.testing.assert_array_equal(pieces.maxima, whole.maxima)
    assert whole.items is not None and whole.items.shape == (9, 7)
    np.testing.assert_array_equal(pieces.items, whole.items)
    largest = float(np.abs(VALUES).max())
    assert whole.range(AffineFormat()) == (-largest, largest)


def test_the_sample_holds_distinct_rows_of_the_stream_from_all_over() -> None:
    statistics = seen([3, 6], keep=40)
    assert statistics.items is not None
    rows = VALUES.reshape(-1, 7)
    places = [int(np.flatnonzero((rows == item).all(1))[0]) for item in statistics.items]
    assert len(set(places)) == 40
    assert all(any(start <= p < start + 20 for p in places) for start in (0, 20, 40))


def test_items_of_convolutions_keep_their_window() -> None:
    images = np.random.default_rng(1).normal(size=(4, 1, 3, 6, 5)).astype(np.float32)
    statistics = ChannelStatistics(3, 2)
    statistics.update(images)
    assert statistics.items is not None and statistics.items.shape == (2, 3, 6, 5)
    np.testing.assert_array_equal(statistics.maxima, np.abs(images).max((0, 1, 3, 4)))
