"""Landmark error on real profiles: Multi-PIE's 39 points, CFP's fiducials, or a plain CSV (the paper's Table 2).

Every predictor answers in one scheme, Multi-PIE's 68 points; a `Scheme` says which of them, or the mean of
which, an annotation's points are. The error of a picture is the mean distance of the visible points that are
measured, over the nose's length (the paper's) and over the square root of the annotation's box area.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pifr.errors import DataError
from protocols.base import Progress
from protocols.multipie import CAMERA_YAW, image_path
from protocols.predictors import Predictors

if TYPE_CHECKING:
    import pandas as pd

    from pifr.faces import FaceCrops, FaceFinder

LANDMARKS_FILE = "landmarks.parquet"


@dataclass(frozen=True, slots=True)
class Scheme:
    """How the points of an annotation are measured against a prediction.

    Attributes:
        name: as the template's landmark sets are called, without the side.
        count: points of the annotation.
        measured: name and annotation points (from 0) of each measured landmark; several points are averaged.
        nose: annotation points (from 0) at both ends of the nose ridge.
        sided: whether the annotation shows one half of the face, so that its points depend on which.
    """

    name: str
    count: int
    measured: tuple[tuple[str, tuple[int, ...]], ...]
    nose: tuple[int, int]
    sided: bool

    def __str__(self) -> str:
        """What is measured, e.g. "27 points of multipie39 over |1-4|"."""
        names = "" if len(self.measured) > 5 else f" ({', '.join(name for name, _ in self.measured)})"
        return f"{len(self.measured)} points{names} of {self.name} over |{self.nose[0] + 1}-{self.nose[1] + 1}|"


SCHEMES: dict[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        # The paper drops the 12 of the jaw, which the mesh does not cover, and divides by |1-4|.
        Scheme("multipie39", 39, tuple((str(k + 1), (k,)) for k in range(27)), (0, 3), sided=True),
        Scheme("multipie68", 68, tuple((str(k + 1), (k,)) for k in range(17, 68)), (27, 30), sided=False),
        # The order of CFP's points is published nowhere; a plot of their mean leaves no doubt about these three.
        Scheme("cfp30", 30, (("eye", tuple(range(12, 18))), ("nose", (21,)), ("mouth", (25,))), (18, 21), sided=True),
    )
}


@dataclass(frozen=True, slots=True)
class Annotation:
    """Ground truth of one picture.

    Attributes:
        sample: name of the picture within its data set.
        path: its file.
        subject: who is seen, "" if unknown.
        view: the data set's own word for the pose (`profile`, `11_0`, ...).
        scheme: key of `SCHEMES`.
        points: float64 K x 2 image pixels, centre of the first pixel at (0, 0); NaN where not annotated.
        yaw: degrees in pifr's sign, NaN if unknown.
    """

    sample: str
    path: Path
    subject: str
    view: str
    scheme: str
    points: np.ndarray
    yaw: float = np.nan

    @property
    def side(self) -> str:
        """Which half of the face is annotated, `left` or `right` in the image; "" where both are.

        The half whose eye lies to the left of the nose is the image-left one.
        """
        if not SCHEMES[self.scheme].sided:
            return ""
        nose = SCHEMES[self.scheme].nose[1]
        return "left" if np.nanmean(self.points[self._eye, 0]) < self.points[nose, 0] else "right"

    @property
    def measurable(self) -> bool:
        """Whether both ends of the nose, a measured landmark and what `side` looks at are annotated."""
        scheme, known = SCHEMES[self.scheme], np.isfinite(self.points).all(1)
        if scheme.sided and not known[self._eye].any():
            return False
        return bool(known[list(scheme.nose)].all() and any(known[list(rows)].all() for _, rows in scheme.measured))

    @property
    def _eye(self) -> slice:
        return slice(10, 15) if self.scheme == "multipie39" else slice(12, 18)


@dataclass(frozen=True, slots=True)
class Prediction:
    """A predictor's answer for B faces.

    Attributes:
        points: float32 B x 68 x 2, image pixels; NaN where there is none.
        yaw: float32 (B,), degrees, NaN if unknown.
        reason: B words, "" for an answer without reservation; kept beside the error, also of answers.
    """

    points: np.ndarray
    yaw: np.ndarray
    reason: tuple[str, ...]


class LandmarkPredictor(Protocol):
    """Finds Multi-PIE's 68 points, hidden ones included, in detected faces."""

    name: str
    fingerprint: str
    """Says which weights answered, for the run record."""

    def __call__(self, faces: FaceCrops) -> Prediction: ...


