import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from pifr.geometry import warp
from pifr.geometry.camera import Camera, camera_from_angles, fit_camera, rotation_from_angles

NOSE, CHIN, EAR = torch.tensor([0.0, 0, 60]), torch.tensor([0.0, -80, 0]), torch.tensor([70.0, 0, 0])


def single(yaw=0.0, pitch=0.0, roll=0.0, scale=1.5, centre=(64.0, 60.0)):
    return camera_from_angles(yaw, pitch, roll, scale, torch.tensor([centre]))


def cloud(count: int = 400, seed: int = 0) -> torch.Tensor:
    spread = torch.tensor([50.0, 60, 25])[:, None]
    return torch.randn(1, 3, count, generator=torch.Generator().manual_seed(seed)) * spread


def test_positive_yaw_turns_the_nose_to_the_right_of_the_image():
    assert single(yaw=30).project(NOSE[None, :, None])[0, 0, 0] > 64


def test_positive_pitch_turns_the_nose_up_the_image():
    assert single(pitch=30).project(NOSE[None, :, None])[0, 1, 0] < 60


def test_positive_roll_turns_the_face_clockwise_in_the_image():
    assert single(roll=30).project(EAR[None, :, None])[0, 1, 0] > 60  # the ear on the image's right goes down
    assert single(roll=30).project(CHIN[None, :, None])[0, 0, 0] < 64


def test_depth_grows_towards_the_camera():
    camera = single(yaw=40, pitch=10)
    assert camera.depth(NOSE[None, :, None]) > camera.depth(-NOSE[None, :, None])


@given(st.floats(-179, 179), st.floats(-85, 85), st.floats(-179, 179))
@settings(max_examples=50, deadline=None)
def test_angles_are_those_the_camera_was_made_from(yaw, pitch, roll):
    wanted = torch.tensor([[yaw, pitch, roll]], dtype=torch.float64)
    camera = camera_from_angles(yaw, pitch, roll, 1.0, torch.zeros(1, 2, dtype=torch.float64))
    torch.testing.assert_close(camera.angles(), wanted, atol=1e-6, rtol=0)


def test_rotation_is_the_product_that_the_convention_states():
    yaw, pitch, roll = 35.0, -20.0, 15.0
    expected = (
        Rotation.from_euler("z", -roll, degrees=True)
        * Rotation.from_euler("x", -pitch, degrees=True)
        * Rotation.from_euler("y", yaw, degrees=True)
    ).as_matrix()
    found = rotation_from_angles(torch.tensor([[yaw, pitch, roll]], dtype=torch.float64))[0]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_camera_after_a_similarity_projects_to_the_moved_pixels():
    camera, points = single(20, 10, -15), cloud(20)
    move = torch.tensor([[[0.8, -0.3, 4.0], [0.3, 0.8, -7.0]]])
    torch.testing.assert_close(
        camera.mapped(move).project(points), warp.transform_maps(move, camera.project(points)), atol=1e-3, rtol=0
    )


def test_lifted_displacements_look_as_they_should_and_lie_across_the_view():
    camera = single(20, 10, -15)
    displacements = torch.tensor([[[3.0, 0.0, -2.0], [0.0, 4.0, 1.0]]])
    lifted = camera.lift(displacements)
    torch.testing.assert_close(camera.linear @ lifted, displacements)
    torch.testing.assert_close(camera.depth(lifted), torch.zeros(1, 1, 3), atol=1e-5, rtol=0)


def test_derivatives_agree_with_finite_differences():
    camera, points, step = single(20, 10, -15), cloud(5).double(), 1e-5
    camera = type(camera)(camera.scale.double(), camera.rotation.double(), camera.translation.double())
    found = camera.derivatives(points)[0]
    for k in range(6):
        change = torch.zeros(6, dtype=torch.float64)
        change[k] = step
        turn = torch.from_numpy(Rotation.from_rotvec(change[:3].numpy()).as_matrix())
        moved = type(camera)(camera.scale * change[3].exp(), turn @ camera.rotation, camera.translation + change[4:])
        difference = (moved.project(points) - camera.project(points))[0] / step
        torch.testing.assert_close(found[k], difference, atol=1e-2, rtol=1e-3)


def test_shapes_that_disagree_are_named():
    with pytest.raises(ValueError, match="rotation"):
        type(single())(torch.ones(2), torch.eye(3)[None], torch.zeros(2, 2))


@given(st.floats(-90, 90), st.floats(-40, 40), st.floats(-60, 60), st.floats(0.2, 4))
@settings(max_examples=30, deadline=None)
def test_exact_correspondences_give_the_exact_camera(yaw, pitch, roll, scale):
    camera, points = single(yaw, pitch, roll, scale), cloud()
    fit = fit_camera(points, camera.project(points), torch.ones(1, points.shape[2]))
    assert fit.valid.all()
    torch.testing.assert_close(fit.camera.angles(), camera.angles(), atol=0.01, rtol=0)
    torch.testing.assert_close(fit.camera.scale, camera.scale, atol=0, rtol=1e-4)


