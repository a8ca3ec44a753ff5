"""Shipped networks and settings give of drawn people what they gave before, up to what processors differ by.

Embeddings are kept under fingerprints that hold weights, settings and recipe numbers. So where this fails without a
change of weights, either something broke, or a `_RECIPE` has to be raised with it. To remember anew:

    python -m tests.frontalizer.test_remembered_results
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pifr.faces import ARCFACE_112, FaceCrops, cut
from pifr.frontal_views import Renderings, SrtcViews, ViewWeights
from pifr.frontalizer import Frontalizer, FrontalizerConfig
from pifr.geometry.template import load_template
from pifr.locator import LocatorConfig
from protocols.synthetic.people import expression, sample_person
from protocols.synthetic.photography import photograph
from protocols.synthetic.scene import Scene, View

REMEMBERED = Path(__file__).with_name("remembered_results.json")
TOLERANCE = {
    "angles, degrees": 0.005,
    "five landmarks, pixels": 0.005,
    "residual, mm": 0.002,
    "visible fraction": 0.0005,
    "fitted shape, mm from the mean face": 0.002,
    "weights of the views": 0.0005,
    "brightness of the views": 0.0005,
    "contrast of the views": 0.0005,
    "complete texture by I-Net": 0.0005,
    "S-Net's shape, mm from the mean face": 0.002,
    "S-Net's detail, mm": 0.0005,
    "frontal rendering": 0.0005,
}


def drawn_people() -> FaceCrops:
    crops = []
    for index, yaw in enumerate((-80.0, -45.0, 5.0, 65.0)):
        rng = np.random.default_rng(index)
        scene = Scene(sample_person(11, index), expression("neutral", 0.5, rng))
        view = View(yaw, 5.0, 0.0, 1.0, (160.0, 160.0), 320, 320)
        crops.append(cut(photograph(scene, view, rng), np.array([80.0, 70.0, 240.0, 250.0])))
    return FaceCrops.concatenate(crops)


def results() -> tuple[str, dict[str, list]]:
    """Fingerprints of what made them, and one list a face of each figure in `TOLERANCE`."""
    faces, location = drawn_people(), LocatorConfig(precision="float32")
    frontalizer = Frontalizer.from_pretrained(location=location)
    maker = SrtcViews(frontalizer, ViewWeights(), Renderings())
    pictures = Frontalizer.from_pretrained(
        config=FrontalizerConfig(completion="inet", shape="snet", fine=True), location=location
    )
    located, turned = frontalizer.locator(faces), pictures(faces, size=112)
    views = maker.views_of(faces, located, ARCFACE_112, 112)
    mean = load_template()

    def from_the_mean(shape: torch.Tensor) -> torch.Tensor:
        return (shape - mean.position_map(shape.shape[-1])).norm(dim=1).mean((1, 2))

    found = {
        "angles, degrees": located.camera.angles(),
        "five landmarks, pixels": located.landmarks("five").flatten(1),
        "residual, mm": located.residual,
        "visible fraction": located.visible_fraction,
        "fitted shape, mm from the mean face": from_the_mean(located.fitted),
        "weights of the views": views.weights,
        "brightness of the views": views.images.mean((2, 3, 4)),
        "contrast of the views": views.images.std((2, 3, 4)),
        "complete texture by I-Net": turned.uv_texture.mean((2, 3)),
        "S-Net's shape, mm from the mean face": from_the_mean(turned.position_map),
        "S-Net's detail, mm": turned.displacement.std((1, 2, 3)),
        "frontal rendering": torch.cat([turned.frontal.mean((2, 3)), turned.frontal.std((2, 3))], 1),
    }
    return f"{maker.fingerprint}\n{pictures.fingerprint}", {name: each.tolist() for name, each in found.items()}


@pytest.fixture(scope="module")
def found() -> tuple[str, dict[str, list]]:
    return results()


@pytest.fixture(scope="module")
def remembered() -> dict:
    return json.loads(REMEMBERED.read_text(encoding="utf-8"))


def test_they_were_remembered_of_what_is_shipped(found, remembered) -> None:
    assert found[0] == remembered["fingerprint"], __doc__


@pytest.mark.parametrize("name", TOLERANCE)
def test_results_are_what_they_were(name: str, found, remembered) -> None:
    np.testing.assert_allclose(found[1][name], remembered[name], rtol=0, atol=TOLERANCE[name], err_msg=__doc__)


if __name__ == "__main__":
    fingerprint, values = results()
    rounded = {name: np.round(value, 5).tolist() for name, value in values.items()}
    REMEMBERED.write_text(json.dumps({"fingerprint": fingerprint} | rounded, indent=1) + "\n", encoding="utf-8")