def landmark_errors(points: np.ndarray, truth: Annotation) -> dict[str, float]:
    """Errors of one picture.

    Args:
        points: 68 x 2 image pixels.
        truth: annotation of the same picture.

    Returns:
        `nose_length` and `box` (square root of the annotated points' box area), pixels; `error_<name>`, pixels,
        of every measured landmark; their mean `error`; `nme_nose` and `nme_box`, fractions. NaN where the
        annotation or the prediction lacks a point; a landmark without annotation is left out of the mean.
    """
    from pifr.geometry.template import LANDMARK_SETS

    scheme = SCHEMES[truth.scheme]
    own = points[list(_rows(LANDMARK_SETS, scheme, truth.side))]
    nose_length = float(np.linalg.norm(np.diff(truth.points[list(scheme.nose)], axis=0)))
    box = float(np.sqrt(np.prod(np.nanmax(truth.points, axis=0) - np.nanmin(truth.points, axis=0))))
    errors = {
        name: float(np.linalg.norm(own[list(rows)].mean(axis=0) - truth.points[list(rows)].mean(axis=0)))
        for name, rows in scheme.measured
    }
    annotated = [errors[name] for name, rows in scheme.measured if np.isfinite(truth.points[list(rows)]).all()]
    error = float(np.mean(annotated)) if annotated else np.nan
    return {
        "nose_length": nose_length,
        "box": box,
        "error": error,
        "nme_nose": error / nose_length,
        "nme_box": error / box,
        **{f"error_{name}": value for name, value in errors.items()},
    }


def evaluate_landmarks(
    annotations: Sequence[Annotation],
    finder: Callable[[Sequence[Path]], FaceCrops],
    predictors: Iterable[LandmarkPredictor],
    setting: str,
    batch_size: int = 64,
    progress: Progress = lambda done, total: None,
) -> pd.DataFrame:
    """Errors of every predictor on every picture; all see the same crops.

    Args:
        annotations: ground truth.
        finder: picture files to face crops, one row a picture.
        predictors: who is measured.
        setting: written into the table: where the annotations come from.
        batch_size: pictures at a time.
        progress: told the pictures done and to do.

    Returns:
        One row a picture and predictor: `protocol, setting, sample, path, subject, view, predictor, yaw, side,
        nose_length, box, error, nme_nose, nme_box, error_..., status, reason`. A picture without a face keeps its
        row: NaN, `failed` and why. `yaw` is the annotation's, else that of the first predictor who gives one.

    Raises:
        DataError: an annotation lacks an end of the nose, every measured landmark, or (where only one side of the face
            is annotated) the eye.
    """
    import pandas as pd

    if lacking := [truth.sample for truth in annotations if not truth.measurable]:
        raise DataError(
            f"{len(lacking)} of {len(annotations)} pictures cannot be measured, {lacking[0]!r} the first: an end of "
            "the nose, the eye or every measured landmark is not annotated; leave them out"
        )
    predictors = list(predictors)
    rows: list[dict[str, object]] = []
    for start in range(0, len(annotations), batch_size):
        some = annotations[start : start + batch_size]
        faces = finder([truth.path for truth in some])
        answers = {predictor.name: predictor(faces) for predictor in predictors}
        # One yaw a picture, so that predictors are binned alike: the annotation's, else the first that anyone gives.
        stated = np.stack([[truth.yaw for truth in some], *(answer.yaw for answer in answers.values())])
        yaw = stated[np.isfinite(stated).argmax(axis=0), np.arange(len(some))]
        for name, answer in answers.items():
            for k, truth in enumerate(some):
                errors = landmark_errors(answer.points[k], truth)
                failed = faces.status[k] == "failed" or not np.isfinite(errors["error"])
                rows.append(
                    {
                        "protocol": "landmarks",
                        "setting": setting,
                        "sample": truth.sample,
                        "path": str(truth.path),
                        "subject": truth.subject,
                        "view": truth.view,
                        "predictor": name,
                        "yaw": float(yaw[k]),
                        "side": truth.side,
                        **errors,
                        "status": "failed" if failed else faces.status[k],
                        "reason": faces.reason[k] or answer.reason[k] or ("no_prediction" if failed else ""),
                    }
                )
        progress(start + len(some), len(annotations))
    return pd.DataFrame(rows)


