"""From a configuration and shards to a weights file: `train` is what `pifr train NAME` runs."""

import hashlib
import json
import logging
import os
import pickle
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import cv2
import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import nn

import pifr
from pifr.errors import CheckpointError, ConfigError
from pifr.geometry.template import load_template
from pifr.images import to_uint8
from pifr.networks.pretrained import Pretrained
from pifr.networks.shape import INPUT_SIZE, CoarseShapeNetwork
from pifr.networks.weights import build_network, load_weights, save_network
from pifr.support.files import file_sha256, write_whole
from pifr.training.augment import Framing
from pifr.training.config import (
    CoarseShapeTask,
    FineShapeTask,
    InpaintingTask,
    PnccTask,
    SegmentationTask,
    Task,
    TaskName,
    load_training_config,
)
from pifr.training.dataset import (
    PairSamples,
    Shards,
    TextureSamples,
    TrainingBatches,
    ValidationBatches,
    training_loader,
    validation_loader,
    visibility_bank,
)
from pifr.training.echo import Echoing
from pifr.training.identity import TextureCritics
from pifr.training.modules import (
    CoarseShapeTraining,
    FineShapeTraining,
    InpaintingTraining,
    NetworkTraining,
    PnccTraining,
    Schedule,
    SegmentationTraining,
)

log = logging.getLogger(__name__)

CHECKPOINT, WEIGHTS = "last.ckpt", "weights.safetensors"

_VALIDATION_VISIBILITIES = 512
"""How many rendered faces' visibility maps hide the textures that I-Net is validated on."""


@dataclass(frozen=True, slots=True)
class Run:
    """What to train, on what, for how long.

    Attributes:
        name: which network.
        config: as `load_training_config` takes it.
        data: shard folder.
        out: folder for checkpoint, weights, logs and pictures.
        max_steps, max_minutes: length of the schedule; at most one is set; neither: the configuration's `max_steps`.
        resume: go on from the checkpoint in `out`; if there is nothing in it, start.
        init_from: weights file to start from; not with `resume`.
        validation: shard folder to validate on, instead of the held-out photos of `data`.
        cnet: folder of trained weights (NETWORK/weights.safetensors) whose C-Net a shape network that corrects the fit
            is trained on; None: the packaged weights.
        threads: threads of the training process; None leaves torch's choice.
        checkpoint_minutes: time between checkpoints.
    """

    name: TaskName
    config: str | Path
    data: Path
    out: Path
    max_steps: int | None = None
    max_minutes: float | None = None
    resume: bool = False
    init_from: Path | None = None
    validation: Path | None = None
    cnet: Path | None = None
    threads: int | None = None
    checkpoint_minutes: float = 5.0


Samples = PairSamples | TextureSamples


