import numpy as np
import pytest
import torch
from scipy.ndimage import binary_fill_holes

from pifr.faces import ARCFACE_112
from pifr.geometry import render as render_module
from pifr.geometry import warp
from pifr.geometry.camera import camera_from_angles
from pifr.geometry.reference_render import RendererUnavailableError, render_reference
from pifr.geometry.render import frontal_camera, rasterize, render, render_frontal
from pifr.geometry.template import load_template

FIVE = torch.tensor([[0.35, 0.35], [0.65, 0.35], [0.5, 0.55], [0.38, 0.75], [0.62, 0.75]])
YAWS = torch.linspace(-90, 90, 7)


def cameras(yaw: torch.Tensor, size: int, pitch: float = 5.0, roll: float = 3.0):
    return camera_from_angles(yaw, pitch, roll, size / 230, torch.full((len(yaw), 2), size / 2 - 0.5))


def brute_force(positions: torch.Tensor, camera, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Every triangle against every pixel centre, in float64: mask and depth of one face."""
    pixels = camera.project(positions)[0].double().numpy()
    depth = camera.depth(positions)[0, 0].double().numpy()
    best = np.full((size, size), -np.inf)
    y, x = np.mgrid[:size, :size]
    rows, columns = depth.shape
    for r in range(rows - 1):
        for c in range(columns - 1):
            for corners in (((r, c), (r + 1, c), (r, c + 1)), ((r + 1, c + 1), (r, c + 1), (r + 1, c))):
                (x0, y0), (x1, y1), (x2, y2) = (pixels[:, i, j] for i, j in corners)
                area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
                if area >= 0:  # seen from behind
                    continue
                w1 = ((x - x0) * (y2 - y0) - (x2 - x0) * (y - y0)) / area
                w2 = ((x1 - x0) * (y - y0) - (x - x0) * (y1 - y0)) / area
                inside = (w1 >= 0) & (w2 >= 0) & (w1 + w2 <= 1)
                z0, z1, z2 = (depth[i, j] for i, j in corners)
                z = np.where(inside, z0 + w1 * (z1 - z0) + w2 * (z2 - z0), -np.inf)
                best = np.maximum(best, z)
    return best > -np.inf, best


@pytest.mark.parametrize("yaw", [-90.0, -35.0, 0.0, 60.0])
def test_mask_and_depth_agree_with_brute_force(analytic_face, yaw):
    positions, camera = analytic_face(16)[None], cameras(torch.tensor([yaw]), 40)
    raster = rasterize(positions, camera, 40)
    mask, depth = brute_force(positions, camera, 40)
    found = raster.mask[0, 0].numpy() > 0
    assert (found != mask).sum() <= 2  # pixel centres on the outline itself
    both = found & mask
    np.testing.assert_allclose(raster.depth[0, 0].numpy()[both], depth[both], atol=0.05)


def test_the_two_rasterisers_agree(analytic_face):
    positions, camera = analytic_face(48).expand(len(YAWS), -1, -1, -1), cameras(YAWS, 100)
    grids = (*camera.project(positions).unbind(1), camera.depth(positions)[:, 0])
    (compiled_uv, compiled_depth), (uv, depth) = (
        draw(*grids, 100) for draw in (render_module._draw_compiled, render_module._draw_scattered)
    )
    both = (compiled_depth > -torch.inf) & (depth > -torch.inf)
    either = (compiled_depth > -torch.inf) | (depth > -torch.inf)
    assert either.sum() - both.sum() < 1e-4 * either.sum()
    torch.testing.assert_close(compiled_depth[both], depth[both], atol=0.01, rtol=0)
    assert (compiled_uv - uv).abs().amax(1, keepdim=True)[both].quantile(0.999) < 1e-3


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("supersampling", [1, 2, 3])
def test_a_rendering_is_the_same_with_and_without_gradients(analytic_face, channels, supersampling):
    positions, camera = analytic_face(48)[None], cameras(YAWS, 60)
    texture = torch.rand(1, channels, 40, 70, generator=torch.Generator().manual_seed(0))
    compiled = render(positions, texture, camera, 60, supersampling)
    plain = render(positions, texture.requires_grad_(), camera, 60, supersampling)
    torch.testing.assert_close(compiled.attributes, plain.attributes.detach(), atol=1e-5, rtol=0)
    torch.testing.assert_close(compiled.mask, plain.mask)
    torch.testing.assert_close(compiled.depth, plain.depth)


def test_each_pixel_sees_the_surface_point_that_projects_to_it(analytic_face):
    positions, camera = analytic_face(64)[None], cameras(YAWS, 96)
    raster = rasterize(positions, camera, 96)
    places = camera.project(raster.sample(positions))
    error = (places - warp.pixel_grid(96, 96)).norm(dim=1)[raster.mask[:, 0] > 0]
    assert error.max() < 0.1


def test_no_hole_at_any_yaw(analytic_face):
    raster = rasterize(analytic_face(64)[None], cameras(torch.linspace(-90, 90, 19), 128), 128)
    for mask in raster.mask[:, 0].numpy() > 0:
        assert (binary_fill_holes(mask) == mask).all()


def test_the_nose_hides_the_far_cheek_and_not_the_near_one(analytic_face):
    size = 128
    positions, camera = analytic_face(64)[None], cameras(torch.tensor([60.0]), size, 0, 0)
    colour = (warp.uv_grid(64)[0] > 0.5).float()[None, None]  # the image-right half, which turns away
    drawn = render(positions, torch.cat([colour, 1 - colour], 1), camera, size)
    nose = camera.project(warp.points_at(positions, torch.tensor([[0.485, 0.55]])))[0, :, 0].round().long()
    cheek = camera.project(warp.points_at(positions, torch.tensor([[0.62, 0.55]])))[0, :, 0].round().long()
    assert drawn.attributes[0, 1, nose[1], nose[0]] > 0.9
    assert drawn.attributes[0, 0, cheek[1], cheek[0]] < 0.5  # where the far cheek would be, the nose is seen
    seen = rasterize(positions, camera, size).depth[0, 0, cheek[1], cheek[0]]
    assert seen > camera.depth(warp.points_at(positions, torch.tensor([[0.62, 0.55]])))[0, 0, 0] + 5


def test_a_texture_finer_than_the_geometry_keeps_its_detail(analytic_face):
    stripes = ((torch.arange(512) // 4) % 2).float().expand(1, 1, 512, 512)
    raster = rasterize(analytic_face(32)[None], cameras(torch.zeros(1), 512, 0, 0), 512)
    drawn = raster.sample(stripes)
    row = drawn[0, 0, 256, 160:352]
    assert row.std() > 0.4
    expected = ((raster.uv[0, 0, 256, 160:352] * 512 // 4) % 2).float()
    assert ((row > 0.5) == (expected > 0.5)).float().mean() > 0.95


@pytest.mark.parametrize("supersampling", [1, 2])
def test_gradient_with_respect_to_texture_is_the_numeric_one(analytic_face, supersampling):
    positions, camera = analytic_face(16)[None], cameras(torch.tensor([30.0]), 24)
    generator = torch.Generator().manual_seed(0)
    texture = torch.rand(1, 2, 8, 8, generator=generator).requires_grad_()
    target = torch.rand(1, 2, 24, 24, generator=generator)

    def loss(values: torch.Tensor) -> torch.Tensor:
        drawn = render(positions, values, camera, 24, supersampling).attributes
        return (drawn - target).double().square().sum()  # the numeric gradient is a small difference of large sums

    loss(texture).backward()
    step, base = 1e-2, texture.detach()
    for place in ((0, 0, 3, 4), (0, 1, 0, 7), (0, 0, 7, 2)):
        change = torch.zeros_like(base)
        change[place] = step
        numeric = (loss(base + change) - loss(base - change)) / (2 * step)
        assert texture.grad[place].item() == pytest.approx(numeric.item(), abs=2e-3, rel=2e-3)


def test_a_mirrored_face_draws_the_mirrored_image(analytic_face):
    positions = analytic_face(32)[None]
    positions = positions + torch.tensor([4.0, 0, 0])[:, None, None] * warp.uv_grid(32)[:1]  # not symmetric
    mirrored = positions.flip(3) * torch.tensor([-1.0, 1, 1])[:, None, None]
    plain = rasterize(positions, cameras(torch.tensor([40.0]), 64, 5, 0), 64)
    other = rasterize(mirrored, cameras(torch.tensor([-40.0]), 64, 5, 0), 64)
    agree = (plain.mask == other.mask.flip(3)).float().mean()
    assert agree > 0.999
    both = (plain.mask * other.mask.flip(3)) > 0
    assert (plain.depth - other.depth.flip(3))[both].abs().median() < 0.05


def test_an_image_does_not_depend_on_its_batch(analytic_face):
    positions, camera = analytic_face(32)[None], cameras(YAWS, 80)
    together = rasterize(positions, camera, 80)
    for k in range(len(YAWS)):
        alone = rasterize(positions, camera[k : k + 1], 80)
        torch.testing.assert_close(alone.uv[0], together.uv[k], atol=1e-5, rtol=0)
        assert (alone.mask[0] == together.mask[k]).all()


def test_supersampling_gives_the_covered_share(analytic_face):
    positions, camera = analytic_face(32)[None], cameras(torch.tensor([0.0]), 48)
    fine = render(positions, torch.ones(1, 1, 4, 4), camera, 48, 4)
    assert set(fine.mask.unique().tolist()) <= {k / 16 for k in range(17)}
    torch.testing.assert_close(fine.attributes, fine.mask)
    plain = render(positions, torch.ones(1, 1, 4, 4), camera, 48)
    assert fine.mask.sum().item() == pytest.approx(plain.mask.sum().item(), rel=0.01)


@pytest.mark.parametrize("place", [torch.nan, torch.inf, -torch.inf])
def test_a_vertex_that_lies_nowhere_takes_only_its_triangles(analytic_face, place):
    positions = analytic_face(32)[None]
    expected = render(positions, positions, cameras(torch.zeros(1), 64), 64)
    positions[:, :, 16, 16] = place
    found = render(positions, expected.attributes.new_ones(1, 3, 32, 32), cameras(torch.zeros(1), 64), 64)
    assert found.attributes.isfinite().all()
    assert 0 < (expected.mask - found.mask).sum() < 40


def test_a_face_outside_the_image_leaves_it_empty(analytic_face):
    camera = camera_from_angles(0.0, 0.0, 0.0, 1.0, torch.tensor([[-500.0, 900.0]]))
    drawn = render(analytic_face(16)[None], torch.ones(1, 3, 4, 4), camera, 32)
    assert drawn.mask.sum() == 0
    assert drawn.attributes.abs().sum() == 0
    assert (drawn.depth == -torch.inf).all()


@pytest.mark.parametrize("gradient", [False, True])
def test_every_camera_has_attributes_of_its_own_or_all_share_one(analytic_face, gradient):
    positions, camera = analytic_face(32)[None], cameras(YAWS[:3], 32)
    attributes = torch.rand(2, 3, 16, 16, requires_grad=gradient)
    with pytest.raises(ValueError, match="2 attribute maps for 3 cameras"):
        render(positions, attributes, camera, 32)
    shared = render(positions, attributes[:1], camera, 32)
    repeated = render(positions, attributes[:1].expand(3, -1, -1, -1), camera, 32)
    torch.testing.assert_close(shared.attributes, repeated.attributes)


def test_frontal_landmarks_lie_on_the_recognizers_template(analytic_face):
    positions = analytic_face(64)[None]
    size = 160
    exact = ARCFACE_112.scaled(size).float().t()[None]
    on_template = torch.cat([exact * torch.tensor([1.0, -1])[:, None], torch.zeros(1, 1, 5)], 1)
    camera = frontal_camera(on_template, ARCFACE_112, size)
    torch.testing.assert_close(camera.project(on_template), exact, atol=1e-2, rtol=0)

    landmarks = warp.points_at(positions, FIVE)
    u, v = warp.uv_grid(256)
    for k in range(5):
        dot = torch.exp(-((u - FIVE[k, 0]) ** 2 + (v - FIVE[k, 1]) ** 2) / 0.01**2)[None, None]
        drawn = render_frontal(positions, dot, landmarks, ARCFACE_112, size).attributes[0, 0]
        place = (drawn * warp.pixel_grid(size, size)).sum((1, 2)) / drawn.sum()
        wanted = frontal_camera(landmarks, ARCFACE_112, size).project(landmarks)[0, :, k]
        assert (place - wanted).norm() < 0.7
        assert (place - exact[0, :, k]).norm() < 6  # the analytic face is not the template's


def test_frontal_rendering_at_a_yaw_is_aligned_like_a_photo_of_that_yaw(analytic_face):
    landmarks = warp.points_at(analytic_face(64)[None], FIVE)
    camera = frontal_camera(landmarks, ARCFACE_112, 112, 35.0)
    assert camera.angles()[0, 0].item() == pytest.approx(35, abs=1e-3)
    again = warp.similarity_transform(camera.project(landmarks).transpose(1, 2), ARCFACE_112.scaled(112).float())
    torch.testing.assert_close(again[0], torch.eye(3)[:2], atol=1e-3, rtol=0)


def test_the_scale_of_the_frontal_camera_makes_up_for_the_size_of_the_face(analytic_face):
    landmarks = warp.points_at(analytic_face(64)[None], FIVE) * torch.tensor([1.0, 1.7])[:, None, None]
    scale = frontal_camera(landmarks, ARCFACE_112, 224).scale
    frontal = landmarks[:, :2].mT * torch.tensor([1.0, -1.0])
    fitted = warp.similarity_transform(frontal, ARCFACE_112.scaled(224).float())
    torch.testing.assert_close(scale, fitted[:, :, 0].norm(dim=1))
    torch.testing.assert_close(scale[0], 1.7 * scale[1])


def test_pyrender_draws_the_same(analytic_face):
    size = 128
    positions = analytic_face(48)[None]
    camera = cameras(torch.tensor([-90.0, 25.0]), size)
    texture = torch.cat([warp.uv_grid(64), torch.full((1, 64, 64), 0.5)])[None]
    try:
        # OpenGL tests coverage up to 0.4 pixels off the centre (multisampling): finer samples keep that small.
        reference = render_reference(positions, texture, camera, size, supersampling=2)
    except RendererUnavailableError as error:
        pytest.skip(str(error))
    ours = render(positions, texture, camera, size, supersampling=2)
    both, either = torch.minimum(ours.mask, reference.mask), torch.maximum(ours.mask, reference.mask)
    assert (both.sum((1, 2, 3)) / either.sum((1, 2, 3))).min() > 0.99
    assert (ours.depth - reference.depth)[both == 1].abs().median() < 0.3
    assert (ours.attributes - reference.attributes)[(both == 1).expand(-1, 3, -1, -1)].abs().median() < 0.01


def test_the_reference_refuses_what_opengl_cannot_draw(analytic_face):
    with pytest.raises(ValueError, match="three colour channels"):
        render_reference(analytic_face(8)[None], torch.rand(1, 2, 8, 8), cameras(torch.zeros(1), 16), 16)


def test_a_view_keeps_the_pitch_that_was_asked_for():
    template = load_template()
    landmarks = warp.points_at(template.position_map(64)[None], template.landmarks("five"))
    angles = frontal_camera(landmarks, ARCFACE_112, 112, torch.tensor([20.0]), torch.tensor([12.0])).angles()[0]
    assert angles[:2].tolist() == pytest.approx([20.0, 12.0], abs=1e-3)