class MediaPipeLandmarks:
    """MediaPipe's Face Mesh on the crop's central three quarters (1.5 times the detector's box), upright, one pass.

    Args:
        model: as `pifr.facemesh.FaceMesh` takes it, whose errors this raises.
    """

    name = "mediapipe"

    def __init__(self, model: Path | None = None) -> None:
        from pifr.facemesh import FaceMesh

        self._mesh = FaceMesh(model)
        self.fingerprint = self._mesh.fingerprint

    def mesh(self, faces: FaceCrops) -> tuple[np.ndarray, np.ndarray]:
        """The 468 points, float32 B x 468 x 3 in crop pixels (z grows away from the camera), and presence logits (B,).

        Both are NaN where there is no face crop.
        """
        points = np.full((len(faces), 468, 3), np.nan, np.float32)
        presence = np.full(len(faces), np.nan, np.float32)
        side = faces.pixels.shape[-1]
        pixels = (faces.pixels.permute(0, 2, 3, 1).cpu().numpy() * 255).round().astype(np.uint8)
        for k in np.flatnonzero(faces.usable.cpu().numpy()):
            found = self._mesh(np.ascontiguousarray(pixels[k]), np.full(2, side / 2), 0.75 * side, passes=1)
            points[k], presence[k] = found.points, found.presence
        return points, presence

    def __call__(self, faces: FaceCrops) -> Prediction:
        points, presence = self.mesh(faces)
        to_image = faces.crop_to_image.cpu().numpy()
        in_image = points[:, MEDIAPIPE_68, :2] @ to_image[:, :, :2].transpose(0, 2, 1) + to_image[:, None, :, 2]
        # A logit below zero is a score under one half: by its own judgement there is no face.
        reason = tuple("low_presence" if logit < 0 else "" for logit in presence)
        return Prediction(in_image.astype(np.float32), np.full(len(faces), np.nan, np.float32), reason)


class CNetLandmarks:
    """C-Net: where the fitted shape projects a landmark, moved by what the predicted PNCC says around it.

    Args:
        device: where the networks run.
    """

    name = "cnet"

    def __init__(self, device: str = "cpu") -> None:
        from pifr.locator import FaceLocator

        self._locate = FaceLocator.from_pretrained(device=device)
        self.fingerprint = self._locate.fingerprint

    def __call__(self, faces: FaceCrops) -> Prediction:
        located = self._locate(faces)
        points, yaw = located.landmarks("multipie68", "image").cpu().numpy(), located.yaw.cpu().numpy()
        reason = tuple("" if found else "no_prediction" for found in np.isfinite(points).all(axis=(1, 2)))
        return Prediction(points, yaw, reason)


LANDMARK_PREDICTORS: Predictors[LandmarkPredictor] = Predictors(
    "landmark predictor", {"cnet": CNetLandmarks, "mediapipe": lambda device: MediaPipeLandmarks()}
)


