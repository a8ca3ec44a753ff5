"""Celebrities in Frontal-Profile (CFP): frontal-frontal and frontal-profile verification in identity-disjoint folds.

Source: S. Sengupta et al., Frontal to Profile Face Verification in the Wild, WACV 2016, and the data set's own readme.
Official layout::

    Data/Images/NNN/{frontal,profile}/MM.jpg
    Protocol/Pair_list_{F,P}.txt             "index ../Data/Images/NNN/frontal/MM.jpg", from 1
    Protocol/Split/{FF,FP}/KK/{same,diff}.txt  "a,b", indices into the lists; in FP a is frontal, b a profile

A part of CFP, or people of one's own in this layout, say so in a `dataset.json` beside `Data` (see
`protocols.base.read_dataset`): such a set may have any number of pairs, and one setting alone. Without it each
fold must have the official number of pairs, so that a file that was cut short is noticed. Which folds there are is not
checked: the tables print their number.

InsightFace's `cfp_fp.bin` and `cfp_ff.bin` are pair files as any other: see `protocols.pairs`.
"""

from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from pifr.errors import DataError
from protocols.base import COMPARISON_COLUMNS, DATASET_FILE, SAMPLE_COLUMNS, read_dataset, read_lines

if TYPE_CHECKING:
    import pandas as pd

PAIRS_PER_CLASS = 350
"""Genuine, and impostor, pairs of an official fold."""

_LISTS = {"FP": ("F", "P"), "FF": ("F", "F")}
"""Setting -> lists that the first and the second image of a pair come from."""


class _Contents(NamedTuple):
    """All that the protocol files say, and what is wrong with them."""

    images: dict[str, dict[int, str]]
    """List ("F", "P") -> index -> path below Data/Images."""
    pairs: dict[str, list[tuple[int, str, str, bool]]]
    """Setting -> (fold, first image, second image, same)."""
    problems: list[str]


