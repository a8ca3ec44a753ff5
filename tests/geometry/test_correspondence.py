import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from pifr.geometry import warp
from pifr.geometry.camera import Camera, camera_from_angles
from pifr.geometry.correspondence import Correspondence, Observation, _splat_images
from pifr.geometry.face_model import load_face_model
from pifr.geometry.render import rasterize, render
from pifr.geometry.similarity import brought_onto
from pifr.geometry.template import load_template
from pifr.networks.shape import EVIDENCE_CHANNELS

SIZE = 128


@pytest.fixture(scope="module")
def correspondence():
    return Correspondence()


class People:
    """Random faces of the model with their true PNCC, drawn once."""

    def __init__(self, yaws: list[float], seed: int = 0, *, one_person: bool = False):
        model, template = load_face_model(), load_template()
        generator = torch.Generator().manual_seed(seed)
        count = len(yaws)
        identity = torch.randn(count, 40, generator=generator)
        if one_person:
            identity = identity[:1].expand(count, -1)
        self.positions = template.position_map(SIZE) + torch.einsum(
            "bk,kcuv->bcuv", identity, model.identity_maps(40, SIZE)
        )
        tilt = 20 * torch.rand(2, count, generator=generator) - 10
        self.camera = camera_from_angles(torch.tensor(yaws), *tilt, 0.5, torch.full((count, 2), 63.5))
        self.raster = rasterize(self.positions, self.camera, SIZE)
        self.pncc, self.mask = self.raster.sample(template.ncc_map(SIZE)[None]), self.raster.mask
        low = 0.25 + 0.5 * torch.rand(count, 3, 10, 10, generator=generator)
        self.textures = torch.nn.functional.interpolate(low, size=SIZE, mode="bicubic").clamp(0, 1)

    def unseen(self) -> torch.Tensor:
        """B x 1 x N x N bool: hidden behind the face by more than 8 mm."""
        front = warp.sample(self.raster.depth.clamp_min(-1e4), self.camera.project(self.positions))
        return front > self.camera.depth(self.positions) + 8


def test_a_residual_is_in_millimetres_whatever_the_size_of_the_image(correspondence):
    people = People([30.0])
    observed = correspondence.splat_to_uv(people.pncc, people.mask)
    noise = torch.randn(observed.places.shape, generator=torch.Generator().manual_seed(0))
    fits = [
        correspondence.fit_shape(Observation(zoom * (observed.places + noise), observed.weight)) for zoom in (1.0, 3.0)
    ]
    assert fits[0].residual.item() > 0.5
    assert fits[1].residual.item() == pytest.approx(fits[0].residual.item(), rel=0.02)


@pytest.fixture(scope="module")
def people():
    return People([-80.0, -40.0, 0.0, 25.0, 60.0, 90.0])


@pytest.fixture(scope="module")
def unwrapped(correspondence, people):
    images = render(people.positions, people.textures, people.camera, SIZE, 3).attributes
    return correspondence.unwrap(images, people.pncc, people.mask, SIZE)


def test_the_table_names_the_nearest_template_point(correspondence):
    template = correspondence.template
    surface = template.position_map(256).flatten(1).t()
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(len(surface), (4000,), generator=generator)
    points = surface[chosen] + 2 * torch.randn(4000, 3, generator=generator)
    ncc = template.to_ncc(points).clamp(0, 1)
    points = template.from_ncc(ncc)
    exact, _ = cKDTree(surface.numpy()).query(points.numpy())
    uv = correspondence.uv_of(ncc.t()[None, :, None])
    found = (warp.sample_uv(template.position_map(256)[None], uv)[0, :, 0].t() - points).norm(dim=1)
    excess = found - torch.from_numpy(exact).float()
    assert excess.mean() < 0.05
    assert excess.quantile(0.99) < 0.5  # mm


def test_the_splat_says_where_each_uv_pixel_is_seen(correspondence, people):
    observed = correspondence.splat_to_uv(people.pncc, people.mask)
    positions = torch.nn.functional.interpolate(people.positions, size=correspondence.size, mode="area")
    error = (observed.places - people.camera.project(positions)).norm(dim=1)[observed.weight[:, 0] > 1]
    assert error.median() < 0.1
    assert error.quantile(0.95) < 0.5


def test_splatted_weight_is_the_masks(correspondence, people):
    full = correspondence.splat_to_uv(people.pncc, people.mask).weight.sum((1, 2, 3))
    half = correspondence.splat_to_uv(people.pncc, 0.5 * people.mask).weight.sum((1, 2, 3))
    torch.testing.assert_close(half, 0.5 * full, rtol=0.02, atol=0)
    covered = people.mask.sum((1, 2, 3))
    assert ((full > 0.9 * covered) & (full <= 1.001 * covered)).all()


