"""CMU Multi-PIE as an identification protocol: one frontal reference a subject, every other pose a probe.

The licensed tree is read as it is distributed: `session01/multiview/001/01/05_1/001_01_01_051_07.png`, below the
folder given or below its `data` folder. Who is trained on and who is tested is derived from the folders that are
there, so a partial tree runs too, and says what it lacks.

Papers differ in small choices that move the figures. Each is a named switch of `Switches`; the defaults are
those of the paper's Table 4: 100 reference images and 16,000 probes where session 1 is complete.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from protocols.base import COMPARISON_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

CAMERA_YAW: dict[str, int] = {
    "24_0": 90,
    "01_0": 75,
    "20_0": 60,
    "19_0": 45,
    "04_1": 30,
    "05_0": 15,
    "05_1": 0,
    "14_0": -15,
    "13_0": -30,
    "08_0": -45,
    "09_0": -60,
    "12_0": -75,
    "11_0": -90,
}
"""Degrees of yaw seen by each camera at eye level, in pifr's sign: 24_0 shows the subject's right side, so the nose
points to the right of the image. 08_1 and 19_1 hang overhead and take no part."""

SHOTS: tuple[str, ...] = tuple(f"{shot:02d}" for shot in range(20))
"""00 and 19 are taken without flash, 01 to 18 with one flash each, 07 with the frontal one."""

PROBE_SHOTS: dict[str, tuple[str, ...]] = {"all": SHOTS, "flash": SHOTS[1:19], "no-flash": ("00", "19")}
NEUTRAL_SESSION_4: dict[str, tuple[str, ...]] = {"01": ("01",), "02": ("02",), "both": ("01", "02")}
TRAINING_SUBJECTS: dict[str, int] = {"1": 150, "2": 200}
EXTREME_POSES: tuple[int, ...] = (45, 60, 75, 90)
FRONTAL_CAMERA = "05_1"


@dataclass(frozen=True, slots=True)
class Switches:
    """The choices in which published Multi-PIE figures differ.

    Attributes:
        test_subjects: `published` is the last 100 subjects of Setting-1 and those after the first 200 of Setting-2;
            `after-training` takes those after the first 150 in Setting-1 (99 of the 249 that session 1 holds, which
            is why some papers count 99); `all` tests on everyone, for partial and synthetic trees.
        session4_neutral: which of session 4's two neutral recordings Setting-2 uses: `01` (72,000 probes over all
            poses, as published), `02` or `both`.
        gallery_shot: illumination of the reference image; 07 is the frontal flash.
        probe_shots: `all` twenty, the eighteen with a `flash`, the two with `no-flash`, or one shot, as `00`.
        poses: absolute yaw of the cameras whose images are probes, degrees.
        frontal_probes: whether camera 05_1's other images are probes as well. The reference image never is.
    """

    test_subjects: Literal["published", "after-training", "all"] = "published"
    session4_neutral: Literal["01", "02", "both"] = "01"
    gallery_shot: str = "07"
    probe_shots: str = "all"
    poses: tuple[int, ...] = EXTREME_POSES
    frontal_probes: bool = False

    def __post_init__(self) -> None:
        known_poses = sorted({abs(yaw) for yaw in CAMERA_YAW.values()} - {0})
        checks = (
            ("test_subjects", self.test_subjects, ("published", "after-training", "all")),
            ("session4_neutral", self.session4_neutral, tuple(NEUTRAL_SESSION_4)),
            ("gallery_shot", self.gallery_shot, SHOTS),
            ("probe_shots", self.probe_shots, (*PROBE_SHOTS, *SHOTS)),
            *(("poses", pose, tuple(known_poses)) for pose in self.poses),
        )
        for name, value, allowed in checks:
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}; allowed: {', '.join(map(str, allowed))}")

    @property
    def cameras(self) -> tuple[str, ...]:
        """Cameras whose images are probes, from the table's +90 to -90."""
        wanted = {*self.poses, *((0,) if self.frontal_probes else ())}
        return tuple(camera for camera, yaw in CAMERA_YAW.items() if abs(yaw) in wanted)

    @property
    def shots(self) -> tuple[str, ...]:
        """Illuminations of the probes."""
        return PROBE_SHOTS.get(self.probe_shots, (self.probe_shots,))

    def recordings(self, setting: str) -> tuple[tuple[int, str], ...]:
        """(session, recording) pairs with a neutral face that a setting draws on, earliest first."""
        if setting == "1":
            return ((1, "01"),)
        return ((1, "01"), (2, "01"), (3, "01"), *((4, name) for name in NEUTRAL_SESSION_4[self.session4_neutral]))


