"""Synthetic people written as CFP, as Multi-PIE and as scans with pictures.

Every picture depends on (seed, person, picture) alone: the same seed gives the same bytes, whatever the number of
workers, and more subjects leave those before them as they were.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np

from pifr.errors import DataError
from pifr.geometry.face_model import load_face_model
from pifr.geometry.template import LANDMARK_SETS
from pifr.support.files import whole_folder
from pifr.support.workers import start_worker
from protocols.base import Progress
from protocols.multipie import CAMERA_YAW, FRONTAL_CAMERA, SHOTS, image_path
from protocols.synthetic.people import EXPRESSIONS, Person, TextureModel, expression, sample_hair, sample_person
from protocols.synthetic.photography import (
    Exposure,
    clutter,
    compose,
    develop,
    occluder,
    random_exposure,
    random_light,
)
from protocols.synthetic.scene import Light, Scene, Truth, View, surface_landmarks

FACE_HEIGHT_MM = 190.0
"""From the chin to the upper end of the template."""

CFP_VIEWS = {"frontal": 10, "profile": 4}
CFP_PAIRS = 7
"""Genuine, and impostor, pairs a subject and fold: 350 in an official fold of 50 subjects."""

MULTIPIE_SIZE = (320, 240)
"""Width and height: half the official 640 x 480."""
MULTIPIE_SCALE = 0.52
"""Pixels a millimetre: a face is some 100 pixels high, half of the official size."""

_OVERHEAD = {"14": (-45, 35), "15": (-20, 45), "16": (0, 50), "17": (20, 45), "18": (45, 35)}
FLASHES: dict[str, tuple[float, float]] = {
    **{f"{k + 1:02d}": (yaw, 0.0) for k, yaw in enumerate(range(-90, 91, 15))},
    **_OVERHEAD,
}
"""Yaw that a camera at the flash would see, and its elevation, degrees: thirteen at the cameras, 07 the frontal one,
and five overhead (after Multi-PIE; its own positions are not published in degrees)."""


def write_cfp(
    out: str | Path,
    subjects: int,
    seed: int,
    *,
    textures: TextureModel | None = None,
    workers: int = 1,
    progress: Progress = lambda done, total: None,
) -> None:
    """Ten frontal and four profile pictures a person in CFP's layout, with its pair lists, folds and fiducials.

    Beside them `Truth`: masks and PNCC a picture, `landmarks.csv`, `poses.csv`, and a scan a person.

    Args:
        out: a folder that does not exist or is empty.
        subjects: at least 4; 500 with ten folds of 350 + 350 pairs is CFP's size.
        seed: of everything.
        textures: where skins come from; by default the shipped model.
        workers: processes.
        progress: told the people done and to do.

    Raises:
        DataError: `out` is in use, or there are too few subjects.
    """
    if subjects < 4:
        raise DataError(f"{subjects} subjects give no two folds with two people each: ask for 4 or more")
    with _new_tree(Path(out), "synthetic-cfp", subjects, seed) as root:
        _each_person(partial(_write_cfp_person, root, seed, textures), subjects, workers, progress)
        _merge_tables(root / "Truth")
        _write_cfp_protocol(root / "Protocol", subjects, seed)


def write_multipie(
    out: str | Path,
    subjects: int,
    seed: int,
    *,
    sessions: int = 1,
    cameras: Sequence[str] = tuple(CAMERA_YAW),
    shots: Sequence[str] = SHOTS,
    textures: TextureModel | None = None,
    workers: int = 1,
    progress: Progress = lambda done, total: None,
) -> None:
    """Neutral faces in Multi-PIE's layout: thirteen cameras, twenty lights, PNG of half the official size.

    Beside them `labels` (39 or 68 points a camera, from 1 as MATLAB counts, named after shot 07 or the first) and
    `Truth` with a mask and PNCC a camera and a scan a person.

    Args:
        out, subjects, seed, textures, workers, progress: as `write_cfp`.
        sessions: 1 to 4; everyone comes to each, sometimes with other hair.
        cameras, shots: a part of the layout; the frontal picture of shot 07 is always drawn, as the reference.

    Raises:
        DataError: `out` is in use, or a camera or a shot does not exist.
    """
    unknown = [f"camera {name}" for name in cameras if name not in CAMERA_YAW]
    unknown += [f"shot {name}" for name in shots if name not in SHOTS]
    if unknown or not 1 <= sessions <= 4 or not 1 <= subjects <= 999:
        raise DataError(
            f"Multi-PIE has no {', '.join(unknown)}: shots are 00 to 19, cameras {', '.join(CAMERA_YAW)}"
            if unknown
            else f"sessions must be 1 to 4 and subjects 1 to 999, not {sessions} and {subjects}"
        )
    with _new_tree(Path(out), "synthetic-multipie", subjects, seed) as root:
        task = partial(_write_multipie_person, root, seed, textures, sessions, tuple(cameras), tuple(shots))
        _each_person(task, subjects, workers, progress)


def write_shape(
    out: str | Path,
    subjects: int,
    seed: int,
    *,
    frames: int = 41,
    textures: TextureModel | None = None,
    workers: int = 1,
    progress: Progress = lambda done, total: None,
) -> None:
    """A scan with seven points and a film of each person turning from side to side, in the shape protocol's layout.

    Args:
        out, subjects, seed, textures, workers, progress: as `write_cfp`.
        frames: of each film; the protocol takes every tenth.
    """
    with _new_tree(Path(out), "synthetic-shape", subjects, seed) as root:
        _each_person(partial(_write_shape_person, root, seed, textures, frames), subjects, workers, progress)


def _write_cfp_person(root: Path, seed: int, textures: TextureModel | None, index: int) -> None:
    person = sample_person(seed, index, textures)
    subject = f"{index + 1:03d}"
    _write_scan(root / "Truth" / subject / "scan.ply", person)
    points, poses = [], []
    for view_name, count in CFP_VIEWS.items():
        for k in range(count):
            rng = np.random.default_rng([seed, index, 1 + (view_name == "profile"), k])
            picture, truth, view = _snapshot(person, view_name, rng)
            sample = f"{subject}/{view_name}/{k + 1:02d}"
            _write_image(
                root / "Data" / "Images" / f"{sample}.jpg",
                picture,
                [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(45, 96))],
            )
            _write_truth(root / "Truth" / sample, truth)
            side = "left" if view.yaw > 0 else "right"
            fiducials = root / "Data" / "Fiducials" / f"{sample}.txt"
            fiducials.parent.mkdir(parents=True, exist_ok=True)
            rows = truth.landmarks[list(LANDMARK_SETS[f"cfp30-{side}"])]
            fiducials.write_text("".join(f"{x:.3f},{y:.3f}\n" for x, y in rows))
            image = f"../Data/Images/{sample}.jpg"
            points += [f"{image},{n + 1},{x:.3f},{y:.3f},{subject},{view_name},{view.yaw:.2f}" for n, (x, y) in
                       enumerate(truth.landmarks)]  # fmt: skip
            poses.append(f"{image},{view.yaw:.3f},{view.pitch:.3f},{view.roll:.3f},{view.scale:.5f}")
    folder = root / "Truth" / subject
    (folder / "landmarks.csv").write_text("\n".join(["path,landmark,x,y,subject,view,yaw", *points]) + "\n")
    (folder / "poses.csv").write_text("\n".join(["path,yaw,pitch,roll,pixels_per_mm", *poses]) + "\n")


def _snapshot(person: Person, view_name: str, rng: np.random.Generator) -> tuple[np.ndarray, Truth, View]:
    """One of CFP's pictures, "in the wild"."""
    yaw = rng.choice([-1, 1]) * rng.uniform(65, 92) if view_name == "profile" else np.clip(rng.normal(0, 9), -25, 25)
    pitch, roll = np.clip(rng.normal(0, 7), -20, 20), np.clip(rng.normal(0, 6), -20, 20)
    height = int(np.exp(rng.uniform(np.log(90), np.log(380))))
    width = int(height * rng.uniform(0.75, 1.0))
    scale = rng.uniform(0.55, 0.75) * height / FACE_HEIGHT_MM
    centre = (width * rng.uniform(0.42, 0.58), height * rng.uniform(0.45, 0.58))
    view = View(
        float(yaw), float(pitch), float(roll), float(scale), (float(centre[0]), float(centre[1])), width, height
    )
    mood = list(EXPRESSIONS)[rng.choice(len(EXPRESSIONS), p=(0.4, 0.35, 0.08, 0.07, 0.05, 0.05))]
    hair = person.hair
    if rng.random() < 0.35:
        hair = replace(sample_hair(rng), colour=person.hair.colour)
    scene = Scene(replace(person, clothes=rng.uniform(0.02, 0.6, 3)), expression(mood, rng.uniform(0.3, 1), rng), hair)
    light = random_light(rng)
    (drawn,), coverage = scene.draw(view, [scene.irradiance(light)])
    picture = compose(drawn, coverage, clutter(height, width, rng))
    truth = scene.truth(view)
    if rng.random() < 0.15:
        colour, alpha = occluder(height, width, rng)
        picture = picture * (1 - alpha[..., None]) + colour * alpha[..., None]
        seen = truth.mask & (alpha < 0.5)
        truth = replace(truth, mask=seen, pncc=truth.pncc * seen[..., None])
    return develop(picture, random_exposure(rng), rng), truth, view


