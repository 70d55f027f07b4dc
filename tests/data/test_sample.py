from __future__ import annotations

import pickle
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pixelkin.data import ImageError, Instances, Point, Sample
from pixelkin.data import sample as sample_module
from pixelkin.data.sample import image_size, read_image, read_label_image


def ramp(h=4, w=6) -> np.ndarray:
    """An RGB picture in which every pixel and every corner differs."""
    y, x = np.mgrid[:h, :w]
    return np.stack([10 * y + 20, 10 * x + 50, np.full_like(x, 90)], axis=-1).astype(np.uint8)


TURNS = {  # EXIF orientation: what to do with the stored pixels to see them upright
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("suffix", "options"), [("png", {}), ("tif", {}), ("webp", {"lossless": True})])
def test_exif_orientation_is_applied(tmp_path, orientation, suffix, options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    Image.fromarray(ramp()).save(path, exif=exif, **options)
    upright = TURNS[orientation](ramp())
    assert np.array_equal(read_image(path), upright)
    assert image_size(path) == upright.shape[:2]
    assert Sample("turned", path).size == upright.shape[:2]
    assert Sample("turned", path).image.shape == upright.shape


def test_exif_orientation_of_jpeg_keeps_its_size(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(ramp(16, 40)).save(tmp_path / "a.jpg", exif=exif)
    assert image_size(tmp_path / "a.jpg") == read_image(tmp_path / "a.jpg").shape[:2] == (40, 16)


def test_orientation_behind_the_pixels_of_a_png_counts(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "late.png"
    Image.fromarray(ramp()).save(path)
    chunk = exif.tobytes()[6:]
    late = struct.pack(">I", len(chunk)) + b"eXIf" + chunk + struct.pack(">I", zlib.crc32(b"eXIf" + chunk))
    data = path.read_bytes()
    path.write_bytes(data[:-12] + late + data[-12:])
    assert image_size(path) == read_image(path).shape[:2] == (6, 4)


def test_the_size_of_a_png_is_read_without_its_pixels(tmp_path):
    path = tmp_path / "cut.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:200])
    assert image_size(path) == (50, 70)
    with pytest.raises(ImageError, match=r"cut\.png"):
        read_image(path)


GREY = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", "png"), ("1", "png"), ("P", "png"), ("LA", "png"), ("RGBA", "png"), ("CMYK", "tif"), ("YCbCr", "jpg")],
)
def test_every_mode_becomes_rgb(tmp_path, mode, suffix):
    image = Image.fromarray(ramp()).convert(mode)
    path = tmp_path / f"image.{suffix}"
    image.save(path)
    seen = read_image(path)
    assert seen.shape == (4, 6, 3)
    assert seen.dtype == np.uint8
    wanted = np.asarray(image.convert("RGB"))
    assert np.abs(seen.astype(int) - wanted).max() <= (12 if suffix == "jpg" else 0)


def test_cmyk_jpeg_keeps_its_colours(tmp_path):
    red = Image.new("RGB", (16, 16), (200, 30, 30)).convert("CMYK")
    red.save(tmp_path / "red.jpg", quality=95)
    seen = read_image(tmp_path / "red.jpg").astype(int)
    assert np.abs(seen - [200, 30, 30]).max() < 12


def test_transparent_pixels_keep_their_colour(tmp_path):
    image = np.dstack([ramp(), np.zeros((4, 6), np.uint8)])
    Image.fromarray(image, "RGBA").save(tmp_path / "clear.png")
    assert np.array_equal(read_image(tmp_path / "clear.png"), ramp())


def test_a_palette_image_shows_its_colours(tmp_path):
    image = Image.fromarray(np.array([[0, 1], [2, 1]], dtype=np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / "p.png", transparency=0)
    assert read_image(tmp_path / "p.png").tolist() == [
        [[255, 0, 0], [0, 255, 0]],
        [[0, 0, 255], [0, 255, 0]],
    ]


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32, ">u2"])
def test_deep_grey_images_are_stretched(tmp_path, dtype):
    values = np.array([[1000, 1000], [2000, 3000]]).astype(dtype)
    path = tmp_path / "deep.tif"
    Image.fromarray(values).save(path)
    seen = read_image(path)
    assert seen[..., 0].tolist() == [[0, 0], [128, 255]]
    assert (seen == seen[..., :1]).all()


def test_a_flat_deep_image_is_black_and_what_is_not_finite_does_no_harm(tmp_path):
    Image.fromarray(np.full((3, 5), 40000, dtype=np.uint16)).save(tmp_path / "flat.png")
    assert not read_image(tmp_path / "flat.png").any()
    values = np.array([[np.nan, 1.0], [3.0, np.inf]], dtype=np.float32)
    Image.fromarray(values).save(tmp_path / "nan.tif")
    assert read_image(tmp_path / "nan.tif")[..., 0].tolist() == [[0, 0], [255, 255]]
    Image.fromarray(values * np.nan).save(tmp_path / "nan.tif")
    assert not read_image(tmp_path / "nan.tif").any()


def png_header(width: int, height: int) -> bytes:
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head)) + b"\0" * 40


