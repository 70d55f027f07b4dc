from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pixelkin.formats import SourceError, read_classes, write_classes
from pixelkin.formats.classes import class_id_of, find_classes

names = st.text("ab ü-_", min_size=1).map(str.strip).filter(bool)
ids = st.integers(1, 999).filter(lambda i: i != 255)


@given(st.dictionaries(ids, names, min_size=1).filter(lambda c: len(set(c.values())) == len(c)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip(tmp_path, classes):
    write_classes(tmp_path / "c.txt", classes)
    assert read_classes(tmp_path / "c.txt") == classes


def test_what_may_stand_there(tmp_path):
    (tmp_path / "c.txt").write_bytes("\ufeff# mine\n\n0 background\n255 void\n7\ttraffic light\r\n3: dog\n".encode())
    assert read_classes(tmp_path / "c.txt") == {3: "dog", 7: "traffic light"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no classes"),
        ("cat\n", "line 1: 'cat' does not start with an id"),
        ("1\n", "line 1: class 1 has no name"),
        ("1 cat\n1 dog\n", "line 2: .* twice"),
        ("1 cat\n2 cat\n", "line 2: .* twice"),
        ("0 cat\n", "0 cannot be a class"),
        ("255 cat\n", "255 cannot be a class"),
        ("-4 cat\n", "-4 cannot be a class"),
    ],
)
def test_bad_lists_are_refused(tmp_path, text, message):
    (tmp_path / "c.txt").write_text(text)
    with pytest.raises(SourceError, match=message) as caught:
        read_classes(tmp_path / "c.txt")
    assert "\n" not in str(caught.value)


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(SourceError, match="no such file"):
        read_classes(tmp_path / "c.txt")
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(SourceError, match="UTF-8"):
        read_classes(tmp_path / "c.txt")


def test_looking_for_a_list(tmp_path):
    (tmp_path / "a/b/c").mkdir(parents=True)
    assert find_classes([tmp_path / "a/b/c"]) is None
    (tmp_path / "a/classes.txt").write_text("1 cat\n")
    assert find_classes([tmp_path / "none", tmp_path / "a/b/c"]) == {1: "cat"}


def test_ids_of_names_and_numbers():
    classes = {3: "cat", 4: "3"}
    assert class_id_of("cat", classes, "x") == 3
    assert class_id_of(3, classes, "x") == 3
    assert class_id_of("3", classes, "x") == 4  # a name comes before a number
    for unknown in ("dog", 9, "", True, 3.5):
        with pytest.raises(SourceError, match=r"x: class .* is not in the class list"):
            class_id_of(unknown, classes, "x")