def test_compiled_loops_give_what_torch_gives(correspondence, people, unwrapped, monkeypatch):
    images = render(people.positions, people.textures, people.camera, SIZE, 3).attributes
    splatted = correspondence.splat_to_uv(people.pncc, people.mask)
    monkeypatch.setattr("pifr.geometry.correspondence.compilable", lambda *tensors: False)
    plain = correspondence.splat_to_uv(people.pncc, people.mask)
    torch.testing.assert_close(splatted.weight, plain.weight, atol=1e-3, rtol=1e-4)
    seen = plain.weight[:, 0] > 0.01
    assert (splatted.places - plain.places).abs().amax(1)[seen].max() < 5e-3
    expected = correspondence.unwrap(images, people.pncc, people.mask, SIZE)
    torch.testing.assert_close(unwrapped.image_map, expected.image_map, atol=0.02, rtol=0)
    assert (unwrapped.visibility - expected.visibility).abs().quantile(0.999) < 0.01


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("where", ["codes", "mask", "everything"])
def test_nan_is_no_face_and_leaves_other_rows_alone(correspondence, people, monkeypatch, compiled, where):
    if not compiled:
        monkeypatch.setattr("pifr.geometry.correspondence.compilable", lambda *tensors: False)
    images, pncc, mask = people.textures[:2].clone(), people.pncc[:2].clone(), people.mask[:2].clone()
    expected = correspondence.unwrap(images, pncc, mask, SIZE)
    if where != "mask":
        pncc[0] = torch.nan
    if where != "codes":
        mask[0] = torch.nan
    if where == "everything":
        images[0] = torch.nan
    found = correspondence.unwrap(images, pncc, mask, SIZE)
    assert found.fit.valid.tolist() == [False, True]
    for name in ("texture", "visibility", "image_map", "positions"):
        assert getattr(found, name).isfinite().all()
        assert torch.equal(getattr(found, name)[1], getattr(expected, name)[1])
    assert not found.visibility[0].any()


def test_a_pixel_whose_code_is_nan_counts_as_hidden(correspondence, people):
    pncc, mask = people.pncc[2:3].clone(), people.mask[2:3].clone()
    pncc[:, 1, :, :50] = torch.nan
    mask[..., :50] = 0
    spoilt = correspondence.splat_to_uv(pncc, people.mask[2:3])
    hidden = correspondence.splat_to_uv(people.pncc[2:3], mask)
    torch.testing.assert_close(spoilt.places, hidden.places, atol=1e-3, rtol=0)
    torch.testing.assert_close(spoilt.weight, hidden.weight, atol=1e-3, rtol=1e-4)


def test_the_compiled_splat_stays_within_its_arrays_whatever_it_reads(correspondence):
    """As plain Python, where an index of NaN is an error and not memory of others."""
    pncc, weight = np.full((1, 3, 4, 4), np.nan, np.float32), np.ones((1, 1, 4, 4), np.float32)
    pncc[0, :, 0], pncc[0, :, 1] = np.inf, -np.inf
    table, mean = correspondence.table.movedim(1, -1)[0].numpy(), correspondence.mean.movedim(1, -1)[0].numpy()
    linear, translation = np.ones((1, 2, 3), np.float32), np.zeros((1, 2), np.float32)
    summed = np.empty((1, 3, 64, 64), np.float32)
    wild = np.ones(1, np.float32)
    _splat_images.py_func(0, 1, pncc, weight, table, mean, linear, translation, wild, summed)
    assert np.isfinite(summed).all()


def test_a_true_pncc_gives_the_pose(unwrapped, people):
    error = (unwrapped.fit.camera.angles() - people.camera.angles()).abs()
    assert unwrapped.fit.valid.all()
    assert error[:, 0].mean() < 1.5
    assert error.max() < 5


def test_a_true_pncc_gives_the_image_map(unwrapped, people):
    error = (unwrapped.image_map - people.camera.project(people.positions)).norm(dim=1, keepdim=True)
    assert error[unwrapped.visibility > 0.5].median() < 0.3
    assert error[unwrapped.visibility > 0.5].max() < 4


def test_visible_texture_is_the_true_texture(unwrapped, people):
    squares = (unwrapped.texture - people.textures).square().mean(1, keepdim=True) * unwrapped.visibility
    psnr = -10 * (squares.sum((1, 2, 3)) / unwrapped.visibility.sum((1, 2, 3))).log10()
    assert psnr.min() > 30


