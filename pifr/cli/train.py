"""`pifr train`: from a folder of photos to weights."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from torch import Tensor

    from feature_extractors import ModuleRecognizer
    from pifr.training.config import InpaintingTask
    from pifr.training.identity import TextureCritics

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Config = Annotated[str, typer.Option(help="Training configuration: lite, paper, or a YAML file.")]
Data = Annotated[Path, typer.Option(help="Shard folder, as 'pifr train render' writes it.")]
Out = Annotated[Path, typer.Option(help="Folder for weights, checkpoint, logs and pictures.")]
MaxSteps = Annotated[int | None, typer.Option(min=1, help="Length of the schedule in steps.")]
MaxMinutes = Annotated[float | None, typer.Option(min=0.01, help="Length of the schedule in minutes.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in --out, if there is one.")]
InitFrom = Annotated[Path | None, typer.Option(help="Weights file to start from.")]
Validation = Annotated[Path | None, typer.Option(help="Shards to validate on (default: held-out photos of --data).")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of the training process (default: all cores).")]
CNet = Annotated[
    Path | None, typer.Option("--cnet", help="Folder of weights whose C-Net S-Net learns behind (default: packaged).")
]
Workers = Annotated[int, typer.Option(min=0, help="Processes; 0: one a core.")]
Configuration = Literal["lite", "paper"]
Sets = Annotated[list[str] | None, typer.Option("--set", help="First-level folder of photos to use; may be repeated.")]

_NETWORKS = {
    "segmentation": "Segmentation subnetwork of C-Net.",
    "pncc": "PNCC subnetwork of C-Net.",
    "inpainting": "I-Net.",
    "shape-coarse": "Coarse-shape subnetwork of S-Net.",
    "shape-fine": "Fine-shape subnetwork of S-Net.",
}


@app.callback()
def _group() -> None:
    """Register photos, render training data, train the networks."""


@app.command()
def register(
    photos: Annotated[Path, typer.Argument(help="Folder of photos; its first level names the sets.")],
    out: Annotated[Path, typer.Argument(help="Folder for the registration.")],
    sets: Sets = None,
    workers: Workers = 0,
    landmarks: Annotated[str, typer.Option(help="Landmarks to fit to: cnet (packaged), or face-mesh.")] = "cnet",
) -> None:
    """Fit the face model to every photo of a folder; OUT/contact_sheet.jpg shows how well."""
    import pandas as pd

    from pifr.cli.support.progress import progress_bar
    from pifr.training.registration import register as run
    from pifr.training.registration import summary

    with progress_bar("registering photos") as advance:
        for done, total in run(photos, out, sets=tuple(sets or ()), workers=workers, landmarks=landmarks):
            advance(done, total)
    from pifr.training.contact_sheet import write_contact_sheet

    write_contact_sheet(out, photos, out / "contact_sheet.jpg")
    typer.echo(summary(pd.read_parquet(out / "registration.parquet")))


@app.command()
def assets(
    out: Annotated[Path, typer.Argument(help="Folder for the built files (the shipped ones: pifr/assets).")],
    ict: Annotated[Path | None, typer.Option(help="ict_face.npz: rebuild the face model from it.")] = None,
    shards: Annotated[Path | None, typer.Option(help="Shards: rebuild the texture model from them.")] = None,
    relink: Annotated[bool, typer.Option("--relink", help="Find the landmark links again, by Face Mesh.")] = False,
) -> None:
    """Rebuild template, face model and texture model from their sources."""
    import logging

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from pifr.training.geometry_assets.build import build_assets

    build_assets(out, ict=ict, shards=shards, relink=relink)


@app.command()
def render(
    registration: Annotated[Path, typer.Argument(help="Folder that 'pifr train register' wrote.")],
    photos: Annotated[Path, typer.Argument(help="The photos that were registered.")],
    out: Annotated[Path, typer.Argument(help="Folder for the shards.")],
    views: Annotated[
        int | None, typer.Option(min=1, help="Pairs a photo, the untouched one included (12; with --grid, its 19).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of poses, backgrounds and light.")] = 1,
    grid: Annotated[bool, typer.Option("--grid", help="The paper's poses: yaw in steps of 10 degrees.")] = False,
    sets: Sets = None,
    licence: Annotated[list[str] | None, typer.Option(help="SET=LICENCE, for the manifest; may be repeated.")] = None,
    workers: Workers = 0,
) -> None:
    """Render registered photos into shards of training pairs."""
    from pifr.cli.support.progress import progress_bar
    from pifr.errors import ConfigError
    from pifr.training.pairs import RenderSettings
    from pifr.training.pairs import render as run

    settings = RenderSettings(views=views, seed=seed, grid=grid)
    licences = {}
    for entry in licence or ():
        name, equals, terms = entry.partition("=")
        if not equals:
            raise ConfigError(f"--licence {entry!r}: write SET=LICENCE")
        licences[name] = terms
    with progress_bar("rendering shards") as advance:
        for done, total in run(
            registration, photos, out, settings, sets=tuple(sets or ()), licences=licences, workers=workers
        ):
            advance(done, total)


def _add_network(name: str, line: str) -> None:
    @app.command(name, help=line)
    def train_one(
        data: Data,
        out: Out,
        config: Config = "lite",
        max_steps: MaxSteps = None,
        max_minutes: MaxMinutes = None,
        resume: Resume = False,
        init_from: InitFrom = None,
        validation: Validation = None,
        cnet: CNet = None,
        threads: Threads = None,
    ) -> None:
        from pifr.training.config import load_training_config

        _require_training()
        _train(
            name,
            config,
            texture_critics(load_training_config(config).inpainting) if name == "inpainting" else None,
            data=data,
            out=out,
            max_steps=max_steps,
            max_minutes=max_minutes,
            resume=resume,
            init_from=init_from,
            validation=validation,
            cnet=cnet,
            threads=threads,
        )


for _name, _line in _NETWORKS.items():
    _add_network(_name, _line)


@app.command("all")
def train_all(
    data: Data,
    out: Out,
    config: Config = "lite",
    max_steps: MaxSteps = None,
    max_minutes: MaxMinutes = None,
    resume: Resume = False,
    validation: Validation = None,
    threads: Threads = None,
) -> None:
    """All networks, one after the other, each with the given length, in OUT/<network>."""
    _require_training()
    from pifr.training.config import load_training_config
    from pifr.training.trainer import refuse_used_folder

    if not resume:
        for name in _NETWORKS:
            refuse_used_folder(out / name)
    # What is wrong with I-Net's critics shows before C-Net is trained for hours.
    critics = texture_critics(load_training_config(config).inpainting)
    for name in _NETWORKS:
        _train(
            name,
            config,
            critics if name == "inpainting" else None,
            data=data,
            out=out / name,
            max_steps=max_steps,
            max_minutes=max_minutes,
            resume=resume,
            validation=validation,
            cnet=out,
            threads=threads,
        )


@app.command()
def package(
    weights: Annotated[Path, typer.Argument(help="Folder of 'pifr train': NETWORK/weights.safetensors.")],
    licence: Annotated[str, typer.Option(help="Of the weights, in a line.")],
    origin: Annotated[str, typer.Option(help="What they were trained on, in a line.")],
    configuration: Annotated[Configuration, typer.Option(help="Name under which they are loaded.")] = "lite",
) -> None:
    """Make trained weights part of the package (pifr/assets), with their SHA-256."""
    from pifr.errors import CheckpointError, DataError
    from pifr.networks.weights import load_network
    from pifr.zoo import package_weights

    found = [name for name in _NETWORKS if (weights / name / "weights.safetensors").is_file()]
    if not found:
        raise DataError(f"{weights} holds no NETWORK/weights.safetensors of {', '.join(_NETWORKS)}")
    files = {name: weights / name / "weights.safetensors" for name in found}
    for name, file in files.items():
        if (network := load_network(file).config.network) != name:
            raise CheckpointError(f"{file} holds the network {network!r}: it belongs into {weights / network}")
    for name, file in files.items():
        saved = package_weights(f"{configuration}-{name}", file, licence, f"pifr train {name} on {origin}")
        typer.echo(f"{saved} {saved.stat().st_size / 1e6:.1f} MB")


def _require_training() -> None:
    from pifr.errors import require_extra

    require_extra("training", "train", "lightning", "tensorboard")


def _train(name: str, config: str, critics: "TextureCritics | None", **options: Any) -> None:
    """Trains one network; the options are those of `pifr.training.trainer.Run`."""
    import logging

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")

    from pifr.training.trainer import Run, train

    # Lightning's own lines say nothing of the training; it sets its level when it is imported.
    for logger in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    run = Run(name, config, **options)  # type: ignore[arg-type]
    try:
        weights = train(run, critics)
    except KeyboardInterrupt:
        typer.echo(f"pifr: stopped; --resume goes on from {run.out}", err=True)
        raise typer.Exit(130) from None  # as shells have it
    typer.echo(f"weights: {weights}")


def texture_critics(task: "InpaintingTask") -> "TextureCritics":
    """The recognizers that a configuration names.

    Raises:
        ConfigError: if one is not what it has to be.
    """
    from functools import partial

    import torch

    from feature_extractors import load_recognizer
    from pifr.training.identity import FrontalIdentity, TextureCritics

    features = identity = judge = None
    if task.perceptual is not None:
        features = partial(_activations, _frozen(task.perceptual.recognizer), task.perceptual.layer)
        features(torch.zeros(1, 3, 8, 8))  # a wrong layer shows now
    if task.identity is not None:
        keeper, other = _frozen(task.identity.recognizer), load_recognizer(task.identity.judge)
        identity = FrontalIdentity(keeper.embed_with_gradients, keeper.config.alignment, keeper.config.input_size)
        judge = FrontalIdentity(other.embed, other.config.alignment, other.config.input_size)
    return TextureCritics(features, identity, judge)


def _frozen(recognizer: str) -> "ModuleRecognizer":
    from feature_extractors import ModuleRecognizer, load_recognizer
    from pifr.errors import ConfigError

    loaded = load_recognizer(recognizer)
    if not isinstance(loaded, ModuleRecognizer) or loaded.config.uses_yaw:
        raise ConfigError(f"the losses of I-Net need a torch network that sees images alone, which {recognizer} is not")
    loaded.network.requires_grad_(False)
    return loaded


def _activations(recognizer: "ModuleRecognizer", layer: str, textures: "Tensor") -> "Tensor":
    """What a layer says of textures, B x 3 x N x N in [0, 1], resized to the recognizer's input."""
    from torch.nn import functional

    size = recognizer.config.input_size
    resized = functional.interpolate(textures, (size, size), mode="bilinear", align_corners=False)
    return recognizer.activations(resized, layer)
