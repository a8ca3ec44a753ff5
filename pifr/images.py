"""Images come in here, and only here: every other part gets uint8 RGB arrays."""

import io
import struct
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import count
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from pifr.errors import ImageError

IMAGE_SUFFIXES = {".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
"""Of the files that are taken for images where a folder is searched."""

UNREAD_SUFFIXES = {".heic", ".heif", ".jp2", ".jxl", ".pgm", ".ppm", ".raw", ".cr2", ".nef", ".dng"}
"""Of photos that are not read: named where they are left out."""

MAX_PIXELS = 2**26
"""Larger images are refused: at 67 megapixels the decoded array alone takes 200 MB."""

_SIXTEEN_BIT_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")

_TURNS = dict(
    enumerate(
        (
            Image.Transpose.FLIP_LEFT_RIGHT,
            Image.Transpose.ROTATE_180,
            Image.Transpose.FLIP_TOP_BOTTOM,
            Image.Transpose.TRANSPOSE,
            Image.Transpose.ROTATE_270,
            Image.Transpose.TRANSVERSE,
            Image.Transpose.ROTATE_90,
        ),
        start=2,
    )
)
"""By EXIF orientation; 1 is upright."""

_DAMAGED = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, RuntimeError, AssertionError),
    *(TypeError, AttributeError, struct.error),
)
"""What Pillow's decoders raise for damaged files, depending on the format, once the pixels are needed."""

_CHANNELS = ((), (1,), (3,), (4,))
"""Of arrays, what their shape ends with after height and width: grey, grey, RGB, RGBA."""


Photo = str | Path | bytes | np.ndarray | Image.Image | Tensor
"""A file name, the content of a file, a Pillow image, or a uint8 array: H x W x 3 RGB, H x W x 4 RGBA, H x W or
H x W x 1 grey; a uint8 tensor is 3 x H x W RGB, as torchvision reads it."""


def each_photo(images: Iterable[Photo]) -> Iterator[Photo]:
    """Several photos, one after the other as they are asked for, each known to be of a kind that can be read.

    Raises:
        TypeError: it is one photo.
        TypeError, ValueError: as `read_image`, when it comes to what is no photo; says which it is, counted from 0.
    """
    require_several(images)
    return map(_checked, count(), images)


def require_several(images: object) -> None:
    """Raises TypeError if these are one photo, or the name of a file."""
    pixels = isinstance(images, Tensor) or (isinstance(images, np.ndarray) and images.dtype.kind not in "USO")
    if isinstance(images, str | Path | bytes | Image.Image) or (pixels and images.ndim < 4):
        raise TypeError(f"one photo ({type(images).__name__}) where several are expected: put it into a list")


def _checked(position: int, image: Photo) -> Photo:
    try:
        check_photo(image)
    except (TypeError, ValueError) as error:
        raise type(error)(f"image {position}: {error}") from error
    return image


def check_photo(source: Photo) -> None:
    """Refuses what cannot be a photo, without reading it.

    Raises:
        TypeError: it is neither of what `Photo` lists.
        ValueError: an array of another shape or type; says how to convert it.
    """
    if not isinstance(source, Photo):
        kind = type(source).__name__
        raise TypeError(f"a {kind} is no photo: give a file name, bytes, a uint8 RGB array or a Pillow image")
    if isinstance(source, Tensor):
        if source.dtype != torch.uint8 or source.ndim != 3 or len(source) != 3 or not source.numel():
            shape = " x ".join(map(str, source.shape))
            raise ValueError(f"an image as a tensor is uint8 3 x H x W RGB, not {source.dtype} {shape}")
        return
    if not isinstance(source, np.ndarray):
        return
    if source.ndim < 2 or source.shape[2:] not in _CHANNELS or not source.size:
        shape = " x ".join(map(str, source.shape))
        raise ValueError(f"an image is H x W x 3, not {shape}: RGB, channels last; H x W is grey, H x W x 4 RGBA")
    if source.dtype != np.uint8:
        raise ValueError(f"an image is uint8 in 0..255, not {source.dtype}: scale and round it, then .astype(np.uint8)")


