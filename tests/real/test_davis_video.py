"""A real sequence as a folder of DAVIS and as a video file: labelled, filmed, judged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pixelkin
from pixelkin.formats import open_dataset
from pixelkin.formats.video import open_video

FRAMES = 12


@pytest.fixture(scope="module")
def davis(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> tuple[Path, Path, str]:
    """A DAVIS folder of the first frames of its shortest sequence, masks of class 1, and the sequence's name."""
    source = shared_data / "davis2016"
    if not source.is_dir():
        pytest.skip("no DAVIS 2016")
    root = tmp_path_factory.mktemp("davis")
    clip = min((source / "JPEGImages/480p").iterdir(), key=lambda folder: len(list(folder.iterdir()))).name
    for kind, suffix in (("JPEGImages", "jpg"), ("Annotations", "png")):
        folder = root / "davis" / kind / "480p" / clip
        folder.mkdir(parents=True)
        for path in sorted((source / kind / "480p" / clip).glob(f"*.{suffix}"))[:FRAMES]:
            (folder / path.name).write_bytes(path.read_bytes())
    for path in (root / "davis/Annotations/480p" / clip).iterdir():
        with Image.open(path) as png:
            ids = (np.array(png) > 0).astype(np.uint8)
        (root / "masks" / clip).mkdir(parents=True, exist_ok=True)
        Image.fromarray(ids).save(root / "masks" / clip / path.name)
    return root / "davis", root / "masks", clip


def test_a_davis_folder(davis: tuple[Path, Path, str], tmp_path: Path) -> None:
    source, masks, clip = davis
    summary = pixelkin.label(source, out=tmp_path / "run", method="components", semantic=masks)
    assert (summary.done, summary.failed, summary.films) == (FRAMES, 0, 1)
    film = open_video(tmp_path / "run/overlays" / f"{clip}.mp4")
    assert (len(film), film.size) == (FRAMES, open_dataset(source)[0].size)
    result = pixelkin.evaluate(tmp_path / "run", source, protocol="video")
    assert result.scores["J"] is not None
    assert result.scores["J"] > 99  # the masks are the truth's


def test_the_same_as_a_video_file(davis: tuple[Path, Path, str], tmp_path: Path) -> None:
    import cv2

    source, masks, clip = davis
    samples = [sample for sample in open_dataset(source) if sample.clip == clip]
    height, width = samples[0].size
    path = tmp_path / f"{clip}.mp4"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 24, (width, height))
    for sample in samples:
        writer.write(np.ascontiguousarray(sample.image[..., ::-1]))
    writer.release()
    for number, mask in enumerate(sorted((masks / clip).iterdir())):
        (tmp_path / "semantic" / clip).mkdir(parents=True, exist_ok=True)
        (tmp_path / "semantic" / clip / f"{number:06d}.png").write_bytes(mask.read_bytes())
    dataset = open_dataset(path, semantic=tmp_path / "semantic")
    for sample, original in zip(dataset, samples, strict=True):
        assert np.abs(sample.image.astype(int) - original.image).mean() < 8
        assert sample.has("semantic")
    summary = pixelkin.label(path, out=tmp_path / "run", method="components", semantic=tmp_path / "semantic")
    assert (summary.done, summary.films) == (FRAMES, 1)
    coco = json.loads((tmp_path / "run/instances.json").read_text())
    assert coco["videos"] == [{"id": 1, "name": clip, "length": FRAMES, "fps": 24.0}]
    assert [image["frame_id"] for image in coco["images"]] == list(range(FRAMES))
