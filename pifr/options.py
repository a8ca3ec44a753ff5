"""Frontalizers by one line of text: what follows the colon of `--frontalizer srtc:...`, and what `--options` takes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from pifr.errors import ConfigError, UnknownNameError
from pifr.frontalizer import Frontalizer, FrontalizerConfig
from pifr.locator import FaceLocator, LocatorConfig
from pifr.networks.pretrained import CONFIGURATIONS
from pifr.support.config import Config, explain

_Kind = TypeVar("_Kind", bound=Config)


def load_frontalizer(device: str = "cpu", argument: str = "") -> Frontalizer:
    """The frontalizer of an argument of `parse_options`, with options of `LocatorConfig` and `FrontalizerConfig`.

    Raises:
        WeightsError: a network that is needed has no weights.
        ConfigError, UnknownNameError: the argument is not understood.
    """
    return parse_options(argument, LocatorConfig, FrontalizerConfig).frontalizer(device)


@dataclass(frozen=True, slots=True)
class AskedFor:
    """What an argument asks for: a packaged configuration, perhaps a folder of weights, and options by their kind."""

    name: str
    folder: Path | None
    options: dict[type[Config], Config]

    def __getitem__(self, kind: type[_Kind]) -> _Kind:
        return self.options[kind]  # type: ignore[return-value]

    def locator(self, device: str) -> FaceLocator:
        return FaceLocator.from_pretrained(self.name, weights=self.folder, device=device, config=self[LocatorConfig])

    def frontalizer(self, device: str) -> Frontalizer:
        return Frontalizer.from_pretrained(
            self.name,
            weights=self.folder,
            device=device,
            config=self[FrontalizerConfig],
            location=self[LocatorConfig],
        )


def parse_options(argument: str, *kinds: type[Config]) -> AskedFor:
    """What an argument asks for.

    Args:
        argument: comma-separated: a configuration ("paper"), a folder of weights of `pifr train`, and options as
            KEY=VALUE, lists with "/" between: "paper,completion=inet,render_yaw=0/30".
        kinds: whose options it may name.

    Raises:
        ConfigError, UnknownNameError: the argument is not understood.
    """
    name, folder = "lite", None
    values: dict[str, Any] = {}
    for item in filter(None, map(str.strip, argument.split(","))):
        key, equals, value = map(str.strip, item.partition("="))
        if equals:
            values[key] = value.split("/") if "/" in value or key == "render_yaw" else value
        elif item in CONFIGURATIONS:
            name = item
        elif Path(item).is_dir():
            folder = Path(item)
        else:
            raise ConfigError(f"{item!r} is neither 'lite' nor 'paper', nor a folder of weights, nor KEY=VALUE")
    known = [key for kind in kinds for key in kind.model_fields]
    if unknown := set(values) - set(known):
        raise UnknownNameError("option of a frontalizer", min(unknown), known)
    try:
        options = {kind: kind(**{k: v for k, v in values.items() if k in kind.model_fields}) for kind in kinds}
    except ValidationError as error:
        raise ConfigError(f"options of a frontalizer: {explain(error)}") from error
    return AskedFor(name, folder, options)
