"""Students as ONNX: the file gives what the student gives, or there is no file."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from pixelkin.methods.baselines import Components
from pixelkin.students import export
from pixelkin.students.export import ExportError, compare, export_onnx
from pixelkin.students.mask_rcnn import MaskRCNNConfig, MaskRCNNStudent

needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(package) is None for package in export.PACKAGES), reason="the onnx extra is absent"
)


def student() -> MaskRCNNStudent:
    """Untrained, which finds things everywhere."""
    torch.manual_seed(0)
    settings = {"short_side": "64", "long_side": "96", "channels": "16", "hidden": "32", "score": "0.01"}
    one = MaskRCNNStudent(MaskRCNNConfig.from_settings(settings | {"detections": "20"}))
    one.facts = {"class_ids": [7, 250]}
    one.restore(mask_weights())
    return one


def mask_weights() -> dict[str, torch.Tensor]:
    from pixelkin.models.backbone import build_backbone
    from pixelkin.students.network import MaskRCNN

    network = MaskRCNN(build_backbone(), 2, channels=16, hidden=32, anchor_scale=6.0, candidates=1000, proposals=500)
    return dict(network.state_dict())


@needs_onnx
def test_the_file_gives_what_the_student_gives(tmp_path: Path) -> None:
    import onnxruntime

    one = student()
    report = export_onnx(one, tmp_path / "deep" / "student.onnx", (60, 90))
    assert report.size == (64, 96)
    assert report.detections > 5
    assert max(report.differences.values()) < 0.01
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["student.onnx"]
    runtime = onnxruntime.InferenceSession(str(report.path), providers=["CPUExecutionProvider"])
    image = np.random.default_rng(5).random((1, 3, 64, 96), dtype=np.float32)  # another picture than that compared
    boxes, scores, labels, masks = runtime.run(["boxes", "scores", "labels", "masks"], {"image": image})
    with torch.no_grad():
        found = one.network.detect(
            torch.from_numpy(image[0]), torch.tensor([64, 96]), score=0.01, overlap=0.5, keep=20, empty_places=True
        )
    expected = {"boxes": found.boxes, "scores": found.scores, "masks": found.masks}
    expected = {name: value.numpy() for name, value in expected.items()}
    expected["labels"] = np.array([0, 7, 250])[found.classes.numpy()]
    compare(expected, {"boxes": boxes, "scores": scores, "labels": labels, "masks": masks})
    assert set(labels.tolist()) <= {7, 250}
    assert masks.shape == (20, 28, 28)


def found(*scores: float) -> dict[str, np.ndarray]:
    n = len(scores)
    return {
        "boxes": np.arange(4.0 * n).reshape(n, 4),
        "scores": np.array(scores),
        "labels": np.full(n, 7),
        "masks": np.full((n, 28, 28), 0.5),
    }


def test_differences_are_seen() -> None:
    good = found(0.9, 0.8, 0.0)
    assert compare(good, good) == (2, {"boxes": 0.0, "scores": 0.0, "masks": 0.0})
    equal = found(0.9, 0.9, 0.0)
    swapped = {name: value[[1, 0, 2]] for name, value in equal.items()}
    assert compare(equal, swapped)[1] == {"boxes": 0.0, "scores": 0.0, "masks": 0.0}
    for name, change in (("boxes", 1.0), ("scores", -0.1), ("masks", 0.1)):
        changed = {**good, name: good[name] + change}
        with pytest.raises(ExportError, match=f"differs from the student in .*{name}"):
            compare(good, changed)
    with pytest.raises(ExportError, match=r"misses a detection of score 0\.9"):
        compare(good, {**good, "labels": good["labels"] + 1})
    with pytest.raises(ExportError, match="differs"):
        compare(good, {**good, "masks": good["masks"] * np.nan})


def test_calls_that_cannot_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ExportError, match="components cannot be exported"):
        export_onnx(Components(), tmp_path / "a.onnx")
    monkeypatch.setattr(export, "PACKAGES", ("onnx_that_is_not_there",))
    with pytest.raises(ExportError, match=r"needs onnx_that_is_not_there: pip install 'pixelkin\[onnx\]'"):
        export_onnx(student(), tmp_path / "a.onnx")
