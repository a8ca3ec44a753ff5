"""Crops know where they came from, alignment puts landmarks where the template says, failures keep their row."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pifr.detectors import Detections
from pifr.errors import ConfigError, ImageError
from pifr.faces import (
    ARCFACE_112,
    CROP_SIZE,
    AlignmentTemplate,
    FaceCrops,
    FaceFinder,
    _replicated,
    align,
    cut,
    inside_photo,
)
from pifr.geometry.alignment import TEMPLATES
from pifr.geometry.camera import camera_from_angles
from pifr.geometry.five_landmarks import angles_from_landmarks, nominal_landmarks
from pifr.geometry.template import load_template
from pifr.geometry.warp import pixel_grid, sample, transform_maps, transform_points


def ramp(height: int, width: int) -> np.ndarray:
    """An image whose red value is half its column and whose green value is half its row."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x / 2, y / 2, np.zeros_like(x)], -1).round().astype(np.uint8)


class Scripted:
    """A detector that finds what it is told to."""

    fingerprint = "scripted"
    missing = "no_face"
    by_name = False

    def __init__(self, *boxes: tuple[float, float, float, float]) -> None:
        self.boxes = np.array(boxes, dtype=float).reshape(-1, 4)

    def __call__(self, image: np.ndarray, name: str | Path = "", every: bool = False) -> Detections:
        corners, sides = self.boxes[:, None, :2], self.boxes[:, None, 2:] - self.boxes[:, None, :2]
        inside = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
        return Detections(self.boxes, corners + sides * inside, np.ones(len(self.boxes)))


def crops(count: int = 3) -> FaceCrops:
    generator = torch.Generator().manual_seed(count)
    return FaceCrops(
        torch.rand(count, 3, CROP_SIZE, CROP_SIZE, generator=generator),
        torch.rand(count, 2, 3, generator=generator),
        torch.rand(count, 5, 2, generator=generator) * 255,
        ("ok",) * (count - 1) + ("failed",),
        ("",) * (count - 1) + ("no_face",),
    )


def five_points(roll: float, centre: tuple[float, float], scale: float = 0.8, yaw: float = 0.0) -> np.ndarray:
    """The five landmarks of the template's face, 5 x 2 pixels."""
    template = load_template()
    places = (template.landmarks("five") * 256 - 0.5).round().long()
    points = template.position_map(256)[:, places[:, 1], places[:, 0]][None].float()
    camera = camera_from_angles(yaw, 5.0, roll, scale, torch.tensor([centre]))
    return camera.project(points)[0].T.numpy()


# Crops


@settings(max_examples=25, deadline=None)
@given(
    centre=st.tuples(st.floats(80, 420), st.floats(80, 320)),
    size=st.tuples(st.floats(20, 250), st.floats(20, 250)),
    roll=st.floats(-180, 180),
)
def test_crop_to_image_says_which_pixel_of_the_photo_each_pixel_of_the_crop_shows(
    centre: tuple[float, float], size: tuple[float, float], roll: float
) -> None:
    box = np.array([*np.subtract(centre, np.divide(size, 2)), *np.add(centre, np.divide(size, 2))])
    crop = cut(ramp(400, 500), box, five_points(roll, centre))
    grid = torch.tensor([[64.0, 90.0, 1.0], [128.0, 128.0, 1.0], [190.0, 70.0, 1.0]])
    where = grid @ crop.crop_to_image[0].T
    inside = ((where > 2) & (where < torch.tensor([497.0, 397.0]))).all(1)
    shown = torch.stack([crop.pixels[0, :2, int(y), int(x)] for x, y, _ in grid]) * 255 * 2
    torch.testing.assert_close(shown[inside], where[inside], atol=2.5, rtol=0)


def test_a_crop_is_twice_the_longer_side_and_centred_on_the_box() -> None:
    crop = cut(ramp(400, 400), np.array([150.0, 120.0, 210.0, 220.0]))
    corners = torch.tensor([[-0.5, -0.5, 1.0], [CROP_SIZE - 0.5, CROP_SIZE - 0.5, 1.0]]) @ crop.crop_to_image[0].T
    torch.testing.assert_close(corners[1] - corners[0], torch.full((2,), 200.0))
    torch.testing.assert_close(corners.mean(0), torch.tensor([180.0, 170.0]), atol=1.0, rtol=0)


