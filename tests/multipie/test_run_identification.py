"""A whole run on a small tree: what must not change ranks does not, and what must does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from feature_extractors.base import ModuleRecognizer, RecognizerConfig
from pifr.faces import AlignmentTemplate, FaceCrops, FaceFinder
from pifr.views import Mirror, PlainCrop, ViewMaker, Views
from protocols import runner
from protocols.experiment import Experiment
from protocols.extraction import System
from protocols.identification import COLUMNS, identification_rates, run_identification
from protocols.multipie import CAMERA_YAW, MultiPie, Switches, image_path

SIDE = 64
# Off the middle by a little, so that no crop's corner falls half-way between two pixels, where rounding takes sides.
FIVE = np.array([(21.0, 26.0), (42.0, 26.0), (31.5, 36.0), (23.0, 46.0), (40.0, 46.0)]) + 0.2
CAMERAS = ("05_1", "19_0", "08_0", "24_0", "11_0")
# ArcFace's own template is not quite symmetric.
SYMMETRIC = AlignmentTemplate("symmetric", 32, ((10, 12), (21, 12), (15.5, 17), (11, 22), (20, 22)))
SWITCHES = Switches(poses=(45, 90))


def _write(root: Path, names: dict[int, int], *, mirrored: bool = False) -> Path:
    """People 0, 1, ... under the given numbers; probes fade with yaw. Landmarks lie in landmarks.csv."""
    opposite = {yaw: camera for camera, yaw in CAMERA_YAW.items()}
    lines = ["path," + ",".join(f"{axis}{k}" for k in range(1, 6) for axis in "xy")]
    for person, number in names.items():
        looks = np.random.default_rng([7, person]).integers(0, 256, (8, 8, 3))
        for camera in CAMERAS:
            for shot in ("00", "07"):
                noise = np.random.default_rng([8, person, CAMERA_YAW[camera] % 360, int(shot)])
                strength = 30 + 4 * abs(CAMERA_YAW[camera])
                picture = cv2.resize(looks.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
                picture = np.clip(picture + noise.normal(0, strength, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
                points = FIVE
                if mirrored:
                    picture, points = picture[:, ::-1], (FIVE * [-1, 1] + [SIDE - 1, 0])[[1, 0, 2, 4, 3]]
                name = opposite[-CAMERA_YAW[camera]] if mirrored else camera
                sample = image_path(f"{number:03d}", 1, "01", name, shot)
                (root / sample).parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(root / sample), picture)
                lines.append(f"{sample}," + ",".join(f"{value:g}" for value in points.ravel()))
    (root / "landmarks.csv").write_text("\n".join(lines))
    return root


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], tuple[pd.DataFrame, dict]]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(3 * 64, 24))
    config = RecognizerConfig(
        name="small", input_size=32, alignment=SYMMETRIC, embedding_size=24, licence="none", origin="made here"
    )
    recognizer = ModuleRecognizer(network, config, "small")
    makers = {"none": PlainCrop(), "mirror": Mirror()}
    systems = [System("small", recognizer, name, maker) for name, maker in makers.items()]
    monkeypatch.setattr(runner, "load_systems", lambda experiment: systems)

    def evaluate(root: Path, maker: ViewMaker | None = None, **options: str) -> tuple[pd.DataFrame, dict]:
        if maker:
            systems.append(System("small", recognizer, maker.name, maker))
        places = {"data": root, "out": tmp_path / "out", "store": tmp_path / "store.sqlite"}
        experiment = Experiment(**places, detector=f"file:{root / 'landmarks.csv'}", **options)
        return run_identification(MultiPie(root, SWITCHES), experiment)

    return evaluate


def _ranks(table: pd.DataFrame, frontalizer: str) -> pd.Series:
    chosen = table[table.frontalizer == frontalizer]
    return chosen.set_index("probe")["rank"].sort_index()


def test_a_run_has_a_row_a_probe_and_system_and_says_what_was_compared(run, tmp_path: Path) -> None:
    table, record = run(_write(tmp_path / "tree", {person: person + 1 for person in range(5)}))
    assert tuple(table.columns) == COLUMNS
    assert len(table) == 2 * 5 * 4 * 2
    assert record["configuration"]["switches"]["poses"] == (45, 90)
    assert record["dataset"]["counts"]["setting-1"] == {"probe": 40, "reference": 5}
    assert any("5 test subjects (001 to 005)" in line for line in record["notices"])
    rates = identification_rates(table, by=("pose",)).set_index(["frontalizer", "pose"])["rank-1"]
    assert rates["none", 45] > rates["none", 90]
    assert (table.score >= table.best_impostor_score).equals((table["rank"] == 1).astype(bool))


class _Posed(PlainCrop):
    """A view maker that takes a face's brightness for its yaw."""

    name, fingerprint = "posed", "posed-1"

    def __call__(self, faces: FaceCrops, alignment: AlignmentTemplate, size: int) -> Views:
        return replace(super().__call__(faces, alignment, size), yaw=90 * faces.pixels.mean((1, 2, 3)))


def test_the_yaw_of_a_row_is_its_probes(run, tmp_path: Path) -> None:
    root = _write(tmp_path / "tree", {person: person + 1 for person in range(3)})
    table, _ = run(root, _Posed())
    rows, finder = table[table.frontalizer == "posed"], FaceFinder(f"file:{root / 'landmarks.csv'}")
    expected = _Posed()(finder([root / probe for probe in rows["probe"]]), SYMMETRIC, 32).yaw
    np.testing.assert_allclose(rows["yaw"], expected, rtol=1e-5)
    assert rows["yaw"].nunique() == len(rows)


