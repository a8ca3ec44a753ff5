"""Whatever a user calls an image is read upright, eight bits, RGB, or refused with the reason and the remedy."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, features

from pifr.errors import ImageError
from pifr.images import each_photo, read_image


def gradient(height: int = 20, width: int = 30) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 8, y * 12, np.full_like(x, 77)], -1).astype(np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_pixels_come_back_exactly_from_a_file_and_from_its_content(tmp_path: Path) -> None:
    content = encoded(Image.fromarray(gradient()))
    (tmp_path / "a.png").write_bytes(content)
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), content):
        image = read_image(source)
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous
        np.testing.assert_array_equal(image, gradient())


def test_an_array_is_taken_as_it_is() -> None:
    assert read_image(gradient()[::-1]).tolist() == gradient()[::-1].tolist()


@pytest.mark.parametrize(
    "image, words",
    [
        (gradient().astype(np.float32) / 255, "uint8 in 0..255, not float32"),
        (gradient()[..., 0].astype(np.uint16), "uint8 in 0..255, not uint16"),
        (gradient()[0, 0], "H x W x 3, not 3"),
        (gradient().transpose(2, 0, 1), "channels last"),
        (gradient()[..., :2], "not 20 x 30 x 2"),
        (gradient()[None], "not 1 x 20 x 30 x 3"),
        (gradient()[:0], "not 0 x 30 x 3"),
    ],
)
def test_an_array_of_another_kind_says_how_to_convert_it(image: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_image(image)


def test_arrays_of_grey_and_with_transparency_are_read_as_files_of_them_would_be() -> None:
    grey, clear = gradient()[..., 0], np.dstack([gradient(), gradient()[..., 1]])[::-1]
    for array in (grey, clear):
        np.testing.assert_array_equal(read_image(array), read_image(encoded(Image.fromarray(array))))
    np.testing.assert_array_equal(read_image(grey[..., None]), read_image(grey))


def test_what_is_no_photo_is_named() -> None:
    with pytest.raises(TypeError, match="a NoneType is no photo"):
        read_image(None)


@pytest.mark.parametrize(
    "wrong, kind, words",
    [
        (None, TypeError, "image 2: a NoneType is no photo"),
        (gradient().tolist(), TypeError, "image 2: a list is no photo"),
        (gradient() / 255, ValueError, "image 2: an image is uint8 in 0..255, not float64"),
    ],
)
def test_among_several_what_is_no_photo_is_numbered(wrong: object, kind: type[Exception], words: str) -> None:
    photos = each_photo([gradient(), "a.png", wrong, b""])
    assert [next(photos), next(photos)][1] == "a.png"
    with pytest.raises(kind, match=words):
        next(photos)


def test_an_array_of_file_names_is_several_photos() -> None:
    assert list(each_photo(np.array(["a.png", "b.png"]))) == ["a.png", "b.png"]
    assert len(list(each_photo(np.array([Path("a.png"), gradient()], dtype=object)))) == 2


def test_a_pillow_image_that_is_closed_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(gradient())))
    for load in (False, True):
        with Image.open(tmp_path / "a.png") as image:
            if load:
                image.load()
        image.close()
        with pytest.raises(ImageError, match=r"the image cannot be read .*closed.*: give one that is open"):
            read_image(image)


def test_a_pillow_image_is_read_as_its_file_would_be() -> None:
    for mode in ("RGB", "L", "P", "RGBA", "CMYK"):
        image = Image.fromarray(gradient()).convert(mode)
        image.getexif()[0x0112] = 6
        kind = "TIFF" if mode == "CMYK" else "PNG"
        np.testing.assert_array_equal(read_image(image), read_image(encoded(image, kind, exif=image.getexif())))


def test_exif_rotation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the picture must be turned clockwise by 90 degrees
    image = read_image(encoded(Image.fromarray(gradient()), exif=exif))
    np.testing.assert_array_equal(image, np.rot90(gradient(), -1))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_pillows(orientation: int) -> None:
    image = Image.fromarray(gradient())
    image.getexif()[0x0112] = orientation
    np.testing.assert_array_equal(read_image(image), np.array(ImageOps.exif_transpose(image)))


def test_odd_exif_beside_the_orientation_does_no_harm() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x0128] = 2  # the resolution's unit, a short, of which other programs make text
    content = encoded(Image.fromarray(gradient(16, 24)), "JPEG", exif=exif, quality=100, subsampling=0)
    short, text = struct.pack(">HHIHH", 0x0128, 3, 1, 2, 0), struct.pack(">HHI4s", 0x0128, 2, 2, b"2")
    assert content.count(short) == 1
    turned = read_image(content.replace(short, text))
    np.testing.assert_array_equal(turned, read_image(content))
    assert turned.shape == (24, 16, 3)


def test_eight_bits_that_are_stored_as_more_stay_as_bright() -> None:
    values = gradient()[..., 0]
    for kind, array in (("PNG", values.astype(np.uint16)), ("TIFF", values.astype(np.int32))):
        image = read_image(encoded(Image.fromarray(array), kind))
        np.testing.assert_array_equal(image, np.repeat(values[..., None], 3, -1))


@pytest.mark.parametrize("bits", [10, 12])
def test_ten_or_twelve_bits_are_as_bright_as_eight(bits: int) -> None:
    values = np.linspace(0, 2**bits - 1, 600).astype(np.uint16).reshape(20, 30)
    assert read_image(encoded(Image.fromarray(values), "PNG")).max() == 255


def test_a_kind_of_photo_that_is_not_read_is_to_be_converted(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(ImageError, match="convert it to JPEG or PNG"):
        read_image(tmp_path / "a.heic")


def test_sixteen_bits_keep_their_high_byte() -> None:
    values = (np.arange(600, dtype=np.uint16) * 100).reshape(20, 30)
    image = read_image(encoded(Image.fromarray(values)))
    np.testing.assert_array_equal(image, np.repeat((values // 256).astype(np.uint8)[..., None], 3, -1))


def test_cmyk_becomes_rgb() -> None:
    image = read_image(encoded(Image.new("CMYK", (5, 4), (0, 255, 255, 0)), "TIFF"))
    assert image.shape == (4, 5, 3)
    np.testing.assert_array_equal(image, np.broadcast_to([255, 0, 0], (4, 5, 3)))


def test_palette_becomes_rgb() -> None:
    colours = gradient(4, 4)
    image = Image.fromarray(colours).quantize(16)
    np.testing.assert_array_equal(read_image(encoded(image)), np.asarray(image.convert("RGB")))


def test_grey_becomes_three_equal_channels() -> None:
    image = read_image(encoded(Image.new("L", (3, 2), 9)))
    np.testing.assert_array_equal(image, np.full((2, 3, 3), 9))


def test_transparency_is_laid_on_black() -> None:
    image = read_image(encoded(Image.new("RGBA", (3, 2), (200, 100, 50, 0))))
    assert not image.any()


def test_one_pixel_is_an_image() -> None:
    assert read_image(encoded(Image.new("RGB", (1, 1), (1, 2, 3)))).tolist() == [[[1, 2, 3]]]


def test_a_non_ascii_path_is_read(tmp_path: Path) -> None:
    path = tmp_path / "Zoë 張 ß.png"
    path.write_bytes(encoded(Image.fromarray(gradient())))
    np.testing.assert_array_equal(read_image(path), gradient())


def header_only_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [9_000, 20_000])
def test_a_huge_image_is_refused_before_it_is_decoded(side: int) -> None:
    with pytest.raises(ImageError, match="scale it down"):
        read_image(header_only_png(side, side))


BAD = {
    "empty": (b"", "0 bytes"),
    "text": (b"this is not a picture\n" * 50, "not an image"),
    "truncated": (encoded(Image.fromarray(gradient(200, 200)), "JPEG")[:-700], "damaged"),
    "no pixels": (header_only_png(10, 10), "damaged"),
    # Flags that say "uncompressed" become such that say "compressed", by nothing.
    "no coding": (encoded(Image.fromarray(gradient()), "DDS").replace(b"@\0\0\0", b"\4\0\0\0"), "damaged"),
}
if features.check("avif"):
    # Zeros in place of the compressed pixels.
    head, mark, rest = encoded(Image.fromarray(gradient()), "AVIF").partition(b"mdat")
    BAD["AVIF"] = (head + mark + bytes(len(rest)), "damaged")


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_named_with_what_is_wrong(case: str, tmp_path: Path) -> None:
    content, words = BAD[case]
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=words) as caught:
        read_image(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="does not exist"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match="folder"):
        read_image(tmp_path)


def test_a_forbidden_file_says_that_permission_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:  # the superuser, who may run the tests, is refused nothing
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ImageError, match="permissions"):
        read_image(tmp_path / "photo.jpg")


def test_floating_point_values_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "depth.tiff"
    Image.fromarray(np.zeros((4, 4), np.float32)).save(path)
    with pytest.raises(ImageError, match=r"depth\.tiff.*floating-point"):
        read_image(path)


def test_a_tensor_is_a_photo_as_torchvision_reads_it() -> None:
    array = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    np.testing.assert_array_equal(read_image(tensor), array)
    assert len(list(each_photo(torch.stack([tensor, tensor])))) == 2
    with pytest.raises(TypeError, match="put it into a list"):
        each_photo(tensor)
    for wrong in (tensor.float(), tensor.permute(1, 2, 0), tensor[:1]):
        with pytest.raises(ValueError, match="image 0: an image as a tensor is uint8 3 x H x W RGB"):
            list(each_photo([wrong]))