@pytest.mark.parametrize(("width", "height"), [(10_001, 10_000), (50_000, 50_000), (2**31 - 1, 2**31 - 1)])
def test_huge_headers_are_refused_before_decoding(tmp_path, width, height):
    path = tmp_path / "huge.png"
    path.write_bytes(png_header(width, height))
    for read in (read_image, image_size, read_label_image):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with pytest.raises(ImageError, match=r"huge\.png"):
                read(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "gif", "webp", "bmp"])
def test_truncated_files_say_so(tmp_path, suffix):
    path = tmp_path / f"cut.{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match=rf"cut\.{suffix}"):
        read_image(path)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
def test_what_is_no_image_is_an_image_error(tmp_path, content):
    path = tmp_path / "odd.png"
    path.write_bytes(content)
    for read in (read_image, image_size, read_label_image):
        with pytest.raises(ImageError, match=r"odd\.png") as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(ImageError, match="no such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(ImageError, match="not an image"):
        read_image(tmp_path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_bytes_give_an_image_or_an_image_error(tmp_path, data):
    suffix = data.draw(st.sampled_from(["png", "jpg", "tif", "gif", "webp", "bmp"]))
    path = tmp_path / f"x.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(ramp(12, 16))
    image.save(path, **({"exif": exif} if suffix in ("png", "jpg", "tif", "webp") else {}))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    for read in (read_image, image_size, read_label_image):
        try:
            read(path)
        except ImageError as error:
            assert str(path) in str(error)  # noqa: PT017


def test_label_images_keep_their_values(tmp_path):
    deep = np.array([[0, 300], [65535, 7]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert np.array_equal(read_label_image(tmp_path / "deep.png"), deep)
    Image.fromarray(deep.astype(">u2")).save(tmp_path / "big.tif")
    big = read_label_image(tmp_path / "big.tif")
    assert np.array_equal(big, deep)
    assert big.dtype.isnative
    index = Image.fromarray(np.array([[0, 1], [15, 255]], dtype=np.uint8), "P")
    index.putpalette(list(range(255)) * 3)
    index.save(tmp_path / "voc.png")
    assert read_label_image(tmp_path / "voc.png").tolist() == [[0, 1], [15, 255]]
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "bits.png")
    bits = read_label_image(tmp_path / "bits.png")
    assert bits.tolist() == [[1, 0]]
    assert bits.dtype == np.uint8
    Image.fromarray(ramp()).save(tmp_path / "rgb.png")
    with pytest.raises(ImageError, match="one channel"):
        read_label_image(tmp_path / "rgb.png")


def test_nothing_is_loaded_until_asked(tmp_path):
    calls = []

    def load(name, value):
        return lambda: calls.append(name) or value

    sample = Sample(
        "a",
        load("image", ramp()),
        size=(4, 6),
        semantic=load("semantic", np.zeros((4, 6), int)),
        instances=load("instances", Instances.empty((4, 6))),
        depth=load("depth", np.zeros((4, 6), np.float32)),
    )
    assert sample.has("semantic")
    assert sample.has("instances")
    assert sample.has("image")
    assert not sample.has("tags")
    assert not sample.has("ignore")
    assert "semantic" in repr(sample)
    assert "tags" not in repr(sample)
    assert calls == []
    assert sample.semantic is not None
    assert sample.depth is not None
    assert calls == ["semantic", "depth"]
    missing = Sample("b", tmp_path / "none.png", semantic=tmp_path.iterdir)
    assert missing.has("semantic")
    with pytest.raises(ImageError):
        _ = missing.image


def test_no_tags_is_not_nobody_said():
    assert Sample("a", ramp(), tags=()).has("tags")
    assert not Sample("a", ramp()).has("tags")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("semantic", np.zeros((4, 5), int)),
        ("probabilities", np.zeros((3, 6, 4), np.float32)),
        ("ignore", np.zeros((1, 1), bool)),
        ("depth", np.zeros((5, 6), np.float32)),
        ("instances", Instances.empty((6, 4))),
    ],
)
def test_labels_of_another_size_are_refused(field, value):
    sample = Sample("frog", ramp(), **{field: value})
    with pytest.raises(ImageError, match="frog"):
        getattr(sample, field)


def test_an_image_of_another_size_than_its_labels_is_refused(tmp_path):
    Image.fromarray(ramp()).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match="frog"):
        _ = Sample("frog", tmp_path / "a.png", size=(6, 4)).image
    assert Sample("frog", tmp_path / "a.png", size=(4, 6)).image.shape == (4, 6, 3)


