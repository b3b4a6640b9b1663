import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.runtime.choosing import Timed, pick

FLOAT = Timed("float", False, True, 1.0, 1.0, 1.0, 400)


def int8(name="int8", ratio=0.5, width=0.02, size=100) -> Timed:
    return Timed(name, True, False, ratio, ratio - width, ratio + width, size)


@pytest.mark.parametrize(
    ("candidates", "prefer", "name", "why"),
    [
        ([int8(), FLOAT], "speed", "int8", "the fastest; 0.50 of float's latency (0.48 to 0.52)"),
        ([int8(ratio=1.2), FLOAT], "speed", "float", "the fastest; slower than float: int8"),
        ([int8(ratio=1.2), FLOAT], "size", "int8", "the recipe prefers size; 1.20 of float's latency (1.18 to 1.22)"),
        ([int8(ratio=1.005), FLOAT], "speed", "int8", "as fast as float within noise, and smaller"),
        # A wide interval does not hide that it is slower.
        ([int8(ratio=1.05, width=0.5), FLOAT], "speed", "float", "slower than float"),
        ([int8(), int8("gates", 0.3, size=150), FLOAT], "speed", "gates", "the fastest"),
        ([int8(ratio=0.302), int8("gates", 0.3, size=150), FLOAT], "speed", "int8", "as fast as gates"),
        ([FLOAT], "size", "float", "the only one whose golden outputs hold"),
        ([int8("int8", 1.0, 0)._replace(against="int8")], "speed", "int8", "the only one whose golden outputs hold"),
    ],
)
def test_the_fastest_that_holds(candidates, prefer, name, why):
    chosen, told = pick(candidates, prefer=prefer)
    assert chosen == name
    assert told.startswith(why) or why in told


rows = st.lists(
    st.builds(int8, st.just("x"), st.floats(0.1, 3), st.floats(0, 0.5), st.integers(1, 500)), min_size=0, max_size=6
)


@given(rows, st.booleans())
def test_speed_never_ships_what_is_slower_than_float(found, with_float):
    candidates = [row._replace(name=f"int8-{i}") for i, row in enumerate(found)] + [FLOAT] * with_float
    if not candidates:
        return
    by_name = {row.name: row for row in candidates}
    name, _ = pick(candidates, prefer="speed")
    assert by_name[name].ratio <= min(row.ratio for row in candidates) * 1.01
    name, _ = pick(candidates, prefer="size")
    smallest = min(row.size_bytes for row in candidates if row.integer or len(candidates) == 1)
    assert by_name[name].size_bytes == smallest