def test_landmarks_follow_the_crop() -> None:
    points = np.array([[160, 150], [200, 151], [180, 170], [165, 190], [195, 191]], dtype=float)
    crop = cut(ramp(400, 400), np.array([150.0, 120.0, 210.0, 220.0]), points)
    homogeneous = torch.cat([crop.landmarks[0], torch.ones(5, 1)], 1)
    torch.testing.assert_close(homogeneous @ crop.crop_to_image[0].T, torch.from_numpy(points).float())


@pytest.mark.parametrize("roll", [-170.0, -90.0, -50.0, -34.0, 34.0, 120.0])
def test_a_head_that_is_rolled_far_is_upright_in_its_crop(roll: float) -> None:
    points = five_points(roll, (200.0, 170.0))
    crop = cut(ramp(400, 400), np.array([140.0, 110.0, 260.0, 230.0]), points)
    assert angles_from_landmarks(crop.landmarks)[0, 2].item() == pytest.approx(0, abs=2)
    homogeneous = torch.cat([crop.landmarks[0], torch.ones(5, 1)], 1)
    torch.testing.assert_close(homogeneous @ crop.crop_to_image[0].T, torch.from_numpy(points))


@pytest.mark.parametrize("roll", [50.0, 90.0, 170.0])
def test_the_box_of_a_rolled_head_is_the_detectors(roll: float) -> None:
    box = np.array([140.0, 110.0, 260.0, 230.0])
    crop = cut(ramp(400, 400), box, five_points(roll, (200.0, 170.0)))
    torch.testing.assert_close(crop.boxes[0], torch.from_numpy(box).float(), atol=1.0, rtol=0)


def test_the_corners_of_a_turned_crop_show_the_photo() -> None:
    crop = cut(ramp(500, 500), np.array([190.0, 190.0, 310.0, 310.0]), five_points(45.0, (250.0, 250.0)))
    for place in (4, 250):
        where = torch.tensor([place, place, 1.0]) @ crop.crop_to_image[0].T
        torch.testing.assert_close(crop.pixels[0, :2, place, place] * 255 * 2, where, atol=3.0, rtol=0)


@pytest.mark.parametrize("roll", [20.0, 26.0, -26.0])
def test_a_head_that_is_rolled_little_is_cut_upright_in_the_photo(roll: float) -> None:
    box = np.array([140.0, 110.0, 260.0, 230.0])
    crop = cut(ramp(400, 400), box, five_points(roll, (200.0, 170.0)))
    torch.testing.assert_close(crop.pixels, cut(ramp(400, 400), box).pixels)


@pytest.mark.parametrize("roll", [0.0, 70.0, 160.0])
def test_the_edges_say_how_far_inside_the_photo_a_pixel_lies(roll: float) -> None:
    crop = cut(ramp(60, 90), np.array([10.0, 10.0, 70.0, 70.0]), five_points(roll, (40.0, 40.0), 0.3))
    grid = pixel_grid(CROP_SIZE, CROP_SIZE)[None]
    inside = inside_photo(grid, crop.edges)[0, 0]
    x, y = transform_maps(crop.crop_to_image, grid)[0]
    depth = torch.minimum(torch.minimum(x, 89 - x), torch.minimum(y, 59 - y))
    assert (inside[depth > 0.1] == 1).all()
    assert (inside[depth < -1.1] == 0).all()
    assert 0.1 < inside.mean() < 0.9