def test_a_tree_is_looked_through_once(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, samples = [], MultiPie.samples
    monkeypatch.setattr(MultiPie, "samples", lambda tree, setting: asked.append(setting) or samples(tree, setting))
    run(_write(tmp_path / "tree", {person: person + 1 for person in range(2)}))
    assert asked == ["1"]


def test_references_keep_their_first_view_where_only_probes_are_turned(run, tmp_path: Path) -> None:
    tree = _write(tmp_path / "tree", {person: person + 1 for person in range(4)})
    both, probe = (run(tree, sides=sides)[0] for sides in ("both", "probe"))
    for name, changes in (("none", False), ("mirror", True)):
        scores = [table[table.frontalizer == name].sort_values("probe")["score"].to_numpy() for table in (both, probe)]
        assert (np.abs(scores[0] - scores[1]).max() > 1e-3) == changes


def test_a_mirrored_data_set_has_mirrored_cameras_and_the_same_rates(run, tmp_path: Path) -> None:
    names = {person: person + 1 for person in range(6)}
    table, _ = run(_write(tmp_path / "tree", names))
    mirrored, _ = run(_write(tmp_path / "mirrored", names, mirrored=True))
    # The mirror view makes a template of a face and its mirror image, so turning both changes nothing.
    sides = [
        identification_rates(rows[rows.frontalizer == "mirror"], by=("camera_yaw",)).set_index("camera_yaw")["rank-1"]
        for rows in (table, mirrored)
    ]
    assert sides[0].tolist() == sides[1].loc[[-yaw for yaw in sides[0].index]].tolist()
    assert 0 < sides[0].mean() < 1


def test_renaming_subjects_changes_no_rank(run, tmp_path: Path) -> None:
    order = dict(enumerate((41, 7, 23, 2, 90)))
    plain = _ranks(run(_write(tmp_path / "tree", {person: person + 1 for person in range(5)}))[0], "none")
    renamed = _ranks(run(_write(tmp_path / "renamed", order))[0], "none")
    for person, number in order.items():
        old = plain[plain.index.str.contains(f"/{person + 1:03d}/")]
        new = renamed[renamed.index.str.contains(f"/{number:03d}/")]
        assert old.tolist() == new.tolist()


def test_a_corrupted_probe_changes_its_own_row_alone_and_is_counted(run, tmp_path: Path) -> None:
    root = _write(tmp_path / "tree", {person: person + 1 for person in range(4)})
    before, _ = run(root)
    broken = image_path("002", 1, "01", "24_0", "00")
    (root / broken).write_bytes(b"not a picture")
    after, record = run(root)
    changed = before["rank"].ne(after["rank"]).fillna(True)
    assert set(after.loc[changed, "probe"]) == {broken}
    assert set(after.loc[changed, "reason"]) == {"probe:unreadable"}
    assert record["counts"]["failures"] == {"unreadable": 1}
    failures = identification_rates(after, by=("camera",)).set_index(["frontalizer", "camera"])["failures"]
    assert failures["none", "24_0"] == 1


def test_a_corrupted_reference_makes_misses_of_its_subject(run, tmp_path: Path) -> None:
    root = _write(tmp_path / "tree", {person: person + 1 for person in range(4)})
    (root / image_path("002", 1, "01", "05_1", "07")).write_bytes(b"")
    table, _ = run(root)
    lost = table[table.probe_subject == "002"]
    assert lost["rank"].isna().all()
    assert set(lost.reason) == {"reference:unreadable"}
    assert table.loc[table.probe_subject != "002", "rank"].notna().all()


def test_a_subject_without_a_reference_is_a_miss_that_says_so(run, tmp_path: Path) -> None:
    root = _write(tmp_path / "tree", {person: person + 1 for person in range(4)})
    (root / image_path("002", 1, "01", "05_1", "07")).unlink()
    table, _ = run(root)
    lost = table[table.probe_subject == "002"]
    assert lost["rank"].isna().all()
    assert (set(lost.status), set(lost.reason)) == ({"failed"}, {"reference:not_enrolled"})
    assert set(table.loc[table.probe_subject != "002", "status"]) == {"ok"}


def test_a_side_that_fell_back_is_named_and_counts_as_a_fallback(run, tmp_path: Path) -> None:
    root = _write(tmp_path / "tree", {person: person + 1 for person in range(4)})
    reference, probe = image_path("002", 1, "01", "05_1", "07"), image_path("003", 1, "01", "24_0", "00")
    lines = (root / "landmarks.csv").read_text().splitlines()
    kept = [line for line in lines if not line.startswith((reference, probe))]
    (root / "landmarks.csv").write_text("\n".join(kept))
    table, _ = run(root, fallback="centre-crop")
    assert table["rank"].notna().all()
    fallen = table[table["status"] == "fallback"]
    assert set(fallen.loc[fallen["probe_subject"] == "002", "reason"]) == {"reference:fallback:no_landmarks"}
    assert fallen.loc[fallen["probe"] == probe, "reason"].unique().tolist() == ["probe:fallback:no_landmarks"]
    assert len(fallen) == 2 * (8 + 1)
    assert set(table.loc[~table.index.isin(fallen.index), "status"]) == {"ok"}
