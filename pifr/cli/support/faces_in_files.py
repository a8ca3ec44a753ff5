"""The images that a command is given, and the faces in them."""

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pifr.errors import ConfigError, DataError, ImageError

if TYPE_CHECKING:
    from pifr.faces import FaceCrops, FaceFinder

log = logging.getLogger(__name__)

EVERY = "every"
"""The policy for several faces under which an image may give several rows."""

DETECTOR_HELP = (
    "yunet, yunet-close, mtcnn, aligned (as ArcFace) or file:CSV (path,x1,y1,...,x5,y5: the eye on the image's left, "
    "the other, nose, the corner of the mouth on the image's left, the other)."
)

POLICY_HELP = "With several faces: largest, central, reject, or every."


class FacesInFiles(NamedTuple):
    """`faces`; the file of each; and how many files have been read so far."""

    faces: "FaceCrops"
    files: list[Path]
    done: int


def image_files(sources: Sequence[Path], out: Path) -> dict[Path, str]:
    """Files as they are given, and all images below folders, sorted, but for those below the output folder.

    Returns:
        Each with its name: the path relative to the folder that was given, without its suffix.

    Raises:
        DataError: there is none, or one that was named does not exist.
    """
    from pifr.images import IMAGE_SUFFIXES, UNREAD_SUFFIXES

    files: dict[Path, str] = {}
    left_out = 0
    for source in sources:
        if source.is_dir():
            there = list(_files_below(source))
            found = sorted(path for path in there if path.suffix.lower() in IMAGE_SUFFIXES)
            if unread := [path for path in there if path.suffix.lower() in UNREAD_SUFFIXES]:
                kinds = ", ".join(sorted({path.suffix.lower() for path in unread}))
                log.warning("'%s': %d files of kinds that are not read (%s): convert them", source, len(unread), kinds)
            kept = [path for path in found if out.resolve() not in path.resolve().parents]
            left_out += len(found) - len(kept)
            files |= {path: path.relative_to(source).with_suffix("").as_posix() for path in kept}
        elif source.exists():
            files[source] = source.stem
        else:
            raise DataError(f"'{source}' does not exist")
    if not files and left_out:
        raise DataError(f"all images lie below --out '{out}', where results go: choose another folder")
    if not files:
        raise DataError(f"no images among {', '.join(map(str, sources))}: name files, or folders that hold some")
    return files


def _files_below(folder: Path) -> Iterator[Path]:
    """All files, through links to other folders, too; each folder once. One that may not be read is named."""

    def unreadable(error: OSError) -> None:
        log.warning("'%s' cannot be searched: %s", error.filename, error.strerror)

    seen: set[str] = set()
    for place, folders, names in os.walk(folder, onerror=unreadable, followlinks=True):
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        # macOS puts files like "._a.jpg", which are no images, beside those on foreign disks.
        yield from (Path(place, name) for name in names if not name.startswith("._"))


def make_finder(detector: str, policy: str, fallback: str | None = None) -> "FaceFinder":
    """The finder of a command whose policy may be `EVERY`."""
    from pifr.faces import POLICIES, FaceFinder

    if policy not in (*POLICIES, EVERY):
        raise ConfigError(f"policy {policy!r} for several faces: use one of {', '.join((*POLICIES, EVERY))}")
    return FaceFinder(detector, "largest" if policy == EVERY else policy, fallback)


def readable(path: Path | str) -> str:
    """A name for tables: those of files need not be UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def find_faces(finder: "FaceFinder", files: Sequence[Path], every: bool, batch_size: int) -> Iterator[FacesInFiles]:
    """The faces of image files, at most `batch_size` at a time.

    Args:
        finder: detects them.
        files: images.
        every: all faces of an image instead of one; where there is none, the row that one would have.
        batch_size: faces at a time.
    """
    from pifr.faces import FaceCrops

    waiting: list[FaceCrops] = []
    owners: list[Path] = []
    for done, file in enumerate(files, 1):
        found = _every_face(finder, file) if every else finder([file])
        waiting.append(found)
        owners += [file] * len(found)
        if len(owners) < batch_size and done < len(files):
            continue
        faces, last = FaceCrops.concatenate(waiting), done == len(files)
        whole = len(owners) if last else len(owners) // batch_size * batch_size
        for start in range(0, whole, batch_size):
            rows = slice(start, min(start + batch_size, whole))
            yield FacesInFiles(faces[rows], owners[rows], done)
        waiting, owners = [faces[whole:]], owners[whole:]


def _every_face(finder: "FaceFinder", file: Path) -> "FaceCrops":
    from pifr.faces import FaceCrops

    try:
        found = finder.every_face(file)
    except ImageError as error:
        log.warning("%s", error)
        return FaceCrops.failed(["unreadable"])
    if len(found):
        return found
    return finder([file]) if finder.fallback else FaceCrops.failed([finder.detector.missing])
