"""Records of kernels: what is believed, what is kept, and what is used."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fewbits import FewbitsError
from fewbits.schedules.cuda.architecture import ARCHITECTURES, SM_80, SM_90A, Architecture
from fewbits.schedules.cuda.dispatch import BOUNDS, dispatch
from fewbits.schedules.cuda.epilogue import plain
from fewbits.schedules.cuda.problem import Linear
from fewbits.schedules.cuda.templates import suitable
from fewbits.schedules.cuda.tuning.recorded import Recorded
from fewbits.schedules.cuda.tuning.records import (
    EMULATED,
    Record,
    Store,
    bucket_of,
    parsed,
    records_in,
    shipped_file,
)
from fewbits.schedules.cuda.tuning.sizes import fields_of, sizes_from
from fewbits.schedules.cuda.weight_format import Dense
from hypothesis import given
from hypothesis import strategies as st

PROBLEM = Linear(128, 96, "int8", Dense("int8"), plain("int32", "int32"))


def record(**changes: Any) -> Record:
    """Of the product above on an A100, for up to 16 rows."""
    content = {
        "problem": PROBLEM.key, "architecture": "sm_80", "card": "NVIDIA A100", "bucket": 16,
        "rows": 16, "template": "mma", "sizes": {"rows": 16}, "seconds": 1e-5,
        "model_seconds": 2e-5, "trials": 8, "date": "2026-01-31",
    }  # fmt: skip
    return Record.model_validate({**content, **changes})


def of_mma(place: int, **changes: Any) -> Record:
    """With sizes that the template offers."""
    mma = next(t for t in suitable(PROBLEM, SM_80) if t.name == "mma")
    sizes = list(mma.space(PROBLEM, SM_80))[place]
    return record(sizes=fields_of(sizes), **changes)


def chosen(recorded: Recorded, rows: int = 16, architecture: Architecture = SM_80) -> Any:
    found = recorded.choose(PROBLEM, architecture, rows, suitable(PROBLEM, architecture))
    return None if found is None else fields_of(found.sizes)


def test_a_record_is_a_line() -> None:
    one = record()
    assert "\n" not in one.line()
    assert parsed(one.line()) == one


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"architecture": "sm_70"},
        {"bucket": 17},
        {"rows": 0},
        {"rows": 1 << 40},
        {"seconds": 0},
        {"seconds": -1},
        {"seconds": "NaN"},
        {"seconds": 1e300},
        {"sizes": {"rows": 1 << 70}},
        {"sizes": {"rows": 1.5}},
        {"sizes": {"rows": [1]}},
        {"sizes": {"rows": None}},
        {"sizes": {"rows": "x" * 1000}},
        {"sizes": {str(n): n for n in range(100)}},
        {"sizes": 3},
        {"template": ""},
        {"card": "x" * 1000},
        {"date": "yesterday"},
        {"more": 1},
    ],
    ids=lambda changes: next(iter(changes)) if isinstance(changes, dict) else None,
)
def test_what_makes_no_sense_is_no_record(changes: dict[str, Any]) -> None:
    assert parsed(json.dumps({**record().model_dump(), **changes})) is None


@given(st.text() | st.binary().map(lambda b: b.decode("latin-1")))
def test_no_text_is_an_error(text: str) -> None:
    parsed(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from(sorted(Record.model_fields)),
)
def test_no_value_is_an_error(value: Any, field: str) -> None:
    one = parsed(json.dumps({**record().model_dump(), field: value}))
    assert one is None or isinstance(one, Record)


def test_long_lines_and_deep_ones_are_no_records() -> None:
    assert parsed(json.dumps({**record().model_dump(), "problem": "x" * (1 << 20)})) is None
    assert parsed("[" * 100_000) is None


def test_lines_without_sense_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "some.jsonl"
    file.write_bytes(b"\xff\xfe\n" + record().line().encode() + b"\n\nnothing\n")
    assert records_in(file) == ([record()], 2)
    assert records_in(tmp_path / "none.jsonl") == ([], 0)


def test_a_folder_in_the_place_of_a_file(tmp_path: Path) -> None:
    Store(tmp_path).path("sm_80").mkdir()
    with pytest.raises(FewbitsError) as error:
        Store(tmp_path).read("sm_80")
    assert error.value.code == "unreadable-file"


def test_later_records_take_the_place_of_earlier_ones(tmp_path: Path) -> None:
    store = Store(tmp_path / "new")
    store.add(record(), record(bucket=32))
    store.add(record(seconds=9e-6), record(architecture="sm_90a", card="NVIDIA H200"))
    assert [r.seconds for r in store.read("sm_80")[0] if r.bucket == 16] == [9e-6]
    assert len(store.read("sm_80")[0]) == 2 and len(store.read("sm_90a")[0]) == 1
    found = store.find(record().place)
    assert found is not None and found.seconds == 9e-6
    assert store.find(record(card="NVIDIA L4").place) is None


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FewbitsError) as error:
        Store(tmp_path / "file").add(record())
    assert error.value.code == "output-not-writable"


@given(st.integers(1, 1 << 20))
def test_buckets_are_those_of_the_dispatch(rows: int) -> None:
    bucket = bucket_of(rows)
    assert bucket in BOUNDS and (rows <= bucket or bucket == BOUNDS[-1])
    assert not any(rows <= bound < bucket for bound in BOUNDS)


def test_shipped_records_make_sense() -> None:
    for name in ARCHITECTURES:
        records, lost = records_in(shipped_file(name))
        assert not lost and not any(one.emulated for one in records)


@pytest.fixture
def spaces() -> Iterator[list[Any]]:
    """Every template that takes the product, with its space."""
    yield [(t, list(t.space(PROBLEM, SM_90A))) for t in suitable(PROBLEM, SM_90A)]


def test_every_choice_has_fields_of_its_own(spaces: list[Any]) -> None:
    for template, space in spaces:
        texts = [json.dumps(fields_of(sizes), sort_keys=True) for sizes in space]
        assert len(set(texts)) == len(texts) > 0
        again = json.loads(texts[-1])
        assert sizes_from(template, PROBLEM, SM_90A, again) == space[-1]
        assert sizes_from(template, PROBLEM, SM_90A, {**again, "rows": 7}) is None
        assert sizes_from(template, PROBLEM, SM_90A, {}) is None


def test_records_of_the_very_card_come_first() -> None:
    mine, other = of_mma(0), of_mma(1, card="NVIDIA A10")
    for order in ([mine, other], [other, mine]):
        assert chosen(Recorded(order, "NVIDIA A100")) == mine.sizes
        assert chosen(Recorded(order, "NVIDIA A10")) == other.sizes
        # Of a card that nobody measured, whatever was measured last.
        assert chosen(Recorded(order, "NVIDIA A30")) == order[-1].sizes
        assert chosen(Recorded(order)) == order[-1].sizes


def test_records_are_for_their_bucket_and_architecture() -> None:
    recorded = Recorded([of_mma(0)])
    assert chosen(recorded, 9) == chosen(recorded, 16) == of_mma(0).sizes
    assert chosen(recorded, 8) is None and chosen(recorded, 17) is None
    assert chosen(recorded, 16, SM_90A) is None
    assert (recorded.asked, recorded.answered, recorded.lost) == (2, 1, 0)


def test_times_of_the_emulated_gpu_are_for_nobody_else() -> None:
    emulated = of_mma(0, card=f"{EMULATED} sm_80")
    assert chosen(Recorded([emulated], "NVIDIA A100")) is None
    assert chosen(Recorded([emulated])) is None
    assert chosen(Recorded([emulated], f"{EMULATED} sm_80")) == emulated.sizes


@pytest.mark.parametrize(
    "changes", [{"template": "unheard of"}, {"template": "wgmma"}, {"sizes": {"rows": 48}}]
)
def test_what_no_template_offers_is_counted_once_and_left_to_the_models(
    changes: dict[str, Any],
) -> None:
    recorded = Recorded([record(**changes)], lost=2)
    for _ in range(3):
        assert chosen(recorded) is None
    assert (recorded.asked, recorded.answered, recorded.lost) == (1, 0, 3)


def test_a_dispatch_uses_records_and_says_so() -> None:
    plain_labels = dispatch(PROBLEM, SM_80, "product").labels
    mma = next(t for t in suitable(PROBLEM, SM_80) if t.name == "mma")
    unused = next(
        sizes
        for sizes in mma.space(PROBLEM, SM_80)
        if f"mma {sizes}" not in plain_labels and sizes.rows == 64
    )
    tuned = dispatch(
        PROBLEM, SM_80, "product", chooser=Recorded([record(sizes=dataclasses.asdict(unused))])
    )
    place = tuned.labels.index(f"mma {unused}")
    assert tuned.titles[place].endswith("(tuned)")
    assert (16, place) in tuned.buckets
    assert sum("tuned" in title for title in tuned.titles) == 1
