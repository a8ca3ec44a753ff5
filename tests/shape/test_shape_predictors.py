"""The built-in predictors, and a run over a tree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh

from pifr.errors import UnknownNameError
from pifr.faces import FaceCrops
from pifr.geometry.face_model import load_face_model
from pifr.geometry.mesh_raster import grid_triangles
from pifr.geometry.template import LANDMARK_SETS, load_template
from protocols.shape import ShapeOptions, ShapeScans, Surface, averaged, evaluate_shape, shape_errors
from protocols.shape_predictors import SHAPE_PREDICTORS, PositionMapShapes, vertices_of
from protocols.synthetic.scene import surface_landmarks

from ..black_faces import black_faces


def _finder(files: list[Path]) -> FaceCrops:
    return FaceCrops.concatenate(
        [black_faces(1) if file.read_bytes() else FaceCrops.failed(["unreadable"]) for file in files]
    )


def _seven(head: np.ndarray) -> np.ndarray:
    return surface_landmarks(load_face_model().at_template(head))[list(LANDMARK_SETS["fg7"])]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """One subject whose scan is the face model's own mean; the second of its three frames is empty."""
    folder = tmp_path / "tree" / "001"
    (folder / "frames").mkdir(parents=True)
    model = load_face_model()
    mesh = trimesh.Trimesh(model.at_template(model.mean), model.template.triangles, process=False)
    mesh.export(folder / "scan.ply")
    np.savetxt(folder / "landmarks.txt", _seven(model.mean))
    for k in range(3):
        (folder / "frames" / f"{k}.jpg").write_bytes(b"" if k == 1 else b"picture")
    return folder.parent


def test_the_mean_face_fits_a_scan_of_the_mean_face(tree: Path) -> None:
    table, errors = evaluate_shape(
        ShapeScans(tree, ShapeOptions(every=1)), _finder, [SHAPE_PREDICTORS.load("mean")], batch_size=2
    )
    (row,) = table.to_dict("records")
    assert (row["frames"], row["failed_frames"], row["status"]) == (3, 1, "ok")
    # Grid triangles of a 128 x 128 map against the mesh they were sampled from.
    assert row["rmse"] < 0.5
    assert len(errors["mean"]["001"]) == row["vertices"]


def test_a_position_map_is_the_surface_that_its_triangles_span() -> None:
    model = load_face_model()
    maps = model.position_map(model.mean, 96)[None]
    shape = PositionMapShapes("x", lambda faces: averaged(lambda some: vertices_of(maps), faces), "x")
    vertices = shape(black_faces(1)).vertices
    assert grid_triangles(96, 96).max() == 96 * 96 - 1
    normals = trimesh.Trimesh(vertices, shape.triangles, process=False).face_normals
    assert np.median(normals[:, 2]) > 0.5
    seven = load_template().landmarks("fg7")
    assert shape.landmarks(vertices).shape == (len(seven), 3)
    np.testing.assert_allclose(shape.landmarks(vertices), _seven(model.mean), atol=0.5)


def test_a_wider_face_than_the_scan_is_measured_as_wider(tree: Path) -> None:
    scan = ShapeScans(tree).scan("001")
    predictor = SHAPE_PREDICTORS.load("mean")
    vertices = predictor(black_faces(1)).vertices
    exact = Surface(vertices, predictor.triangles, predictor.landmarks(vertices))
    wide = Surface(vertices * [1.1, 1, 1], predictor.triangles, predictor.landmarks(vertices) * [1.1, 1, 1])
    rmse = [np.sqrt((shape_errors(scan, surface, ShapeOptions()) ** 2).mean()) for surface in (exact, wide)]
    assert rmse[1] > rmse[0] + 0.5


def test_an_unknown_predictor_names_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="snet-coarse"):
        SHAPE_PREDICTORS.load("snet")
