"""Scaled orthographic cameras: projection, angles, and the robust fit to dense correspondences.

The model frame is x right, y up, z towards the camera, in millimetres; pixels are x right, y down. A camera projects
`R @ X` with `R = Rz(-roll) @ Rx(-pitch) @ Ry(yaw)` to `x = s * X + tx`, `y = -s * Y + ty`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pifr.geometry import warp

_FLIP_Y = (1.0, -1.0)


@dataclass(frozen=True, slots=True)
class Camera:
    """A batch of scaled orthographic cameras.

    Attributes:
        scale: B float, pixels per millimetre, > 0.
        rotation: B x 3 x 3 float, proper rotations.
        translation: B x 2 float, the pixel on which the origin of the model frame falls.

    Raises:
        ValueError: if the shapes do not agree.
    """

    scale: Tensor
    rotation: Tensor
    translation: Tensor

    def __post_init__(self) -> None:
        count = len(self.scale)
        expected = {"scale": (count,), "rotation": (count, 3, 3), "translation": (count, 2)}
        for name, shape in expected.items():
            if tuple(getattr(self, name).shape) != shape:
                raise ValueError(f"Camera.{name} has shape {tuple(getattr(self, name).shape)}, not {shape}")

    def __len__(self) -> int:
        return len(self.scale)

    def __getitem__(self, rows: Tensor | slice) -> "Camera":
        return Camera(self.scale[rows], self.rotation[rows], self.translation[rows])

    @property
    def linear(self) -> Tensor:
        """B x 2 x 3: the linear part of the projection, in pixels per millimetre."""
        flip = self.rotation.new_tensor(_FLIP_Y)[:, None]
        return self.scale[:, None, None] * flip * self.rotation[:, :2]

    def project(self, points: Tensor) -> Tensor:
        """Pixels of points: B x 3 x ... mm to B x 2 x ...; a leading axis of 1 is shared by all cameras."""
        flat = self.linear @ points.flatten(2) + self.translation[..., None]
        return flat.view(len(self), 2, *points.shape[2:])

    def lift(self, displacements: Tensor) -> Tensor:
        """The smallest displacements that look like these: B x 2 x ... pixels to B x 3 x ... mm of the model frame."""
        flat = (self.linear / self.scale.square()[:, None, None]).mT @ displacements.flatten(2)
        return flat.view(len(self), 3, *displacements.shape[2:])

    def depth(self, points: Tensor) -> Tensor:
        """Millimetres towards the camera: B x 3 x ... to B x 1 x ...; larger is nearer."""
        flat = self.rotation[:, 2:] @ points.flatten(2)
        return flat.view(len(self), 1, *points.shape[2:])

    def angles(self) -> Tensor:
        """B x 3 degrees: yaw, pitch, roll."""
        return angles_from_rotation(self.rotation)

    def derivatives(self, points: Tensor) -> Tensor:
        """How projections of points (B or 1 x 3 x n mm) change with the camera: B x 6 x 2 x n pixels.

        The six parameters are turns about the camera's x (right), y (up) and z axes in radians, the logarithm of the
        scale, and the translation's x and y.
        """
        flip = self.rotation.new_tensor(_FLIP_Y)[:, None]
        steps = self.scale[:, None, None, None] * flip * _pose_steps(self.rotation)
        moving = steps @ points[:, None]
        shifts = torch.eye(2, dtype=moving.dtype, device=moving.device)[:, :, None]
        return torch.cat([moving, shifts.expand(len(moving), 2, 2, moving.shape[-1])], 1)

    def mapped(self, similarity: Tensor) -> "Camera":
        """The cameras followed by a similarity of the image.

        Args:
            similarity: B x 2 x 3 (or 1 x 2 x 3), takes the pixels that these cameras make to other pixels; scale,
                rotation and shift only, as `FaceCrops.crop_to_image` or `warp.similarity_transform`.
        """
        zoom = similarity[:, :, 0].norm(dim=1)
        cosine, sine = similarity[:, 0, 0] / zoom, similarity[:, 1, 0] / zoom
        zero, one = torch.zeros_like(zoom), torch.ones_like(zoom)
        # Turning by an angle in (x, y down) is turning by its negative in (x, y up).
        turn = torch.stack([cosine, sine, zero, -sine, cosine, zero, zero, zero, one], 1).view(-1, 3, 3)
        moved = warp.transform_points(similarity, self.translation[:, None])[:, 0]
        return Camera(self.scale * zoom, turn @ self.rotation, moved)


def camera_from_angles(
    yaw: Tensor | float, pitch: Tensor | float, roll: Tensor | float, scale: Tensor | float, translation: Tensor
) -> Camera:
    """Cameras from angles in degrees (yaw to the image's right, pitch up, roll clockwise), pixels per mm, and pixels.

    Args:
        yaw, pitch, roll, scale: B float, or a number for all of the batch.
        translation: B x 2 float; its length, dtype and device are the batch's.
    """
    count = len(translation)
    yaw, pitch, roll, scale = (
        torch.as_tensor(value, dtype=translation.dtype, device=translation.device).expand(count)
        for value in (yaw, pitch, roll, scale)
    )
    return Camera(scale, rotation_from_angles(torch.stack([yaw, pitch, roll], 1)), translation)


def rotation_from_angles(angles: Tensor) -> Tensor:
    """B x 3 degrees (yaw, pitch, roll) to B x 3 x 3, `Rz(-roll) @ Rx(-pitch) @ Ry(yaw)`."""
    (cy, cp, cr), (sy, sp, sr) = torch.deg2rad(angles).cos().unbind(1), torch.deg2rad(angles).sin().unbind(1)
    zero, one = torch.zeros_like(cy), torch.ones_like(cy)
    yaw = torch.stack([cy, zero, sy, zero, one, zero, -sy, zero, cy], 1).view(-1, 3, 3)
    pitch = torch.stack([one, zero, zero, zero, cp, sp, zero, -sp, cp], 1).view(-1, 3, 3)
    roll = torch.stack([cr, sr, zero, -sr, cr, zero, zero, zero, one], 1).view(-1, 3, 3)
    return roll @ pitch @ yaw


def angles_from_rotation(rotation: Tensor) -> Tensor:
    """B x 3 x 3 to B x 3 degrees (yaw, pitch, roll): undoes `rotation_from_angles`.

    Pitch lies within [-90, 90]; at its ends yaw and roll are not unique.
    """
    yaw = torch.atan2(-rotation[:, 2, 0], rotation[:, 2, 2])
    pitch = torch.asin((-rotation[:, 2, 1]).clamp(-1, 1))
    roll = torch.atan2(rotation[:, 0, 1], rotation[:, 1, 1])
    return torch.rad2deg(torch.stack([yaw, pitch, roll], 1))


@dataclass(frozen=True, slots=True)
class CameraFit:
    """What `fit_camera` found.

    Attributes:
        camera: B cameras.
        residual: B float, weighted median distance in pixels between the points' projections and their pixels; inf
            where `valid` is False.
        valid: B bool; False where fewer than four points carry weight or they lie in a plane. Such rows hold a finite
            stand-in: frontal, scale 1, on the weighted mean of the pixels.
    """

    camera: Camera
    residual: Tensor
    valid: Tensor


def fit_camera(positions: Tensor, pixels: Tensor, weights: Tensor, robust_steps: int = 2) -> CameraFit:
    """Fits scaled orthographic cameras to 3D-2D correspondences.

    Weighted linear least squares, the nearest scaled rotation, Gauss-Newton on scale and rotation (on second moments,
    so it costs nothing per point), then Cauchy re-weighting at twice the median residual.

    Args:
        positions: B x 3 x n mm, or 1 x 3 x n for all.
        pixels: B x 2 x n.
        weights: B x n, not negative; 0 leaves a point out (its values must still be finite).
        robust_steps: re-weightings; 0 is plain least squares.

    Returns:
        `CameraFit`; never NaN for finite input.
    """
    positions = positions.expand(len(pixels), -1, -1)
    # Normalised frames keep the moments well conditioned in float32.
    unit = positions.flatten(1).std(1).clamp_min(1e-6)[:, None, None]
    fit_weights = weights
    for step in range(robust_steps + 1):
        camera, valid = _least_squares(positions, pixels, fit_weights, unit)
        distance = torch.hypot(*(camera.project(positions) - pixels).unbind(1))
        median = _weighted_median(distance, weights)
        if step < robust_steps:
            cut = 2 * median.clamp_min(1e-6)[:, None]
            fit_weights = weights / (1 + (distance / cut).square())
    return CameraFit(camera, torch.where(valid, median, torch.inf), valid)


def _least_squares(positions: Tensor, pixels: Tensor, weights: Tensor, unit: Tensor) -> tuple[Camera, Tensor]:
    total = weights.sum(1).clamp_min(1e-12)
    share = (weights / total[:, None])[:, None]
    position_mean, pixel_mean = (share * positions).sum(2), (share * pixels).sum(2)
    centred = (positions - position_mean[..., None]) / unit
    flip = pixels.new_tensor(_FLIP_Y)[:, None]
    offsets = (pixels - pixel_mean[..., None]) * flip
    spread = (share * centred) @ centred.transpose(1, 2)  # B x 3 x 3
    cross = (share * offsets) @ centred.transpose(1, 2)  # B x 2 x 3

    # The ridge keeps flat sets solvable; Gauss-Newton then finds the direction off their plane by orthogonality.
    trace = spread.diagonal(dim1=1, dim2=2).sum(1)
    eye = torch.eye(3, dtype=spread.dtype, device=spread.device)
    ridge = (1e-4 * trace + 1e-12)[:, None, None] * eye
    affine = torch.linalg.solve_ex(spread + ridge, cross, left=False).result
    scale, rows = _nearest_scaled_rows(affine)
    for _ in range(4):
        scale, rows = _gauss_newton(scale, rows, spread, cross)

    # Points in one plane leave a two-fold choice, points on a line a whole circle of them.
    volume = (spread[:, 0] * torch.linalg.cross(spread[:, 1], spread[:, 2])).sum(1)
    enough = (weights > 1e-3 * weights.amax(1, keepdim=True).clamp_min(1e-12)).sum(1) >= 4
    valid = enough & (volume > 1e-8 * trace.pow(3)) & (scale > 1e-6)
    scale = torch.where(valid, scale / unit[:, 0, 0], 1.0)
    rows = torch.where(valid[:, None, None], rows, eye[:2])
    rotation = torch.cat([rows, torch.linalg.cross(rows[:, 0], rows[:, 1])[:, None]], 1)
    centre = Camera(scale, rotation, torch.zeros_like(pixel_mean)).project(position_mean[..., None])[..., 0]
    return Camera(scale, rotation, pixel_mean - torch.where(valid[:, None], centre, 0.0)), valid


def _nearest_scaled_rows(affine: Tensor) -> tuple[Tensor, Tensor]:
    """B x 2 x 3 to scale (B) and orthonormal rows (B x 2 x 3): the polar factor, in closed form for two rows."""
    gram = affine @ affine.transpose(1, 2)
    determinant = (gram[:, 0, 0] * gram[:, 1, 1] - gram[:, 0, 1] * gram[:, 1, 0]).clamp_min(0).sqrt()
    sum_of_singular = (gram[:, 0, 0] + gram[:, 1, 1] + 2 * determinant).clamp_min(1e-20).sqrt()
    # sqrt(G) = (G + sqrt(det G) I) / (s1 + s2), and its inverse by the adjugate.
    a, b, d = gram[:, 0, 0] + determinant, gram[:, 0, 1], gram[:, 1, 1] + determinant
    adjugate = torch.stack([torch.stack([d, -b], 1), torch.stack([-b, a], 1)], 1)
    rows = adjugate @ affine * (sum_of_singular / (a * d - b * b).clamp_min(1e-20))[:, None, None]
    return sum_of_singular / 2, _orthonormal(rows)


def _orthonormal(rows: Tensor) -> Tensor:
    first = rows[:, 0] / rows[:, 0].norm(dim=1, keepdim=True).clamp_min(1e-12)
    second = rows[:, 1] - (rows[:, 1] * first).sum(1, keepdim=True) * first
    return torch.stack([first, second / second.norm(dim=1, keepdim=True).clamp_min(1e-12)], 1)


def _gauss_newton(scale: Tensor, rows: Tensor, spread: Tensor, cross: Tensor) -> tuple[Tensor, Tensor]:
    """One step on |y - s P R x|^2 over scale and a left rotation, from the second moments of x and y alone."""
    rotation = torch.cat([rows, torch.linalg.cross(rows[:, 0], rows[:, 1])[:, None]], 1)
    steps = scale[:, None, None, None] * _pose_steps(rotation)
    changes = steps.flatten(2)
    hessian = (steps @ spread[:, None]).flatten(2) @ changes.mT
    gradient = changes @ (cross - scale[:, None, None] * rows @ spread).flatten(1)[..., None]
    damping = 1e-6 * hessian.diagonal(dim1=1, dim2=2).sum(1).clamp_min(1e-20)
    hessian = hessian + damping[:, None, None] * torch.eye(4, dtype=scale.dtype, device=scale.device)
    solution = torch.linalg.solve_ex(hessian, gradient).result
    turn_x, turn_y, turn_z, stretch = solution.clamp(-0.5, 0.5).unbind(1)
    first = rotation[:, 0] - turn_z * rotation[:, 1] + turn_y * rotation[:, 2]
    second = rotation[:, 1] + turn_z * rotation[:, 0] - turn_x * rotation[:, 2]
    return scale * stretch[:, 0].exp(), _orthonormal(torch.stack([first, second], 1))


def _pose_steps(rotation: Tensor) -> Tensor:
    """B x 4 x 2 x 3: how the first two rows of `exp(log_scale) * Turn @ rotation` change with turns (radians) about the
    camera's x, y and z and with log scale."""
    first, second, third = rotation.unbind(1)
    zero = torch.zeros_like(first)
    return torch.stack([zero, -third, third, zero, -second, first, first, second], 1).view(-1, 4, 2, 3)


def _weighted_median(values: Tensor, weights: Tensor) -> Tensor:
    """Of each row: the smallest value with at least half of the row's weight at or under it. B x n to B."""
    ordered, order = values.sort(dim=1)
    share = weights.gather(1, order).cumsum(1)
    index = (share < 0.5 * share[:, -1:]).sum(1, keepdim=True).clamp_max(values.shape[1] - 1)
    return ordered.gather(1, index)[:, 0]
