"""An experiment as a value: what is evaluated, on what, and how. Read from YAML, overridden by the command line."""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator

from pifr.errors import ConfigError
from pifr.fusion import Fusion
from pifr.support.config import Config, innermost

Names = Annotated[tuple[str, ...], Field(min_length=1)]


class Experiment(Config):
    """Which systems are run, and how faces are found. Every recognizer is crossed with every frontalizer and fusion.

    Attributes:
        data: root of the data set, or its pair file.
        out: folder of the run.
        settings: of the protocol; None: all of them, of multipie the first alone, as in the paper.
        recognizers: names, as `feature_extractors.load_recognizer` takes them.
        frontalizers: names, as `pifr.views.load_view_maker` takes them.
        fusions: None: each frontalizer's own default.
        sides: `both`: references go through the frontalizer as probes do; `probe`: references keep their first view.
        detector, policy, fallback: as for `pifr.faces.FaceFinder`. An experiment that names no detector takes aligned
            crops as they are (`for_aligned_images`).
        batch_size: faces that go through the networks together; written to the store together.
        workers: processes that decode and detect; 0: this one does.
        device: where networks run.
        store: file of the feature store; None: the user's.
    """

    data: Path
    out: Path
    settings: Names | None = None
    recognizers: Names = ("sface",)
    frontalizers: Names = ("none", "mirror")
    fusions: Annotated[tuple[Fusion, ...], Field(min_length=1)] | None = None
    sides: Literal["both", "probe"] = "both"
    detector: str = "yunet"
    policy: Literal["largest", "central", "reject"] = "largest"
    fallback: Literal["centre-crop"] | None = None
    batch_size: Annotated[int, Field(ge=1)] = 32
    workers: Annotated[int, Field(ge=0)] = 0
    device: str = "cpu"
    store: Path | None = None

    @field_validator("settings", "recognizers", "frontalizers", "fusions")
    @classmethod
    def _each_once(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return names if names is None else tuple(dict.fromkeys(names))

    def for_aligned_images(self) -> "Experiment":
        """The same on images that are aligned already: "aligned" in place of the detector, unless one was named."""
        return self if "detector" in self.model_fields_set else self.model_copy(update={"detector": "aligned"})

    def configuration(self) -> dict[str, Any]:
        """For `run.json`: plain values."""
        return self.model_dump(mode="json")


def load_experiment(file: Path | None, overrides: Mapping[str, Any]) -> Experiment:
    """An experiment from a YAML file and what overrides it.

    Args:
        file: a mapping with the attributes of `Experiment`; None: all values come from `overrides`. Paths in it are
            relative to the current folder, as on the command line.
        overrides: values by attribute; None and empty lists override nothing.

    Raises:
        ConfigError: the file cannot be read; a key is unknown (named, with the nearest known one); a value is not
            allowed.
    """
    values = _read_mapping(file) if file else {}
    source = f"'{file}'" if file else "the options"
    values |= {name: value for name, value in overrides.items() if value is not None and value != []}
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{source}: " + "; ".join(map(_explain, innermost(error)))) from None


def _read_mapping(file: Path) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"'{file}' cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"'{file}' is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"'{file}' must be a mapping of names to values, such as 'recognizers: [sface]'")
    return values


def _explain(problem: Mapping[str, Any]) -> str:
    place = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        close = get_close_matches(place, Experiment.model_fields, n=1)
        return f"unknown key '{place}'" + (f": did you mean '{close[0]}'?" if close else "")
    if problem["type"] == "missing":
        return f"'{place}' is not given (--{place.replace('_', '-')})"
    return f"'{place}': {problem['msg']}"
