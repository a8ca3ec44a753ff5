"""Image files and the faces in them, as commands go through them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pifr.cli.support.face_folder import FreeNames
from pifr.cli.support.faces_in_files import find_faces, image_files
from pifr.detectors import Detections
from pifr.errors import DataError
from pifr.faces import FaceFinder


class _OneAPixel:
    """A detector that finds as many faces as the first pixel says."""

    fingerprint, missing, by_name = "one a pixel", "no_face", False

    def __call__(self, image: np.ndarray, name: str | Path = "", every: bool = False) -> Detections:
        count = int(image[0, 0, 0])
        sides = 20.0 + np.arange(count)[:, None]
        boxes = np.concatenate([np.zeros((count, 2)), np.repeat(sides, 2, 1)], 1)
        return Detections(boxes, np.full((count, 5, 2), np.nan), np.ones(count))


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Images of 2, 0 and 3 faces, and one that is none."""
    paths = [tmp_path / f"{name}.png" for name in "abcd"]
    for path, faces in zip(paths, (2, 0, 3, None), strict=True):
        if faces is None:
            path.write_bytes(b"text")
        else:
            Image.fromarray(np.full((50, 50, 3), faces, np.uint8)).save(path)
    return paths


@pytest.mark.parametrize("batch_size", [1, 2, 4, 100])
@pytest.mark.parametrize("every", [False, True])
def test_no_face_and_no_file_is_lost_in_batches(files: list[Path], every: bool, batch_size: int) -> None:
    batches = list(find_faces(FaceFinder(_OneAPixel()), files, every, batch_size))
    rows = [
        (path.stem, reason) for batch in batches for path, reason in zip(batch.files, batch.faces.reason, strict=True)
    ]
    once = [("a", ""), ("b", "no_face"), ("c", ""), ("d", "unreadable")]
    assert rows == (sorted([*once, ("a", ""), ("c", ""), ("c", "")]) if every else once)
    assert all(len(batch.faces) <= batch_size for batch in batches)
    assert batches[-1].done == len(files)


def test_without_images_the_command_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="name files, or folders"):
        image_files([tmp_path], tmp_path / "out")
    with pytest.raises(DataError, match=r"missing\.png' does not exist"):
        image_files([tmp_path / "missing.png"], tmp_path / "out")


def test_files_below_a_folder_keep_their_place_and_results_are_no_images(files: list[Path], tmp_path: Path) -> None:
    for name in ("x/y/e.png", "out/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(files[0].read_bytes())
    assert list(image_files([tmp_path], tmp_path / "out").values()) == ["a", "b", "c", "d", "x/y/e"]
    assert image_files([files[1]], tmp_path / "out") == {files[1]: "b"}


def test_names_of_pictures_never_meet() -> None:
    names = FreeNames(set())
    assert [names(name) for name in ("a", "a", "a-2", "b/a")] == ["a", "a-2", "a-2-2", "b/a"]


def test_folders_are_searched_through_links_once_and_what_is_left_out_is_named(
    files: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "around").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "others").symlink_to(tmp_path / "out")
    (tmp_path / "out").mkdir()
    for name in ("out/e.png", "in/f.png", "in/._f.png"):
        (tmp_path / name).write_bytes(files[0].read_bytes())
    (tmp_path / "in" / "g.heic").touch()
    assert list(image_files([tmp_path / "in"], tmp_path / "results").values()) == ["f", "others/e"]
    assert "1 files of kinds that are not read (.heic)" in caplog.text
