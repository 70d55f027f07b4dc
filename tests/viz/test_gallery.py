from __future__ import annotations

import base64
import io
import json
import re
import tracemalloc
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from gallery_scenes import CLASSES, scene
from PIL import Image

from pixelkin.data import Instances
from pixelkin.viz import GalleryEntry, gallery_entry, instance_color, with_tracks, write_gallery
from pixelkin.viz.gallery import GRID, THUMBNAIL, THUMBNAIL_BYTES

NASTY = "</script><script>alert(1)</script><!--\u2028\"'&\udc80"


class Page(HTMLParser):
    """The scripts and the visible text of a page, as a browser splits it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._script = False
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._script = tag == "script"
        if self._script:
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self._script = False

    def handle_data(self, data: str) -> None:
        if self._script:
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        else:
            self.text += data

    @property
    def entries(self) -> list[GalleryEntry]:
        return [json.loads(text) for attributes, text in self.scripts if attributes.get("class") == "entry"]

    def data(self, name: str) -> dict:
        return next(json.loads(text) for attributes, text in self.scripts if attributes.get("id") == name)


def entry(name: str = "a", number: int = 0) -> GalleryEntry:
    return gallery_entry(name, *scene(number, [0.25, 0.75], [1, 5]))


def decoded(uri: str) -> Image.Image:
    head, _, data = uri.partition(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_the_record_says_what_was_found() -> None:
    image, instances = scene(0, [0.25, 0.75], [1, 5])
    field = np.zeros((15, 20, 3), dtype=np.uint8)
    record = gallery_entry("folder/a", image, instances, pictures={"Boundary": field})
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["name"] == "folder/a"
    assert record["size"] == [60, 80]
    assert record["grid"] == [GRID, GRID * 3 // 4]
    assert record["labels"] == [1, 5]
    assert record["scores"] == [0.25, 0.75]
    assert record["areas"] == instances.areas.tolist()
    assert [record["sources"][i] for i in record["source"]] == ["siseg:semantic"] * 2
    assert record["colors"] == ["#{:02x}{:02x}{:02x}".format(*instance_color(i)) for i in (1, 2)]
    assert len(record["paths"]) == 2
    assert decoded(record["picture"]).size == (80, 60)
    (extra,) = record["pictures"]
    assert extra["caption"] == "Boundary"
    assert (np.asarray(decoded(extra["picture"]).convert("RGB")) == 0).all()


def test_large_images_become_small_records() -> None:
    image = np.random.default_rng(0).integers(0, 256, (300, 450, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    mask = np.zeros((1, 2400, 3600), dtype=bool)
    mask[0, 200:2200, 100:3500] = True
    record = gallery_entry("large", image, Instances.from_masks(mask))
    assert max(decoded(record["picture"]).size) == THUMBNAIL
    assert len(json.dumps(record)) < 4 * THUMBNAIL_BYTES
    assert len(record["paths"][0]) < 60


def test_no_instances_and_odd_scores() -> None:
    image, instances = scene(0, [np.nan, np.inf, 0.5], [1, 1, 1])
    assert gallery_entry("a", image, instances)["scores"] == [None, None, 0.5]
    record = gallery_entry("a", image, Instances.empty((60, 80)))
    assert record["paths"] == record["labels"] == []
    with pytest.raises(ValueError, match="the masks"):
        gallery_entry("a", image, Instances.empty((10, 10)))


def test_the_page_holds_the_records_and_nothing_from_outside(tmp_path: Path) -> None:
    path = tmp_path / "gallery.html"
    entries = [entry("a"), entry("b", 1)]
    summary = {"done": 2, "failed": 1, "skipped": 0, "errors": [("c", "broken image")]}
    write_gallery(path, entries, classes=CLASSES, title="A run", summary=summary)
    page = Page(path)
    assert page.entries == entries
    assert page.data("closing") == {"shown": 2, "total": 2}
    assert [(c["id"], c["name"]) for c in page.data("config")["classes"]] == list(CLASSES.items())
    assert "A run" in page.text
    assert "broken image" in page.text
    addresses = [a.get(key) for _, a in page.tags for key in ("src", "href", "action", "data", "poster", "srcset")]
    assert {address for address in addresses if address is not None} == {"#errors"}
    assert not [tag for tag, _ in page.tags if tag in ("link", "iframe", "object", "base")]
    without_names = re.sub(r"http://www\.w3\.org/2000/svg", "", page.source)  # a name space, not an address
    assert not re.search(r"https?://|@import|url\(", without_names)
    assert [p.name for p in tmp_path.iterdir()] == ["gallery.html"]


def test_untrusted_names_stay_text(tmp_path: Path) -> None:
    path = tmp_path / "gallery.html"
    hostile = entry(NASTY)
    hostile["sources"] = [NASTY]
    errors = [(NASTY, NASTY), {"name": "d", "reason": "<img src=x onerror=alert(1)>"}]
    write_gallery(path, [hostile], classes={1: NASTY}, title=NASTY, summary={"errors": errors})
    page = Page(path)
    assert page.entries == [hostile]
    assert page.data("config")["classes"][0]["name"] == NASTY
    executable = [text for attributes, text in page.scripts if attributes.get("type") != "application/json"]
    assert len(executable) == 1
    assert "alert(1)" not in executable[0]
    assert not [attributes for tag, attributes in page.tags if tag == "img" and "onerror" in attributes]
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy


def test_entries_are_read_once_and_never_held(tmp_path: Path) -> None:
    alive = 0

    def stream(count: int) -> Iterator[GalleryEntry]:
        nonlocal alive
        for i in range(count):
            alive += 1
            record = entry()
            record["name"] = f"image {i}"
            record["picture"] = "data:image/webp;base64," + "A" * 100_000
            yield record

    def peak(count: int) -> int:
        tracemalloc.start()
        write_gallery(tmp_path / f"{count}.html", stream(count), classes=CLASSES, title="t")
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(2)  # load the template engine
    few, many = peak(5), peak(60)
    assert alive == 67
    assert many < few + 1_500_000  # the records themselves would be 6 MB
    assert len(Page(tmp_path / "60.html").entries) == 60


def test_a_long_run_is_cut_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "gallery.html"
    errors = [(f"bad {i}", "broken") for i in range(5)]
    summary = {"done": 7, "failed": 9, "errors": errors}
    write_gallery(path, (entry(str(i)) for i in range(7)), classes=CLASSES, title="t", summary=summary, limit=3)
    page = Page(path)
    assert [e["name"] for e in page.entries] == ["0", "1", "2"]
    assert page.data("closing") == {"shown": 3, "total": 7}
    assert "Failed: 9" in page.text
    assert "The first 3 are listed" in page.text
    with pytest.raises(ValueError, match="limit"):
        write_gallery(path, [], classes={}, title="t", limit=0)


def test_a_broken_off_write_leaves_the_old_page(tmp_path: Path) -> None:
    path = tmp_path / "gallery.html"
    path.write_text("old")

    def broken() -> Iterator[GalleryEntry]:
        yield entry()
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        write_gallery(path, broken(), classes=CLASSES, title="t")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_empty_run_is_a_page_too(tmp_path: Path) -> None:
    write_gallery(tmp_path / "gallery.html", [], classes={}, title="nothing")
    assert Page(tmp_path / "gallery.html").entries == []


def test_tracks_found_later_bring_their_colours_and_change_nothing_else():
    before = entry()
    kept = json.dumps(before)
    after = with_tracks(before, list(range(7, 7 + len(before["labels"]))))
    assert after["tracks"] == list(range(7, 7 + len(before["labels"])))
    assert after["colors"][0] == "#{:02x}{:02x}{:02x}".format(*instance_color(7))
    assert {**after, "tracks": before["tracks"], "colors": before["colors"]} == before
    assert json.dumps(before) == kept
    with pytest.raises(ValueError, match="tracks for"):
        with_tracks(before, [])
