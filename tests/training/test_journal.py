from __future__ import annotations

import pytest

from pixelkin.training import journal as module
from pixelkin.training.journal import Journal, read_log


def test_lines_after_the_checkpoint_are_dropped(tmp_path):
    path = tmp_path / "log.jsonl"
    with Journal(path) as journal:
        for step in (5, 10, 15):
            journal.write(step=step, losses={"loss": 1.0}, lr=0.1)
    with path.open("a") as file:
        file.write('{"step": 20, "los')  # a kill in the middle of a line
    with Journal(path, step=10) as journal:
        journal.write(step=15, losses={"loss": 2.0}, lr=0.1)
    assert [(line["step"], line["losses"]["loss"]) for line in read_log(path)] == [(5, 1.0), (10, 1.0), (15, 2.0)]


def test_no_file_where_nothing_is_written(tmp_path):
    with Journal(None) as journal:
        journal.write(step=1, losses={})
        journal.advance(0.5)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("tty", "quiet", "shown"), [(True, "", True), (True, "1", False), (False, "", False)])
def test_progress_only_where_someone_watches(monkeypatch, tmp_path, tty, quiet, shown):
    monkeypatch.setattr(module.sys.stderr, "isatty", lambda: tty, raising=False)
    monkeypatch.setenv("PIXELKIN_QUIET", quiet)
    assert module.someone_watches() is shown
    with Journal(tmp_path / "log.jsonl") as journal:
        journal.advance(0.5)
        journal.write(step=1, losses={"loss": 0.25})
        assert (journal._progress is not None) is shown
