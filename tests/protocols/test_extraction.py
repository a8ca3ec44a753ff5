"""What a stored feature depends on."""

from types import SimpleNamespace

from pifr.faces import ARCFACE_112, AlignmentTemplate
from protocols.extraction import _key


def key(finder="a", maker="b", recognizer="c", **config):
    config = SimpleNamespace(**({"alignment": ARCFACE_112, "input_size": 112} | config))
    system = SimpleNamespace(
        view_maker=SimpleNamespace(fingerprint=maker), recognizer=SimpleNamespace(fingerprint=recognizer, config=config)
    )
    return _key(b"1", SimpleNamespace(fingerprint=finder), system)


def test_features_are_kept_apart_by_all_that_they_depend_on() -> None:
    other = AlignmentTemplate("mine", 100, ARCFACE_112.points)
    namesake = AlignmentTemplate(ARCFACE_112.name, ARCFACE_112.size, tuple((x, y + 1) for x, y in ARCFACE_112.points))
    keys = {key(), key(finder="x"), key(maker="x"), key(recognizer="x"), key(input_size=96)}
    keys |= {key(alignment=other), key(alignment=namesake)}
    assert len(keys) == 7
