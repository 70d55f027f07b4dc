from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelkin.formats import SourceError
from pixelkin.formats.files import NameIndex, inside, list_files, match, natural_key, sample_names, whole


def paths(*names: str) -> list[PurePosixPath]:
    return [PurePosixPath(name) for name in names]


def test_listing_takes_images_in_natural_order(tmp_path):
    for name in ("f10.jpg", "f2.JPG", "sub/x.png", "Thumbs.db", "notes.txt", ".hidden.jpg", "._f2.jpg", ".cache/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list_files(tmp_path) == paths("f2.JPG", "f10.jpg", "sub/x.png")


def test_listing_leaves_out_labels_and_runs(tmp_path):
    for name in ("a.png", "masks/a.png", "run/run.json", "run/semantic/a.png", "model/fit.json", "model/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list_files(tmp_path, exclude=[tmp_path / "masks"]) == paths("a.png")
    assert list_files(tmp_path / "run/semantic") == paths("a.png")


def test_listing_follows_links_once(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.png").touch()
    (tmp_path / "view").mkdir()
    os.symlink(tmp_path / "data", tmp_path / "view/linked")
    os.symlink(tmp_path / "view", tmp_path / "data/back")
    assert list_files(tmp_path / "view") == paths("linked/a.png")


@given(st.lists(st.text("a1٣²x", max_size=6)))
def test_any_names_can_be_sorted(names):
    assert len(sorted(names, key=natural_key)) == len(names)


def test_names_keep_dots_and_are_unique():
    assert sample_names(paths("a.v1.jpg", "s/a.jpg", "b.jpg", "b.png")) == ["a.v1", "s/a", "b.jpg", "b.png"]


def test_matching_prefers_the_path_and_takes_a_stem_only_if_it_is_clear():
    names = ["x/1", "y/1", "y/2", "z/3", "a.v1"]
    assert match(names, paths("x/1.png", "2.png", "q/3.png", "r/3.png", "a.v1.png")) == {
        "x/1": PurePosixPath("x/1.png"),
        "y/2": PurePosixPath("2.png"),
        "a.v1": PurePosixPath("a.v1.png"),
    }
    assert match(names, paths("1.png")) == {}


def test_images_of_one_name_and_two_suffixes_share_their_mask():
    assert set(match(["b.jpg", "b.png"], paths("b.png"))) == {"b.jpg", "b.png"}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("x/1.jpg", "x/1"),
        ("x/1", "x/1"),
        ("x\\1.jpg", "x/1"),
        ("./x/1.jpg", "x/1"),
        ("2.png", "y/2"),
        ("2", "y/2"),
        ("a.v1", "a.v1"),
    ],
)
def test_finding_a_sample(text, name):
    assert NameIndex(["x/1", "y/1", "y/2", "a.v1"], "tags.csv").find(text, "line 1") == name


@pytest.mark.parametrize(
    ("text", "message"), [("1.jpg", "2 images are called"), ("3.jpg", "no image"), ("z/2.jpg", "no image")]
)
def test_not_finding_a_sample(text, message):
    with pytest.raises(SourceError, match=f"tags.csv, line 1: {message}"):
        NameIndex(["x/1", "y/1", "y/2"], "tags.csv").find(text, "line 1")


@given(st.text(max_size=20))
def test_no_text_leads_out_of_a_folder(text):
    folder = Path("/data/images")
    try:
        path = inside(folder, text, "x")
    except SourceError:
        return
    assert Path(os.path.normpath(path)).is_relative_to(folder)


def test_whole_files_or_none(tmp_path):
    with whole(tmp_path / "sub/a.txt") as beside:
        beside.write_text("new")
    assert (tmp_path / "sub/a.txt").read_text() == "new"

    def stop_halfway() -> None:
        with whole(tmp_path / "sub/a.txt") as beside:
            beside.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        stop_halfway()
    assert (tmp_path / "sub/a.txt").read_text() == "new"
    assert len(list((tmp_path / "sub").iterdir())) == 1