MEDIAPIPE_68: tuple[int, ...] = (
    *(162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389),
    *(71, 63, 105, 66, 107, 336, 296, 334, 293, 301),
    *(168, 197, 5, 4, 75, 97, 2, 326, 305),
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),
    *(78, 82, 13, 312, 308, 317, 14, 87),
)
"""Vertices of Face Mesh nearest to Multi-PIE's 68 points."""


def read_cfp(root: str | Path, view: str = "profile") -> list[Annotation]:
    """CFP's fiducials, `Data/Fiducials/NNN/<view>/MM.txt`: thirty lines `x,y`; one side of the face.

    Args:
        root: folder with `Data`.
        view: `profile` or `frontal`.

    Raises:
        DataError: a file does not hold thirty points, or there are none at all.
    """
    folder = Path(root) / "Data" / "Fiducials"
    found = []
    for path in sorted(folder.glob(f"*/{view}/*.txt")):
        sample = path.relative_to(folder).with_suffix(".jpg").as_posix()
        points = _read_points(path, SCHEMES["cfp30"].count)
        found.append(
            Annotation(sample, Path(root) / "Data" / "Images" / sample, sample.partition("/")[0], view, "cfp30", points)
        )
    if not found:
        raise DataError(f"no fiducials '{folder}/NNN/{view}/MM.txt'")
    return found


def read_multipie(root: str | Path, labels: str | Path, session: int = 1, smallest_yaw: int = 60) -> list[Annotation]:
    """Multi-PIE's label files `<subject>_<session>_<recording>_<camera>_<shot>_lm.mat`, 39 or 68 points each.

    The files hold MATLAB coordinates, whose first pixel is (1, 1). `.txt` and `.pts` with a point a line are read
    likewise.

    Args:
        root: folder with `session01` or with `data`.
        labels: folder that holds the files, at any depth.
        session: the paper measures session 1.
        smallest_yaw: degrees; the paper: "extreme poses [±60°, ±90°]", which is taken for a range.

    Raises:
        DataError: a file has neither 39 nor 68 points, or none fits the selection.
    """
    from protocols.multipie import MultiPie

    images = MultiPie(root).image_root
    cameras = {name.replace("_", ""): name for name in CAMERA_YAW}
    pattern = re.compile(r"(\d{3})_(\d{2})_(\d{2})_(\d{3})_(\d{2})(?:_lm)?")
    found = []
    for path in sorted(file for file in Path(labels).rglob("*") if file.suffix in (".mat", ".txt", ".pts")):
        match = pattern.fullmatch(path.stem)
        if not match or match[4] not in cameras:
            continue
        subject, number, recording, camera, shot = match.groups()
        yaw = CAMERA_YAW[cameras[camera]]
        if int(number) != session or abs(yaw) < smallest_yaw:
            continue
        points = _read_points(path) - 1
        scheme = {39: "multipie39", 68: "multipie68"}.get(len(points))
        if scheme is None:
            raise DataError(f"'{path}' holds {len(points)} points, not 39 or 68")
        sample = image_path(subject, session, recording, cameras[camera], shot)
        found.append(Annotation(sample, images / sample, subject, cameras[camera], scheme, points, float(yaw)))
    if not found:
        raise DataError(f"no label of session {session} at |yaw| >= {smallest_yaw} in '{labels}'")
    return found