def test_a_fifth_of_wild_points_does_not_move_the_camera():
    camera, points = single(50, 5, 10), cloud()
    pixels = camera.project(points) + 0.5 * torch.randn(1, 2, 400, generator=torch.Generator().manual_seed(1))
    pixels[:, :, :80] += 40 * torch.randn(1, 2, 80, generator=torch.Generator().manual_seed(2))
    fit = fit_camera(points, pixels, torch.ones(1, 400))
    torch.testing.assert_close(fit.camera.angles(), camera.angles(), atol=0.7, rtol=0)
    assert fit.residual < 1.5


def test_points_without_weight_do_not_count():
    camera, points = single(-30, 5, 10), cloud()
    pixels, weights = camera.project(points), torch.ones(1, 400)
    pixels[:, :, ::2], weights[:, ::2] = 1e4, 0
    fit = fit_camera(points, pixels, weights, robust_steps=0)
    torch.testing.assert_close(fit.camera.angles(), camera.angles(), atol=0.01, rtol=0)


def test_least_squares_agrees_with_a_general_optimizer():
    camera, points = single(25, -10, 5), cloud(60)
    pixels = camera.project(points) + 3 * torch.randn(1, 2, 60, generator=torch.Generator().manual_seed(3))
    fit = fit_camera(points, pixels, torch.ones(1, 60), robust_steps=0).camera

    def residual(parameters: np.ndarray) -> np.ndarray:
        turn = Rotation.from_rotvec(parameters[:3]).as_matrix()
        moved = parameters[3] * (turn @ points[0].numpy())[:2] * [[1], [-1]] + parameters[4:, None]
        return (moved - pixels[0].numpy()).ravel()

    start = np.r_[Rotation.from_matrix(camera.rotation[0].numpy()).as_rotvec(), 1.5, 64, 60]
    best = least_squares(residual, start, xtol=1e-12, ftol=1e-12).x
    np.testing.assert_allclose(fit.rotation[0], Rotation.from_rotvec(best[:3]).as_matrix(), atol=2e-3)
    assert fit.scale.item() == pytest.approx(best[3], rel=2e-3)


@pytest.mark.parametrize("case", ["none", "three", "line", "plane", "one place"])
def test_too_little_to_fix_a_camera_is_said_and_stays_finite(case):
    points, weights = cloud(), torch.ones(1, 400)
    pixels = single(20).project(points)
    if case == "none":
        weights = torch.zeros(1, 400)
    elif case == "three":
        weights[:, 3:] = 0
    elif case == "line":
        points[:, 1:] = 0
    elif case == "plane":
        points[:, 2] = 0
    else:
        points, pixels = torch.ones_like(points), torch.ones_like(pixels)
    fit = fit_camera(points, pixels, weights)
    assert not fit.valid.any()
    assert fit.camera.project(points).isfinite().all()


def test_a_row_does_not_depend_on_its_batch():
    points = cloud()
    cameras = [single(yaw, 5, 3) for yaw in (-60, 0, 70)]
    pixels = torch.cat([camera.project(points) for camera in cameras]) + torch.randn(3, 2, 400)
    together = fit_camera(points, pixels, torch.ones(3, 400)).camera
    alone = fit_camera(points, pixels[1:2], torch.ones(1, 400)).camera
    torch.testing.assert_close(together.rotation[1:2], alone.rotation, atol=1e-5, rtol=0)


def test_rounding_does_not_make_the_angles_of_a_face_seen_from_below_nan():
    rotation = torch.tensor([[[1.0, 0, 0], [0, 0, 1], [0, -1.0000001, 0]]])
    assert Camera(torch.ones(1), rotation, torch.zeros(1, 2)).angles().isfinite().all()


def test_points_without_weight_do_not_count_in_the_residual():
    points = torch.randn(1, 3, 50, generator=torch.Generator().manual_seed(0)) * 50
    pixels = camera_from_angles(20.0, 5.0, 0.0, 0.7, torch.zeros(1, 2)).project(points)
    weights = torch.ones(1, 50)
    pixels[..., 20:], weights[:, 20:] = 500.0, 0.0
    assert fit_camera(points, pixels, weights).residual < 1e-2


def test_a_fit_that_is_not_valid_has_an_infinite_residual():
    fit = fit_camera(torch.zeros(1, 3, 10), torch.zeros(1, 2, 10), torch.ones(1, 10))
    assert not fit.valid[0]
    assert fit.residual[0] == torch.inf