@pytest.mark.parametrize("quarters", [0, 1, 2, 3, -1])
def test_turned_crops_show_the_same_places_of_the_photo(quarters: int) -> None:
    crop = cut(ramp(60, 90), np.array([10.0, 10.0, 70.0, 50.0]), five_points(5.0, (40.0, 30.0), 0.3))
    turned, to_turned = crop.turned(quarters)
    grid = pixel_grid(CROP_SIZE, CROP_SIZE)[None]
    there = transform_maps(to_turned, grid)
    torch.testing.assert_close(sample(turned.pixels, there), crop.pixels, rtol=0, atol=1e-5)
    torch.testing.assert_close(inside_photo(there, turned.edges), inside_photo(grid, crop.edges), rtol=0, atol=1e-4)
    for to_photo, points in ((turned.crop_to_image, turned.landmarks), (crop.crop_to_image, crop.landmarks)):
        torch.testing.assert_close(
            transform_points(to_photo, points)[0], torch.from_numpy(five_points(5.0, (40.0, 30.0), 0.3))
        )


def test_autocast_around_it_changes_nothing_that_is_read_off_a_face() -> None:
    crop = cut(ramp(300, 300), np.array([80.0, 80.0, 203.0, 203.0]), five_points(5.0, (140.0, 130.0)))

    def read() -> tuple[torch.Tensor, ...]:
        turned, _ = crop.turned(1)
        angles = angles_from_landmarks(crop.landmarks)
        return crop.boxes, turned.crop_to_image, turned.landmarks, turned.edges, angles

    expected = read()
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(read(), expected, rtol=0, atol=0)


def test_a_crop_turned_by_a_quarter_is_turned_counter_clockwise() -> None:
    turned, _ = cut(ramp(300, 300), np.array([80.0, 80.0, 200.0, 200.0])).turned(1)
    # The photo's right, its red side, is now on top.
    assert turned.pixels[0, 0, 0].mean() > turned.pixels[0, 0, -1].mean()


def test_beyond_the_photo_its_border_is_repeated() -> None:
    image = np.zeros((50, 50, 3), np.uint8)
    image[:, 0] = 200
    crop = cut(image, np.array([-20.0, 10.0, 10.0, 40.0]))
    assert (crop.pixels[0, :, :, :120] > 0.75).all()


@settings(max_examples=100, deadline=None)
@given(
    height=st.integers(1, 30),
    width=st.integers(1, 30),
    corner=st.tuples(st.integers(-60, 60), st.integers(-60, 60)),
    side=st.integers(2, 50),
    step=st.sampled_from([1, -1]),
)
def test_squares_of_a_photo_repeat_its_nearest_pixel(
    height: int, width: int, corner: tuple[int, int], side: int, step: int
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)[:, ::step]
    x, y = (np.arange(start, start + side) for start in corner)
    nearest = image[y.clip(0, height - 1)[:, None], x.clip(0, width - 1)]
    np.testing.assert_array_equal(_replicated(image, *corner, side), nearest)


def test_a_shrunk_crop_does_not_alias() -> None:
    image = np.indices((1024, 1024)).sum(0) % 2 * 255  # a chequerboard of single pixels
    crop = cut(np.repeat(image[..., None], 3, -1).astype(np.uint8), np.array([256.0, 256.0, 767.0, 767.0]))
    assert crop.pixels.std() < 0.01
    assert crop.pixels.mean().item() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("height, width", [(1, 1), (3, 2000)])
def test_an_image_of_any_shape_can_be_cut(height: int, width: int) -> None:
    assert cut(np.full((height, width, 3), 9, np.uint8), np.array([0.0, 0.0, 1.0, 1.0])).pixels.isfinite().all()


def test_crops_are_indexed_like_an_array_and_keep_their_rows_together() -> None:
    faces = crops(4)
    for index, positions in ((slice(1, 3), [1, 2]), ([True, False, False, True], [0, 3]), ([3, 0], [3, 0])):
        chosen = faces[index]
        torch.testing.assert_close(chosen.pixels, faces.pixels[positions])
        assert chosen.status == tuple(faces.status[i] for i in positions)
    with pytest.raises(IndexError, match="mask of length 2"):
        faces[[True, False]]
    with pytest.raises(TypeError, match="\\[i:i\\+1\\]"):
        faces[2]


