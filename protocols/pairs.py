"""Pair lists in the manner of LFW, and InsightFace's `.bin` files: verification in ten folds.

| data | format |
| --- | --- |
| LFW | `pairs.txt`: "folds pairs" (or "pairs": one fold), then per fold genuine "name i j", impostor "name i name j" |
| CALFW, CPLFW | two lines a pair, "file flag" each; flag 0 for two people |
| others (AgeDB-30, ...) | "image image label" or "label image image", label 0 or 1, parted by blanks, commas or tabs |
| InsightFace | a pickle of (encoded images, two a pair; labels) |

Where a format has no folds, its pairs are cut into ten consecutive folds, as InsightFace's evaluation does
(`KFold(n_splits=10, shuffle=False)` in recognition/arcface_torch/eval/verification.py); a list too short for ten folds
of at least 20 genuine and 20 impostor pairs each is one fold: fewer part without an error by chance.
"""

import csv
import io
import logging
import pickle
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pifr.errors import DataError
from protocols.base import COMPARISON_COLUMNS, SAMPLE_COLUMNS, read_lines

if TYPE_CHECKING:
    import pandas as pd

    from protocols.base import VerificationProtocol

FOLDS = 10
_LEAST_IN_FOLD = 20  # pairs of either kind

Lines = list[tuple[int, str]]


log = logging.getLogger(__name__)


class Pair(NamedTuple):
    """Two images, as paths below the image folder, with the people on them ("" if not known)."""

    first: str
    second: str
    first_subject: str
    second_subject: str
    same: bool


def open_pairs(file: str | Path, images: str | Path | None = None) -> "VerificationProtocol":
    """The protocol of a pair file: `.bin` is InsightFace's, everything else a list.

    Args:
        file: the list, or the `.bin`.
        images: folder that a list's names are relative to; None: the list's own.
    """
    file = Path(file)
    return BinPairs(file) if file.suffix == ".bin" else PairList(file, images)


