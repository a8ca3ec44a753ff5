"""Shape error in millimetres against scans, as the paper's Table 5 measures it on MICC Florence.

A prediction is laid on the scan by seven points (similarity, never mirrored), the scan is cut to the face, and every
scan vertex left is measured to the nearest point of the predicted *surface*. Nothing is fitted to the scan but the
seven points unless ICP is asked for: it changes the order of methods, so it is an option with a name.

Layout of the data, one folder a subject:

    ROOT/<subject>/<any name>.ply|.obj     the scan, millimetres
    ROOT/<subject>/landmarks.txt           seven rows "x y z" in the order of LANDMARKS
    ROOT/<subject>/frames/**/*.jpg|.png    pictures of the subject, in the order of their paths
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pifr.errors import ConfigError, DataError
from pifr.geometry.similarity import Similarity, fit_similarity
from pifr.images import IMAGE_SUFFIXES
from pifr.support.rows import in_batches
from protocols.base import Progress

if TYPE_CHECKING:
    import pandas as pd

    from pifr.faces import FaceCrops, FaceFinder

LANDMARKS: tuple[str, ...] = (
    "image-left eye, outer corner",
    "image-left eye, inner corner",
    "image-right eye, inner corner",
    "image-right eye, outer corner",
    "nose bottom",
    "image-left mouth corner",
    "image-right mouth corner",
)
"""Order of the seven points: that of the FG2018 evaluation tool (subject's right to left)."""

SHAPE_FILE = "shape.parquet"

_EYES = (60.0, 130.0)
"""Least and largest distance of the outer corners of anyone's eyes, mm."""

_NOSE = 35.0
"""No nose's tip is farther from its bottom, mm; the template's is 22."""


@dataclass(frozen=True, slots=True)
class ShapeOptions:
    """What published shape errors differ in.

    Attributes:
        radius: scan vertices farther than this from the tip of the nose are cut off, mm. The paper: 100.
        forehead: scan vertices higher above the eyes than this share of the eye-mouth distance are cut off. The paper
            removes the forehead without saying where it begins; 0.4, some 26 mm, is just above the brows.
        scale: whether the seven points also fix the prediction's size. False compares millimetres with millimetres; the
            paper says "rigidly aligned" and names the tip of the nose, where the tool has its bottom.
        icp: refine the alignment by iterated closest points of the cut scan.
        every: one frame in this many is used. The paper: ten.
    """

    radius: float = 100.0
    forehead: float = 0.4
    scale: bool = True
    icp: bool = False
    every: int = 10

    def __post_init__(self) -> None:
        if self.radius <= 0 or self.every < 1:
            raise ValueError(f"radius must be positive and every at least 1, not {self.radius} and {self.every}")


@dataclass(frozen=True, slots=True)
class Surface:
    """A triangle mesh with the seven points of `LANDMARKS`.

    Attributes:
        vertices: float64 V x 3, mm.
        triangles: int64 T x 3.
        landmarks: float64 7 x 3, mm.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    landmarks: np.ndarray

    def __post_init__(self) -> None:
        for name, array, width in (("vertices", self.vertices, 3), ("triangles", self.triangles, 3)):
            if array.ndim != 2 or array.shape[1] != width:
                raise ValueError(f"{name} must be n x {width}, not {array.shape}")
        if self.landmarks.shape != (len(LANDMARKS), 3) or not np.isfinite(self.landmarks).all():
            raise ValueError(f"landmarks must be 7 x 3 and finite, not {self.landmarks.shape}")


@dataclass(frozen=True, slots=True)
class PersonShape:
    """What a predictor makes of one person's pictures.

    Attributes:
        vertices: float64 V x 3 in any frame and scale; of no meaning if no picture could be used.
        used: bool B, the pictures that it rests on.
    """

    vertices: np.ndarray
    used: np.ndarray


class ShapePredictor(Protocol):
    """Predicts a person's face surface from pictures; topology is the same for everyone."""

    name: str
    fingerprint: str
    """Says which weights answered, for the run record."""
    in_millimetres: bool
    """Whether the size of what it predicts means something."""
    triangles: np.ndarray
    """int64 T x 3; known at the latest after the first prediction."""

    def __call__(self, faces: FaceCrops) -> PersonShape:
        """One person's surface from all pictures of the person; those that failed are not used."""
        ...

    def landmarks(self, vertices: np.ndarray) -> np.ndarray:
        """The seven points of a surface, V x 3 -> 7 x 3."""
        ...


def face_region(vertices: np.ndarray, landmarks: np.ndarray, radius: float, forehead: float) -> np.ndarray:
    """Which vertices of a scan are measured: within `radius` of the tip of the nose and below the forehead.

    Args:
        vertices: V x 3, mm.
        landmarks: 7 x 3, see `LANDMARKS`.
        radius: mm.
        forehead: share of the eye-mouth distance above the eyes at which the forehead begins.

    Returns:
        bool (V,).
    """
    eyes, mouth = landmarks[:4].mean(axis=0), landmarks[5:].mean(axis=0)
    up = eyes - mouth
    height = (vertices - eyes) @ up / (up @ up)
    distance = np.linalg.norm(vertices - nose_tip(vertices, landmarks), axis=1)
    return (distance <= radius) & (height <= forehead)


def nose_tip(vertices: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The tip of a scan's nose, (3,) mm: what stands out farthest around the nose's bottom, which is among the seven.

    Args:
        vertices: V x 3, mm.
        landmarks: 7 x 3, see `LANDMARKS`.
    """
    forward = np.cross(landmarks[3] - landmarks[0], landmarks[:4].mean(axis=0) - landmarks[5:].mean(axis=0))
    around = vertices[np.linalg.norm(vertices - landmarks[4], axis=1) <= _NOSE]
    return around[np.argmax(around @ forward)] if len(around) else landmarks[4]


def surface_distances(points: np.ndarray, vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Exact distance of each point to the nearest point of a triangle mesh, (n,), by libigl's box tree."""
    return np.sqrt(_closest(points, vertices, triangles)[0])


def refine_icp(
    points: np.ndarray, prediction: Surface, start: Similarity, scale: bool = True, rounds: int = 50
) -> Similarity:
    """Improve an alignment by iterated closest points: scan points pull the nearest points of the prediction.

    Stops when the mean squared distance falls by less than one part in 10,000, or after `rounds`.
    """
    motion, before = start, np.inf
    for _ in range(rounds):
        squared, closest = _closest(points, motion(prediction.vertices), prediction.triangles)
        if squared.mean() > (1 - 1e-4) * before:
            break
        before = squared.mean()
        # The closest points, taken back to the prediction's own frame.
        own = (closest - motion.translation) @ motion.rotation / motion.scale
        motion = fit_similarity(own, points, scale)
    return motion


def measured_points(scan: Surface, options: ShapeOptions) -> np.ndarray:
    """The scan's vertices whose distances are measured, n x 3 mm.

    Raises:
        DataError: if the crop leaves nothing of the scan.
    """
    points = scan.vertices[face_region(scan.vertices, scan.landmarks, options.radius, options.forehead)]
    if not len(points):
        raise DataError(f"no scan vertex lies within {options.radius} mm of the nose: is the scan in mm?")
    return points


def shape_errors(scan: Surface, prediction: Surface, options: ShapeOptions) -> np.ndarray:
    """Distance to the predicted surface of every scan vertex that is measured, mm, (n,).

    Raises:
        DataError: if the crop leaves nothing of the scan.
    """
    points = measured_points(scan, options)
    motion = fit_similarity(prediction.landmarks, scan.landmarks, options.scale)
    if options.icp:
        motion = refine_icp(points, prediction, motion, options.scale)
    return surface_distances(points, motion(prediction.vertices), prediction.triangles)


def average_shape(shapes: np.ndarray) -> np.ndarray:
    """Mean of several predictions of one face, each first laid on the first by a similarity over all vertices.

    Args:
        shapes: F x V x 3 in any pose and scale, finite.

    Returns:
        V x 3, turned as the first is, as large as they are on (geometric) average.
    """
    motions = [fit_similarity(shape, shapes[0]) for shape in shapes]
    mean = np.mean([motion(shape) for motion, shape in zip(motions, shapes, strict=True)], 0)
    return mean / np.exp(np.mean([np.log(motion.scale) for motion in motions]))


def averaged(predict: Callable[[FaceCrops], np.ndarray], faces: FaceCrops, batch_size: int = 32) -> PersonShape:
    """The average of surfaces predicted from single pictures, as the paper measures its own.

    Args:
        predict: B pictures to vertices B x V x 3, NaN where there is no prediction.
        faces: pictures of one person.
        batch_size: pictures at a time.
    """
    shapes = np.concatenate([predict(part) for part in in_batches(faces, batch_size)])
    used = faces.usable.cpu().numpy() & np.isfinite(shapes).all(axis=(1, 2))
    return PersonShape(average_shape(shapes[used]) if used.any() else np.full(shapes.shape[1:], np.nan), used)


class ShapeScans:
    """Subjects with a scan and pictures, in the layout this module describes.

    Args:
        root: folder with one folder a subject.
        options: crop, alignment, choice of frames.
    """

    name = "shape"

    def __init__(self, root: str | Path, options: ShapeOptions | None = None) -> None:
        self.root = Path(root)
        self.options = options or ShapeOptions()

    @cached_property
    def subjects(self) -> tuple[str, ...]:
        """Folders that hold a scan, by name."""
        return tuple(sorted({path.parent.name for path in self._scans()}))

    def scan(self, subject: str) -> Surface:
        """A subject's scan with its seven points.

        Raises:
            DataError: if the files are not what the layout asks for, or the crop leaves nothing of the scan; names the
                file.
        """
        import trimesh

        file, landmarks = self._scan_of(subject), self._landmarks_of(subject)
        width = float(np.linalg.norm(landmarks[3] - landmarks[0]))
        if not _EYES[0] <= width <= _EYES[1]:
            raise DataError(
                f"{file}: the outer corners of the eyes are {width:.3g} apart: scan and points must be in mm"
            )
        try:
            mesh = trimesh.load(file, process=False, force="mesh")
        except Exception as error:  # trimesh's readers raise whatever they come across
            raise DataError(f"{file}: cannot be read as a mesh ({error})") from error
        vertices, faces = np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)
        if not len(faces):
            raise DataError(f"{file}: holds no triangles, a mesh is needed")
        found = Surface(vertices, faces, landmarks)
        try:
            measured_points(found, self.options)
        except DataError as error:
            raise DataError(f"{file}: {error}") from error
        return found

    def frames(self, subject: str) -> list[Path]:
        """The pictures that are used: every `options.every`-th, beginning with the first."""
        folder = self.root / subject / "frames"
        pictures = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        return pictures[:: self.options.every]

    def validate(self) -> list[str]:
        """What keeps the protocol from running; empty for a usable tree."""
        if not self.subjects:
            return [f"{self.root}: no <subject>/<scan>.ply or .obj below this folder"]
        problems = []
        for subject in self.subjects:
            try:
                self.scan(subject)
            except DataError as error:
                problems.append(str(error))
            if not self.frames(subject):
                problems.append(f"{self.root / subject}: no pictures below frames/")
        return problems

    def configuration(self) -> dict[str, object]:
        """The options, for the run record."""
        return asdict(self.options)

    def _scan_of(self, subject: str) -> Path:
        found = [path for path in self._scans() if path.parent.name == subject]
        if len(found) != 1:
            raise DataError(f"{self.root / subject}: one scan a subject, found {len(found)}")
        return found[0]

    def _landmarks_of(self, subject: str) -> np.ndarray:
        file = self.root / subject / "landmarks.txt"
        try:
            return np.loadtxt(file, dtype=np.float64).reshape(7, 3)
        except (OSError, ValueError) as error:
            raise DataError(f"{file}: the scan's seven points are needed, seven rows 'x y z' ({error})") from error

    def _scans(self) -> list[Path]:
        return [path for path in self.root.glob("*/*") if path.suffix.lower() in (".ply", ".obj")]


def evaluate_shape(
    protocol: ShapeScans,
    finder: Callable[[Sequence[Path]], FaceCrops],
    predictors: Sequence[ShapePredictor],
    batch_size: int = 32,
    progress: Progress = lambda done, total: None,
) -> tuple[pd.DataFrame, dict[str, dict[str, np.ndarray]]]:
    """Errors of every predictor on every subject; all see the same crops.

    Args:
        protocol: scans, frames, options.
        finder: picture files to face crops, one row a picture.
        predictors: who is measured.
        batch_size: pictures that are read at a time; a person's crops are held at once.
        progress: told the subjects done and to do.

    Returns:
        One row a predictor and subject: `protocol, setting, subject` and what `measure` says; and the errors of those
        that did not fail, by predictor and subject, for plots.

    Raises:
        ConfigError: the options keep the prediction's size, and a predictor has none.
    """
    import pandas as pd

    from pifr.faces import FaceCrops

    if not protocol.options.scale and (sizeless := [each.name for each in predictors if not each.in_millimetres]):
        raise ConfigError(f"{sizeless[0]} predicts no size in millimetres: leave it out, or measure without --metric")

    setting = "icp" if protocol.options.icp else "seven-points"
    rows: dict[str, list[dict[str, object]]] = {predictor.name: [] for predictor in predictors}
    errors: dict[str, dict[str, np.ndarray]] = {predictor.name: {} for predictor in predictors}
    for done, subject in enumerate(protocol.subjects, 1):
        frames = protocol.frames(subject)
        faces = FaceCrops.concatenate(map(finder, in_batches(frames, batch_size)))
        scan = protocol.scan(subject)
        for predictor in predictors:
            row, distance = measure(scan, predictor, predictor(faces), protocol.options)
            rows[predictor.name].append({"protocol": protocol.name, "setting": setting, "subject": subject} | row)
            if len(distance):
                errors[predictor.name][subject] = distance
        progress(done, len(protocol.subjects))
    return pd.DataFrame([row for of_predictor in rows.values() for row in of_predictor]), errors


def shape_record(
    protocol: ShapeScans, finder: FaceFinder, predictors: Sequence[ShapePredictor], table: pd.DataFrame
) -> dict[str, object]:
    """What `run.json` says of a run of `evaluate_shape`."""
    from protocols.runs import begin_record

    one = table[table["predictor"] == predictors[0].name]
    images = int(one["frames"].sum())
    return {
        **begin_record(protocol.name, protocol.root, {"subjects": len(one), "images": images}),
        "configuration": {**protocol.configuration(), "finder": finder.fingerprint},
        "weights": {predictor.name: predictor.fingerprint for predictor in predictors},
        "counts": {
            "images": images,
            "failures": table.groupby("predictor")["failed_frames"].sum().astype(int).to_dict(),
        },
    }


def measure(
    scan: Surface, predictor: ShapePredictor, shape: PersonShape, options: ShapeOptions
) -> tuple[dict[str, object], np.ndarray]:
    """Errors of a predictor on one subject.

    Args:
        scan: the subject's.
        predictor: gives the topology and the seven points.
        shape: what it predicted.
        options: crop and alignment.

    Returns:
        `predictor, frames, failed_frames, vertices` (measured scan vertices), `rmse, mean, median` (mm, NaN when
        failed), `status, reason`; and the errors, mm, none when failed.
    """
    distance = np.zeros(0)
    row: dict[str, object] = {"predictor": predictor.name, "frames": len(shape.used)}
    row |= {"failed_frames": int((~shape.used).sum())}
    if shape.used.any():
        prediction = Surface(shape.vertices, predictor.triangles, predictor.landmarks(shape.vertices))
        distance = shape_errors(scan, prediction, options)
        row |= {"vertices": len(distance), "rmse": float(np.sqrt((distance**2).mean()))}
        row |= {"mean": distance.mean(), "median": np.median(distance), "status": "ok", "reason": ""}
    else:
        row |= {"vertices": 0, "rmse": np.nan, "mean": np.nan, "median": np.nan}
        row |= {"status": "failed", "reason": "no_prediction"}
    return row, distance


def _closest(points: np.ndarray, vertices: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import igl

    squared, _, closest = igl.point_mesh_squared_distance(
        np.ascontiguousarray(points, np.float64),
        np.ascontiguousarray(vertices, np.float64),
        np.ascontiguousarray(triangles, np.int64),
    )
    return squared, closest
