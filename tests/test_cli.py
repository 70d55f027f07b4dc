"""The command line: exit codes, one-line errors, what it prints and writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pixelkin
from pixelkin import cli


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three images with semantic masks and the true instances; two squares touch in each."""
    for folder in ("images", "semantic", "labels"):
        (tmp_path / folder).mkdir()
    labels = np.zeros((40, 50), dtype=np.uint16)
    labels[5:15, 5:15], labels[5:15, 15:25], labels[25:35, 30:45] = 1, 2, 3
    for name in "abc":
        Image.fromarray(np.repeat((labels * 60).astype(np.uint8)[..., None], 3, axis=2)).save(
            tmp_path / "images" / f"{name}.png"
        )
        Image.fromarray((labels > 0).astype(np.uint8) * 7).save(tmp_path / "semantic" / f"{name}.png")
        Image.fromarray(labels).save(tmp_path / "labels" / f"{name}.png")
    (tmp_path / "classes.txt").write_text("7 box\n")
    return tmp_path


def label(data: Path, *more: str, out: str = "run") -> list[str]:
    call = ["label", str(data / "images"), "--semantic", str(data / "semantic"), "--out", str(data / out)]
    return [*call, *([] if "--method" in more or "--model" in more else ["--method", "components"]), *more]


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error of a wrong call."""
    assert cli.run(arguments) == 2
    output = capsys.readouterr()
    assert output.err.startswith("error: ")
    assert output.err.count("\n") == 1
    return output.err


def test_label_writes_a_run_and_says_where_to_look(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(label(data)) == 0
    said = capsys.readouterr().out
    for words in ("method components", "3 of 3 images done", "6 instances: 6 box", "6 by components", "gallery.html"):
        assert words in said
    run = data / "run"
    assert {"instances.json", "run.json", "errors.jsonl", "gallery.html", "model"} <= {p.name for p in run.iterdir()}
    coco = json.loads((run / "instances.json").read_text())
    assert coco["categories"][0]["id"] == 7
    assert {a["category_id"] for a in coco["annotations"]} == {7}
    assert len({a["id"] for a in coco["annotations"]}) == 6
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "done"
    assert record["counts"] == {
        "images": 3, "done": 3, "failed": 0, "skipped": 0, "instances": 6, "alternatives": 0, "per_class": {"7": 6},
    }  # fmt: skip
    assert {"config", "seed", "source", "semantic"} <= record["request"].keys()
    assert {"pixelkin", "torch", "timm", "numpy", "python"} <= record["versions"].keys()
    assert {"fit_s", "label_s"} <= record["timings"].keys()


def test_the_same_call_again_does_nothing_twice(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.run(label(data))
    before = (data / "run" / "instances.json").read_bytes()
    assert cli.run(label(data)) == 0
    assert "3 of 3 images done (3 before)" in capsys.readouterr().out
    assert (data / "run" / "instances.json").read_bytes() == before


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--set", "min_area=3"], "config.min_area 16, now 3"),
        (["--seed", "4"], "seed 0, now 4"),
        (["--limit", "2"], "limit None, now 2"),
        (["--method", "watershed"], "method components, now watershed"),
    ],
)
def test_another_call_into_the_same_run(
    data: Path, capsys: pytest.CaptureFixture[str], more: list[str], says: str
) -> None:
    cli.run(label(data))
    line = error_of(label(data, *more), capsys)
    assert says in line
    assert "give another --out, or delete it" in line


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--set", "min_aera=3"], "unknown setting 'min_aera': did you mean 'min_area'?"),
        (["--set", "min_area"], "write --set key=value"),
        (["--set", "min_area=tiny"], "min_area=tiny"),
        (["--method", "componets"], "did you mean 'components'"),
        (["--method", "xyz"], "this version has siseg"),
        (["--predict-tags"], "components predicts no tags: leave --predict-tags out"),
        (["--budget", "soon"], "budget 'soon'"),
        (["--backbone", "resnet18"], "has no backbone"),
        (["--limit", "0"], "--limit"),
        (["--device", "tpu"], "--device"),
        (["--colour", "red"], "--colour"),
        (["--model", "nowhere"], "no model here"),
        (["--classes", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_wrong_calls(data: Path, capsys: pytest.CaptureFixture[str], more: list[str], says: str) -> None:
    assert says in error_of(label(data, *more), capsys)
    assert not (data / "run" / "instances.json").exists()


def test_wrong_sources(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "empty").mkdir()
    for source in ("nowhere", "empty"):
        call = ["label", str(data / source), "--method", "components", "--out", str(data / "run")]
        assert source in error_of(call, capsys)
    images = str(data / "images")
    assert "--semantic DIR" in error_of(["label", images, "--method", "components", "--out", str(data / "run")], capsys)
    assert "--semantic DIR" in error_of(["label", images, "--out", str(data / "run")], capsys)
    (data / "file").write_text("")
    assert "another --out" in error_of(label(data, out="file"), capsys)
    error_of(["label", images], capsys)
    error_of(["label"], capsys)
    error_of(["lable"], capsys)
    error_of(["evaluate", str(data / "nowhere"), str(data / "labels")], capsys)
    error_of(["convert", str(data / "nowhere"), str(data / "out"), "--to", "coco"], capsys)
    error_of(["convert", str(data / "labels"), str(data / "out"), "--to", "gif"], capsys)


def test_some_failed_is_1_and_lists_ten(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(12):
        (data / "images" / f"bad{i:02d}.png").write_bytes(b"")
        (data / "semantic" / f"bad{i:02d}.png").write_bytes((data / "semantic" / "a.png").read_bytes())
    assert cli.run(label(data)) == 1
    output = capsys.readouterr()
    assert "3 of 15 images done, 12 failed" in output.out
    assert "bad09.png" in output.err
    assert "bad10.png" not in output.err
    assert "2 more; all of them:" in output.err
    assert "errors.jsonl" in output.err


def test_a_skipped_image_is_said_and_no_failure(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "semantic" / "c.png").unlink()
    assert cli.run(label(data)) == 0
    output = capsys.readouterr()
    assert "2 of 3 images done, 1 skipped" in output.out
    assert "no semantic labels for this image" in output.err


def test_fit_then_label_with_the_model(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs = [str(data / "images"), "--semantic", str(data / "semantic"), "--out", str(data / "model")]
    assert cli.run(["fit", *inputs, "--method", "watershed"]) == 0
    assert "fitted on 3 images" in capsys.readouterr().out
    assert cli.run(["fit", *inputs, "--method", "watershed"]) == 0
    assert "finished before" in capsys.readouterr().out
    assert cli.run(label(data, "--model", str(data / "model"))) == 0
    assert "method watershed: the model model is one" in capsys.readouterr().out
    line = error_of(label(data, "--model", str(data / "model"), "--method", "components", out="two"), capsys)
    assert "leave --method out" in line


def test_predicted_tags_label_images_without_any(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "tags.csv").write_text("a.png,box\nb.png,\n")
    small = {"classifier.crop": 64, "classifier.long_side": "64,64", "classifier.scales": 1, "pairs.crop": 64}
    small |= {"classifier.training.batch_size": 1, "pairs.training.batch_size": 1, "pairs.width": 32}
    small |= {"maps.crop": 64, "maps.long_side": "64,64", "maps.training.batch_size": 1, "rounds": 1}
    small |= {"tag_threshold": 1e-6}  # whatever a step taught: every class is in every image
    settings = [part for key, value in small.items() for part in ("--set", f"{key}={value}")]
    inputs = [str(data / "images"), "--tags", str(data / "tags.csv"), "--classes", str(data / "classes.txt")]
    model = ["--model", str(data / "model")]
    assert cli.run(["fit", *inputs, "--budget", "1it", "--device", "cpu", "--out", str(data / "model"), *settings]) == 0
    assert cli.run(["label", *inputs, *model, "--out", str(data / "said")]) == 0
    output = capsys.readouterr()
    assert "method irnet" in output.out
    assert "2 of 3 images done, 1 skipped" in output.out
    assert "no tags labels for this image" in output.err
    assert cli.run(["label", *inputs, *model, "--predict-tags", "--out", str(data / "seen")]) == 0
    assert "3 of 3 images done" in capsys.readouterr().out
    assert json.loads((data / "seen" / "run.json").read_text())["request"]["config"]["predict_tags"] is True
    no_tags = ["label", str(data / "images"), *model, "--predict-tags", "--out", str(data / "alone")]
    assert cli.run(no_tags) == 0
    assert "3 of 3 images done" in capsys.readouterr().out
    coco = json.loads((data / "alone" / "instances.json").read_text())
    assert [(c["id"], c["name"]) for c in coco["categories"]] == [(7, "box")]
    assert {a["source"] for a in coco["annotations"]} <= {"irnet:predicted tags"}
    (data / "classes.txt").write_text("7 crate\n")
    (data / "tags.csv").write_text("a.png,crate\n")
    line = error_of(["label", *inputs, *model, "--out", str(data / "other")], capsys)
    assert "class 7 is 'crate' here but 'box' in the model" in line


def test_fit_lists_what_it_could_not_read(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "images" / "b.png").write_bytes(b"")
    inputs = [str(data / "images"), "--semantic", str(data / "semantic"), "--out", str(data / "model")]
    assert cli.run(["fit", *inputs, "--method", "watershed"]) == 1
    assert "b.png" in capsys.readouterr().err
    for name in "ac":
        (data / "images" / f"{name}.png").write_bytes(b"")
    inputs[-1] = str(data / "other")
    assert "no image of" in error_of(["fit", *inputs, "--method", "watershed"], capsys)


def test_evaluate(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.run(label(data))
    capsys.readouterr()
    call = ["evaluate", str(data / "run"), str(data / "labels"), "--json", str(data / "scores.json")]
    assert cli.run(call) == 0
    said = capsys.readouterr().out
    assert "crowd_AR" in said
    assert "3 images" in said.splitlines()[-1]
    scores = json.loads((data / "scores.json").read_text())
    assert {"protocol", "AP", "AP50", "AP75", "AR", "crowd_AR", "per_class"} <= scores.keys()
    assert scores["protocol"] == "coco"
    assert scores["crowd_AR"] == pytest.approx(5)  # a touching square is just half of their component
    assert cli.run(["evaluate", str(data / "run"), str(data / "semantic"), "--protocol", "semantic"]) == 0
    assert "100.0" in capsys.readouterr().out
    assert cli.run([*call[:3], "--protocol", "voc"]) == 0


def test_convert(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.run(label(data))
    assert cli.run(["convert", str(data / "run"), str(data / "png"), "--to", "label-png"]) == 0
    assert "3 images, 6 masks" in capsys.readouterr().out
    assert len(list((data / "png").glob("*.png"))) == 3


def test_lists(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["methods"]) == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("siseg", "components", "watershed", "Apache-2.0"))
    assert cli.run(["backbones"]) == 0
    assert "efficientnet_lite0" in capsys.readouterr().out
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out == f"pixelkin {pixelkin.__version__}\n"
    assert cli.run([]) == 0
    assert "label" in capsys.readouterr().out


def test_our_own_fault_shows_its_traceback(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(pixelkin, "label", broken, raising=False)
    with pytest.raises(ZeroDivisionError):
        cli.run(label(data))


def test_debug_shows_the_traceback_of_a_wrong_call(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXELKIN_DEBUG", "1")
    with pytest.raises(ValueError, match="min_aera"):
        cli.run(label(data, "--set", "min_aera=3"))


def test_the_installed_program(data: Path) -> None:
    program = Path(sys.executable).with_name("pixelkin")
    if not program.exists():
        pytest.skip("pixelkin is not installed beside this Python")
    done = subprocess.run([program, "label", "nowhere", "--out", data / "run"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: nowhere")
    assert "Traceback" not in done.stderr


def test_it_is_a_module_too() -> None:
    done = subprocess.run([sys.executable, "-m", "pixelkin", "label", "nowhere"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