def read_image(source: Photo) -> np.ndarray:
    """An image in RGB as a person would see it: upright, opaque, eight bits a channel.

    The EXIF orientation is applied; palettes, grey, CMYK and 16 bits a channel are converted (16 bits by dropping the
    low byte, unless none uses more); transparent pixels are laid on black, but for those of 16-bit grey images. RGB
    arrays are taken as they are.

    Args:
        source: see `Photo`.

    Returns:
        uint8, H x W x 3, RGB.

    Raises:
        ImageError: the source does not exist, cannot be read, is empty, damaged, too large, or no image at all. The
            message names the file and a remedy.
        TypeError, ValueError: as `check_photo`.
    """
    check_photo(source)
    if isinstance(source, Tensor):
        return source.detach().permute(1, 2, 0).cpu().numpy()
    if isinstance(source, np.ndarray):
        return _from_array(source)
    name = f"'{source}'" if isinstance(source, str | Path) else "the image"
    try:
        with _opened(source, name) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ImageError(
                    f"{name} has {width} x {height} pixels, more than the {MAX_PIXELS:,} that are read: scale it down"
                )
            return np.array(_to_rgb(_upright(image), name))
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} is larger than the {MAX_PIXELS:,} pixels that are read: scale it down") from error
    except UnidentifiedImageError as error:
        convert = Path(str(source)).suffix.lower() in UNREAD_SUFFIXES if isinstance(source, str | Path) else False
        remedy = "convert it to JPEG or PNG" if convert else "whatever its name says"
        raise ImageError(f"{name} is not an image in a known format: {remedy}") from error
    except _DAMAGED as error:
        if isinstance(source, Image.Image):
            raise ImageError(f"{name} cannot be read ({error or 'it is closed'}): give one that is open") from error
        raise ImageError(f"{name} is damaged ({error}): copy it again from its source") from error


def _upright(image: Image.Image) -> Image.Image:
    """The image as its EXIF orientation says. Pillow's own function writes the EXIF anew, and fails where it is odd."""
    image.load()  # some formats know their EXIF only then
    turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    return image if turn is None else image.transpose(turn)


def _opened(source: str | Path | bytes | Image.Image, name: str) -> AbstractContextManager[Image.Image]:
    if isinstance(source, Image.Image):
        return nullcontext(source)  # the caller's: to be closed by the caller
    data = source if isinstance(source, bytes) else _read_bytes(Path(source), name)
    if not data:
        raise ImageError(f"{name} is empty (0 bytes): copy it again from its source")
    return Image.open(io.BytesIO(data))


def _from_array(image: np.ndarray) -> np.ndarray:
    if image.shape[2:] == (3,):
        return image
    return np.array(_to_rgb(Image.fromarray(image[..., 0] if image.shape[2:] == (1,) else image), "the image"))


def _read_bytes(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError(f"{name} does not exist") from error
    except PermissionError as error:
        raise ImageError(f"{name} may not be read: check the permissions of the file and its folders") from error
    except IsADirectoryError as error:
        raise ImageError(f"{name} is a folder, not an image") from error
    except OSError as error:
        raise ImageError(f"{name} cannot be read: {error.strerror or error}") from error


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode in _SIXTEEN_BIT_MODES:
        values = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        # Eight, ten or twelve bits may be stored as sixteen, or more.
        bits = next(bits for bits in (8, 10, 12, 16) if values.max() < 1 << bits)
        eight = values >> (bits - 8)
        return Image.fromarray(eight.astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ImageError(f"{name} holds floating-point values of no known range: save it with eight bits a channel")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image).convert("RGB")
    return image.convert("RGB")


def to_uint8(images: Tensor) -> np.ndarray:
    """B x 3 x H x W in [0, 1] to uint8 B x H x W x 3.

    Raises:
        ValueError: the images have another shape; one is images[:1], not images[0].
    """
    if images.ndim != 4:
        raise ValueError(f"images are {tuple(images.shape)}, not B x 3 x H x W: one of them is images[:1]")
    return (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
