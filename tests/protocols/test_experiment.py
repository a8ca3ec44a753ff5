"""An experiment says what is wrong with it before anything runs."""

from pathlib import Path

import pytest

from pifr.errors import ConfigError
from protocols.experiment import Experiment, load_experiment

FULL = """
data: /data/cfp
out: runs/a
recognizers: [sface, lightcnn-v4]
frontalizers: [none, mirror]
fusions: [weighted, yaw]
batch_size: 16
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "experiment.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_options_override_the_file_and_empty_ones_do_not(tmp_path: Path) -> None:
    overrides = {"out": Path("elsewhere"), "recognizers": ["facenet"], "frontalizers": None, "fusions": []}
    experiment = load_experiment(write(tmp_path, FULL), overrides)
    assert experiment.out == Path("elsewhere")
    assert experiment.recognizers == ("facenet",)
    assert experiment.frontalizers == ("none", "mirror")
    assert experiment.fusions == ("weighted", "yaw")
    assert (experiment.batch_size, experiment.sides) == (16, "both")


def test_a_name_counts_once_however_often_it_is_given(tmp_path: Path) -> None:
    experiment = load_experiment(write(tmp_path, FULL), {"settings": ["FP", "FF", "FP"], "fusions": ["mean", "mean"]})
    assert (experiment.settings, experiment.fusions) == (("FP", "FF"), ("mean",))


def test_configuration_is_plain_and_repeats_the_experiment(tmp_path: Path) -> None:
    experiment = load_experiment(write(tmp_path, FULL), {})
    assert Experiment.model_validate(experiment.configuration()) == experiment


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FULL + "recogniser: [x]", "unknown key 'recogniser': did you mean 'recognizers'?"),
        (FULL + "colour: red", "unknown key 'colour'"),
        (FULL.replace("16", "0"), "'batch_size'"),
        (FULL.replace("yaw", "jaw"), "'fusions.1'"),
        (FULL.replace("[sface, lightcnn-v4]", "[]"), "'recognizers'"),
        ("recognizers: [sface]", "'data' is not given (--data); 'out' is not given (--out)"),
        ("- a\n- b", "must be a mapping"),
        ("a: [", "is not YAML"),
        ("1: 2", "must be a mapping"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_experiment(file, {})
    assert message in str(caught.value)
    assert "experiment.yaml" in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.yaml' cannot be read"):
        load_experiment(tmp_path / "no.yaml", {})