def train(run: Run, critics: TextureCritics | None = None) -> Path:
    """Trains one network and writes its averaged weights.

    In `run.out`: `weights.safetensors` and `last.ckpt` (both replaced atomically every few minutes), `csv/`,
    `tensorboard/` and `pictures/`.

    Args:
        run: what to train.
        critics: recognizers that I-Net's textures are shown to; None: to nobody.

    Returns:
        The weights file.

    Raises:
        ConfigError: if the configuration, or the choice of options, is wrong; or `run.out` holds a training that is not
            to be resumed; or several processes are to share the work, which is not supported.
        DataError: if the shards cannot be used.
        CheckpointError: if weights or checkpoint do not fit; or the training diverged: the last ones are kept.
        KeyboardInterrupt: after Ctrl-C, when the checkpoint is written.
    """
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise ConfigError("a network is trained by one process on one device: start it without torchrun or srun")
    if run.max_steps is not None and run.max_minutes is not None:
        raise ConfigError("give the length of the training in steps or in minutes, not both")
    if run.resume and run.init_from is not None:
        raise ConfigError("a training that is resumed has its weights already: leave out --resume or --init-from")
    if not run.resume:
        refuse_used_folder(run.out)
    elif (run.out / WEIGHTS).exists() and not (run.out / CHECKPOINT).exists():
        raise ConfigError(f"'{run.out}' holds weights without {CHECKPOINT}: --init-from them, with another --out")
    task = load_training_config(run.config).task(run.name)
    settings = task.optimisation
    L.seed_everything(settings.seed, verbose=False)
    if run.threads is not None:
        torch.set_num_threads(run.threads)
    cv2.setNumThreads(0)
    steps = None if run.max_minutes is not None else run.max_steps or settings.max_steps
    schedule = Schedule(settings.warm_up_steps, steps, run.max_minutes)
    corrects_fit = isinstance(task, CoarseShapeTask) and task.network.corrects_fit
    cnet = Pretrained(("pncc",), weights=run.cnet) if corrects_fit else None
    module, batches, validation, shards = _setup(task, run, schedule, critics, cnet)
    module.origin = {
        "network": task.network.model_dump_json(),
        "data": shards.fingerprint(),
        "batch size": str(settings.batch_size),
        "seed": str(settings.seed),
        "echoes": str(module.echoes),
    }
    if cnet is not None:
        module.origin["C-Net weights"] = _digest(cnet["pncc"])
    if isinstance(task, InpaintingTask):
        module.origin["discriminator"] = task.discriminator.model_dump_json() if task.adversarial else "none"
    module.made_by = {"task": task.model_dump_json(), "pifr_version": pifr.__version__}
    if run.init_from is not None:
        module.made_by["init_from_sha256"] = file_sha256(run.init_from)
        load_weights(module.network, run.init_from)
        module.average.module.load_state_dict(module.network.state_dict())
    checkpoint = run.out / CHECKPOINT if run.resume and (run.out / CHECKPOINT).exists() else None
    start = _steps_of(checkpoint, module.origin) if checkpoint else 0
    first, skipped = divmod(start, module.echoes)
    keeper = _Keeper(run, len(shards), validation)
    trainer = L.Trainer(
        accelerator="auto",
        devices=1,
        max_epochs=-1,
        val_check_interval=settings.validation_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=min(50, settings.validation_every),
        logger=[
            # A logger empties the folder that it finds: what was logged before a resumption keeps its own.
            CSVLogger(run.out, name="csv", version=f"from-step-{start:07d}"),
            TensorBoardLogger(run.out, name="tensorboard", version=f"from-step-{start:07d}"),
        ],
        callbacks=[keeper],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        deterministic="warn" if torch.cuda.is_available() else False,
    )
    with _interrupted_between_steps(module):
        trainer.fit(
            module,
            train_dataloaders=Echoing(training_loader(batches, first, settings.workers), module.echoes, skipped),
            val_dataloaders=validation_loader(validation),
            ckpt_path=checkpoint,
            weights_only=True,
        )
    if len(validation):
        trainer.validate(module, validation_loader(validation), verbose=False)
        keeper.save(trainer, module)
    return run.out / WEIGHTS


