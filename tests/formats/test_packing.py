"""Packing: the identity for every width and order, and the documented bytes."""

import numpy as np
import pytest
from fewbits.errors import FewbitsError
from fewbits.formats.packing import pack, packed_size, unpack
from hypothesis import given, settings
from hypothesis import strategies as st

ORDERS = st.sampled_from(["low-first", "high-first"])


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 8), ORDERS, st.integers(0, 70), st.integers(0, 2**32))
def test_unpack_undoes_pack(bits, order, count, seed):
    codes = np.random.default_rng(seed).integers(0, 2**bits, count).astype(np.uint8)
    packed = pack(codes, bits, order)
    assert packed.dtype == np.uint8
    assert packed.size == packed_size(count, bits) == -(-count * bits // 8)
    assert np.array_equal(unpack(packed, bits, count, order), codes)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.integers(0, 40), st.integers(0, 2**32))
def test_bits_lie_where_documented(bits, count, seed):
    codes = np.random.default_rng(seed).integers(0, 2**bits, count)
    low = sum(int(c) << (i * bits) for i, c in enumerate(codes))
    assert pack(codes, bits).tobytes() == low.to_bytes(packed_size(count, bits), "little")
    text = "".join(f"{c:0{bits}b}" for c in codes)
    text += "0" * (-len(text) % 8)
    high = bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))
    assert pack(codes, bits, "high-first").tobytes() == high


def test_nibbles_of_onnx_and_bitsandbytes():
    assert pack([1, 2, 3], 4).tolist() == [0x21, 0x03]
    assert pack([1, 2, 3], 4, "high-first").tolist() == [0x12, 0x30]


@pytest.mark.parametrize("bits", [3, 5])
@pytest.mark.parametrize("order", ["low-first", "high-first"])
def test_long_arrays_join_their_pieces(bits, order):
    codes = (np.arange(600_001) % 2**bits).astype(np.uint8)
    assert np.array_equal(unpack(pack(codes, bits, order), bits, codes.size, order), codes)


def test_a_hostile_count_is_refused_before_allocation():
    for count in (2**60, -1, 5):
        with pytest.raises(FewbitsError, match="take"):
            unpack(np.zeros(4, np.uint8), 8, count)


@pytest.mark.parametrize(("codes", "bits"), [([16], 4), ([-1], 4), ([300], 8), ([8], 3)])
def test_codes_that_do_not_fit_are_refused(codes, bits):
    with pytest.raises(FewbitsError, match="more than"):
        pack(codes, bits)


@pytest.mark.parametrize("bits", [0, 9])
def test_impossible_widths_are_refused(bits):
    with pytest.raises(FewbitsError, match="1 to 8"):
        pack([0], bits)


def test_an_unknown_order_is_refused():
    with pytest.raises(FewbitsError, match="bit order"):
        pack([0], 4, "middle")  # type: ignore[arg-type]
