"""What ships, over all tables of candidates."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.runtime.choosing import SIZE_TIE, TIE, Candidate, choose

FLOAT = Candidate("float", False, 1.0, 1.0, 1.0, 400, True)


def one(
    name: str, ratio: float | None, *, width: float = 0.02, size: int = 100, accurate: bool | None = True, integer=True
):
    low, high = (None, None) if ratio is None else (ratio - width, ratio + width)
    return Candidate(name, integer, ratio, low, high, size, accurate)


def chosen(*candidates: Candidate, prefer="speed", reference: Candidate = FLOAT) -> tuple[str, str]:
    choice = choose([*candidates, reference], prefer=prefer)
    return [*candidates, reference][choice.index].name, choice.reason


def test_the_fastest_accurate_one_ships_and_the_reason_is_told():
    name, reason = chosen(one("int8", 0.5), one("gates", 0.4), one("ends", 0.3, accurate=False))
    assert name == "gates"
    assert reason == "the fastest; 0.40 of float's latency (0.38 to 0.42); not accurate enough: ends"


def test_int8_that_is_slower_than_float_does_not_ship_unasked():
    name, reason = chosen(one("int8", 1.2))
    assert name == "float"
    assert reason == "the fastest; slower than float: int8"
    name, reason = chosen(one("int8", 1.2), prefer="size")
    assert name == "int8"
    assert reason == "the recipe prefers size; 1.20 of float's latency (1.18 to 1.22)"


def test_within_noise_the_smaller_file_wins_over_float_too():
    assert chosen(one("int8", 1.005))[0] == "int8"
    assert chosen(one("int8", 1.005))[1].startswith("as fast as float within noise, and smaller; 1.00 of")
    assert chosen(one("int8", 1.005, size=500))[0] == "float"
    assert chosen(one("int8", 0.5, size=200), one("gates", 0.504, size=150))[0] == "gates"
    assert chosen(one("int8", 0.5, size=200), one("gates", 0.53, size=150))[0] == "int8"


def test_of_files_within_one_percent_the_faster_ships():
    for prefer in ("speed", "size"):
        rows = one("int8", 0.504, size=1000), one("gates", 0.5, size=1009)
        assert chosen(*rows, prefer=prefer)[0] == "gates"
        assert chosen(*rows[::-1], prefer=prefer)[0] == "gates"
        assert chosen(rows[0], one("gates", 0.5, size=1011), prefer=prefer)[0] == "int8"
    # The faster one is not told to be smaller than itself; float too is kept where it is the faster of two as large.
    assert chosen(one("int8", 0.504, size=1000), one("gates", 0.5, size=1009))[1].startswith("the fastest; 0.50")
    assert chosen(one("int8", 1.005, size=399)) == ("float", "the fastest")
    assert chosen(one("int8", None, size=1000), one("gates", 2.0, size=1009), prefer="size")[0] == "gates"


def test_wide_intervals_do_not_hide_that_a_model_is_slower():
    assert chosen(one("int8", 1.1, width=0.3))[0] == "float"
    assert chosen(one("int8", 0.5, width=0.3, size=200), one("gates", 0.7, width=0.3))[0] == "int8"


def test_narrow_intervals_show_small_differences():
    assert chosen(one("int8", 1.005, width=0.001))[0] == "float"


def test_unknown_accuracy_ships_only_as_the_last_resort():
    name, reason = chosen(one("int8", 0.5, accurate=None), one("gates", 0.7))
    assert name == "gates"
    assert reason.endswith("accuracy not known: int8")
    name, reason = chosen(one("int8", 0.5, accurate=None))
    assert name == "float"
    for prefer in ("speed", "size"):
        for accurate in (False, None):
            reference = replace(FLOAT, accurate=accurate)
            assert chosen(one("int8", 0.5, accurate=False), prefer=prefer, reference=reference)[0] == "float"
    assert chosen(one("int8", 0.5, accurate=False))[1] == (
        "no integer form keeps the accuracy; not accurate enough: int8"
    )


def test_what_was_not_timed_does_not_ship_for_speed():
    name, reason = chosen(one("int8", None), one("gates", 0.9))
    assert name == "gates"
    assert reason.endswith("not timed: int8")
    assert chosen(one("int8", math.nan), one("gates", 0.9))[0] == "gates"
    assert chosen(one("int8", None, size=50), one("gates", 0.9), prefer="size")[0] == "int8"


def test_elsewhere_the_rules_order_decides():
    untimed = replace(FLOAT, ratio=None, low=None, high=None)
    forms = [one("int8", None, accurate=None), one("gates", None, accurate=None)]
    for prefer in ("speed", "size"):
        name, reason = chosen(*forms, prefer=prefer, reference=replace(untimed, accurate=None))
        assert (name, reason) == ("int8", "the rules' first choice, nothing was measured on the target")
    known = [replace(forms[0], accurate=False), replace(forms[1], accurate=True)]
    name, reason = chosen(*known, reference=untimed)
    assert name == "gates"
    assert "not timed on the target" in reason
    assert chosen(replace(forms[0], accurate=False), reference=untimed)[0] == "float"


def test_a_float_build_has_one_form():
    for prefer in ("speed", "size"):
        assert chosen(prefer=prefer) == ("float", "the only form")


def test_the_last_must_be_the_float_one():
    with pytest.raises(ValueError, match="float"):
        choose([])
    with pytest.raises(ValueError, match="float"):
        choose([FLOAT, one("int8", 0.5)])


def test_where_float_cannot_be_used_none_is_too_slow():
    """On a device where the float form does not give its golden outputs."""
    against = one("ends", 1.0, size=150)
    assert choose([one("int8", 1.2), against], with_float=False).index == 1
    assert choose([one("int8", 1.2), against], with_float=False).reason == "the fastest"
    found = choose([one("int8", 1.2), against], prefer="size", with_float=False)
    assert (found.index, found.reason) == (0, "the recipe prefers size; 1.20 of ends's latency (1.18 to 1.22)")
    assert choose([one("int8", 1.2, size=200), against], prefer="size", with_float=False).index == 1
    # A float form of fewer bits is left: nothing says that integers are slower than float32.
    assert choose([one("int8", 0.9), replace(FLOAT, name="float16")], with_float=False).index == 0
    for prefer in ("speed", "size"):
        assert choose([against], prefer=prefer, with_float=False).reason == "the only form"


@st.composite
def tables(draw):
    ratios = draw(st.lists(st.one_of(st.none(), st.floats(0.2, 3.0)), max_size=6))
    rows = []
    for i, ratio in enumerate(ratios):
        width = draw(st.floats(0, 0.15))
        size, integer = draw(st.integers(1, 800)), draw(st.booleans())
        rows.append(
            one(
                f"c{i}",
                ratio,
                width=width,
                size=size,
                integer=integer,
                accurate=draw(st.sampled_from([True, False, None])),
            )
        )
    return [*rows, replace(FLOAT, accurate=draw(st.sampled_from([True, False, None])))]


@given(tables(), st.sampled_from(["speed", "size"]))
def test_what_ships_is_float_or_known_to_be_accurate(table, prefer):
    best = table[choose(table, prefer=prefer).index]
    nothing_known = all(row.ratio is None and row.accurate is None for row in table[:-1])
    assert best is table[-1] or best.accurate or nothing_known


@given(tables())
def test_for_speed_what_ships_is_as_fast_as_float_and_as_the_fastest(table):
    choice = choose(table, prefer="speed")
    best, others = table[choice.index], table[:-1]
    if all(row.ratio is None for row in others):
        return
    assert best.ratio <= 1 + TIE
    assert best.low <= 1
    for row in others:
        if row.accurate and row.ratio is not None:
            # A faster one ships unless the difference is within noise and the shipped file is smaller.
            assert best.ratio <= row.ratio * (1 + TIE) + 1e-12
            if row.ratio < best.ratio:
                assert best.size_bytes <= row.size_bytes * (1 + SIZE_TIE)
    assert best is table[-1] or best.ratio <= 1 or best.size_bytes <= table[-1].size_bytes
    assert choice.reason


@given(tables())
def test_for_size_the_smallest_accurate_integer_form_ships(table):
    fit = [row for row in table if row.integer and row.accurate]
    best = table[choose(table, prefer="size").index]
    if fit:
        assert best in fit
        smallest = min(row.size_bytes for row in fit)
        assert best.size_bytes <= smallest * (1 + SIZE_TIE)
        # Of files as small none is faster.
        near = [row.ratio for row in fit if row.size_bytes <= smallest * (1 + SIZE_TIE) and row.ratio is not None]
        assert best.ratio == min(near, default=None)
    else:
        assert choose(table, prefer="size") == choose(table, prefer="speed")


@given(tables(), st.randoms(use_true_random=False))
def test_the_order_of_timed_candidates_does_not_matter(table, random):
    if all(row.ratio is None for row in table[:-1]):
        return
    others = table[:-1]
    random.shuffle(others)
    shuffled = [*others, table[-1]]
    for prefer in ("speed", "size"):
        best = table[choose(table, prefer=prefer).index]
        other = shuffled[choose(shuffled, prefer=prefer).index]
        assert (best.size_bytes, best.ratio) == (other.size_bytes, other.ratio)


@given(tables())
def test_a_candidate_that_is_not_accurate_changes_nothing(table):
    if all(row.ratio is None for row in table[:-1]):
        return
    bad = one("bad", 0.2, size=1, accurate=False)
    assert table[choose(table).index] is [bad, *table][choose([bad, *table]).index]


@given(tables(), st.sampled_from(["speed", "size"]))
def test_without_float_the_fastest_or_the_smallest_integer_one_ships(table, prefer):
    """What a device chooses among: every candidate was timed, and its golden outputs hold."""
    table = [replace(row, accurate=True) for row in table[:-1] if row.ratio is not None]
    if not table:
        return
    table[-1] = replace(table[-1], ratio=1.0, low=1.0, high=1.0)
    best = table[choose(table, prefer=prefer, with_float=False).index]
    integers = [row for row in table if row.integer]
    if prefer == "size" and integers:
        assert best.integer
        assert best.size_bytes <= min(row.size_bytes for row in integers) * (1 + SIZE_TIE)
    else:
        assert best.ratio <= min(row.ratio for row in table) * (1 + TIE)
