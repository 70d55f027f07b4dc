"""What nobody knows teaches oal nothing, and stays unknown from a run to its students and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pixelkin
from pixelkin.cues.pair_targets import DIFFERENT, OFFSETS, OUTSIDE, SAME, UNKNOWN, identity_targets
from pixelkin.data import ALTERNATIVE, Dataset, Instances, Sample
from pixelkin.data.sample import read_label_image
from pixelkin.data.synthetic import render_clip
from pixelkin.formats import read_run
from pixelkin.methods.oal import OAL, OALConfig
from pixelkin.methods.oal_examples import LabelFrames, PairExamples
from pixelkin.methods.oal_grouping import Division, group_freely, semantic_of_foreground
from pixelkin.models import affinity
from pixelkin.models.affinity import AffinityOutput
from pixelkin.models.affinity_loss import affinity_loss
from pixelkin.run.teaching import open_teaching
from pixelkin.students.pictures import load_picture

SIZE = (64, 96)


def area(rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[rows, columns] = True
    return mask


SURE, ALSO_SURE = area(slice(8, 24), slice(8, 32)), area(slice(8, 24), slice(32, 56))
DOUBT = {  # kind of doubt: pixels
    "score": area(slice(8, 24), slice(64, 80)),
    "crowd": area(slice(32, 44), slice(8, 28)),
    "alternative": area(slice(20, 28), slice(8, 32)),
    "ignore": area(slice(20, 48), slice(40, 60)),
    "void": area(slice(56, 64), slice(0, 96)),
    "unclaimed": area(slice(32, 40), slice(72, 88)),
}


def doubtful_sample() -> Sample:
    """Two objects that touch, and everything that can be in doubt."""
    instances = Instances.from_masks(
        np.stack([SURE, ALSO_SURE, DOUBT["score"], DOUBT["crowd"], DOUBT["alternative"]]),
        scores=[0.9, 0.8, 0.4, 1.0, 0.7],
        sources=["a", "a", "a", "a", f"a{ALTERNATIVE}"],
        crowd=[False, False, False, True, False],
    )
    semantic = np.where(DOUBT["void"], 255, np.where(DOUBT["unclaimed"], 3, 0)).astype(np.uint8)
    image = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    return Sample("a", image, instances=instances, semantic=semantic, ignore=DOUBT["ignore"])


def on_cells(mask: np.ndarray) -> np.ndarray:
    return mask[2::4, 2::4]


UNKNOWN_CELLS = on_cells(np.any(list(DOUBT.values()), axis=0) & ~SURE & ~ALSO_SURE)


def frames(sample: Sample, **settings) -> LabelFrames:
    return LabelFrames(Dataset([sample]), OFFSETS, {}, longest=640, **settings)


def test_nothing_is_said_of_a_pair_with_an_unknown_end():
    frame = frames(doubtful_sample())[0]
    plain = identity_targets(on_cells(SURE + 2 * ALSO_SURE), OFFSETS)
    rows, columns = UNKNOWN_CELLS.shape
    y, x = np.mgrid[:rows, :columns]
    for codes, known, (dy, dx) in zip(frame.codes, plain, OFFSETS, strict=True):
        inside = (y + dy >= 0) & (y + dy < rows) & (x + dx >= 0) & (x + dx < columns)
        other = UNKNOWN_CELLS[(y + dy) % rows, (x + dx) % columns] & inside
        silent = UNKNOWN_CELLS | other
        assert (codes[silent] == UNKNOWN).all()
        assert np.array_equal(codes[~silent], known[~silent])  # and what is known stays so
    assert {SAME, DIFFERENT, OUTSIDE} < set(np.unique(frame.codes).tolist())
    assert np.array_equal(frame.foreground == UNKNOWN, UNKNOWN_CELLS)
    assert np.array_equal(frame.foreground == 1, on_cells(SURE | ALSO_SURE))


def test_the_loss_does_not_look_where_nothing_is_known():
    example = PairExamples(frames(doubtful_sample()), OFFSETS, crop=SIZE, pressing=0.0)(np.random.default_rng(1))
    codes, foreground = example["codes"][None], example["foreground"][None]
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(shape, generator=generator) for shape in (codes.shape, foreground.shape)]
    noise = [torch.randn(each.shape, generator=generator) for each in logits]
    silent = [codes == UNKNOWN, foreground == UNKNOWN]
    assert all(each.any() for each in silent)
    changed = [torch.where(where, other, own) for where, other, own in zip(silent, noise, logits, strict=True)]
    said = [each.clone().requires_grad_() for each in logits]
    loss = affinity_loss(AffinityOutput(*said), codes, foreground, OFFSETS)["loss"]
    loss.backward()
    assert affinity_loss(AffinityOutput(*changed), codes, foreground, OFFSETS)["loss"] == loss
    for each, where in zip(said, silent, strict=True):
        assert not each.grad[where].any()
        assert each.grad[~where].any()


def test_which_scores_are_believed_can_be_set():
    masks, alone = np.stack([SURE, ALSO_SURE]), {"ignore": None, "semantic": None}
    sample = doubtful_sample().replace(instances=Instances.from_masks(masks, scores=[0.6, 0.4]), **alone)
    left, y, x = OFFSETS.index((0, -1)), 4, 8  # the first cell of the second, and its neighbour in the first
    for least, expected in ((0.4, DIFFERENT), (0.5, UNKNOWN), (0.61, None)):
        source = frames(sample, min_score=least)
        if expected is None:
            with pytest.raises(ValueError, match=r"score of at least 0\.61: lower it with --set min_score"):
                source.informative()
        else:
            assert source.informative() == [0]
            assert source[0].codes[left][y, x] == expected
    config = OALConfig.from_settings({"min_score": "0.7"})
    with pytest.raises(ValueError, match=r"at least 0\.7"):
        OAL(config)._stages(Dataset([sample]), {"kind": "frames", "learned": "labels"}, None)[0].example()


def test_things_too_thin_to_be_cut_out_are_not_pressed():
    thin = area(slice(1, 2), slice(8, 88))
    found = Instances.from_masks(np.stack([thin, SURE]), scores=[0.9, 0.9])
    source = frames(doubtful_sample().replace(instances=found, ignore=None, semantic=None))
    assert source[0].whole == (1, 2)
    examples = PairExamples(source, OFFSETS, crop=SIZE, pressing=1.0)
    for seed in range(8):
        assert examples(np.random.default_rng(seed))["codes"].shape == (len(OFFSETS), 16, 24)


@pytest.mark.parametrize("zoom", [1.0, 0.5])
def test_the_foreground_between_two_thresholds_is_unknown(zoom: float):
    size = (int(32 / zoom), int(64 / zoom))
    foreground = np.tile(np.linspace(0, 1, 16, dtype=np.float32), (8, 1))
    said = semantic_of_foreground(foreground, size, zoom=zoom, background=0.25, threshold=0.5)
    assert said.shape == size
    columns = (said == said[0]).all(axis=0)
    assert columns.all()
    assert (np.diff(np.select([said[0] == 0, said[0] == 255], [0, 1], 2)) >= 0).all()
    share = [np.mean(said == value) for value in (0, 255, 1)]
    assert share == pytest.approx([0.25, 0.25, 0.5], abs=0.04)
    affinity = np.ones((len(OFFSETS), 8, 16), np.float32)
    division = Division(zoom=zoom, min_area=1, stride=1, method="mutex", source="oal")
    found = group_freely(affinity, foreground, OFFSETS, size, division, threshold=0.5)
    assert np.array_equal(found.masks().any(axis=0), said == 1)
    known = semantic_of_foreground(foreground, size, zoom=zoom, background=0.5, threshold=0.5)
    assert set(np.unique(known).tolist()) == {0, 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a drive whose network says more and more surely, from left to right, that there is something."""
    folder = tmp_path_factory.mktemp("rounds")
    clip = render_clip(3, 2, preset="driving", size=(96, 160), objects=6)
    for name in ("frames/drive", "depth/drive"):
        (folder / name).mkdir(parents=True)
    for t in range(2):
        Image.fromarray(clip.frames[t]).save(folder / "frames/drive" / f"{t:03d}.png")
        np.save(folder / "depth/drive" / f"{t:03d}.npy", clip.depth[t])
    settings = {"crop": "96,160", "training.batch_size": "2", "zoom": "1"}
    foreground = np.tile(np.linspace(0, 1, 40, dtype=np.float32), (24, 1))
    foreground[0, 0] = 0.9  # too little for an instance
    with pytest.MonkeyPatch.context() as patch:
        made = np.ones((len(OFFSETS), *foreground.shape), np.float32), foreground
        patch.setattr(affinity, "predict_tiled", lambda *_, **__: made)
        pixelkin.label(
            folder / "frames", depth=folder / "depth", method="oal", out=folder / "run", budget="1it", settings=settings
        )
    return folder / "run"