def test_hidden_points_are_not_evidence(unwrapped, people):
    assert unwrapped.visibility[people.unseen()].mean() < 0.01
    far_half = unwrapped.visibility[0, 0, :, : SIZE // 2 - 12]  # at -80 degrees the image-left half turns away
    assert far_half.mean() < 0.12
    assert unwrapped.visibility[2].mean() > 0.5


def test_what_the_mask_leaves_out_is_not_evidence(correspondence, people):
    rows = slice(2, 4)
    camera, mask = people.camera[rows], people.mask[rows].clone()
    mask[:, :, :50] = 0  # a hat
    images = torch.zeros(2, 3, SIZE, SIZE)
    found = correspondence.unwrap(images, people.pncc[rows], mask, SIZE)
    covered = camera.project(people.positions[rows])[:, 1:] < 47
    assert found.visibility[covered].max() < 0.05
    assert (found.fit.camera.angles() - camera.angles()).abs()[:, 0].max() < 3


def test_garbage_in_a_fifth_of_the_mask_hardly_moves_the_pose(correspondence, people):
    generator = torch.Generator().manual_seed(3)
    wild = (torch.rand(people.mask.shape, generator=generator) < 0.2).float()
    pncc = (people.pncc * (1 - wild) + torch.rand(people.pncc.shape, generator=generator) * wild) * people.mask
    fit = correspondence.fit_shape(correspondence.splat_to_uv(pncc, people.mask))
    assert (fit.camera.angles() - people.camera.angles()).abs()[:, 0].mean() < 4


def test_images_finer_than_the_pncc_are_read_at_their_own_resolution(correspondence, people):
    row = slice(2, 3)
    zoom = torch.tensor([[[3.0, 0, 1], [0, 3, 1]]])
    camera: Camera = people.camera[row].mapped(zoom)
    fine = render(people.positions[row], people.textures[row], camera, 3 * SIZE).attributes
    found = correspondence.unwrap(fine, people.pncc[row], people.mask[row], SIZE, zoom)
    error = ((found.texture - people.textures[row]).abs() * found.visibility).sum() / found.visibility.sum() / 3
    assert error < 0.02


@pytest.mark.parametrize("case", ["empty", "three pixels", "one colour"])
def test_a_useless_mask_is_said_and_stays_finite(correspondence, people, case):
    pncc, mask = people.pncc[:2].clone(), torch.zeros_like(people.mask[:2])
    if case == "three pixels":
        mask[:, :, 60, 60:63] = 1
    elif case == "one colour":
        mask[:], pncc[:] = 1, 0.5
    found = correspondence.unwrap(torch.rand(2, 3, SIZE, SIZE), pncc, mask, 64)
    assert not found.fit.valid.any()
    assert found.visibility.max() == 0
    for tensor in (found.texture, found.image_map, found.positions, found.fit.coefficients, found.fit.camera.rotation):
        assert tensor.isfinite().all()


def test_a_face_does_not_depend_on_its_batch(correspondence, people, unwrapped):
    alone = correspondence.fit_shape(correspondence.splat_to_uv(people.pncc[3:4], people.mask[3:4]))
    torch.testing.assert_close(alone.coefficients[0], unwrapped.fit.coefficients[3], atol=2e-2, rtol=0)
    torch.testing.assert_close(alone.camera.rotation[0], unwrapped.fit.camera.rotation[3], atol=1e-3, rtol=0)


def test_the_fitted_shape_is_nearer_than_the_mean(correspondence, people, unwrapped):
    truth = torch.nn.functional.interpolate(people.positions, size=correspondence.size, mode="area")
    fitted = (unwrapped.positions - truth).square().sum(1).mean((1, 2)).sqrt()
    mean = (correspondence.mean - truth).square().sum(1).mean((1, 2)).sqrt()
    assert fitted.mean() < 0.85 * mean.mean()  # much of the depth cannot be seen


def test_a_less_trusted_pncc_leaves_the_shape_nearer_to_the_mean(correspondence, people):
    observed = correspondence.splat_to_uv(people.pncc, people.mask)
    sizes = [correspondence.fit_shape(observed, deviation).coefficients.norm(dim=1) for deviation in (2.5, 6.5, 1000)]
    assert (sizes[1] < sizes[0]).all()
    assert sizes[2].max() < 0.1


def test_evidence_of_one_photo_gives_its_own_fit(correspondence, people):
    observed = correspondence.splat_to_uv(people.pncc, people.mask)
    fit = correspondence.fit_shape(observed, iterations=8)
    matrix, vector = correspondence.identity_evidence(observed, fit)
    for row in range(len(people.mask)):
        found = correspondence.identity_from(matrix[row], vector[row])[0]
        torch.testing.assert_close(found[:40], fit.coefficients[row, :40], atol=0.06, rtol=0)
        assert not found[40:].any()


def test_photos_of_one_person_together_say_more_than_the_mean_of_their_fits(correspondence):
    person = People([-70.0, -35.0, 0.0, 20.0, 50.0, 85.0], seed=2, one_person=True)
    observed = correspondence.splat_to_uv(person.pncc, person.mask)
    fit = correspondence.fit_shape(observed, deviation=6.5)
    matrix, vector = correspondence.identity_evidence(observed, fit, deviation=6.5)
    joint = correspondence.positions(correspondence.identity_from(matrix.sum(0), vector.sum(0)))
    truth = torch.nn.functional.interpolate(person.positions[:1], size=correspondence.size, mode="area")
    mean = correspondence.positions(fit.coefficients).mean(0, keepdim=True)
    # A scaled orthographic camera says nothing of size, nor of distance.
    errors = [(brought_onto(shape, truth) - truth).square().sum(1).mean().sqrt() for shape in (joint, mean)]
    assert errors[0] < 0.7 * errors[1]


def test_photos_that_show_no_face_give_no_evidence(correspondence, people):
    observed = correspondence.splat_to_uv(people.pncc[:2], people.mask[:2] * 0)
    matrix, vector = correspondence.identity_evidence(observed, correspondence.fit_shape(observed))
    assert not matrix.any()
    assert not vector.any()
    assert not correspondence.identity_from(matrix.sum(0), vector.sum(0)).any()


def test_evidence_of_the_mean_face_is_no_displacement(correspondence):
    camera = camera_from_angles(torch.tensor([0.0, 70.0]), 0.0, 10.0, 0.5, torch.full((2, 2), 63.5))
    mean = correspondence.mean.expand(2, -1, -1, -1)
    seen, texture = torch.ones(2, 1, 64, 64), torch.full((2, 3, 64, 64), 0.5)
    evidence = correspondence.evidence(camera, camera.project(mean) + 2.0, mean, seen, texture)
    assert evidence.shape == (2, EVIDENCE_CHANNELS, 64, 64)
    shift, fit, towards, visibility, colours = evidence.split([3, 3, 3, 1, 3], 1)
    # Two pixels right and down are four millimetres each, in units of five, across the view.
    torch.testing.assert_close(shift.norm(dim=1), torch.full((2, 64, 64), 0.8 * 2**0.5))
    torch.testing.assert_close((shift * towards).sum(1), torch.zeros(2, 64, 64), atol=1e-5, rtol=0)
    torch.testing.assert_close(towards[:, :, 0, 0], camera.rotation[:, 2])
    assert fit.abs().max() == colours.abs().max() == 0
    assert (visibility == 1).all()
    hidden = correspondence.evidence(camera, camera.project(mean) + 2.0, mean, 0 * seen, texture + 0.2)
    assert hidden[:, :6].abs().max() == hidden[:, 9:].abs().max() == 0


@pytest.mark.parametrize("sign", [-1, 1])
def test_evidence_of_a_displacement_ends_at_thirty_millimetres(correspondence, sign):
    camera = camera_from_angles(torch.zeros(1), 0.0, 0.0, 0.5, torch.full((1, 2), 63.5))
    seen, texture = torch.ones(1, 1, 64, 64), torch.full((1, 3, 64, 64), 0.5)
    image_map = camera.project(correspondence.mean) + sign * 500.0
    evidence = correspondence.evidence(camera, image_map, correspondence.mean + sign * 500.0, seen, texture)
    assert evidence[:, :6].abs().max() == 6  # in units of five
    assert (evidence[:, 3:6] == sign * 6).all()


def test_landmarks_of_the_fit_include_hidden_ones(unwrapped, people):
    uv = load_template().landmarks("multipie68")
    found = warp.points_at(unwrapped.image_map, uv).transpose(1, 2)
    truth = people.camera.project(warp.points_at(people.positions, uv)).transpose(1, 2)
    error = (found - truth).norm(dim=2)
    assert error.mean(1).max() < 2  # pixels of 128; about 4 mm, half of the points unseen at the largest yaw
    assert error[2].mean() < 0.5


def test_the_image_map_follows_what_was_seen_where_no_shape_of_the_model_does(correspondence):
    template = correspondence.template
    u, v = warp.uv_grid(SIZE)
    bump = 8 * torch.exp(-((u - 0.35) ** 2 + (v - 0.6) ** 2) / 0.06**2)  # mm to the right, on one cheek
    positions = template.position_map(SIZE)[None].clone()
    positions[:, 0] += bump
    camera = camera_from_angles(torch.zeros(1), 0.0, 0.0, 0.5, torch.full((1, 2), 63.5))
    raster = rasterize(positions, camera, SIZE)
    pncc = raster.sample(template.ncc_map(SIZE)[None])
    found = correspondence.unwrap(torch.zeros(1, 3, SIZE, SIZE), pncc, raster.mask, SIZE)
    model = found.fit.camera.project(warp.resized(found.positions, SIZE))
    truth, there = camera.project(positions), bump > 4
    seen, fitted = ((places - truth).norm(dim=1)[0][there].mean() for places in (found.image_map, model))
    assert seen < 0.7 * fitted