class MultiPie:
    """Setting-1 (session 1) and Setting-2 (all four sessions) of Multi-PIE, neutral faces only.

    Args:
        root: folder that holds `session01` ... `session04`, or whose `data` folder does.
        switches: where published evaluations differ.
    """

    name = "multipie"
    settings = ("1", "2")

    def __init__(self, root: str | Path, switches: Switches | None = None) -> None:
        self.root = Path(root).absolute()
        below = self.root / "data"
        self.image_root = below if not (self.root / "session01").is_dir() and below.is_dir() else self.root
        self.switches = switches or Switches()

    @cached_property
    def attendance(self) -> dict[int, tuple[str, ...]]:
        """Subjects with a folder in each session, sorted by number; sessions without a folder are left out."""
        found: dict[int, tuple[str, ...]] = {}
        for session in range(1, 5):
            subjects = _folders(self.image_root / f"session{session:02d}" / "multiview")
            if subjects:
                found[session] = tuple(sorted(name for name in subjects if name.isdigit()))
        return found

    def subjects(self, setting: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Training and test subjects of a setting, by number, derived from the folders on disk."""
        sessions = {session for session, _ in self.switches.recordings(setting)}
        everyone = sorted({name for session in sessions for name in self.attendance.get(session, ())})
        training = TRAINING_SUBJECTS[setting]
        match self.switches.test_subjects:
            case "all":
                return (), tuple(everyone)
            case "published" if setting == "1":
                return tuple(everyone[:training]), tuple(everyone[-100:])
            case _:
                return tuple(everyone[:training]), tuple(everyone[training:])

    def samples(self, setting: str) -> pd.DataFrame:
        """Images of a setting, references first.

        Returns:
            One row an image that exists: `sample` (path below `image_root`), `path`, `subject`, `role`
            (`reference` or `probe`), `session` (int), `recording`, `camera`, `camera_yaw` (int, degrees),
            `illumination` (shot).
        """
        import pandas as pd

        _, test = self.subjects(setting)
        recordings = self.switches.recordings(setting)
        references: list[tuple[object, ...]] = []
        probes: list[tuple[object, ...]] = []
        for subject in test:
            reference = None
            for session, recording in recordings:
                folder = self.image_root / f"session{session:02d}" / "multiview" / subject / recording
                if reference is None:
                    first = (subject, session, recording, FRONTAL_CAMERA, self.switches.gallery_shot)
                    if (folder / FRONTAL_CAMERA / image_name(*first)).is_file():
                        reference = first
                        references.append((*first, "reference"))
                for camera in self.switches.cameras:
                    present = {entry.name for entry in _entries(folder / camera)}
                    for shot in self.switches.shots:
                        image = (subject, session, recording, camera, shot)
                        if image != reference and image_name(*image) in present:
                            probes.append((*image, "probe"))
        columns = ["subject", "session", "recording", "camera", "illumination", "role"]
        table = pd.DataFrame(references + probes, columns=columns)
        table["sample"] = [image_path(*row[:5]) for row in table.itertuples(index=False)]
        table["path"] = [str(self.image_root / sample) for sample in table["sample"]]
        table["camera_yaw"] = table["camera"].map(CAMERA_YAW).astype("int64")
        return table[
            ["sample", "path", "subject", "role", "session", "recording", "camera", "camera_yaw", "illumination"]
        ]

    def comparisons(self, setting: str) -> pd.DataFrame:
        """Each probe against the reference of its own subject: who it should be.

        The search over the other references is `protocols.identification.search`'s; written out, Setting-1
        alone would hold 1.6 million comparisons.
        """
        images = self.samples(setting)
        references = images[images.role == "reference"].set_index("subject")["sample"]
        probes = images[images.role == "probe"]
        table = probes[["sample", "subject"]].rename(columns={"sample": "probe", "subject": "probe_subject"})
        table["reference"] = table["probe_subject"].map(references)
        table["reference_subject"] = table["probe_subject"]
        table["fold"] = "all"
        table["same"] = True
        return table[list(COMPARISON_COLUMNS)]

    def read(self, path: str) -> bytes:
        """Content of an image file."""
        return Path(path).read_bytes()

    def validate(self) -> list[str]:
        """What keeps the protocol from running at all; empty for a tree that can be used."""
        if not self.attendance:
            return [f"{self.root}: no session01/multiview with subject folders; give the folder that holds session01"]
        return []

    def notices(self, setting: str, images: pd.DataFrame) -> list[str]:
        """What a reader of the results has to know: who is tested, what the tree lacks.

        Args:
            setting: one of `settings`.
            images: what `samples` found of it.
        """
        train, test = self.subjects(setting)
        lines = [f"Setting-{setting}: {_span('training subjects', train)}; {_span('test subjects', test)}"]
        if not test:
            lines.append(
                f"nobody is left to test after the first {TRAINING_SUBJECTS[setting]} subjects; "
                "'--test-subjects all' tests on everyone"
            )
            return lines
        both = sorted(set(train) & set(test))
        if both:
            lines.append(f"{len(both)} of the test subjects are training subjects too: {', '.join(both[:5])}")
        if setting == "1" and self.switches.test_subjects == "published" and len(test) < 100:
            lines.append(f"session 1 holds {len(test)} subjects, the published test set 100")
        enrolled = set(images.loc[images.role == "reference", "subject"])
        missing = [subject for subject in test if subject not in enrolled]
        if missing:
            lines.append(
                f"{len(missing)} test subjects have no frontal image of shot {self.switches.gallery_shot} "
                f"and are not enrolled: {', '.join(missing[:5])}"
            )
        expected = len(self.switches.shots) * sum(
            subject in self.attendance.get(session, ())
            for session, _ in self.switches.recordings(setting)
            for subject in test
        )
        probes = images[images.role == "probe"]
        for camera in self.switches.cameras:
            found = int((probes.camera == camera).sum())
            # The reference itself is the one frontal image of each subject that is no probe.
            due = expected - (len(enrolled) if camera == FRONTAL_CAMERA and self._gallery_is_probe_shot else 0)
            if found < due:
                lines.append(f"camera {camera}: {due - found} of {due} probe images are missing")
        sessions = dict.fromkeys(session for session, _ in self.switches.recordings(setting))
        absent = [f"{session:02d}" for session in sessions if session not in self.attendance]
        if absent:
            lines.append(f"sessions without a folder: {', '.join(absent)}")
        return lines

    def configuration(self) -> dict[str, object]:
        """The switches, for the run record."""
        return asdict(self.switches)

    @property
    def _gallery_is_probe_shot(self) -> bool:
        return self.switches.gallery_shot in self.switches.shots


def image_name(subject: str, session: int, recording: str, camera: str, shot: str) -> str:
    """Official file name, as `001_02_01_051_07.png`."""
    return f"{subject}_{session:02d}_{recording}_{camera.replace('_', '')}_{shot}.png"


def image_path(subject: str, session: int, recording: str, camera: str, shot: str) -> str:
    """Official path below the root, as `session02/multiview/001/01/05_1/001_02_01_051_07.png`."""
    name = image_name(subject, session, recording, camera, shot)
    return f"session{session:02d}/multiview/{subject}/{recording}/{camera}/{name}"


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except (FileNotFoundError, NotADirectoryError):
        return


def _folders(folder: Path) -> list[str]:
    return [entry.name for entry in _entries(folder) if entry.is_dir()]


def _span(what: str, subjects: tuple[str, ...]) -> str:
    return f"{len(subjects)} {what}" + (f" ({subjects[0]} to {subjects[-1]})" if subjects else "")