def _digest(network: nn.Module) -> str:
    """SHA-256 of a network's tensors: a weights file changes whenever it is written, if only by its date."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def _interrupted_between_steps(module: NetworkTraining) -> Iterator[None]:
    """Ctrl-C waits until the step is counted, so that what is saved can be resumed exactly; a second one does not."""
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # as shells have it for what runs in the background
    if ignored or threading.current_thread() is not threading.main_thread():  # which alone is told of signals
        yield
        return

    def interrupt(*_: object) -> None:
        if not module.in_step or module.stop_asked:
            raise KeyboardInterrupt
        module.stop_asked = True

    usual = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except SystemExit as end:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from end
    finally:
        signal.signal(signal.SIGINT, usual)


def refuse_used_folder(out: Path) -> None:
    """Raises ConfigError if a folder holds a training, which another one would replace."""
    if any((out / name).exists() for name in (CHECKPOINT, WEIGHTS)):
        raise ConfigError(f"'{out}' holds a training: --resume goes on with it, another --out begins a new one")


def refuse_diverged(network: nn.Module, when: str) -> None:
    """Raises CheckpointError if a weight or a statistic of a network is not finite."""
    if not all(tensor.isfinite().all() for tensor in network.state_dict().values()):
        raise CheckpointError(
            f"the training diverged: {when} weights are not finite. The last checkpoint is kept as it was: go on from "
            "the weights beside it (--init-from) with another --out and a lower learning_rate"
        )


def _setup(
    task: Task, run: Run, schedule: Schedule, critics: TextureCritics | None, cnet: Pretrained | None
) -> tuple[NetworkTraining, TrainingBatches, ValidationBatches, Shards]:
    """Module, training and validation batches of one task, and the shards that it trains on."""
    make: Samples
    check: Samples
    if isinstance(task, InpaintingTask | FineShapeTask):
        shards, held_out = _shards(run, "textures")
        make, check = _texture_samples(task, run, shards, held_out)
    else:
        shards, held_out = _shards(run, "pairs")
        make, check = _pair_samples(task, shards, held_out)
    if not len(held_out):
        log.warning("none of the photos of '%s' is held out: nothing is validated; --validation names others", run.data)
    settings = task.optimisation
    return (
        _module(task, schedule, critics, cnet),
        TrainingBatches(len(shards), make, settings.batch_size, settings.seed),
        ValidationBatches(len(held_out), check, settings.batch_size, settings.validation_limit),
        shards,
    )


def _shards(run: Run, content: Literal["pairs", "textures"]) -> tuple[Shards, Shards]:
    """What a run trains on and what it validates on."""
    held_out = Shards(run.validation or run.data, content, "all" if run.validation else "validation")
    return Shards(run.data, content, "train"), held_out


def _texture_samples(
    task: InpaintingTask | FineShapeTask, run: Run, shards: Shards, held_out: Shards
) -> tuple[TextureSamples, TextureSamples]:
    size = task.network.resolution
    seen = validated = np.full((1, size, size), 255, np.uint8)
    if isinstance(task, InpaintingTask):
        turned, turned_held_out = _shards(run, "pairs")
        seen = visibility_bank(turned, size, task.visibilities, task.optimisation.seed)
        if len(turned_held_out):  # what validation hides depends on its own photos alone
            validated = visibility_bank(turned_held_out, size, _VALIDATION_VISIBILITIES, 0)
    return TextureSamples(shards, seen, size), TextureSamples(held_out, validated, size, augmented=False)


def _pair_samples(
    task: SegmentationTask | PnccTask | CoarseShapeTask, shards: Shards, held_out: Shards
) -> tuple[PairSamples, PairSamples]:
    framing, plain = Framing(task.framing.scale, task.framing.shift), Framing.plain(_validated_at(task))
    size = INPUT_SIZE if isinstance(task, CoarseShapeTask) else task.network.input_size
    segmented = not isinstance(task, SegmentationTask) and task.network.segmented_input
    make = PairSamples(shards, framing, size, occluded=task.occluded, predicted_mask=segmented)
    return make, PairSamples(held_out, plain, size, augmented=False, predicted_mask=segmented)


def _validated_at(task: SegmentationTask | PnccTask | CoarseShapeTask) -> float:
    """Scale of validation crops: that of inference for PNCC, else the middle of those of training."""
    return task.network.crop_factor if isinstance(task, PnccTask) else sum(task.framing.scale) / 2


def _module(task: Task, schedule: Schedule, critics: TextureCritics | None, cnet: Pretrained | None) -> NetworkTraining:
    match task:
        case SegmentationTask():
            return SegmentationTraining(build_network(task.network), task, schedule)
        case PnccTask():
            return PnccTraining(build_network(task.network), task, schedule, _ncc_extent())
        case InpaintingTask():
            return InpaintingTraining(build_network(task.network), task, schedule, critics)
        case CoarseShapeTask():
            mean = load_template().position_map(task.network.resolution)
            located_by = None if cnet is None else cnet["pncc"]
            return CoarseShapeTraining(CoarseShapeNetwork(task.network, mean), task, schedule, located_by)
        case FineShapeTask():
            return FineShapeTraining(build_network(task.network), task, schedule)


def _ncc_extent() -> torch.Tensor:
    """Millimetres of the NCC's unit cube: 3 float32."""
    lower, upper = load_template().ncc_bounds
    return torch.from_numpy(upper - lower).float()