def test_a_run_keeps_its_unknown_for_students_and_for_oal(run: Path):
    maps = [read_label_image(run / "semantic" / "drive" / f"{t:03d}.png") for t in range(2)]
    dataset, taught = read_run(run), open_teaching(run)
    assert [sample.name for sample in dataset] == ["drive/000", "drive/001"]
    for sample, of_student, said in zip(dataset, taught, maps, strict=True):
        labels = sample.instances.label_map()
        open_ = (labels == 0) & (said != 0)
        assert set(np.unique(said[labels == 0]).tolist()) == {0, 1, 255}
        assert np.array_equal(sample.ignore, open_)
        assert not sample.has("semantic")  # the next method is not bound to it
        picture = load_picture(of_student, min_score=0.0, unknown=True)
        assert np.array_equal(picture.unknown, open_)
        frame = frames(sample, min_score=0.0)[0]
        assert np.array_equal(frame.foreground == UNKNOWN, on_cells(open_))
        none = frames(sample, min_score=1.0)[0]
        assert np.array_equal(none.foreground == UNKNOWN, on_cells((said != 0) | (labels > 0)))
        assert (none.codes == UNKNOWN).all()  # background alone says nothing of pairs


def test_oal_learns_from_a_run(run: Path, tmp_path: Path):
    settings = {"crop": "96,160", "training.batch_size": "2", "learn": "labels", "min_score": "0"}
    summary = pixelkin.label(run, method="oal", out=tmp_path / "again", budget="1it", settings=settings)
    assert summary.done == 2
    assert (tmp_path / "again" / "semantic" / "drive" / "000.png").is_file()
