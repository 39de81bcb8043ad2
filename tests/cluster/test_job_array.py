"""Arrays of jobs: which settings each member has, and what is refused."""

import pytest

from megdet_hvd.cluster.job_array import (
    JobArray,
    member_words,
    read_job_array,
    split_values,
    take_arrays,
    words_of_members,
)
from megdet_hvd.errors import UserError


def test_several_settings_give_the_product() -> None:
    array = read_job_array(["seed=0,1", "learning.policy=normal,long%2"])
    assert array == JobArray((("seed", ("0", "1")), ("learning.policy", ("normal", "long"))), 2)
    assert array.members == [
        ("seed=0", "learning.policy=normal"),
        ("seed=0", "learning.policy=long"),
        ("seed=1", "learning.policy=normal"),
        ("seed=1", "learning.policy=long"),
    ]
    assert array.indices == "0-3%2"
    assert read_job_array(["seed=7"]).indices == "0-0"


def test_values_may_be_lists() -> None:
    assert split_values("[480,640],[640, 800]") == ["[480,640]", "[640, 800]"]
    assert split_values("it's,b") == ["it's", "b"]
    assert split_values("['a,b'],c") == ["['a,b']", "c"]
    assert split_values("'a,b', {c: [1,2]},") == ["'a,b'", "{c: [1,2]}", ""]


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        (["0-3"], "would all be one and the same run; say what differs: python -m megdet"),
        (["0-3%2"], "one and the same run"),
        (["seed=1,,2"], "a value is empty"),
        (["seed="], "a value is empty"),
        (["seed=1,2,1"], "1 stands there twice"),
        (["seed=1", "seed=2"], "seed has values already"),
        (["seed=1,2%0"], "%0 is no limit; give a number from 1"),
        (["seed=1,2%1000000"], "%1000000 is no limit"),
        (["name='a,b"], "the ' in 'a,b is not closed"),
        (["name=a,[1,b"], r"the bracket in \[1,b is not closed"),
        ([f"a{k}=0,1,2,3,4,5,6,7,8,9" for k in range(30)], "0{30} members; 100000 is the most"),
        (["seed=1,2%1", "name=a,b%2"], "%1 and %2 contradict each other"),
    ],
)
def test_slips(texts: list[str], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        read_job_array(texts)


def test_all_slips_at_once() -> None:
    with pytest.raises(UserError) as raised:
        read_job_array(["0-3", "seed=1,1", "name=,"])
    assert len(str(raised.value).splitlines()) == 4


def test_a_member_finds_its_own_words() -> None:
    words = ["--config", "x.yaml", "--array", "seed=0,1", "a=b", "--array=k=x,y"]
    assert take_arrays(words) == (["seed=0,1", "k=x,y"], ["--config", "x.yaml", "a=b"])
    assert member_words(words, 2) == ["--config", "x.yaml", "a=b", "seed=1", "k=x"]
    assert member_words(["a=b"], None) == ["a=b"]
    assert words_of_members(words) == [member_words(words, member) for member in range(4)]


@pytest.mark.parametrize(
    ("words", "member", "problem"),
    [
        (["a=b"], 0, "a job array without settings: .* say what differs: python -m .*--array"),
        (["--array", "seed=0,1"], None, "this job is no member of an array"),
        (["--array", "seed=0,1"], -1, "member -1 of the array has no values"),
        (["--array", "seed=0,1"], 2, "member 2 of the array has no values: --array gives 2; "),
        (["--array", "seed=0,1", "seed=3"], 0, "seed has a value, and --array gives it others"),
        (["--array"], 0, "settings and their values follow it"),
    ],
)
def test_words_that_are_no_members(words: list[str], member: int | None, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        member_words(words, member)