def _steps_of(checkpoint: Path, origin: dict[str, str]) -> int:
    """Training batches that a checkpoint has seen: where its data goes on.

    Raises:
        CheckpointError: it is no checkpoint, or one of another training.
    """
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)["pifr"]
        steps, other = int(state["completed_steps"]), dict(state["origin"])
    except (OSError, KeyError, TypeError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{checkpoint} is no checkpoint of pifr: {error}") from error
    if differing := [name for name in origin if name in other and other[name] != origin[name]]:
        raise CheckpointError(
            f"{checkpoint} was trained with another {', '.join(differing)}: give what it began with, or another --out"
        )
    return steps


class _Keeper(Callback):
    """Keeps checkpoint, weights and pictures on disk, and says how the training goes."""

    def __init__(self, run: Run, samples: int, validation: ValidationBatches) -> None:
        self._run, self._samples, self._validation = run, samples, validation
        self._saved = self._said = time.monotonic()
        self._said_steps = 0

    def on_train_start(self, trainer: L.Trainer, module: NetworkTraining) -> None:
        module.to(memory_format=torch.channels_last)
        self._said_steps = module.completed_steps

    def on_train_batch_start(self, trainer: L.Trainer, module: NetworkTraining, *_: Any) -> None:
        # Not at the end of a batch: there, callbacks come before the module counts the step and averages its weights.
        if module.completed_steps and time.monotonic() - self._saved > 60 * self._run.checkpoint_minutes:
            self.save(trainer, module)

    def on_train_batch_end(self, trainer: L.Trainer, module: NetworkTraining, *_: Any) -> None:
        now = time.monotonic()
        if now - self._said > 30:
            speed = (module.completed_steps - self._said_steps) * module.optimisation.batch_size / (now - self._said)
            values = {name: float(value) for name, value in trainer.callback_metrics.items() if "train/" in name}
            log.info(
                "step %d, %.0f s, %.1f images/s, %s",
                module.completed_steps,
                module.elapsed,
                speed,
                ", ".join(f"{name.removeprefix('train/')} {value:.5f}" for name, value in values.items()),
            )
            self._said, self._said_steps = now, module.completed_steps

    def on_validation_end(self, trainer: L.Trainer, module: NetworkTraining) -> None:
        log.info("validation, step %d: %s", module.completed_steps, _readable(module.metrics))
        if len(self._validation):
            folder = self._run.out / "pictures"
            folder.mkdir(parents=True, exist_ok=True)
            was_training = module.training
            module.eval()
            with torch.no_grad():
                batch = {name: value.to(module.device) for name, value in self._validation[0].items()}
                picture = module.pictures(batch)
            module.train(was_training)
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_image("validation", picture, module.completed_steps)
            (pixels,) = to_uint8(picture[None])
            cv2.imwrite(str(folder / f"{module.completed_steps:07d}.jpg"), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))

    def on_train_end(self, trainer: L.Trainer, module: NetworkTraining) -> None:
        self.save(trainer, module)

    def on_exception(self, trainer: L.Trainer, module: NetworkTraining, exception: BaseException) -> None:
        if module.in_step:
            log.info("stopped within a step: the last checkpoint stays as it is")
        elif module.completed_steps:
            self.save(trainer, module)

    def save(self, trainer: L.Trainer, module: NetworkTraining) -> None:
        """Replaces checkpoint and weights.

        Raises:
            CheckpointError: the weights are not finite; nothing is replaced.
        """
        refuse_diverged(module.average.module, f"after {module.completed_steps} steps")
        self._run.out.mkdir(parents=True, exist_ok=True)
        write_whole(self._run.out / CHECKPOINT, trainer.save_checkpoint)
        save_network(
            module.average.module,
            self._run.out / WEIGHTS,
            {
                "name": self._run.name,
                "steps": str(module.completed_steps),
                "images": str(module.completed_steps * module.optimisation.batch_size),
                "minutes": f"{module.elapsed / 60:.1f}",
                "metrics": json.dumps(module.metrics),
                **{name: value for name, value in module.origin.items() if name != "network"},  # the file's own config
                **module.made_by,
                "samples": str(self._samples),
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
            },
        )
        self._saved = time.monotonic()


def _readable(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
