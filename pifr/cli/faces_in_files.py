"""The images that a command is given, and the faces in them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pifr.errors import DataError, ImageError

if TYPE_CHECKING:
    from pifr.faces import FaceCrops, FaceFinder

IMAGE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}

EVERY = "every"
"""The policy for several faces under which an image may give several rows."""

POLICY_HELP = "With several faces: largest, central, reject, or every."


class FacesInFiles(NamedTuple):
    """`faces`; the file of each; and how many files have been read so far."""

    faces: "FaceCrops"
    files: list[Path]
    done: int


def image_files(sources: Sequence[Path]) -> list[Path]:
    """Files as they are given, and all images below folders, sorted.

    Raises:
        DataError: there is none.
    """
    files: list[Path] = []
    for source in sources:
        if source.is_dir():
            files += sorted(path for path in source.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        else:
            files.append(source)
    if not files:
        raise DataError(f"no images among {', '.join(map(str, sources))}: name files, or folders that hold some")
    return files


def make_finder(detector: str, policy: str, fallback: str | None = None) -> "FaceFinder":
    """The finder of a command whose policy may be `EVERY`."""
    from pifr.faces import FaceFinder

    return FaceFinder(detector, "largest" if policy == EVERY else policy, fallback)


def find_faces(finder: "FaceFinder", files: Sequence[Path], every: bool, batch_size: int) -> Iterator[FacesInFiles]:
    """The faces of image files, at most `batch_size` at a time.

    Args:
        finder: detects them.
        files: images.
        every: all faces of an image instead of one; where there is none, the row that one would have.
        batch_size: faces at a time.
    """
    from pifr.faces import FaceCrops

    if not every:
        for start in range(0, len(files), batch_size):
            batch = list(files[start : start + batch_size])
            yield FacesInFiles(finder(batch), batch, start + len(batch))
        return
    faces, owners = FaceCrops.failed(()), []
    for done, file in enumerate(files, 1):
        found = _every_face(finder, file)
        faces, owners = FaceCrops.concatenate([faces, found]), [*owners, *[file] * len(found)]
        while len(faces) >= batch_size or (done == len(files) and len(faces)):
            yield FacesInFiles(faces[:batch_size], owners[:batch_size], done)
            faces, owners = faces[batch_size:], owners[batch_size:]


def _every_face(finder: "FaceFinder", file: Path) -> "FaceCrops":
    try:
        found = finder.every_face(file)
    except ImageError:
        found = None
    return found if found else finder([file])
