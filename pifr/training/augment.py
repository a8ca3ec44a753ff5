"""What the world does to photos, done to training images: geometry, occlusion, light, lens, sensor, compression.

Everything works on single uint8 images with OpenCV inside worker processes and draws only from the generator that it is
given, so a sample is a function of its seed. Pixel coordinates have the centre of the first pixel at (0, 0).
"""

import math
from typing import NamedTuple

import cv2
import numpy as np
import torch

from pifr.geometry.framing import span

_PATCH_SIZES = (0.06, 0.25)


class Crop(NamedTuple):
    """A square crop of a training image.

    Attributes:
        image: N x N x 3 uint8.
        pncc: N x N x 3 float32 in [0, 1], valid where the mask is True.
        mask: N x N bool.
        mirrored: True if the crop shows the mirror image, in which case `pncc` is that of the mirrored face.
    """

    image: np.ndarray
    pncc: np.ndarray
    mask: np.ndarray
    mirrored: bool


class Framing(NamedTuple):
    """How a crop is laid around the mask's bounding square; lengths in units of the square's side.

    Attributes:
        scale: lowest and highest side of the crop.
        shift: largest displacement of the centre, each axis, in units of the crop's side.
        turn: standard deviation of the in-plane rotation (degrees).
        wide_turn: share of samples that are turned by up to +-25 degrees more.
        stretch: largest relative change of the aspect ratio.
        cut: share of samples whose photo ends close to the face.
        mirror: share of samples that are mirrored.
    """

    scale: tuple[float, float]
    shift: float
    turn: float = 9.0
    wide_turn: float = 0.25
    stretch: float = 0.07
    cut: float = 0.3
    mirror: float = 0.5

    @staticmethod
    def plain(scale: float) -> "Framing":
        """Upright and centred at one scale, with no randomness: for validation."""
        return Framing((scale, scale), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def random_crop(image: np.ndarray, pncc: np.ndarray, framing: Framing, size: int, rng: np.random.Generator) -> Crop:
    """Cuts a square around the face: turned, shifted, scaled, stretched, mirrored, reaching beyond the photo's edge.

    The mask's bounding square is taken after the rotation and after the photo was cut, and by the rule of
    `pifr.geometry.framing.bounding_squares`, as a network at inference sees it.

    Args:
        image: H x W x 3 uint8.
        pncc: H x W x 3 uint8, 0 outside the mask, else 1 + 254 * NCC.
        framing: see `Framing`.
        size: side N of the crop.
        rng: the only source of randomness.
    """
    cut = rng.random() < framing.cut
    if cut:
        image, pncc = _cut(image, pncc, rng)
    angle = rng.normal(0, framing.turn) + (rng.uniform(-25, 25) if rng.random() < framing.wide_turn else 0.0)
    mirrored = bool(rng.random() < framing.mirror)
    turn = _rotation(math.radians(angle))
    centre, side = _bounding_square(pncc, turn)
    side *= rng.uniform(*framing.scale)
    centre = centre + rng.uniform(-framing.shift, framing.shift, 2) * side
    stretch = 1 + rng.uniform(-framing.stretch, framing.stretch)
    linear = np.diag([stretch * (-1 if mirrored else 1), 1.0]) @ turn * (size / side)
    middle = (size - 1) / 2
    # The centre of the square, taken back to the photo, goes to the middle of the crop.
    affine = np.column_stack([linear, middle - linear @ (turn.T @ centre)])
    mode, value = _border(cut, rng)
    cropped = cv2.warpAffine(image, affine, (size, size), flags=cv2.INTER_LINEAR, borderMode=mode, borderValue=value)
    codes, mask = _warp_pncc(pncc, affine, size)
    if mirrored:
        codes[..., 0] = mask - codes[..., 0]
    return Crop(cropped, codes, mask, mirrored)


def _face(pncc: np.ndarray) -> np.ndarray:
    """H x W uint8 that is not 0 on the face: codes inside the mask are at least 1 in every channel."""
    return cv2.extractChannel(pncc, 0)


def _cut(image: np.ndarray, pncc: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Lets the photo end between a tenth of the face inside its box and far outside, on each side."""
    height, width = pncc.shape[:2]
    left, top, box_width, box_height = cv2.boundingRect(_face(pncc))
    margins = rng.uniform(-0.1, 0.45, 4) * max(box_width, box_height)
    x0, y0 = max(0, int(left - margins[0])), max(0, int(top - margins[1]))
    x1 = min(width, int(left + box_width + margins[2]))
    y1 = min(height, int(top + box_height + margins[3]))
    return image[y0:y1, x0:x1], pncc[y0:y1, x0:x1]


def _rotation(radians: float) -> np.ndarray:
    cosine, sine = math.cos(radians), math.sin(radians)
    return np.array([[cosine, -sine], [sine, cosine]])


def _bounding_square(pncc: np.ndarray, turn: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre (x, y) and side of the turned mask's bounding square; if it is empty, those of the middle of the image."""
    pixels = cv2.findNonZero(_face(pncc))
    if pixels is None:
        height, width = pncc.shape[:2]
        return turn @ [width / 2, height / 2], max(height, width) / 2
    points = turn @ pixels.reshape(-1, 2).T
    low = np.floor(points.min(1, keepdims=True))
    profiles = (np.bincount(axis) for axis in (points - low + 0.5).astype(np.int64))
    spans = np.stack([span(torch.from_numpy(profile)[None])[0].numpy() for profile in profiles])
    return low[:, 0] + spans.mean(1), float((spans[:, 1] - spans[:, 0]).max()) + 1


def _border(cut: bool, rng: np.random.Generator) -> tuple[int, tuple[int, int, int]]:
    """What continues the photo beyond its edge; a reflection only where it does not show a second face."""
    kind = rng.random()
    if kind < 0.45 and not cut:
        return cv2.BORDER_REFLECT_101, (0, 0, 0)
    if kind < 0.75:
        return cv2.BORDER_REPLICATE, (0, 0, 0)
    grey = int(rng.integers(0, 256)) if kind > 0.9 else 128 if kind > 0.85 else 0
    return cv2.BORDER_CONSTANT, (grey, grey, grey)


def _warp_pncc(pncc: np.ndarray, affine: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Warps codes without mixing them with the background: both are weighted by the mask, then divided by it."""
    _, mask = cv2.threshold(_face(pncc), 0, 1, cv2.THRESH_BINARY)
    layers = cv2.merge([*cv2.split(pncc), mask]).astype(np.float32)
    warped = cv2.warpAffine(layers, affine, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    weight = warped[..., 3]
    inside = weight >= 0.5
    gain = inside / np.maximum(weight, 0.5)
    codes = (warped[..., :3] * gain[..., None] - inside[..., None]) * np.float32(1 / 254)
    return codes, inside


def imprecise_mask(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A mask as the segmentation would predict it: grown or shrunk, moved, soft at its outline.

    Args:
        mask: N x N bool.
        rng: the only source of randomness.

    Returns:
        N x N uint8, 255 on the face.
    """
    size = len(mask)
    radius = round(rng.normal(0, 0.012) * size)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * abs(radius) + 1, 2 * abs(radius) + 1))
    seen = (cv2.dilate if radius > 0 else cv2.erode)(mask.astype(np.uint8) * 255, disc)
    moved = np.column_stack([np.eye(2), rng.normal(0, 0.008, 2) * size])
    seen = cv2.warpAffine(seen, moved, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return cv2.GaussianBlur(seen, (0, 0), rng.uniform(0.003, 0.015) * size)


def occlude(crop: Crop, other: np.ndarray, rng: np.random.Generator) -> Crop:
    """Covers parts of the crop by things that are no face; where they are, the mask ends.

    Args:
        crop: its arrays are not changed.
        other: uint8 photo, at least as large as the crop, of which pieces are pasted.
        rng: the only source of randomness.
    """
    image, mask = crop.image.copy(), crop.mask.copy()
    for _ in range(int(rng.integers(1, 4))):
        draw = _OCCLUDERS[int(rng.choice(len(_OCCLUDERS), p=_OCCLUDER_SHARES))]
        shape = np.zeros(mask.shape, np.uint8)
        paint = draw(shape, image, mask, other, rng)
        soft = cv2.GaussianBlur(shape, (0, 0), rng.uniform(0.4, 1.5))
        opacity = soft[..., None].astype(np.float32) * np.float32(1 / 255)
        image = (image + (paint - image.astype(np.float32)) * opacity).astype(np.uint8)
        mask &= soft < 128
    return crop._replace(image=image, mask=mask, pncc=crop.pncc * mask[..., None])


def _flat(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(0, 255, 3).astype(np.float32)


def _shaded(colour: np.ndarray, contrast: float, size: int, rng: np.random.Generator) -> np.ndarray:
    """A colour in smoothly varying light: size x size x 3 float32, 0 to 255."""
    light = rng.normal(0, contrast, (4, 4, 1)).astype(np.float32)
    return (colour + cv2.resize(light, (size, size), interpolation=cv2.INTER_CUBIC)[..., None]).clip(0, 255)


def _point(size: int, rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(0.05, 0.95, 2) * size


def _blob(
    shape: np.ndarray, image: np.ndarray, mask: np.ndarray, other: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """A polygon with the texture of another photo, or of one colour."""
    size = len(shape)
    count = int(rng.integers(3, 8))
    angles = np.sort(rng.uniform(0, 2 * np.pi, count))
    radii = rng.uniform(*_PATCH_SIZES) * size * rng.uniform(0.5, 1.5, count)
    points = _point(size, rng) + np.column_stack([np.cos(angles), np.sin(angles)]) * radii[:, None]
    cv2.fillPoly(shape, [points.astype(np.int32)], 255)
    if rng.random() < 0.5:
        return _flat(rng)
    y, x = (int(rng.integers(0, side - size + 1)) for side in other.shape[:2])
    return other[y : y + size, x : x + size].astype(np.float32)


def _hair(
    shape: np.ndarray, image: np.ndarray, mask: np.ndarray, other: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Strands that fall from one edge of the crop, of a dark, brown, fair or grey colour."""
    size = len(shape)
    start = np.array([rng.uniform(0, size), rng.uniform(-0.1, 0.25) * size])
    direction = np.array([rng.uniform(-0.6, 0.6), 1.0]) * rng.uniform(0.3, 0.9) * size
    bend = rng.uniform(-0.3, 0.3, 2) * size
    steps = np.linspace(0, 1, 8)[:, None]
    spine = start + steps * direction + steps * (1 - steps) * bend
    spread = rng.uniform(0.01, 0.12) * size
    for _ in range(int(rng.integers(3, 14))):
        strand = spine + rng.normal(0, spread, 2) + steps * rng.normal(0, spread, 2)
        cv2.polylines(shape, [strand.astype(np.int32)], False, 255, int(rng.integers(1, 5)), cv2.LINE_AA)
    tone = np.array([1.0, rng.uniform(0.65, 1.0), rng.uniform(0.4, 1.0)]) * rng.uniform(10, 220)
    streaks = rng.normal(0, 12, (1, size, 1)).astype(np.float32)
    return np.broadcast_to((tone + streaks).clip(0, 255).astype(np.float32), image.shape)


def _hand(
    shape: np.ndarray, image: np.ndarray, mask: np.ndarray, other: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """A palm with fingers in the colour of the face."""
    size = len(shape)
    palm, reach = _point(size, rng), rng.uniform(0.08, 0.16) * size
    angle = rng.uniform(0, 2 * np.pi)
    axes = (int(reach), int(reach * rng.uniform(0.7, 1.0)))
    cv2.ellipse(shape, tuple(map(int, palm)), axes, math.degrees(angle), 0, 360, 255, -1)
    for finger in np.linspace(-0.6, 0.6, int(rng.integers(3, 6))):
        heading = angle + finger + rng.normal(0, 0.08)
        tip = palm + np.array([math.cos(heading), math.sin(heading)]) * reach * rng.uniform(1.8, 2.6)
        cv2.line(shape, tuple(map(int, palm)), tuple(map(int, tip)), 255, max(1, int(reach * 0.4)), cv2.LINE_AA)
    skin = np.array(cv2.mean(image, mask.astype(np.uint8))[:3]) * rng.uniform(0.75, 1.2) + rng.normal(0, 6, 3)
    return _shaded(skin.astype(np.float32), 14, size, rng)


def _bar(
    shape: np.ndarray, image: np.ndarray, mask: np.ndarray, other: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """A bar, often with a round end: microphones, poles, cups, telephones."""
    size = len(shape)
    start, end = _point(size, rng), rng.uniform(-0.2, 1.2, 2) * size
    width = rng.uniform(0.02, 0.12) * size
    cv2.line(shape, tuple(map(int, start)), tuple(map(int, end)), 255, max(1, int(width)), cv2.LINE_AA)
    if rng.random() < 0.6:
        head = (int(width * rng.uniform(0.8, 1.6)) + 1, int(width * rng.uniform(0.6, 1.2)) + 1)
        cv2.ellipse(shape, tuple(map(int, start)), head, rng.uniform(0, 180), 0, 360, 255, -1)
    return _flat(rng) * np.float32(rng.uniform(0.1, 1.0))


def _glasses(
    shape: np.ndarray, image: np.ndarray, mask: np.ndarray, other: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Two dark ellipses and a bridge somewhere in the upper half."""
    size = len(shape)
    tilt = _rotation(rng.normal(0, 0.2))
    middle = np.array([rng.uniform(0.25, 0.75), rng.uniform(0.3, 0.5)]) * size
    gap, radius = rng.uniform(0.06, 0.2) * size, rng.uniform(0.06, 0.13) * size
    for side in (-1, 1):
        lens = middle + tilt @ np.array([side * gap, 0.0])
        axes = (max(2, int(min(radius, gap * 1.1))), max(2, int(radius * 0.8)))
        cv2.ellipse(shape, tuple(map(int, lens)), axes, 0, 0, 360, 255, -1)
    ends = [tuple(map(int, middle + tilt @ np.array([side * gap, 0.0]))) for side in (-1, 1)]
    cv2.line(shape, ends[0], ends[1], 255, 2, cv2.LINE_AA)
    return _flat(rng) * np.float32(rng.uniform(0.0, 0.4))


def _hat(
    shape: np.ndarray, image: np.ndarray, mask: np.ndarray, other: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """A crown over the upper part of the face, as far down as the brows, and mostly a brim; of creased cloth."""
    size = len(shape)
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    middle = (int(left + width * rng.normal(0.5, 0.05)), int(top + height * rng.uniform(0.0, 0.35)))
    half, tilt = width * rng.uniform(0.45, 0.8), rng.normal(0, 9)
    crown = (int(half), int(height * rng.uniform(0.3, 0.9)))
    cv2.ellipse(shape, middle, crown, tilt, 180, 360, 255, -1)
    # Seen from above or in front, the edge is bowed downwards.
    cv2.ellipse(shape, middle, (int(half), int(height * rng.uniform(0.0, 0.08))), tilt, 0, 360, 255, -1)
    if rng.random() < 0.6:
        brim = (int(half * rng.uniform(1.0, 1.5)), int(height * rng.uniform(0.02, 0.12)))
        cv2.ellipse(shape, middle, brim, tilt + rng.normal(0, 6), 0, 360, 255, -1)
    return _shaded(_flat(rng) * np.float32(rng.uniform(0.2, 1.0)), 22, size, rng)


def _text(
    shape: np.ndarray, image: np.ndarray, mask: np.ndarray, other: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """A line of letters, as captions and watermarks have."""
    size = len(shape)
    letters = "".join(chr(int(code)) for code in rng.integers(65, 91, int(rng.integers(3, 12))))
    origin = (int(rng.uniform(-0.1, 0.4) * size), int(rng.uniform(0.1, 0.98) * size))
    scale = float(rng.uniform(0.3, 1.0)) * size / 128
    cv2.putText(
        shape, letters, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, max(1, int(rng.integers(1, 4))), cv2.LINE_AA
    )
    return _flat(rng)


_OCCLUDERS = (_blob, _hair, _hand, _bar, _glasses, _hat, _text)
_OCCLUDER_SHARES = (0.28, 0.2, 0.13, 0.11, 0.1, 0.11, 0.07)


def without_colours(image: np.ndarray) -> np.ndarray:
    """H x W x 3 uint8 RGB as a grey photo shows it, the same in all three channels."""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def degrade(image: np.ndarray, face_side: float, rng: np.random.Generator) -> np.ndarray:
    """Light, colour, lens, sensor and compression.

    Args:
        image: N x N x 3 uint8.
        face_side: side of the face in pixels of the image; low resolution is drawn in terms of it.
        rng: the only source of randomness.

    Returns:
        N x N x 3 uint8.
    """
    size = len(image)
    if rng.random() < 0.35:
        image = _relight(image, rng)
    image = cv2.LUT(image, _tone_curves(rng))
    if rng.random() < 0.08:
        image = without_colours(image)
    elif rng.random() < 0.3:
        saturation = rng.uniform(0.2, 1.5)
        image = cv2.addWeighted(image, saturation, without_colours(image), 1 - saturation, 0)
    if rng.random() < 0.25:
        image = _blur(image, rng)
    small = size
    if rng.random() < 0.3:
        # Faces down to 24 pixels, each octave as often as any other.
        small = max(8, round(size * math.exp(rng.uniform(math.log(24 / face_side), 0.0)))) if face_side > 24 else size
        image = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
    if rng.random() < 0.25:
        noise = rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(1, 10))
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        blue_first = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        _, code = cv2.imencode(".jpg", blue_first, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 85))])
        image = cv2.cvtColor(cv2.imdecode(code, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    if small != size:
        mode = cv2.INTER_CUBIC if rng.random() < 0.3 else cv2.INTER_LINEAR
        image = cv2.resize(image, (size, size), interpolation=mode)
    return image


def _tone_curves(rng: np.random.Generator) -> np.ndarray:
    """Exposure, contrast, gamma and white balance as one table: 256 x 1 x 3 uint8."""
    levels = np.linspace(0, 1, 256, dtype=np.float32)[:, None]
    curve = np.repeat(levels, 3, axis=1)
    if rng.random() < 0.4:
        curve = curve ** np.float32(rng.uniform(0.6, 1.7))
    if rng.random() < 0.8:
        curve = curve * np.float32(rng.uniform(0.6, 1.4)) + np.float32(rng.uniform(-0.12, 0.12))
    if rng.random() < 0.5:
        curve = curve * rng.uniform(0.8, 1.2, 3).astype(np.float32)
    return (curve.clip(0, 1) * 255).astype(np.uint8)[:, None]


def _relight(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A gradient of light across the image, or a shadow with a straight, more or less soft edge."""
    size = len(image)
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    ramp = math.cos(angle) * axis[None] + math.sin(angle) * axis[:, None]
    if rng.random() < 0.6:
        light = 1 + np.float32(rng.uniform(0.1, 0.55)) * ramp
    else:
        edge = np.clip((ramp - rng.uniform(-0.5, 0.5)) / rng.uniform(0.05, 0.8) + 0.5, 0, 1)
        light = 1 - np.float32(rng.uniform(0.2, 0.65)) * edge
    return np.clip(image * light[..., None], 0, 255).astype(np.uint8)


def _blur(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Out of focus, or moved."""
    if rng.random() < 0.75:
        return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 2.0))
    length = int(rng.integers(3, 10))
    kernel = np.zeros((length, length), np.float32)
    heading = rng.uniform(0, np.pi)
    middle, half = (length - 1) / 2, (length - 1) / 2
    ends = [
        (round(middle + side * half * math.cos(heading)), round(middle + side * half * math.sin(heading)))
        for side in (-1, 1)
    ]
    cv2.line(kernel, ends[0], ends[1], 1.0)
    return cv2.filter2D(image, -1, kernel / kernel.sum())


def mirror_position_map(position: np.ndarray) -> np.ndarray:
    """The position map of the mirrored face: u is flipped and x negated. ... x N x N x 3, any float dtype."""
    flipped = position[..., ::-1, :].copy()
    flipped[..., 0] *= -1
    return flipped