class PairList:
    """A list of pairs in one of the text formats above, told apart by its first lines.

    Args:
        file: the list.
        images: folder that its names are relative to; None: the list's own.
    """

    settings: tuple[str, ...] = ("all",)

    def __init__(self, file: str | Path, images: str | Path | None = None) -> None:
        self.file = Path(file)
        self.root = (Path(images) if images else self.file.parent).absolute()
        self.name = self.file.stem

    def validate(self) -> list[str]:
        pairs, _, problems = self._contents
        genuine, impostor = (
            {frozenset((p.first, p.second)) for p in pairs if p.same is same} for same in (True, False)
        )
        for both in sorted(map(sorted, genuine & impostor)):
            # Not refused: a published list is evaluated as it is.
            log.warning("'%s' says that %s show one person, and that they show two", self.file, " and ".join(both))
        named = sorted({image for pair in pairs for image in (pair.first, pair.second)})
        missing = [f"{self.root / image}: listed, but missing" for image in named if not self._is_file(image)]
        return problems + missing

    def samples(self, setting: str) -> "pd.DataFrame":
        import pandas as pd

        subjects: dict[str, str] = {}
        for pair in self._contents.pairs:
            subjects.setdefault(pair.first, pair.first_subject)
            subjects.setdefault(pair.second, pair.second_subject)
        rows = [(image, str(self.root / image), subject, "both") for image, subject in subjects.items()]
        return pd.DataFrame(rows, columns=list(SAMPLE_COLUMNS))

    def comparisons(self, setting: str) -> "pd.DataFrame":
        """The second image of a line is the probe."""
        import pandas as pd

        pairs, folds, _ = self._contents
        rows = [
            (fold, pair.second, pair.first, pair.second_subject, pair.first_subject, pair.same)
            for fold, pair in zip(folds, pairs, strict=True)
        ]
        return pd.DataFrame(rows, columns=list(COMPARISON_COLUMNS))

    def read(self, path: str) -> bytes:
        return Path(path).read_bytes()

    def _is_file(self, image: str) -> bool:
        return (self.root / image).is_file()

    @cached_property
    def _contents(self) -> "_Contents":
        problems: list[str] = []
        lines = list(read_lines(self.file, problems))
        if not lines:
            return _Contents([], [], problems or [f"{self.file}: no pairs"])
        first = lines[0][1].split()
        if all(token.isdecimal() for token in first) and len(first) <= 2:
            return self._read_lfw(lines, problems)
        two_lines = len(first) == 2 and "," not in lines[0][1]
        pairs = self._read_two_lines(lines, problems) if two_lines else self._read_labelled(lines, problems)
        return _Contents(pairs, consecutive_folds([pair.same for pair in pairs]), problems)

    def _read_lfw(self, lines: Lines, problems: list[str]) -> "_Contents":
        folds, size = [1, *map(int, lines[0][1].split())][-2:]
        pairs: list[Pair] = []
        for number, line in lines[1:]:
            match line.split():
                case [name, i, j] if i.isdecimal() and j.isdecimal():
                    pairs.append(Pair(self._lfw_image(name, i), self._lfw_image(name, j), name, name, True))
                case [name, _, other, _] if name == other:
                    problems.append(f"{self.file}:{number}: one person twice in a line of two people: {line!r}")
                case [name, i, other, j] if i.isdecimal() and j.isdecimal():
                    pairs.append(Pair(self._lfw_image(name, i), self._lfw_image(other, j), name, other, False))
                case _:
                    problems.append(f"{self.file}:{number}: neither 'name i j' nor 'name i name j': {line!r}")
        if not pairs:
            problems.append(f"{self.file}: no pairs")
        if len(pairs) != folds * size * 2:
            problems.append(f"{self.file}: {len(pairs)} pairs, where its first line says {folds} x {size} of each kind")
        return _Contents(pairs, (np.arange(len(pairs)) // max(2 * size, 1) + 1).tolist(), problems)

    def _lfw_image(self, name: str, number: str) -> str:
        stem = f"{name}/{name}_{int(number):04d}"
        # Crops of LFW are often PNG.
        there = (stem + suffix for suffix in (".jpg", ".png", ".jpeg") if self._is_file(stem + suffix))
        return next(there, f"{stem}.jpg")

    def _read_two_lines(self, lines: Lines, problems: list[str]) -> list[Pair]:
        pairs = []
        if len(lines) % 2:
            problems.append(f"{self.file}: {len(lines)} lines, but a pair takes two")
        for (number, first), (_, second) in zip(lines[::2], lines[1::2], strict=False):
            tokens = [*first.split(), *second.split()]
            if len(tokens) != 4 or not tokens[1].isdecimal() or tokens[1] != tokens[3]:
                problems.append(
                    f"{self.file}:{number}: not two lines of 'file flag' with one flag: {first!r}, {second!r}"
                )
                continue
            subjects = (_person(tokens[0]), _person(tokens[2]))
            pairs.append(Pair(tokens[0], tokens[2], *subjects, tokens[1] != "0"))
        return pairs

    def _read_labelled(self, lines: Lines, problems: list[str]) -> list[Pair]:
        pairs = []
        for number, line in lines:
            match _fields(line):
                case [label, first, second] if label in ("0", "1"):
                    pairs.append(Pair(first, second, "", "", label == "1"))
                case [first, second, label] if label in ("0", "1"):
                    pairs.append(Pair(first, second, "", "", label == "1"))
                case _:
                    hint = "; if it is a header, remove it" if number == lines[0][0] else ""
                    problems.append(f"{self.file}:{number}: not 'image image label' with label 0 or 1: {line!r}{hint}")
        return pairs


class BinPairs:
    """InsightFace's packed verification sets (`lfw.bin`, `cfp_fp.bin`, `agedb_30.bin`, ...).

    Their images are crops that are already aligned to the ArcFace template, and who is on them is not recorded. An
    image that occurs in several pairs is called by its first place, so that it is known to be the same.

    Args:
        file: the `.bin`.
    """

    aligned = True
    settings: tuple[str, ...] = ("all",)

    def __init__(self, file: str | Path) -> None:
        self.file = Path(file)
        self.root = self.file.parent
        self.name = self.file.stem

    def validate(self) -> list[str]:
        try:
            self._contents  # noqa: B018 - reads the file
        except DataError as error:
            return [str(error)]
        return []

    def samples(self, setting: str) -> "pd.DataFrame":
        import pandas as pd

        rows = [(name, name, "", "both") for name in dict.fromkeys(self._names)]
        return pd.DataFrame(rows, columns=list(SAMPLE_COLUMNS))

    def comparisons(self, setting: str) -> "pd.DataFrame":
        import pandas as pd

        labels, names = self._contents[1], self._names
        rows = [
            (fold, names[2 * i + 1], names[2 * i], "", "", same)
            for i, (fold, same) in enumerate(zip(consecutive_folds(labels), labels, strict=True))
        ]
        return pd.DataFrame(rows, columns=list(COMPARISON_COLUMNS))

    def read(self, path: str) -> bytes:
        return self._contents[0][int(path.rpartition("#")[2])]

    @cached_property
    def _names(self) -> list[str]:
        """Name of the image at each place."""
        first: dict[bytes, int] = {}
        return [f"{self.file.name}#{first.setdefault(image, place)}" for place, image in enumerate(self._contents[0])]

    @cached_property
    def _contents(self) -> tuple[list[bytes], list[bool]]:
        return read_bin(self.file)


def read_bin(file: Path) -> tuple[list[bytes], list[bool]]:
    """Encoded images (two a pair, in order) and labels of an InsightFace `.bin`; nothing that a pickle names is run.

    Raises:
        DataError: the file is missing, is not such a pickle, holds no pairs, or holds anything but bytes (numpy's,
            too), lists, tuples and bools.
    """
    try:
        images, labels = _BytesUnpickler(io.BytesIO(file.read_bytes())).load()
    except OSError as error:
        raise DataError(f"'{file}' cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged pickle raises nearly anything
        raise DataError(f"'{file}' is not an InsightFace .bin of two lists, images and labels ({error})") from error
    if not isinstance(images, list | tuple) or not all(isinstance(image, bytes | _Array) for image in images):
        raise DataError(f"'{file}': its images are not a list of encoded files")
    labels = list(labels.content) if isinstance(labels, _Array) else labels
    if not isinstance(labels, list | tuple) or not all(label in (0, 1) for label in labels):
        raise DataError(f"'{file}': its labels are not a list of bools")
    if not labels:
        raise DataError(f"'{file}': no pairs")
    if len(images) != 2 * len(labels):
        raise DataError(f"'{file}': {len(images)} images for {len(labels)} pairs")
    contents = [image.content if isinstance(image, _Array) else image for image in images]
    return contents, [bool(label) for label in labels]


def consecutive_folds(labels: Sequence[bool]) -> list[int]:
    """Fold, from 1, of each pair of a set that names none.

    Ten consecutive parts; where one would hold fewer than 20 pairs of a kind (CALFW and CPLFW list all genuine pairs
    first), ten consecutive parts of each kind; where that fails too, one fold.
    """
    same = np.asarray(labels, bool)
    everything = np.arange(len(same))
    for parts in ([everything], [everything[same], everything[~same]]):
        folds = np.ones(len(same), int)
        for part in parts:
            for number, rows in enumerate(np.array_split(part, FOLDS), 1):
                folds[rows] = number
        genuine, total = (np.bincount(rows, minlength=FOLDS + 1)[1:] for rows in (folds[same], folds))
        if min(genuine.min(), (total - genuine).min()) >= _LEAST_IN_FOLD:
            return folds.tolist()
    return [1] * len(same)


class _Contents(NamedTuple):
    pairs: list[Pair]
    folds: list[int]
    problems: list[str]


class _Array:
    """Stands in for a numpy vector of bytes or bools, as InsightFace's tools pickle them; nothing of numpy is run.

    Attributes:
        content: its bytes.
    """

    content = b""

    def __setstate__(self, state: tuple[object, ...]) -> None:
        _, _, dtype, _, content = state
        self._fill(content, dtype)

    def _fill(self, content: object, dtype: object) -> "_Array":
        if not isinstance(content, bytes | bytearray) or not isinstance(dtype, _Dtype) or not dtype.of_bytes:
            raise pickle.UnpicklingError("a numpy array of neither bytes nor bools")
        self.content = bytes(content)
        return self


class _Dtype:
    """Stands in for a numpy type."""

    def __init__(self, code: str | bytes, *_: object) -> None:
        self.of_bytes = code in ("u1", "b1", b"u1", b"b1")

    def __setstate__(self, state: object) -> None: ...


_NUMPY = {
    "ndarray": _Array,
    "dtype": _Dtype,
    "_reconstruct": lambda *_: _Array(),
    "_frombuffer": lambda content, dtype, *_: _Array()._fill(content, dtype),
    "scalar": lambda dtype, content: _Array()._fill(content, dtype).content[0],
}


class _BytesUnpickler(pickle.Unpickler):
    """Builds bytes, strings, numbers, lists and tuples; any class or function that a pickle names is refused."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, encoding="bytes")  # Python 2 wrote many of these files: its str is bytes

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes in pickle protocols 0 to 2
            return _latin1
        if module.partition(".")[0] == "numpy" and name in _NUMPY:
            return _NUMPY[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is not run")


def _latin1(text: str, encoding: str | bytes = "latin1") -> bytes:
    if encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError(f"encoding {encoding!r}")
    return text.encode("latin1")


def _fields(line: str) -> list[str]:
    """The fields of a labelled line: parted by two tabs, so that names may hold blanks, by commas, or by blanks."""
    if line.count("\t") == 2:
        return [field.strip() for field in line.split("\t")]
    return [field.strip() for field in next(csv.reader([line]))] if "," in line else line.split()


def _person(image: str) -> str:
    """ "Aaron_Eckhart" of "Aaron_Eckhart_0001.jpg"."""
    return re.sub(r"_\d+$", "", Path(image).stem)
