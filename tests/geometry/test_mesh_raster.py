"""The mesh rasteriser against plain arithmetic."""

import numpy as np
import pytest

from pifr.geometry.mesh_raster import rasterize_mesh, vertex_normals


def _point_in_triangle(point, corners):
    """Barycentric weights by solving the linear system."""
    matrix = np.vstack([corners.T, np.ones(3)])
    return np.linalg.solve(matrix, [*point, 1.0])


def test_pixels_agree_with_a_brute_force_test_of_every_triangle():
    rng = np.random.default_rng(0)
    vertices = np.column_stack([rng.uniform(0, 24, (12, 2)), rng.uniform(0, 9, 12)]).astype(np.float32)
    triangles = rng.choice(12, (6, 3), replace=True)
    triangles = triangles[[len(set(t)) == 3 for t in triangles.tolist()]]
    raster = rasterize_mesh(vertices, triangles, 24, 24)
    for y in range(24):
        for x in range(24):
            depths = {}
            for k, t in enumerate(triangles):
                weights = _point_in_triangle((x, y), vertices[t, :2].astype(float))
                if (weights > 1e-4).all():
                    depths[k] = weights @ vertices[t, 2]
                elif (weights > -1e-4).all():
                    break  # on an edge: either answer is right
            else:
                expected = max(depths, key=depths.get) if depths else -1
                assert raster.triangle[y, x] == expected
                if depths:
                    assert raster.depth[y, x] == pytest.approx(depths[expected], abs=1e-3)


@pytest.mark.parametrize("place", [np.nan, np.inf, -np.inf, 1e30, -1e30])
def test_triangles_that_lie_nowhere_are_not_drawn(place):
    vertices = np.array([[2, 2, 0], [12, 3, 0], [4, 13, 0], [place, 5, 0], [place, place, 0], [place, 9, 0]])
    alone, beside = (rasterize_mesh(vertices, np.array([[0, 1, 2], [3, 4, 5]])[:count], 16, 16) for count in (1, 2))
    assert alone.covered.any()
    assert np.array_equal(alone.triangle, beside.triangle)


def test_interpolation_reproduces_linear_functions():
    vertices = np.array([[1, 1, 0], [20, 3, 0], [4, 18, 0]], np.float32)
    raster = rasterize_mesh(vertices, np.array([[0, 1, 2]]), 24, 24)
    values = raster.interpolate(vertices[:, :2])
    rows, columns = np.nonzero(raster.covered)
    assert len(rows) > 100
    assert np.allclose(values[rows, columns], np.column_stack([columns, rows]), atol=1e-3)
    assert (values[~raster.covered] == 0).all()


def test_a_triangle_outside_the_image_draws_nothing():
    vertices = np.array([[-9, -9, 0], [-2, -8, 0], [-5, -1, 0]], np.float32)
    assert not rasterize_mesh(vertices, np.array([[0, 1, 2]]), 8, 8).covered.any()


def test_attributes_of_wrong_rank_are_refused():
    raster = rasterize_mesh(np.zeros((3, 3), np.float32), np.array([[0, 1, 2]]), 4, 4)
    with pytest.raises(ValueError, match="V x C"):
        raster.interpolate(np.zeros(3))


def test_normals_of_a_sphere_point_outwards():
    trimesh = pytest.importorskip("trimesh")
    sphere = trimesh.creation.icosphere(subdivisions=3)
    normals = vertex_normals(np.asarray(sphere.vertices), np.asarray(sphere.faces))
    assert ((normals * sphere.vertices).sum(1) > 0.999).all()
