import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from edgekd.runtime.requirement import Requirement
from edgekd.target import list_targets

versions = st.lists(st.integers(0, 30), min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts)))
clauses = st.lists(st.tuples(st.sampled_from([">=", "<=", "==", "!=", ">", "<"]), versions), max_size=3)


@given(versions, clauses)
def test_it_agrees_with_packaging(version, wanted):
    text = ",".join(sign + number for sign, number in wanted)
    assert Requirement.parse(f"onnxruntime{text}").allows(version) == SpecifierSet(text).contains(version)


@pytest.mark.parametrize("version", ["1.20.1", "1.20.1.post1", "1.20.1-12345-abcdef", "1.20.1+cuda", "1.20"])
def test_only_release_numbers_count(version):
    assert Requirement.parse("x >= 1.20, <2").allows(version)
    assert not Requirement.parse("x>=1.21").allows(version)


@pytest.mark.parametrize("text", ["", ">=1", "a b", "a~=1.0", "a==1.*", "a>=1,", "a>=one", "a>=1;os", "a[extra]>=1"])
def test_what_is_not_understood_is_refused(text):
    with pytest.raises(ValueError, match=r"requirement|understood"):
        Requirement.parse(text)


def test_every_shipped_target_is_understood():
    for target in list_targets():
        Requirement.parse(target.backend + target.runtime.versions)
