"""Split files: one clip a line, the folder and then its frames."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path, PurePosixPath

from pixelkin.data import Dataset, Sample
from pixelkin.formats.files import SourceError, inside, read_lines


def read_split_file(path: Path | str, root: Path | str | None = None) -> Dataset:
    """Read a split file, ``DIRECTORY FRAME FRAME ...`` a line, separated by blanks.

    A directory on several lines is one clip; frames are numbered in the order of the file. Frames that are missing fail
    when they are loaded.

    Args:
        path: the file.
        root: what the directories are relative to. Default: the first of the file's folder and the two above it that
            has the first line's directory.

    Raises:
        SourceError: a line without frames, a directory that is missing or leads out of the root, a frame twice.
    """
    path = Path(path)
    lines = [(number, line.split()) for number, line in enumerate(read_lines(path), start=1) if line.strip()]
    if not lines:
        raise SourceError(f"{path}: no clips in it: write 'directory frame frame ...' a line")
    base = _root(path, lines[0][1][0]) if root is None else Path(root)
    counts: dict[str, int] = defaultdict(int)
    samples: dict[str, Sample] = {}
    for number, (directory, *frames) in lines:
        where = f"{path}, line {number}"
        folder = inside(base, directory, where)
        if not frames:
            raise SourceError(f"{where}: no frames after {directory!r}: write 'directory frame frame ...'")
        if not folder.is_dir():
            raise SourceError(
                f"{where}: no folder {folder}: correct the line or put the file above the folders it names"
            )
        clip = PurePosixPath(directory.replace("\\", "/")).as_posix()
        for frame in frames:
            image = inside(folder, frame, where)
            name = f"{clip}/{PurePosixPath(frame).with_suffix('').as_posix()}"
            if name in samples:
                raise SourceError(f"{where}: frame {frame!r} of {clip} is there twice: remove one")
            samples[name] = Sample(name, image, clip=clip, frame=counts[clip])
            counts[clip] += 1
    return Dataset(list(samples.values()), name=path.stem)


def _root(path: Path, directory: str) -> Path:
    home = path.absolute().parent
    for candidate in (home, *list(home.parents)[:2]):
        if inside(candidate, directory, str(path)).is_dir():
            return candidate
    return home
