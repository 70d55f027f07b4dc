"""The gallery in a real browser: filters, counts, keyboard, and no request to anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import EXECUTABLE, Browser
from gallery_scenes import CLASSES, scene

from pixelkin.viz import gallery_entry, write_gallery

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(EXECUTABLE is None, reason="no Chromium on the PATH"),
]

IMAGES = {  # name: scores, labels
    "b2": ([0.9, 0.2, 0.6], [1, 1, 5]),
    "b10": ([0.3], [5]),
    "a</script><script>document.title='hacked'</script>": ([0.5, 0.95], [1, 5]),
    "empty": ([], []),
}
NAMES = "[...document.querySelectorAll('.card b')].map(b => b.textContent)"
COUNTS = (
    "Object.fromEntries([...document.querySelectorAll('#classes label')]"
    ".map(l => [l.dataset.label, l.querySelector('.count').textContent]))"
)
SHOWN = "(s => [s.images, s.instances].map(Number))(document.getElementById('status').dataset)"
OPEN = "document.getElementById('detail').open"


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gallery") / "gallery.html"
    entries = (
        gallery_entry(name, *scene(k, *columns), pictures={"Boundary": scene(k, [], [])[0][::4, ::4]})
        for k, (name, columns) in enumerate(IMAGES.items())
    )
    summary = {"done": 4, "failed": 1, "skipped": 0, "errors": [("broken", "<b>cut off</b>")]}
    write_gallery(path, entries, classes=CLASSES, title="Run <1>", summary=summary)
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser
        assert browser.problems == []
        assert not [url for url in browser.requests if not url.startswith(("file:", "data:", "about:"))]
        assert len([url for url in browser.requests if url.startswith("data:")]) >= len(IMAGES)


def test_everything_is_shown_at_first(browser: Browser, gallery: Path) -> None:
    browser.open(gallery)
    assert browser.run("document.title") == "Run <1>"
    assert browser.run(SHOWN) == [4, 6]
    assert browser.run(NAMES) == [sorted(IMAGES)[0], "b2", "b10", "empty"]  # numbers sort as numbers
    assert browser.run(COUNTS) == {"1": "3", "5": "3"}
    assert "<b>cut off</b>" in browser.run("document.getElementById('errors').textContent")
    browser.wait(
        "document.querySelector('.card img').complete && document.querySelector('.card img').naturalWidth === 80"
    )


def test_filters_change_what_is_shown_and_counted(browser: Browser, gallery: Path) -> None:
    browser.open(gallery, "score=0.55")
    assert browser.run(SHOWN) == [2, 3]
    assert browser.run(COUNTS) == {"1": "1", "5": "2"}
    browser.run("document.querySelector('#classes [data-label=\"1\"]').click()")
    browser.settle()
    assert browser.run(SHOWN) == [1, 1]
    assert browser.run(NAMES) == ["b2"]
    assert browser.run(COUNTS) == {"1": "1", "5": "2"}  # the other class still says what choosing it would bring
    assert browser.run("new URLSearchParams(location.hash.slice(1)).get('class')") == "1"
    browser.run("const low = document.getElementById('low'); low.value = 0; low.dispatchEvent(new Event('input'))")
    browser.settle()
    assert browser.run(SHOWN) == [2, 3]
    assert browser.run(COUNTS) == {"1": "3", "5": "3"}
    browser.run("document.getElementById('reset').click()")
    browser.settle()
    assert browser.run(SHOWN) == [4, 6]


def test_search_sort_and_the_upper_end_of_the_scores(browser: Browser, gallery: Path) -> None:
    browser.open(gallery, "below=0.55&sort=doubt")
    assert browser.run(SHOWN) == [3, 3]
    assert browser.run(NAMES)[:2] == ["b2", "b10"]
    browser.open(gallery, "q=B1&class=5")
    assert browser.run(NAMES) == ["b10"]
    browser.open(gallery, "sort=most")
    assert browser.run(NAMES)[0] == "b2"
    browser.open(gallery, "q=nowhere")
    assert browser.run(SHOWN) == [0, 0]
    assert browser.run("document.getElementById('nothing').hidden") is False


def test_masks_are_drawn_on_the_cards(browser: Browser, gallery: Path) -> None:
    painted = (
        "(() => { const c = document.querySelector('.card canvas');"
        " return c.width ? c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v) : null })()"
    )
    browser.open(gallery, "q=b2")
    browser.wait(f"{painted} === true")
    browser.press("m")
    browser.wait(f"{painted} === false")


def test_the_detail_view_by_keyboard(browser: Browser, gallery: Path) -> None:
    browser.open(gallery, "sort=most")
    browser.press("ArrowRight")
    browser.press("Enter")
    browser.wait(OPEN)
    rows = "[...document.querySelectorAll('#rows tr')].map(r => [...r.cells].map(c => c.textContent))"
    assert browser.run(rows) == [
        ["cell", "0.90", "260", "siseg:semantic"],
        ["dog & <b>cat</b>", "0.60", "286", "siseg:semantic"],
        ["cell", "0.20", "273", "siseg:semantic"],
    ]
    assert browser.run("document.querySelectorAll('#outlines path').length") == 3
    browser.press("ArrowDown")
    browser.press("ArrowDown")
    lit = "[...document.querySelectorAll('#detail .lit')].map(e => e.tagName + e.dataset.instance)"
    assert sorted(browser.run(lit)) == ["TR2", "path2"]
    browser.press("m")
    assert browser.run("document.querySelectorAll('#outlines path').length") == 0
    browser.press("m")
    browser.press("2")
    assert browser.run("document.querySelector('#tabs [aria-pressed=true]').textContent") == "Boundary"
    browser.press("ArrowRight")
    assert browser.run("document.getElementById('detail-name').textContent") == sorted(IMAGES)[0]
    assert browser.run("document.title") == "Run <1>"
    browser.press("Escape")
    browser.wait(f"!{OPEN}")
    assert browser.run("document.activeElement.title") == sorted(IMAGES)[0]


def test_all_pictures_side_by_side(browser: Browser, gallery: Path) -> None:
    captions = "[...document.querySelectorAll('#sheet figcaption')].map(c => c.textContent)"
    drawn = "[...document.querySelectorAll('#sheet .cell')].map(c => c.querySelectorAll('path').length)"
    browser.open(gallery, "open=b2")
    assert browser.run("document.getElementById('sheet').hidden") is True
    browser.press("a")
    assert browser.run(captions) == ["Image", "Boundary", "Masks"]
    assert browser.run(drawn) == [0, 0, 3]
    assert browser.run("document.getElementById('stage').hidden") is True
    browser.wait("[...document.querySelectorAll('#sheet img')].every(i => i.naturalWidth > 0)")
    boxes = browser.run("[...document.querySelectorAll('#sheet .cell')].map(c => [c.clientWidth, c.clientHeight])")
    assert all(width > 200 and abs(width / height - 80 / 60) < 0.02 for width, height in boxes)
    assert browser.run("document.getElementById('sheet').scrollHeight <= document.getElementById('sheet').clientHeight")
    browser.press("m")
    assert browser.run(drawn) == [0, 0, 0]
    browser.press("m")
    browser.press("ArrowRight")  # stays side by side from image to image
    assert browser.run("document.getElementById('detail-name').textContent") == "b10"
    assert browser.run(drawn) == [0, 0, 1]
    assert "view=all" in browser.run("location.hash")
    browser.run("document.querySelectorAll('#sheet button')[1].click()")
    assert browser.run("document.querySelector('#tabs [aria-pressed=true]').textContent") == "Boundary"
    assert browser.run("document.getElementById('stage').hidden") is False
    assert "view" not in browser.run("location.hash")
    browser.open(gallery, "open=b2&view=all")
    assert browser.run(captions) == ["Image", "Boundary", "Masks"]
    assert browser.run("document.querySelector('#sheet .cell').clientWidth") == boxes[0][0]


def test_an_address_opens_a_picture_with_its_filter(browser: Browser, gallery: Path) -> None:
    browser.open(gallery, "open=b2&score=0.5")
    assert browser.run(OPEN) is True
    assert browser.run("document.querySelectorAll('#rows tr').length") == 2
    assert browser.run("document.getElementById('hidden-rows').textContent") == "1 instance hidden by the filters"
