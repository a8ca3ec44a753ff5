"""Landmark error on real profiles (the paper's Table 2).

Every predictor answers in one scheme, Multi-PIE's 68 points; a `Scheme` says which of them, or the mean of
which, an annotation's points are. The error of a picture is the mean distance of the visible points that are
measured, over the nose's length (the paper's) and over the square root of the annotation's box area.

Annotations are read by `protocols.landmark_data`; who predicts is in `protocols.landmark_predictors`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pifr.errors import DataError
from protocols.base import Progress

if TYPE_CHECKING:
    import pandas as pd

    from pifr.faces import FaceCrops, FaceFinder

LANDMARKS_FILE = "landmarks.parquet"
YAW_BIN = 15.0  # degrees


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
        """Whether both ends of the nose, a measured landmark and what `side` looks at are annotated, apart enough."""
        scheme, known = SCHEMES[self.scheme], np.isfinite(self.points).all(1)
        if scheme.sided and not known[self._eye].any():
            return False
        # Errors are divided by the length of the nose and by the points' box: points at (0, 0), say, have neither.
        if not (np.diff(self.points[list(scheme.nose)], axis=0).any() and np.ptp(self.points[known], axis=0).all()):
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


def yaw_bin(yaw: pd.Series) -> pd.Series:
    """Lower end of the bin of |yaw|, `YAW_BIN` degrees wide, NaN where it is unknown; 90 degrees begin their own."""
    return yaw.abs() // YAW_BIN * YAW_BIN


def summarise_landmarks(table: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Normalised mean errors over pictures, failures counted beside.

    Args:
        table: of `evaluate_landmarks`.
        by: further columns to split by; `yaw_bin` is made here.

    Returns:
        One row a predictor and group: `pictures, failures, nme_nose, nme_nose_median, nme_box` (fractions; of the
        pictures with an answer).
    """
    table = table.assign(yaw_bin=yaw_bin(table["yaw"]), failures=table["status"] == "failed")
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
