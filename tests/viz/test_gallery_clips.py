"""Clips in the gallery, in a real browser: one card a clip, stepping and playing through its frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import EXECUTABLE, Browser

from pixelkin.data import Instances
from pixelkin.viz import gallery_entry, write_gallery

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(EXECUTABLE is None, reason="no Chromium on the PATH"),
]

CARDS = "[...document.querySelectorAll('.card')].map(c => c.getAttribute('aria-label'))"
NAME = "document.getElementById('detail-name').textContent"
FRAME = "document.getElementById('frame-number').textContent"
STRIP = "!document.getElementById('strip').hidden"
PLAYING = "document.getElementById('play').getAttribute('aria-label') === 'Pause'"


def moving(frame: int) -> tuple[np.ndarray, Instances]:
    """Two tracked squares, the second from frame 3 on and less sure; they move apart."""
    image = np.full((60, 80, 3), 40, dtype=np.uint8)
    masks = np.zeros((1 + (frame >= 3), 60, 80), dtype=bool)
    masks[0, 10:30, 2 * frame : 2 * frame + 20] = True
    if frame >= 3:
        masks[1, 40:55, 70 - 2 * frame :] = True
    image[masks.any(axis=0)] = 200
    return image, Instances.from_masks(masks, scores=[0.9, 0.3][: len(masks)], tracks=[4, 9][: len(masks)])


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gallery") / "gallery.html"
    entries = [gallery_entry("photo", *moving(0))]
    for clip, count in (("walk", 30), ("still", 1)):
        entries += [
            gallery_entry(f"{clip}/{k:06d}", *moving(k), clip=clip, frame=k, fps=50) for k in reversed(range(count))
        ]
    write_gallery(path, entries, classes={1: "object"}, title="Clips")
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser
        assert browser.problems == []
        assert not [url for url in browser.requests if not url.startswith(("file:", "data:", "about:"))]


def test_a_clip_has_one_card(browser: Browser, gallery: Path) -> None:
    browser.open(gallery)
    assert browser.run(CARDS) == [
        "photo: 1 instance, lowest 0.90",
        "still: 1 frame, 1 object, lowest 0.90",
        "walk: 30 frames, 2 objects, lowest 0.30",
    ]
    assert browser.run("document.getElementById('status').textContent") == "32 images, 59 instances, 2 clips"
    assert browser.run("document.querySelectorAll('.card.clip').length") == 2
    browser.open(gallery, "below=0.5")
    assert browser.run(CARDS) == ["walk: 27 frames, 1 object, lowest 0.30"]
    browser.open(gallery, "sort=most")
    assert browser.run(CARDS)[0].startswith("walk")


def test_stepping_through_the_frames(browser: Browser, gallery: Path) -> None:
    browser.open(gallery)
    browser.run("document.querySelectorAll('.card')[2].click()")
    browser.settle()
    assert browser.run(NAME) == "walk/000000"
    assert browser.run(FRAME) == "frame 0, 1 of 30"
    assert browser.run(STRIP)
    for _ in range(3):
        browser.press("ArrowRight")
    assert browser.run(NAME) == "walk/000003"
    assert browser.run("document.querySelectorAll('#outlines path').length") == 2
    assert "track 9" in browser.run("document.getElementById('rows').textContent")
    browser.press("ArrowDown")
    lit = "document.querySelector('#rows .lit').textContent"
    assert "track 4" in browser.run(lit)
    browser.press("ArrowRight")
    assert "track 4" in browser.run(lit)  # it stays with its object
    browser.press("ArrowLeft")
    browser.run("(s => { s.value = 20; s.dispatchEvent(new Event('input')); })(document.getElementById('seek'))")
    assert browser.run(FRAME) == "frame 20, 21 of 30"
    assert "open=walk%2F000020" in browser.run("location.hash")
    films = "[...document.querySelectorAll('#film button')]"
    assert browser.run(f"{films}.length") == 12
    assert browser.run(f"{films}.filter(b => b.hasAttribute('aria-current')).length") == 1
    browser.run(f"{films}[11].click()")
    assert browser.run(NAME) == "walk/000029"
    browser.press("ArrowRight")
    assert browser.run(NAME) == "walk/000029"  # the last of all
    browser.press("Escape")
    assert browser.run("document.activeElement.getAttribute('aria-label')").startswith("walk")


def test_playing(browser: Browser, gallery: Path) -> None:
    browser.open(gallery, "open=walk/000027")
    browser.press(" ")
    assert browser.run(PLAYING)
    browser.wait(f"{NAME} === 'walk/000001'")  # it begins again at the end
    browser.press(" ")
    assert not browser.run(PLAYING)
    stopped = browser.run(NAME)
    browser.run("new Promise(done => setTimeout(() => done(true), 150))")
    assert browser.run(NAME) == stopped
    assert stopped.replace("/", "%2F") in browser.run("location.hash")
    browser.run("document.getElementById('play').click()")
    browser.press("Escape")
    assert not browser.run(PLAYING)


def test_photographs_have_no_strip(browser: Browser, gallery: Path) -> None:
    for name in ("photo", "still/000000"):
        browser.open(gallery, f"open={name}")
        assert browser.run(NAME) == name
        assert not browser.run(STRIP)


def test_it_looks_right(browser: Browser, gallery: Path, tmp_path: Path) -> None:
    """The thumbnails of the strip lie inside it and carry masks."""
    browser.open(gallery, "open=walk/000015")
    browser.screenshot(tmp_path / "clip.png")
    inside = (
        "(s => [...document.querySelectorAll('#film button')].every(b => (r => r.left >= s.left - 1 &&"
        " r.right <= s.right + 1 && r.width > 30)(b.getBoundingClientRect())))"
        "(document.getElementById('strip').getBoundingClientRect())"
    )
    assert browser.run(inside)
    painted = (
        "(c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v > 0))"
        "(document.querySelector('#film canvas'))"
    )
    assert browser.run(painted)