def test_concatenation_undoes_slicing() -> None:
    faces = crops(4)
    again = FaceCrops.concatenate([faces[:1], faces[1:1], faces[1:]])
    torch.testing.assert_close(again.pixels, faces.pixels)
    torch.testing.assert_close(again.landmarks, faces.landmarks)
    torch.testing.assert_close(again.edges, faces.edges)
    assert (again.status, again.reason) == (faces.status, faces.reason)
    assert len(FaceCrops.concatenate([])) == 0


@pytest.mark.parametrize(
    "field, value",
    [
        ("pixels", torch.zeros(3, 3, 128, 128)),
        ("pixels", torch.zeros(3, 3, CROP_SIZE, CROP_SIZE, dtype=torch.uint8)),
        ("landmarks", torch.zeros(3, 5, 3)),
        ("crop_to_image", torch.zeros(2, 2, 3)),
        ("edges", torch.zeros(3, 4)),
        ("status", ("ok", "ok", "good")),
        ("reason", ("",)),
    ],
)
def test_a_wrong_field_is_named(field: str, value: object) -> None:
    faces = crops(3)
    fields = {name: getattr(faces, name) for name in ("pixels", "crop_to_image", "landmarks", "status", "reason")}
    with pytest.raises(ValueError, match=f"FaceCrops.{field}"):
        FaceCrops(**{**fields, field: value})


def test_the_text_of_a_batch_counts_its_failures() -> None:
    assert repr(crops(3)) == "FaceCrops(3: 2 ok, 1 failed)"


# Alignment


