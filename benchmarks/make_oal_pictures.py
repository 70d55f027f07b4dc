"""The pictures of docs/oal.md, made by the code they explain: a synthetic drive, and the motorcycle of scikit-image.

    python benchmarks/make_oal_pictures.py [--out docs/images] [--model MODEL]

With a model (that ``oal`` fitted on drives) the affinities it sees in a single picture are shown too.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelkin.cues.geometry import find_ground, inverse_of, jumps
from pixelkin.cues.pair_targets import DIFFERENT, OFFSETS, OUTSIDE, UNKNOWN
from pixelkin.data import Camera, Dataset, Instances, Sample
from pixelkin.data.synthetic import render_clip
from pixelkin.grouping.cells import cells_to_pixels
from pixelkin.grouping.partition import partition
from pixelkin.methods.base import Method
from pixelkin.methods.oal import OALConfig
from pixelkin.methods.oal_frames import Frames, Looks
from pixelkin.viz import boundary_picture, flow_wheel, heatmap, overlay, panel

RGB = npt.NDArray[np.uint8]

MOTORCYCLE = {"focal": 994.978, "baseline": 0.193001, "shift": 31.086}
"""Calibration that comes with Middlebury's Motorcycle, at the size that scikit-image has it (metres, pixels)."""


def main() -> None:
    """Make them all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--model", type=Path, default=None)
    call = parser.parse_args()
    model = None if call.model is None else Method.load(call.model, device="cpu")
    drive(call.out, model)
    motorcycle(call.out)


def drive(out: Path, model: Method | None) -> None:
    """Cues of a synthetic drive, and what a model sees in one picture of it."""
    clip = render_clip((2000, 3), 2, preset="driving", size=(192, 384))
    samples = [
        Sample(f"{t}", clip.frames[t], depth=clip.depth[t], clip="drive", frame=t, camera=_camera(clip, t))
        for t in range(2)
    ]
    frames = Frames(Dataset(samples), OALConfig().frames, OFFSETS)
    looks = frames.look(0)
    save(out / "oal_cues.png", panel(cue_pictures(looks, frames), height=150, columns=3))
    if model is not None:
        fields = model.fields(samples[0])
        found = model.group(fields, samples[0])
        pictures = {"one picture": looks.image, **model.pictures(fields, samples[0])}
        pictures |= {"oal": overlay(looks.image, found), "truth": overlay(looks.image, clip.instances[0])}
        save(out / "oal_affinities.png", panel(pictures, height=150, columns=3))


def motorcycle(out: Path) -> None:
    """A real stereo pair: depth by matching, gaps, and the partition of the cues."""
    from skimage.data import stereo_motorcycle

    left, right, _ = stereo_motorcycle()  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "right.png"
        Image.fromarray(right).save(path)
        middle = ((left.shape[1] - 1) / 2, (left.shape[0] - 1) / 2)
        focal = MOTORCYCLE["focal"]
        intrinsics = np.array([[focal, 0, middle[0]], [0, focal, middle[1]], [0, 0, 1.0]])
        camera = Camera(intrinsics, None, path, MOTORCYCLE["baseline"], MOTORCYCLE["shift"])
        settings = OALConfig().frames.model_copy(update={"extent": False})  # precise depth, and air beneath
        frames = Frames(Dataset([Sample("motorcycle", left, camera=camera)]), settings, OFFSETS)
        looks = frames.look(0)
    save(out / "oal_motorcycle.png", panel(cue_pictures(looks, frames), height=190, columns=3))


def cue_pictures(looks: Looks, frames: Frames) -> dict[str, RGB]:
    """Everything that is measured of a frame, and the partition of it."""
    pictures: dict[str, RGB] = {"image": looks.image}
    if looks.depth is not None:
        inverse = np.nan_to_num(inverse_of(looks.depth))
        ground = find_ground(looks.depth)
        pictures["inverse depth"] = heatmap(np.minimum(inverse, np.quantile(inverse, 0.98)))
        name = "objects: white, unknown: grey" + ("" if ground is not None else " (no ground)")
        pictures[name] = _grey(np.where(looks.foreground == UNKNOWN, 0.5, looks.foreground))
    if looks.flow is not None:
        pictures["flow"] = flow_wheel(looks.flow)
    if looks.own is not None:
        own = np.nan_to_num(looks.own)
        far = looks.foreground != 1
        pictures["own motion of objects"] = flow_wheel(np.where(far, 0, own))
    if looks.cues.inverse is not None:
        gaps = np.nan_to_num(np.fmax(*(jumps(looks.cues.inverse)[step] for step in ((0, 1), (1, 0)))))
        pictures["gaps in depth"] = boundary_picture(np.clip(gaps / 0.2, 0, 1))
    codes = frames.targets(looks.cues)
    wide = codes[OFFSETS.index((0, -9))]
    pictures["9 cells to the left: same, unknown, different"] = _grey(
        np.select([(wide == DIFFERENT) | (wide == OUTSIDE), wide == UNKNOWN], [0.0, 0.5], 1.0)
    )
    found = partition(frames.certainty(codes, looks.cues), np.array(OFFSETS), looks.cues.foreground == 1, min_area=8)
    pixels = cells_to_pixels(found.labels, looks.foreground == 1, 4, most=1.5)
    pictures["partition of the cues"] = overlay(looks.image, Instances.from_label_map(pixels))
    return pictures


def save(path: Path, picture: RGB) -> None:
    """Write a small PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).quantize(160, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {picture.shape[1]}x{picture.shape[0]}, {path.stat().st_size / 1000:.0f} KB")


def _camera(clip: Any, t: int) -> Camera:
    return Camera(clip.intrinsics, clip.poses[t])


def _grey(values: npt.NDArray[Any]) -> RGB:
    level = (np.asarray(values, np.float32) * 255).round().astype(np.uint8)
    return np.repeat(level[..., None], 3, axis=2)


if __name__ == "__main__":
    main()