def read_csv(path: str | Path) -> list[Annotation]:
    """A plain CSV with one point a line.

    Columns `path` (relative to the CSV), `landmark` (from 1), `x`, `y` (first pixel: (0, 0)), and
    if wanted `scheme` (a name of `SCHEMES`, by default `multipie68`), `subject`, `view`, `yaw`.

    Raises:
        DataError: a column is missing, or a line names an unknown scheme or landmark.
    """
    import pandas as pd

    path = Path(path)
    try:
        table = pd.read_csv(path, dtype={"path": str, "subject": str, "view": str, "scheme": str})
        missing = {"path", "landmark", "x", "y"} - set(table.columns)
        if missing:
            raise DataError(f"'{path}' lacks the columns {', '.join(sorted(missing))}")
        numbers = ["landmark", "x", "y", *({"yaw"} & set(table.columns))]
        table[numbers] = table[numbers].apply(pd.to_numeric)
    except (OSError, ValueError) as error:
        raise DataError(f"'{path}' cannot be read as CSV: {error}") from error
    defaults = {"scheme": "multipie68", "subject": "", "view": "", "yaw": np.nan}
    table = table.assign(**{name: table.get(name, value) for name, value in defaults.items()}).fillna(defaults)
    found = []
    for name, rows in table.groupby("path", sort=True):
        first = rows.iloc[0]
        scheme = SCHEMES.get(first.scheme)
        if scheme is None or not rows.landmark.isin(range(1, scheme.count + 1)).all():
            allowed = ", ".join(f"{known.name} (1 to {known.count})" for known in SCHEMES.values())
            raise DataError(f"'{path}': {name} has a landmark outside its scheme {first.scheme!r}; known: {allowed}")
        points = np.full((scheme.count, 2), np.nan)
        points[rows.landmark.to_numpy(int) - 1] = rows[["x", "y"]].to_numpy(np.float64)
        image = path.parent / str(name)
        found.append(
            Annotation(str(name), image, str(first.subject), str(first["view"]), scheme.name, points, float(first.yaw))
        )
    return found


def summarise_landmarks(table: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Normalised mean errors over pictures, failures counted beside.

    Args:
        table: of `evaluate_landmarks`.
        by: further columns to split by; `yaw_bin` is made here: 15 degrees wide, named by its lower end of |yaw|.

    Returns:
        One row a predictor and group: `pictures, failures, nme_nose, nme_nose_median, nme_box` (fractions; of the
        pictures with an answer).
    """
    table = table.assign(yaw_bin=(table["yaw"].abs() // 15 * 15), failures=table["status"] == "failed")
    grouped = table.groupby(["setting", "predictor", *by], dropna=False)
    return grouped.agg(
        pictures=("sample", "size"),
        failures=("failures", "sum"),
        nme_nose=("nme_nose", "mean"),
        nme_nose_median=("nme_nose", "median"),
        nme_box=("nme_box", "mean"),
    ).reset_index()


def landmark_record(
    root: Path,
    finder: FaceFinder,
    predictors: Sequence[LandmarkPredictor],
    table: pd.DataFrame,
    configuration: dict[str, object],
    name: str,
) -> dict[str, object]:
    """What `run.json` says of a run of `evaluate_landmarks` on the data set that reports call `name`."""
    from protocols.runs import begin_record

    images = int(table["sample"].nunique())
    failed = table[table["status"] == "failed"]
    return {
        **begin_record("landmarks", root, {"images": images}, name=name),
        "configuration": {**configuration, "finder": finder.fingerprint},
        "weights": {predictor.name: predictor.fingerprint for predictor in predictors},
        "counts": {
            "images": images,
            "failures": {name: rows["reason"].value_counts().to_dict() for name, rows in failed.groupby("predictor")},
        },
    }


def _rows(sets: dict[str, tuple[int, ...]], scheme: Scheme, side: str) -> tuple[int, ...]:
    return sets[f"{scheme.name}-{side}" if scheme.sided else scheme.name]


def _read_points(path: Path, count: int | None = None) -> np.ndarray:
    try:
        if path.suffix == ".mat":
            from scipy.io import loadmat

            points = np.asarray(loadmat(path)["pts"], np.float64)
        else:
            points = np.array(re.findall(r"^\s*([-+.\deE]+)[,\s]+([-+.\deE]+)\s*$", path.read_text(), re.M), np.float64)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"'{path}' cannot be read as landmarks: {error}") from error
    if points.ndim != 2 or points.shape[1] != 2 or (count and len(points) != count):
        raise DataError(f"'{path}' holds points of shape {points.shape}, not ({count or 'n'}, 2)")
    return points
