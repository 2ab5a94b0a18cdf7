"""The layouts of weights, as their drawings say."""

from __future__ import annotations

import numpy as np
from fewbits.targets.mcu.lowering import layouts
from hypothesis import given
from hypothesis import strategies as st


def _weights(outputs: int, depth: int) -> np.ndarray:
    rng = np.random.default_rng(outputs * 1000 + depth)
    return rng.integers(-127, 128, (outputs, depth)).astype(np.int8)


def test_quads_interleave_four_channels() -> None:
    weight = _weights(5, 3)
    packed = layouts.pack_quads(weight)
    assert packed.shape == (2, 3, 4)
    np.testing.assert_array_equal(packed[0, 1], weight[:4, 1])
    np.testing.assert_array_equal(packed[1, 2], [weight[4, 2], 0, 0, 0])


def test_bytes_are_unsigned_quads() -> None:
    packed = layouts.pack_bytes(_weights(4, 6))
    assert packed.dtype == np.uint8
    np.testing.assert_array_equal(packed.astype(int) - 128, layouts.pack_quads(_weights(4, 6)))


def test_pairs_hold_two_channels_in_a_half() -> None:
    weight = _weights(4, 6)
    packed = layouts.pack_pairs(weight)
    assert packed.shape == (2, 2, 2, 2)
    wide = weight.astype(int)
    # Pair 1 (channels 2 and 3), quad 0: word 0 has k 0 and 2, word 1 has k 1 and 3.
    both = 256 * wide[3] + wide[2]
    np.testing.assert_array_equal(packed[1, 0], [[both[0], both[2]], [both[1], both[3]]])
    np.testing.assert_array_equal(packed[1, 1], [[both[4], 0], [both[5], 0]])


@given(outputs=st.integers(2, 9), depth=st.integers(1, 9))
def test_sums_of_pairs_come_apart(outputs: int, depth: int) -> None:
    """raw = 256 upper + lower, with lower from the sign-extended low bytes alone."""
    weight = _weights(outputs, depth)
    x = np.random.default_rng(depth).integers(-128, 128, depth).astype(np.int64)
    padded = np.pad(x, (0, -depth % 4)).reshape(-1, 2, 2).swapaxes(1, 2)
    halves = layouts.pack_pairs(weight).astype(np.int64)
    raw = (halves * padded).sum(axis=(1, 2, 3))
    lower = (halves.astype(np.int8).astype(np.int64) * padded).sum(axis=(1, 2, 3))
    wanted = weight.astype(np.int64) @ x
    channels = [*range(outputs - outputs % 2), *([outputs - 2, outputs - 1] * (outputs % 2))]
    np.testing.assert_array_equal(lower, wanted[channels[0::2]])
    np.testing.assert_array_equal((raw - lower) // 256, wanted[channels[1::2]])


def test_pairs_refuse_sums_beyond_24_bits() -> None:
    weight = np.full((2, 600), 127, np.int8)
    bias = np.zeros(2, np.int32)
    assert not layouts.pairs_hold(weight, bias)
    assert layouts.pairs_hold(weight[:, :500], bias)
    assert not layouts.pairs_hold(weight[:, :500], bias + 300_000)
    # Only upper channels are bounded.
    weight[1] = 0
    assert layouts.pairs_hold(weight, bias)


def test_dense_pairs_go_four_by_four() -> None:
    weight = _weights(11, 8)
    pairs = layouts.pack_pairs(weight)
    packed = layouts.pack_dense_pairs(weight)
    first = packed[: 4 * 2 * 4].reshape(2, 4, 2, 2)
    for quad in range(2):
        for pair in range(4):
            np.testing.assert_array_equal(first[quad, pair], pairs[pair, quad])
    np.testing.assert_array_equal(packed[4 * 2 * 4 :], pairs[4:].ravel())


def test_table_of_pairs_starts_with_the_combined_bias() -> None:
    bias = np.array([-5, 70_000, 3], np.int32)
    multiplier = np.array([11, 12, 13], np.int32)
    table = layouts.table_pairs(bias, multiplier)
    np.testing.assert_array_equal(table[0], [256 * 70_000 - 5, -5, 12, 11])
    np.testing.assert_array_equal(table[1], [256 * 3 + 70_000, 70_000, 13, 12])


def test_shifted_tables_hold_fractions_of_the_bias() -> None:
    bias = np.array([-5, 70_000], np.int32)
    table = layouts.table_pairs(bias, np.array([11, 12], np.int32), shift=3)
    np.testing.assert_array_equal(table, [[70_000 << 5, -5 << 5, 12 << 3, 11 << 3]])


@given(shift=st.integers(1, 8), seed=st.integers(0, 2**32))
def test_shifted_sums_have_room_for_the_bias(shift: int, seed: int) -> None:
    """Scaling bias and multiplier instead of the sum changes no result."""
    rng = np.random.default_rng(seed)
    limit = 2**22
    sums, bias = (int(rng.integers(-limit, limit)) << bits for bits in (0, shift))
    bias += int(rng.integers(0, 2**shift))
    multiplier = int(rng.integers(0, 2 ** (31 - shift)))
    wanted = (((sums << shift) + bias) * multiplier) >> 32
    _, lower, _, scaled = layouts.table_pairs(
        np.array([bias, 0]), np.array([multiplier, 0]), shift
    )[0].tolist()
    assert abs(256 * sums + lower) < 2**31
    assert (((256 * sums + lower) * scaled) >> 32) >> 8 == wanted


def test_shifted_pairs_bound_the_lower_sums_too() -> None:
    weight = np.full((2, 600), 127, np.int8)
    bias = np.zeros(2, np.int32)
    weight[1] = 0
    assert not layouts.pairs_hold(weight, bias, shift=1)
    assert layouts.pairs_hold(weight[:, :500], bias, shift=1)
    assert layouts.pairs_hold(weight[:, :500], bias + (200_000 << 3), shift=3)
    assert not layouts.pairs_hold(weight[:, :500], bias + (300_000 << 3), shift=3)
