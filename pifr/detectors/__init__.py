"""Face detectors: a box and five landmarks for each face of an image."""

from collections.abc import Callable
from functools import partial

import numpy as np

from pifr.detectors.base import NO_FACE, Detections, Detector
from pifr.detectors.known_landmarks import Aligned, LandmarkFile
from pifr.detectors.mtcnn import Mtcnn
from pifr.detectors.yunet import YuNet
from pifr.errors import UnknownNameError

__all__ = ["DETECTORS", "NO_FACE", "Detections", "Detector", "LandmarkFile", "YuNet", "load_detector"]

DETECTORS: dict[str, Callable[[], Detector]] = {
    "yunet": YuNet,
    "yunet-close": partial(YuNet, close_below=np.inf),
    "mtcnn": Mtcnn,
    "aligned": Aligned,
}
"""What a configuration may name, beside "file:PATH"."""


def load_detector(name: str) -> Detector:
    """Make the detector that a configuration names.

    Args:
        name: "yunet", "yunet-close" (looks at every face twice), "mtcnn", "aligned" for images that are aligned faces
            already, or "file:PATH" for landmarks from a CSV file.

    Raises:
        UnknownNameError: no such detector.
        WeightsError: its weights have not been fetched.
        DataError: the landmark file is missing or malformed.
    """
    kind, _, argument = name.partition(":")
    if kind == "file":
        return LandmarkFile(argument)
    if name not in DETECTORS:
        raise UnknownNameError("detector", name, [*DETECTORS, "file:PATH"])
    return DETECTORS[name]()