class Cfp:
    """The CFP data set in its official layout.

    Args:
        root: folder that holds `Data` and `Protocol`.

    Raises:
        DataError: as `read_dataset`.
    """

    name = "cfp"

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).absolute()
        self._official = read_dataset(self.root) is None

    @cached_property
    def settings(self) -> tuple[str, ...]:
        """FP and FF; of a set that is not CFP itself those that it has."""
        there = tuple(setting for setting in _LISTS if self._split(setting).is_dir())
        return there if there and not self._official else tuple(_LISTS)

    @property
    def image_root(self) -> Path:
        """Folder that sample names are relative to."""
        return self.root / "Data" / "Images"

    def validate(self) -> list[str]:
        """Missing files, lines that cannot be read, indices out of range, wrong counts, overlapping folds."""
        return self._contents.problems

    def samples(self, setting: str) -> "pd.DataFrame":
        """Images that take part in a setting, in the order of the lists; `sample` is the path below Data/Images."""
        import pandas as pd

        used = {image for _, first, second, _ in self._pairs(setting) for image in (first, second)}
        rows = []
        for kind in dict.fromkeys(_LISTS[setting]):
            role = "both" if setting == "FF" else {"F": "reference", "P": "probe"}[kind]
            for image in self._contents.images[kind].values():
                if image in used:
                    rows.append((image, str(self.image_root / image), _subject(image), role))
        return pd.DataFrame(rows, columns=list(SAMPLE_COLUMNS))

    def comparisons(self, setting: str) -> "pd.DataFrame":
        """Pairs of a setting. In FP the profile is the probe; in FF the second image is."""
        import pandas as pd

        rows = [
            (fold, second, first, _subject(second), _subject(first), same)
            for fold, first, second, same in self._pairs(setting)
        ]
        return pd.DataFrame(rows, columns=list(COMPARISON_COLUMNS))

    def read(self, path: str) -> bytes:
        return Path(path).read_bytes()

    def _pairs(self, setting: str) -> list[tuple[int, str, str, bool]]:
        if setting not in self.settings:
            raise DataError(f"CFP has no setting {setting!r}: use one of {', '.join(self.settings)}")
        return self._contents.pairs[setting]

    @cached_property
    def _contents(self) -> _Contents:
        problems: list[str] = []
        kinds = sorted({kind for setting in self.settings for kind in _LISTS[setting]})
        images = {kind: self._read_list(kind, problems) for kind in kinds}
        pairs = {setting: self._read_folds(setting, images, problems) for setting in self.settings}
        for setting, rows in pairs.items():
            problems.extend(_shared_subjects(setting, rows))
        named = {image for rows in pairs.values() for _, first, second, _ in rows for image in (first, second)}
        there = {f"{file.parent.parent.name}/{file.parent.name}/{file.name}" for file in self.image_root.glob("*/*/*")}
        problems.extend(f"{self.image_root / image}: listed, but missing" for image in sorted(named - there))
        return _Contents(images, pairs, problems)

    def _read_list(self, kind: str, problems: list[str]) -> dict[int, str]:
        file = self.root / "Protocol" / f"Pair_list_{kind}.txt"
        images: dict[int, str] = {}
        for number, line in read_lines(file, problems):
            index, _, path = line.partition(" ")
            parts = PurePosixPath(path.strip()).parts
            if not index.isdecimal() or len(parts) < 3:
                problems.append(f"{file}:{number}: not 'index path': {line!r}")
            elif int(index) in images:
                problems.append(f"{file}:{number}: index {index} stands there twice")
            else:
                images[int(index)] = "/".join(parts[-3:])
        return images

    def _split(self, setting: str) -> Path:
        return self.root / "Protocol" / "Split" / setting

    def _read_folds(
        self, setting: str, images: dict[str, dict[int, str]], problems: list[str]
    ) -> list[tuple[int, str, str, bool]]:
        folder = self._split(setting)
        folds = sorted(entry for entry in folder.glob("*") if entry.name.isdecimal())
        if not folds:
            problems.append(f"{folder}: no folds (folders 01, 02, ...)")
        pairs: list[tuple[int, str, str, bool]] = []
        first_list, second_list = (images[kind] for kind in _LISTS[setting])
        for fold in folds:
            for name, same in (("same.txt", True), ("diff.txt", False)):
                file = fold / name
                before, reported = len(pairs), len(problems)
                for number, line in read_lines(file, problems):
                    indices = [part.strip() for part in line.split(",")]
                    if len(indices) != 2 or not all(index.isdecimal() for index in indices):
                        problems.append(f"{file}:{number}: not 'a,b': {line!r}")
                        continue
                    first, second = first_list.get(int(indices[0])), second_list.get(int(indices[1]))
                    if first is None or second is None:
                        index, kind = (indices[0], 0) if first is None else (indices[1], 1)
                        problems.append(
                            f"{file}:{number}: index {index} is not in Pair_list_{_LISTS[setting][kind]}.txt"
                        )
                    elif (_subject(first) == _subject(second)) != same:
                        claim = "one person" if same else "two people"
                        problems.append(f"{file}:{number}: {first} and {second} do not show {claim}")
                    else:
                        pairs.append((int(fold.name), first, second, same))
                count = len(pairs) - before
                if self._official and count != PAIRS_PER_CLASS and len(problems) == reported:
                    problems.append(
                        f"{file}: {count} pairs, not CFP's {PAIRS_PER_CLASS}; if this is a set of your own, write "
                        f'{self.root / DATASET_FILE}: {{"name": "my set", "synthetic": false}}'
                    )
        return pairs


def _subject(image: str) -> str:
    return image.partition("/")[0]


def _shared_subjects(setting: str, pairs: list[tuple[int, str, str, bool]]) -> list[str]:
    """Subjects that more than one fold holds: cross-validation would then see its test people in training."""
    folds: dict[str, set[int]] = {}
    for fold, first, second, _ in pairs:
        for image in (first, second):
            folds.setdefault(_subject(image), set()).add(fold)
    return [
        f"Protocol/Split/{setting}: subject {subject} is in folds {', '.join(map(str, sorted(where)))}"
        for subject, where in sorted(folds.items())
        if len(where) > 1
    ]
