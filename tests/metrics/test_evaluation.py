from __future__ import annotations

import json

import numpy as np
import pytest
from drawing import boxes
from PIL import Image

from pixelkin.data import Dataset, Instances, Sample
from pixelkin.formats import annotation_record, write_coco
from pixelkin.metrics import evaluate

SIZE = (40, 60)
A, B, C = (0, 0, 10, 10), (0, 10, 10, 20), (20, 30, 35, 50)


def dataset(images, classes=None, **kwargs) -> Dataset:
    samples = [
        Sample(name, lambda: None, size=instances.size, instances=instances) for name, instances in images.items()
    ]
    return Dataset(samples, {1: "thing"} if classes is None else classes, **kwargs)


def write_png(path, array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write_json(path, images, classes, *, scores=True, folder="") -> None:
    annotations = []
    for number, instances in enumerate(images.values(), start=1):
        for i in range(len(instances)):
            rle = {"size": list(SIZE), "counts": instances.rles[i]["counts"].decode()}
            one = {"id": len(annotations) + 1, "image_id": number, "category_id": int(instances.labels[i])}
            one |= {"segmentation": rle, "area": int(instances.areas[i]), "bbox": [0, 0, 1, 1], "iscrowd": 0}
            annotations.append(one | ({"score": float(instances.scores[i])} if scores else {}))
    content = {
        "images": [
            {"id": number, "file_name": f"{folder}{name}.jpg", "height": SIZE[0], "width": SIZE[1]}
            for number, name in enumerate(images, start=1)
        ],
        "annotations": annotations,
        "categories": [{"id": label, "name": name} for label, name in classes.items()],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def test_contract_of_the_json():
    truth = dataset({"a": boxes(SIZE, [A, B]), "b": boxes(SIZE, [C])}, name="toys")
    result = evaluate(truth, truth)
    found = json.loads(json.dumps(result.to_json()))
    assert found["protocol"] == "coco"
    assert {key: round(found[key]) for key in ("AP", "AP50", "AP75", "AR", "crowd_AR")} == dict.fromkeys(
        ("AP", "AP50", "AP75", "AR", "crowd_AR"), 100
    )
    assert round(found["per_class"]["thing"]["AP"]) == 100
    assert {"AP_small", "AP_medium", "AP_large", "AR@1", "AR@100", "AR@1000"} <= set(found)
    assert result.columns == ["class", "AP", "AP50", "AP75", "AR", "crowd_AR"]
    assert result.rows == [["all", *["100.0"] * 5], ["thing", *["100.0"] * 4, ""]]
    assert result.protocol_line == (
        "coco: 2 images of toys (0 without prediction count as empty, 0 predicted without truth left out), 1 class,"
        " 3 true instances (2 crowded), 3 detections, at most 1000 an image and class"
    )


def test_images_match_by_stem_and_the_rest_is_counted():
    truth = dataset({"a": boxes(SIZE, [A]), "sub/b": boxes(SIZE, [C])})
    pred = dataset({"photos/a": boxes(SIZE, [A]), "photos/z": boxes(SIZE, [A])})
    result = evaluate(pred, truth)
    assert result.scores["AR"] == pytest.approx(50.0)
    assert (result.counts["images_without_prediction"], result.counts["predictions_without_truth"]) == (1, 1)


def test_a_stem_that_is_there_twice_needs_the_whole_path():
    truth = dataset({"x/1": boxes(SIZE, [A]), "y/1": boxes(SIZE, [C])})
    assert evaluate(truth, truth).scores["AR"] == 100.0
    with pytest.raises(ValueError, match="no image in common"):
        evaluate(dataset({"z/1": boxes(SIZE, [A])}), truth)


def test_class_ids_are_the_users():
    truth = dataset({"a": boxes(SIZE, [A, C], labels=[3, 90])}, {90: "zebra", 3: "cat"})
    pred = dataset({"a": boxes(SIZE, [A, C], labels=[3, 3])}, {3: "cat"})
    found = evaluate(pred, truth).to_json()
    assert round(found["per_class"]["cat"]["AP"]) == 100
    assert found["per_class"]["zebra"]["AP"] == 0.0
    agnostic = evaluate(pred, truth, protocol="agnostic").to_json()
    assert round(agnostic["AP"]) == 100
    assert agnostic["per_class"] == {}
    with pytest.raises(ValueError, match="no class id in common"):
        evaluate(dataset({"a": boxes(SIZE, [A], labels=[7])}, {7: "owl"}), truth)


def test_classes_of_one_name_stay_apart():
    truth = dataset({"a": boxes(SIZE, [A, C], labels=[3, 4])}, {3: "cat", 4: "cat"})
    assert list(evaluate(truth, truth).parts) == ["cat (3)", "cat (4)"]


def test_run_folder_against_label_png_of_any_class_id(tmp_path):
    truth = boxes(SIZE, [A, B, C])
    write_png(tmp_path / "labels" / "a.png", truth.label_map().astype(np.uint16) * 300)
    write_json(tmp_path / "run" / "instances.json", {"a": boxes(SIZE, [A, B, C], labels=[44] * 3)}, {44: "nucleus"})
    found = evaluate(tmp_path / "run", tmp_path / "labels").to_json()
    assert round(found["AP"]) == 100
    assert list(found["per_class"]) == ["nucleus"]
    assert found["crowd_AR"] == 100.0
    two = {"a": boxes(SIZE, [A, B, C], labels=[1, 1, 44])}
    write_json(tmp_path / "two" / "instances.json", two, {1: "nucleus", 44: "dirt"})
    assert evaluate(tmp_path / "two", tmp_path / "labels").scores["AR"] == pytest.approx(100 * 2 / 3)


def test_coco_files_and_annotated_areas(tmp_path):
    """An area of 2000 in the file makes the truth medium, though its mask has 100 pixels."""
    write_json(tmp_path / "truth.json", {"a": boxes(SIZE, [A])}, {1: "thing"}, scores=False)
    content = json.loads((tmp_path / "truth.json").read_text())
    content["annotations"][0]["area"] = 2000.0
    (tmp_path / "truth.json").write_text(json.dumps(content))
    found = evaluate(tmp_path / "truth.json", tmp_path / "truth.json").to_json()
    assert found["AP_small"] is None
    assert found["AR_medium"] == 100.0
    results = [
        {key: content["annotations"][0][key] for key in ("image_id", "category_id", "segmentation")} | {"score": 0.5}
    ]
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert evaluate(tmp_path / "results.json", tmp_path / "truth.json").scores["AR"] == 100.0
    with pytest.raises(ValueError, match="list of results"):
        evaluate(tmp_path / "results.json", dataset({"a": boxes(SIZE, [A])}))


def test_voc_devkit_only_the_images_with_masks(tmp_path):
    devkit = tmp_path / "VOC"
    objects, classes = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8)
    objects[0:10, 0:10], classes[0:10, 0:10] = 1, 15
    objects[0:10, 10:20], classes[0:10, 10:20] = 255, 255
    write_png(devkit / "SegmentationObject" / "a.png", objects)
    write_png(devkit / "SegmentationClass" / "a.png", classes)
    for name in "ab":
        write_png(devkit / "JPEGImages" / f"{name}.png", np.zeros((*SIZE, 3), np.uint8))
    pred = dataset({name: boxes(SIZE, [(0, 0, 10, 20)], labels=[15]) for name in "ab"}, {15: "person"})
    voc = evaluate(pred, devkit, protocol="voc").to_json()
    assert (voc["images"], voc["predictions_without_truth"]) == (1, 1)
    assert voc["AP75"] == 100.0
    assert {"AP", "AP25", "AP50", "AP70", "AP75", "AR", "ABO", "crowd_AR", "per_class"} <= set(voc)
    assert evaluate(pred, devkit).scores["AP75"] == 0.0  # void is no special pixel to COCO
    semantic = evaluate(pred, devkit, protocol="semantic").to_json()
    assert semantic["per_class"]["person"]["IoU"] == 100.0


def test_semantic_folders(tmp_path):
    wanted = np.zeros(SIZE, np.uint8)
    wanted[:, :30] = 2
    wanted[0] = 255
    write_png(tmp_path / "truth" / "a.png", wanted)
    write_png(tmp_path / "run" / "semantic" / "a.png", np.where(wanted == 255, 1, wanted).astype(np.uint8))
    result = evaluate(tmp_path / "run", tmp_path / "truth", protocol="semantic")
    assert result.scores["mIoU"] == 100.0
    assert [row[:2] for row in result.rows] == [["all", "100.0"], ["background", "100.0"], ["class 2", "100.0"]]
    write_png(tmp_path / "small" / "a.png", wanted[:5])
    with pytest.raises(ValueError, match=r"a: .*same size"):
        evaluate(tmp_path / "small", tmp_path / "truth", protocol="semantic")


def test_video_folders(tmp_path):
    mask = np.zeros(SIZE, np.uint8)
    mask[5:25, 5:25] = 255
    for clip in ("cat", "dog"):
        for frame in range(4):
            write_png(tmp_path / "DAVIS" / "Annotations" / "480p" / clip / f"{frame:05d}.png", mask)
    for frame in range(4):
        write_png(tmp_path / "run" / "masks" / "cat" / f"{frame:05d}.png", (mask // 255 * 3).astype(np.uint16))
    result = evaluate(tmp_path / "run", tmp_path / "DAVIS", protocol="video")
    found = result.to_json()
    assert (found["J"], found["F"]) == (50.0, 50.0)
    assert found["per_sequence"]["cat"]["J"] == 100.0
    assert found["sequences_without_prediction"] == 1
    assert found["images_without_prediction"] == 4
    assert result.columns == ["sequence", "J", "F"]
    assert "first and last frame" in result.protocol_line
    for folder in ("DAVIS/Annotations/480p", "DAVIS/Annotations"):
        assert evaluate(tmp_path / "run" / "masks", tmp_path / folder, protocol="video").scores["J"] == 50.0
    one = tmp_path / "DAVIS" / "Annotations" / "480p" / "cat"
    assert evaluate(tmp_path / "run", one, protocol="video").scores["J"] == 100.0
    with pytest.raises(ValueError, match="protocol video"):
        evaluate(tmp_path / "run", tmp_path / "DAVIS")
    with pytest.raises(ValueError, match="no frame in common"):
        evaluate(tmp_path / "run", tmp_path / "DAVIS" / "Annotations" / "480p" / "dog", protocol="video")


def test_video_datasets():
    def clip(ids):
        return Dataset(
            [
                Sample(f"c/{k}", lambda: None, size=SIZE, clip="c", frame=k, instances=boxes(SIZE, [A, C], ids=ids))
                for k in range(3)
            ]
        )

    result = evaluate(clip([7, 4]), clip([1, 2]), protocol="video")
    assert (result.scores["J"], result.parts["c"]["objects"]) == (100.0, 2)


@pytest.mark.parametrize(
    ("pred", "truth", "protocol", "message"),
    [
        ("data", "data", "kitti", "unknown protocol"),
        ("data", "nowhere.json", "coco", "no such"),
        ("nowhere", "data", "coco", "no such prediction"),
        ("data", "note.txt", "coco", "not a truth"),
        ("empty", "data", "coco", "no instances.json"),
        ("data", "empty", "coco", "empty"),
        ("data", "empty", "video", "no PNG maps"),
        ("data", "other", "coco", "no image in common"),
        ("data", "small", "coco", r"a: .*same size"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(tmp_path, pred, truth, protocol, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "note.txt").write_text("hello")
    things = {
        "data": dataset({"a": boxes(SIZE, [A])}),
        "other": dataset({"q": boxes(SIZE, [A])}),
        "small": dataset({"a": Instances.empty((3, 4))}),
    }
    with pytest.raises(ValueError, match=message) as caught:
        evaluate(things.get(pred, tmp_path / pred), things.get(truth, tmp_path / truth), protocol=protocol)
    assert "\n" not in str(caught.value)


def test_progress_and_the_limit_of_detections():
    truth = dataset({"a": boxes(SIZE, [A, C]), "b": boxes(SIZE, [C])})
    steps = []
    result = evaluate(truth, truth, max_detections=1, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 2), (2, 2)]
    assert result.scores["AR"] == pytest.approx(100 * 2 / 3)
    with pytest.raises(ValueError, match="max_detections"):
        evaluate(truth, truth, max_detections=0)


def test_tracks_of_a_coco_file_are_judged_like_maps(tmp_path):
    """Two objects, one numbered 255, in two pieces; the predicted numbers are swapped in the second clip only."""
    size = (24, 32)
    maps, sizes = {}, [(f"{clip}/{i:03d}", clip, i) for clip in ("a", "b") for i in range(4)]
    for name, _, i in sizes:
        ids = np.zeros(size, dtype=np.int64)
        ids[2:8, 2 + i : 10 + i] = 255
        ids[2:8, 20:26] = 255
        ids[12:20, 5 : 14 + i] = 3
        maps[name] = ids

    def write(path, numbers):
        pieces = []
        for k, (name, clip, i) in enumerate(sizes):
            left = np.arange(size[1]) < 18
            halves = [(number, (maps[name] == number) & half) for number in (255, 3) for half in (left, ~left)]
            masks, tracks = zip(*[(half, numbers[clip][number]) for number, half in halves if half.any()], strict=True)
            found = Instances.from_masks(np.array(masks), tracks=tracks)
            image = {"id": k, "file_name": f"{name}.png", "height": 24, "width": 32, "video_id": clip, "frame_id": i}
            pieces.append((image, [annotation_record(found, j, k, 100 * k + j) for j in range(len(found))]))
        videos = [{"id": clip, "name": clip} for clip in ("a", "b")]
        write_coco(path, pieces, {1: "object"}, videos=videos)
        return path

    same = {clip: {255: 255, 3: 3} for clip in ("a", "b")}
    truth = write(tmp_path / "truth.json", same)
    assert evaluate(truth, truth, protocol="video").scores == {"J": 100, "F": 100, "J&F": 100}
    other = write(tmp_path / "other.json", {"a": {255: 1, 3: 2}, "b": {255: 3, 3: 255}})
    assert evaluate(other, truth, protocol="video").scores["J"] == 100  # numbers are names, a clip at a time
    merged = write(tmp_path / "merged.json", {"a": {255: 1, 3: 2}, "b": {255: 1, 3: 1}})
    result = evaluate(merged, truth, protocol="video")
    assert result.parts["a"]["J"] == 100
    assert result.parts["b"]["J"] < 50
    assert result.parts["b"]["objects"] == 2