def _write_cfp_protocol(folder: Path, subjects: int, seed: int) -> None:
    """Pair lists and folds as CFP has them: disjoint in identity, as many genuine as impostor pairs."""
    rng = np.random.default_rng([seed, subjects, 1_000_003])
    for letter, (view, count) in zip("FP", CFP_VIEWS.items(), strict=True):
        folder.mkdir(parents=True, exist_ok=True)
        lines = [
            f"{index * count + k + 1} ../Data/Images/{index + 1:03d}/{view}/{k + 1:02d}.jpg"
            for index in range(subjects)
            for k in range(count)
        ]
        (folder / f"Pair_list_{letter}.txt").write_text("\n".join(lines) + "\n")
    folds = np.array_split(np.arange(subjects), min(10, max(2, subjects // 4)))  # folds of two have no interval
    frontal, profile = CFP_VIEWS.values()
    for setting, second_count in (("FF", frontal), ("FP", profile)):
        for fold, members in enumerate(folds, 1):
            same, diff = [], []
            for index in members:
                pairs = [(a, b) for a in range(frontal) for b in range(second_count) if setting == "FP" or a < b]
                chosen = [pairs[k] for k in rng.choice(len(pairs), CFP_PAIRS, replace=False)]
                same += [(index * frontal + a + 1, index * second_count + b + 1) for a, b in chosen]
                others = [int(other) for other in members if other != index]
                drawn = rng.choice(len(others) * frontal * second_count, CFP_PAIRS, replace=False)
                for who, a, b in zip(*np.unravel_index(drawn, (len(others), frontal, second_count)), strict=True):
                    diff.append((index * frontal + a + 1, others[who] * second_count + b + 1))
            target = folder / "Split" / setting / f"{fold:02d}"
            target.mkdir(parents=True)
            for name, rows in (("same", same), ("diff", diff)):
                (target / f"{name}.txt").write_text("".join(f"{a},{b}\n" for a, b in rows))


def _write_multipie_person(
    root: Path,
    seed: int,
    textures: TextureModel | None,
    sessions: int,
    cameras: tuple[str, ...],
    shots: tuple[str, ...],
    index: int,
) -> None:
    person = sample_person(seed, index, textures)
    subject = f"{index + 1:03d}"
    _write_scan(root / "Truth" / subject / "scan.ply", person)
    for session in range(1, sessions + 1):
        rng = np.random.default_rng([seed, index, 3, session])
        hair = replace(sample_hair(rng), colour=person.hair.colour) if session > 1 and rng.random() < 0.3 else None
        scene = Scene(person, expression("neutral", 1, rng), hair)
        turned = np.clip(rng.normal(0, [3, 5, 3]), -12, 12)
        moved = rng.uniform(-10, 10, 2)
        lit = {shot: scene.irradiance(_laboratory_light(shot)) for shot in sorted({*shots, "07"})}
        for camera in sorted({*cameras, FRONTAL_CAMERA}):
            wanted = shots if camera in cameras else ()
            wanted = sorted({*wanted, *(("07",) if camera == FRONTAL_CAMERA else ())})
            _write_multipie_camera(root, seed, scene, (subject, session, camera), turned, moved, wanted, lit)


def _write_multipie_camera(
    root: Path,
    seed: int,
    scene: Scene,
    where: tuple[str, int, str],
    turned: np.ndarray,
    moved: np.ndarray,
    shots: Sequence[str],
    lit: dict[str, np.ndarray],
) -> None:
    subject, session, camera = where
    yaw, (width, height) = CAMERA_YAW[camera], MULTIPIE_SIZE
    view = View(
        float(yaw + turned[0]),
        # Nodding happens about the head's own axis: seen from the side, it is a roll.
        float(turned[1] * np.cos(np.radians(yaw)) + turned[2] * np.sin(np.radians(yaw))),
        float(turned[2] * np.cos(np.radians(yaw)) - turned[1] * np.sin(np.radians(yaw))),
        MULTIPIE_SCALE,
        (width / 2 + float(moved[0]), 0.47 * height + float(moved[1])),
        width,
        height,
    )
    drawn, coverage = scene.draw(view, [lit[shot] for shot in shots])
    room = clutter(height, width, np.random.default_rng([seed, yaw % 360, 5])) * 0.5
    for shot, picture in zip(shots, drawn, strict=True):
        rng = np.random.default_rng([seed, int(subject), 4, session, yaw % 360, int(shot)])
        composed = compose(picture, coverage, room * (0.4 if shot in ("00", "19") else 0.7))
        exposure = Exposure((1.0, 1.0, 1.0), 0.5, 0.015)
        target = root / image_path(subject, session, "01", camera, shot)
        _write_image(target, develop(composed, exposure, rng), [cv2.IMWRITE_PNG_COMPRESSION, 3])
    truth = scene.truth(view)
    stem = Path(image_path(subject, session, "01", camera, "07" if "07" in shots else shots[0])).stem
    _write_truth(root / "Truth" / subject / stem, truth)
    points = truth.landmarks
    if abs(yaw) >= 60:
        points = points[list(LANDMARK_SETS[f"multipie39-{'left' if yaw > 0 else 'right'}"])]
    label = root / "labels" / camera.replace("_", "") / f"{stem}_lm.txt"
    label.parent.mkdir(parents=True, exist_ok=True)
    label.write_text("".join(f"{x + 1:.3f} {y + 1:.3f}\n" for x, y in points))


def _laboratory_light(shot: str) -> Light:
    """The room's own light from above, and one flash."""
    room = ((0.0, 0.85, 0.5), (0.22, 0.21, 0.19))
    if shot not in FLASHES:
        return Light((0.16, 0.16, 0.15), (room,))
    yaw, elevation = np.radians(FLASHES[shot])
    # Where a camera that sees this yaw stands: the third row of Ry(yaw).
    direction = (-np.sin(yaw) * np.cos(elevation), np.sin(elevation), np.cos(yaw) * np.cos(elevation))
    return Light((0.16, 0.16, 0.15), (room, (tuple(map(float, direction)), (0.8, 0.8, 0.8))))


def _write_shape_person(root: Path, seed: int, textures: TextureModel | None, frames: int, index: int) -> None:
    person = sample_person(seed, index, textures)
    folder = root / f"{index + 1:03d}"
    _write_scan(folder / "scan.ply", person)
    model = load_face_model()
    seven = surface_landmarks(model.at_template(person.neutral))[list(LANDMARK_SETS["fg7"])]
    np.savetxt(folder / "landmarks.txt", seven, fmt="%.4f")
    rng = np.random.default_rng([seed, index, 6])
    light, exposure = random_light(rng), random_exposure(rng)
    background = clutter(240, 320, rng)
    phase, mood = rng.uniform(0, 2 * np.pi), expression("smile", rng.uniform(0, 0.6), rng)
    for k in range(frames):
        # Speech and mood come and go while the head swings twice from side to side.
        swing = 4 * np.pi * k / max(frames, 2) + phase
        coefficients = mood * (0.5 + 0.5 * np.sin(1.7 * swing)).astype(np.float32)
        coefficients = coefficients + expression("neutral", 1, np.random.default_rng([seed, index, 7, k])) * 0.3
        scene = Scene(person, np.clip(coefficients, 0, 1).astype(np.float32))
        view = View(float(55 * np.sin(swing)), float(8 * np.cos(0.7 * swing)), 0.0, 0.75, (160.0, 115.0), 320, 240)
        (drawn,), coverage = scene.draw(view, [scene.irradiance(light)])
        picture = develop(compose(drawn, coverage, background), exposure, np.random.default_rng([seed, index, 8, k]))
        _write_image(folder / "frames" / f"{k:04d}.jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])


def _write_scan(path: Path, person: Person) -> None:
    """The neutral face without noise, in the template's topology, mm: binary PLY."""
    import trimesh

    model = load_face_model()
    path.parent.mkdir(parents=True, exist_ok=True)
    mesh = trimesh.Trimesh(model.at_template(person.neutral), model.template.triangles, process=False)
    path.write_bytes(mesh.export(file_type="ply"))


def _write_truth(stem: Path, truth: Truth) -> None:
    """`<stem>_mask.png` (0 or 255) and `<stem>_pncc.png` (RGB as X, Y, Z)."""
    _write_image(stem.with_name(f"{stem.name}_mask.png"), truth.mask.astype(np.uint8) * 255)
    _write_image(stem.with_name(f"{stem.name}_pncc.png"), truth.pncc)


def _write_image(path: Path, pixels: np.ndarray, options: Sequence[int] = ()) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    good, content = cv2.imencode(path.suffix, stored, list(options))
    if not good:
        raise DataError(f"'{path}' could not be encoded")
    path.write_bytes(content.tobytes())


def _merge_tables(folder: Path) -> None:
    for name in ("landmarks.csv", "poses.csv"):
        parts = sorted(folder.glob(f"*/{name}"))
        texts = [part.read_text() for part in parts]
        header = texts[0].splitlines(keepends=True)[0]
        (folder / name).write_text(header + "".join(text[len(header) :] for text in texts))
        for part in parts:
            part.unlink()


def _each_person(write: Callable[[int], None], subjects: int, workers: int, progress: Progress) -> None:
    if workers <= 1:
        for index in range(subjects):
            write(index)
            progress(index + 1, subjects)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), start_worker) as pool:
        for done, _ in enumerate(pool.map(write, range(subjects)), 1):
            progress(done, subjects)


@contextmanager
def _new_tree(out: Path, name: str, subjects: int, seed: int) -> Iterator[Path]:
    """See `whole_folder`; a marker says what the folder is."""
    from pifr import __version__

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"'{out}' exists already: give a new folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(out) as part:
        yield part
        marker = {"name": name, "synthetic": True, "subjects": subjects, "seed": seed, "pifr_version": __version__}
        (part / "dataset.json").write_text(json.dumps(marker, indent=2) + "\n")
        if out.exists():
            out.rmdir()