@pytest.mark.parametrize("bad", [np.zeros((4, 6), np.uint8), np.zeros((4, 6, 3)), np.zeros((4, 6, 4), np.uint8)])
def test_an_array_that_is_no_rgb_image_is_refused(bad):
    with pytest.raises(ImageError, match="uint8"):
        _ = Sample("a", bad).image


def test_replace_changes_only_what_is_named(tmp_path):
    Image.fromarray(ramp()).save(tmp_path / "a.png")
    first = Sample("a", tmp_path / "a.png", tags=(1,), semantic=np.zeros((4, 6), int), clip="c", frame=3)
    other = first.replace(tags=None, points=(Point(1, 2, 3),), name="b")
    assert (other.name, other.tags, other.points) == ("b", None, (Point(1, 2, 3),))
    assert (first.name, first.tags, first.points) == ("a", (1,), None)
    assert other.path == first.path
    assert other.has("semantic")
    assert (other.clip, other.frame) == ("c", 3)
    assert not first.replace(semantic=None).has("semantic")


def test_replacing_the_image_forgets_its_size():
    first = Sample("a", ramp(), size=(4, 6))
    assert first.replace(image=ramp(8, 9)).size == (8, 9)
    assert first.replace(image=ramp(8, 9)).image.shape == (8, 9, 3)
    assert first.replace(size=(8, 9), image=lambda: ramp(8, 9)).size == (8, 9)
    assert first.size == (4, 6)


@pytest.mark.parametrize("name", ["semantics", "path", "_image", "has"])
def test_replace_refuses_what_is_no_field(name):
    with pytest.raises(TypeError, match="no field"):
        Sample("a", ramp()).replace(**{name: None})


def test_samples_travel_between_processes(tmp_path):
    Image.fromarray(ramp()).save(tmp_path / "a.png")
    sample = pickle.loads(pickle.dumps(Sample("a", tmp_path / "a.png", tags=(2,))))
    assert np.array_equal(sample.image, ramp())
    assert sample.tags == (2,)


def test_the_limit_is_what_users_are_told():
    assert sample_module.MAX_PIXELS == 100_000_000
