"""Policies and spaces as files, levels as text, globs as names."""

from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from slimsearch.errors import PolicyError
from slimsearch.policy import (
    Matrix,
    Policy,
    matching,
    parse_levels,
    read,
    unmatched,
    write,
)


@pytest.fixture
def wrote(tmp_path):
    def write_(content: str | bytes):
        file = tmp_path / "mine.toml"
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    return write_


def test_a_space_is_read(wrote):
    table = '[layer_sparsity]\n"blocks.*" = "-0.1..+0.1"\n"blocks.0" = 0\n'
    found = read(wrote(f'about = "x"\n{table}'))
    assert found.name == "mine"
    assert found.about == "x"
    assert found.tables == {"layer_sparsity": {"blocks.*": "-0.1..+0.1", "blocks.0": 0}}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "removes nothing"),
        ("name = 'x'\n[found]\na = 1", "removes nothing"),
        ("nmae = 'x'\n[layer_sparsity]\nx = 1", "unknown key 'nmae'"),
        ("[layer_sparsity]\nx = true", "'x' must be a number, a range or a word, found True"),
        ("[layer_sparsity]\nx = [0.1]", "'x' must be a number, a range or a word"),
        ("[layer_sparsity", "no readable policy file"),
        (b"\xff\xfe", "no readable policy file"),
    ],
)
def test_a_bad_file_is_refused_by_name(wrote, content, words):
    file = wrote(content)
    with pytest.raises(PolicyError, match=words) as caught:
        read(file)
    assert str(file) in str(caught.value)


def test_a_folder_is_no_policy(tmp_path):
    with pytest.raises(PolicyError, match="no readable policy file"):
        read(tmp_path)


letters = st.characters(codec="utf-8")
shares = st.integers(0, 10**6).map(lambda n: n / 10**6)


@given(
    table=st.dictionaries(st.text(letters, min_size=1, max_size=9), shares, min_size=1, max_size=5),
    about=st.text(st.characters(codec="utf-8"), max_size=20),
)
def test_a_policy_comes_back_from_its_file(tmp_path_factory, table, about):
    file = tmp_path_factory.mktemp("policy") / "p.toml"
    file.write_text(write(Policy({"layer_sparsity": table}), "p", about, {"loss": 1.5}), "utf-8")
    found = read(file)
    assert found.tables == {"layer_sparsity": table}
    assert (found.name, found.about) == ("p", about)


@given(ratio=st.integers(1, 10**9 - 1).map(lambda n: n / 10**9))
def test_a_level_of_any_ratio_comes_back_from_the_file(tmp_path_factory, ratio):
    """best.toml must say the very numbers that were searched."""
    (level,) = parse_levels("+0.00", ratio, "here")
    file = tmp_path_factory.mktemp("policy") / "p.toml"
    file.write_text(write(Policy({"layer_sparsity": {"blocks.0": level}}), "p", ""), "utf-8")
    assert read(file).tables["layer_sparsity"]["blocks.0"] == level


@pytest.mark.parametrize(
    ("text", "ratio", "levels"),
    [
        ("-0.10..+0.10 by 0.05", 0.5, (0.4, 0.45, 0.5, 0.55, 0.6)),
        ("-0.10..+0.10", 0.5, (0.4, 0.45, 0.5, 0.55, 0.6)),
        ("-0.10..0.10 by 0.1", 0.3, (0.2, 0.3, 0.4)),
        ("0.10..0.30 by 0.1", 0.5, (0.1, 0.2, 0.3)),
        ("-0.2..+0.2 by 0.1", 0.1, (0.0, 0.1, 0.2, 0.3)),
        ("-0.2..+0.2 by 0.1", 0.9, (0.7, 0.8, 0.9, 1.0)),
        ("-0.1..+0.1 by 0.03", 0.5, (0.4, 0.43, 0.46, 0.49, 0.52, 0.55, 0.58)),
        ("0.4,0.5, 0.6", 0.1, (0.4, 0.5, 0.6)),
        ("0.6,0.4,0.4", 0.1, (0.4, 0.6)),
        ("-0.1,+0.1", 0.5, (0.4, 0.6)),
        ("+0.00", 0.35, (0.35,)),
        (0.25, 0.9, (0.25,)),
        (0, 0.9, (0.0,)),
        (1, 0.9, (1.0,)),
        ("0.2", 0.9, (0.2,)),
    ],
)
def test_levels_are_read(text, ratio, levels):
    assert parse_levels(text, ratio, "here") == levels


@pytest.mark.parametrize(
    "text",
    ["", ",", "many", "0.1..", "..0.1", "0.3..0.1", "0.1..0.3 by 0", "0.1..0.3 by -0.1",
     "0.1..0.3 by x", "0..1 by 1e-9", "1.5", 1.5, -0.1, "nan", "inf", "+0.6", float("nan"),
     "0.1;0.2", "-0.1..+0.1by0.05"],
)  # fmt: skip
def test_what_are_no_levels_is_refused_with_its_origin(text):
    with pytest.raises(PolicyError, match="here"):
        parse_levels(text, 0.5, "here")


@given(
    low=st.integers(-40, 0), high=st.integers(0, 40), step=st.integers(1, 20),
    ratio=st.integers(1, 99),
)  # fmt: skip
def test_a_range_holds_every_step_that_lies_between_0_and_1(low, high, step, ratio):
    text = f"{low / 100:+}..{high / 100:+} by {step / 100}"
    wanted = [Fraction(ratio + offset, 100) for offset in range(low, high + 1, step)]
    wanted = [float(level) for level in wanted if 0 <= level <= 1]
    assume(wanted)
    assert parse_levels(text, ratio / 100, "here") == pytest.approx(wanted, abs=1e-9)


def test_the_last_line_that_names_a_part_wins():
    ranges = {"blocks.*": 0.1, "blocks.1": 0.2, "blocks.?": 0.3, "blocks.[45]": 0.4}
    assert matching(ranges, "blocks.1") == ("blocks.?", 0.3)
    assert matching(ranges, "blocks.12") == ("blocks.*", 0.1)
    assert matching(ranges, "blocks.5") == ("blocks.[45]", 0.4)
    assert matching(ranges, "blocks.1.q") is None
    assert matching({"blocks.*.q": 1}, "blocks.1.q") == ("blocks.*.q", 1)
    assert matching({"*": 1}, "blocks.1") is None


def test_globs_that_name_nothing_are_found():
    assert unmatched({"blocks.*": 1, "blocks.9": 1, "block.0": 1}, ["blocks.0", "blocks.1"]) == [
        "blocks.9", "block.0"]  # fmt: skip


def test_a_matrix_knows_its_block():
    assert Matrix("blocks.12.down", 3, 5).block == "blocks.12"
    assert Matrix("blocks.12.down", 3, 5).size == 15