def umeyama_by_svd(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Umeyama's own formulation (PAMI 1991, Eq. 40-43), as a reference."""
    a, b = source - source.mean(0), target - target.mean(0)
    u, singular, vt = np.linalg.svd(b.T @ a / len(a))
    sign = np.array([1, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = u @ np.diag(sign) @ vt
    scale = (singular * sign).sum() / a.var(0).sum()
    return np.c_[scale * rotation, target.mean(0) - scale * rotation @ source.mean(0)]


def inverse(affine: np.ndarray) -> np.ndarray:
    return np.linalg.inv(np.vstack([affine, [0, 0, 1]]))[:2]


def test_alignment_shows_what_umeyamas_similarity_says() -> None:
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(ramp(CROP_SIZE, CROP_SIZE).transpose(2, 0, 1)[None].astype(np.float32))
    for _ in range(5):
        landmarks = nominal_landmarks().numpy() + rng.normal(0, 12, (5, 2))
        aligned = align(pixels, torch.from_numpy(landmarks[None]).float(), ARCFACE_112, 112)
        transform = inverse(umeyama_by_svd(landmarks, np.array(ARCFACE_112.points)))
        for x, y in ((30, 40), (56, 70), (80, 90)):
            wanted = transform @ [x, y, 1]
            np.testing.assert_allclose(aligned[0, :2, y, x].numpy() * 2, wanted, atol=1.1)


def test_a_mirrored_face_is_not_aligned_by_a_reflection() -> None:
    pixels = torch.rand(1, 3, CROP_SIZE, CROP_SIZE)
    landmarks = nominal_landmarks()[None]
    swapped = landmarks[:, [1, 0, 2, 4, 3]]
    assert not torch.allclose(align(pixels, landmarks, ARCFACE_112, 112), align(pixels, swapped, ARCFACE_112, 112))


@pytest.mark.parametrize("size", [56, 128, 224])
def test_a_template_scales_as_resizing_an_image_moves_its_points(size: int) -> None:
    edges = (ARCFACE_112.scaled(size).numpy() + 0.5) / size
    np.testing.assert_allclose(edges, (np.array(ARCFACE_112.points) + 0.5) / 112)


def test_unknown_landmarks_are_taken_from_the_average_face() -> None:
    pixels = torch.rand(2, 3, CROP_SIZE, CROP_SIZE)
    known = nominal_landmarks().expand(2, -1, -1).clone()
    unknown = known.clone()
    unknown[1, 3] = torch.nan
    torch.testing.assert_close(align(pixels, unknown, ARCFACE_112, 112), align(pixels, known, ARCFACE_112, 112))


def test_a_batch_is_aligned_as_its_faces_are_one_by_one() -> None:
    faces = crops(5)
    together = align(faces.pixels, faces.landmarks, ARCFACE_112, 112)
    alone = [align(faces.pixels[i : i + 1], faces.landmarks[i : i + 1], ARCFACE_112, 112) for i in range(5)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_beyond_the_photo_a_recognizer_sees_black_and_nothing_else_changes() -> None:
    image = np.full((100, 140, 3), 255, np.uint8)
    landmarks = np.array([[18, 30], [50, 30], [34, 46], [22, 62], [46, 62]], dtype=float)
    crop = cut(image, np.array([-10.0, 0.0, 70.0, 80.0]), landmarks)
    aligned = align(crop.pixels, crop.landmarks, ARCFACE_112, 112, crop.edges)[0, 0]
    transform = inverse(umeyama_by_svd(landmarks, np.array(ARCFACE_112.points)))
    y, x = np.mgrid[:112, :112]
    photo_x, photo_y = np.tensordot(transform, np.stack([x, y, np.ones_like(x)]), 1)
    depth = np.minimum(np.minimum(photo_x, 139 - photo_x), np.minimum(photo_y, 99 - photo_y))
    assert (aligned.numpy()[depth > 1.5] > 0.99).all()
    assert (aligned.numpy()[depth < -1.5] < 0.01).all()
    assert (depth < -1.5).mean() > 0.05


def test_crops_that_do_not_know_their_photo_are_aligned_as_if_it_had_no_end() -> None:
    faces = crops(2)
    torch.testing.assert_close(
        align(faces.pixels, faces.landmarks, ARCFACE_112, 112, faces.edges),
        align(faces.pixels, faces.landmarks, ARCFACE_112, 112),
    )


def test_autocast_around_it_changes_no_alignment_and_gradients_pass() -> None:
    faces = crops(2)
    expected = align(faces.pixels, faces.landmarks, ARCFACE_112, 112, faces.edges)
    pixels = faces.pixels.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        aligned = align(pixels, faces.landmarks, ARCFACE_112, 112, faces.edges)
    torch.testing.assert_close(aligned.detach(), expected, rtol=0, atol=0)
    aligned.sum().backward()
    assert pixels.grad.any()


def test_a_template_needs_five_points() -> None:
    with pytest.raises(ValueError, match=r"'wrong'.*\(5, 2\)"):
        AlignmentTemplate("wrong", 112, ((1.0, 2.0),))


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_a_template_is_no_mirror_image_and_is_given_in_pixels(template: AlignmentTemplate) -> None:
    eye, other, nose, corner, other_corner = template.points
    with pytest.raises(ValueError, match="mirror image"):
        replace(template, points=(other, eye, nose, other_corner, corner))
    with pytest.raises(ValueError, match="a tenth of the"):
        replace(template, points=tuple((x / template.size, y / template.size) for x, y in template.points))


@pytest.mark.parametrize("yaw", [-60.0, -20.0, 0.0, 35.0, 70.0])
@pytest.mark.parametrize("roll", [-100.0, 10.0, 45.0])
def test_pose_is_read_from_the_landmarks_of_an_average_face(yaw: float, roll: float) -> None:
    points = torch.from_numpy(five_points(roll, (128.0, 120.0), yaw=yaw))[None]
    assert angles_from_landmarks(points)[0, 0].item() == pytest.approx(yaw, abs=4)
    assert angles_from_landmarks(points)[0, 2].item() == pytest.approx(roll, abs=4)


def test_the_pose_of_unknown_landmarks_is_unknown() -> None:
    assert angles_from_landmarks(torch.full((2, 5, 2), torch.nan)).isnan().all()


# Finding


IMAGE = ramp(200, 300)
SMALL_CENTRAL, LARGE_LEFT = (130.0, 80.0, 170.0, 120.0), (5.0, 50.0, 95.0, 150.0)


def crop_centre(faces: FaceCrops) -> list[float]:
    return (torch.tensor([127.5, 127.5, 1.0]) @ faces.crop_to_image[0].T).tolist()


def test_the_policy_decides_which_of_several_faces_is_cut() -> None:
    detector = Scripted(SMALL_CENTRAL, LARGE_LEFT)
    assert crop_centre(FaceFinder(detector, "largest")([IMAGE])) == pytest.approx([50, 100], abs=1)
    assert crop_centre(FaceFinder(detector, "central")([IMAGE])) == pytest.approx([150, 100], abs=1)
    rejected = FaceFinder(detector, "reject")([IMAGE])
    assert (rejected.status, rejected.reason) == (("failed",), ("several_faces",))
    assert FaceFinder(Scripted(LARGE_LEFT), "reject")([IMAGE]).status == ("ok",)


@pytest.mark.parametrize(("policy", "every"), [("largest", False), ("central", True), ("reject", True)])
def test_policies_that_weigh_all_faces_ask_for_all(policy: str, every: bool) -> None:
    asked = []

    class Asked(Scripted):
        def __call__(self, image: np.ndarray, name: str | Path = "", every: bool = False) -> Detections:
            asked.append(every)
            return super().__call__(image, name, every)

    FaceFinder(Asked(LARGE_LEFT), policy)([IMAGE])
    assert asked == [every]


@pytest.mark.parametrize("photo", ["photo.jpg", Path("photo.jpg"), b"", IMAGE, Image.fromarray(IMAGE)])
def test_one_photo_in_place_of_several_is_refused(photo: object) -> None:
    with pytest.raises(TypeError, match="into a list"):
        FaceFinder(Scripted(LARGE_LEFT))(photo)


def test_photos_of_all_kinds_may_be_mixed_and_what_is_none_is_numbered() -> None:
    finder = FaceFinder(Scripted(LARGE_LEFT))
    assert finder([IMAGE, IMAGE[..., 0], IMAGE[..., :1], Image.fromarray(IMAGE)]).status == ("ok",) * 4
    with pytest.raises(ValueError, match="image 1: an image is uint8"):
        finder([IMAGE, IMAGE / 255])


def test_photos_may_come_from_a_generator() -> None:
    assert len(FaceFinder(Scripted(LARGE_LEFT))(IMAGE for _ in range(3))) == 3


def test_every_face_of_an_image_is_cut_the_largest_first() -> None:
    faces = FaceFinder(Scripted(SMALL_CENTRAL, LARGE_LEFT), "reject").every_face(IMAGE)
    assert faces.status == ("ok", "ok")
    assert crop_centre(faces) == pytest.approx([50, 100], abs=1)
    torch.testing.assert_close(faces.boxes[1], torch.tensor(SMALL_CENTRAL), atol=1.0, rtol=0)
    assert len(FaceFinder(Scripted(), fallback="centre-crop").every_face(IMAGE)) == 0
    with pytest.raises(ImageError):
        FaceFinder(Scripted(LARGE_LEFT)).every_face(b"text")


def test_the_largest_face_is_that_of_the_largest_area() -> None:
    finder = FaceFinder(Scripted((10.0, 10.0, 110.0, 30.0), (100.0, 100.0, 160.0, 160.0)))
    for faces in (finder([IMAGE]), finder.every_face(IMAGE)):
        assert crop_centre(faces) == pytest.approx([130, 130], abs=1)


def test_autocast_around_it_changes_no_crop() -> None:
    finder = FaceFinder(Scripted(LARGE_LEFT))
    expected = finder([IMAGE])
    with torch.autocast("cpu", torch.bfloat16):
        for faces in (finder([IMAGE]), finder.every_face(IMAGE)):
            torch.testing.assert_close(faces.pixels, expected.pixels, rtol=0, atol=0)
            torch.testing.assert_close(faces.landmarks, expected.landmarks, rtol=0, atol=0)


def test_a_detector_computes_in_its_own_precision() -> None:
    class Multiplying(Scripted):
        def __call__(self, image: np.ndarray, name: str | Path = "", every: bool = False) -> Detections:
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
            return super().__call__(image, name, every)

    finder = FaceFinder(Multiplying(LARGE_LEFT))
    with torch.autocast("cpu", torch.bfloat16):
        assert finder([IMAGE]).status == finder.every_face(IMAGE).status == ("ok",)


def test_an_image_without_a_face_keeps_its_row() -> None:
    faces = FaceFinder(Scripted())([IMAGE, IMAGE])
    assert (faces.status, faces.reason) == (("failed",) * 2, ("no_face",) * 2)
    assert not faces.pixels.any()
    assert not faces.usable.any()


def test_the_fallback_shows_the_whole_image_and_is_counted() -> None:
    faces = FaceFinder(Scripted(), fallback="centre-crop")([IMAGE])
    assert (faces.status, faces.reason) == (("fallback",), ("no_face",))
    assert faces.usable.all()
    assert faces.landmarks.isnan().all()
    corners = torch.tensor([[0.0, 127.5, 1.0], [255.0, 127.5, 1.0]]) @ faces.crop_to_image[0].T
    assert corners[:, 0].tolist() == pytest.approx([0, 299], abs=1)


def test_the_fallback_does_not_hide_an_unreadable_image_or_several_faces() -> None:
    finder = FaceFinder(Scripted(SMALL_CENTRAL, LARGE_LEFT), "reject", "centre-crop")
    assert finder([IMAGE, b"text"]).reason == ("several_faces", "unreadable")


def test_unreadable_images_do_not_disturb_the_others(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(IMAGE).save(buffer, "PNG")
    (tmp_path / "good.png").write_bytes(buffer.getvalue())
    sources = [tmp_path / "good.png", tmp_path / "missing.png", b"", buffer.getvalue(), buffer.getvalue()[:200], IMAGE]
    faces = FaceFinder(Scripted(LARGE_LEFT))(sources)
    assert faces.reason == ("", "unreadable", "unreadable", "", "unreadable", "")
    torch.testing.assert_close(faces.pixels[0], faces.pixels[3])
    torch.testing.assert_close(faces.pixels[0], faces.pixels[5])


def test_no_images_give_no_faces() -> None:
    assert len(FaceFinder(Scripted())([])) == 0


def test_the_fingerprint_changes_with_everything_that_changes_a_crop() -> None:
    prints = {
        FaceFinder(Scripted(), policy, fallback).fingerprint
        for policy in ("largest", "central", "reject")
        for fallback in (None, "centre-crop")
    }
    assert len(prints) == 6


def test_a_wrong_policy_or_fallback_says_what_there_is() -> None:
    with pytest.raises(ConfigError, match="largest, central, reject"):
        FaceFinder(Scripted(), "biggest")
    with pytest.raises(ConfigError, match="centre-crop"):
        FaceFinder(Scripted(), fallback="crop")


def test_every_pixel_of_a_photo_is_wholly_within_it() -> None:
    faces = cut(np.full((256, 256, 3), 255, np.uint8), np.array([63.5, 63.5, 191.5, 191.5]))
    assert inside_photo(pixel_grid(256, 256)[None], faces.edges).min() == 1


def test_arcface_112_is_insightfaces() -> None:
    wanted = [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
    assert np.array_equal(ARCFACE_112.points, wanted)


@pytest.mark.parametrize("box", [[0, 0, 1e7, 1e7], [0, 0, np.nan, 10], [-np.inf, 0, 10, 10]])
def test_a_box_that_is_no_faces_is_a_failure(box: list[float]) -> None:
    face = cut(ramp(60, 90), np.array(box))
    assert (face.status, face.reason) == (("failed",), ("no_face",))


def test_a_photo_that_is_all_length_costs_nobody_elses_result() -> None:
    images = [ramp(50, 50), np.zeros((1, 120_000, 3), np.uint8)]
    faces = FaceFinder(Scripted(), fallback="centre-crop")(images)
    assert faces.status == ("fallback", "failed")
    assert FaceFinder("aligned")(images).status == ("ok", "failed")


def test_landmarks_in_one_point_say_nothing_of_the_pose() -> None:
    assert angles_from_landmarks(torch.ones(1, 5, 2)).isnan().all()
