"""The command line is quick, says what to type, and ends with an exit code that scripts can use."""

import ast
import importlib
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pandas as pd
import pytest
from packaging.requirements import Requirement

from pifr.cli.doctor import examine
from pifr.cli.main import COMMANDS
from pifr.networks.pretrained import CONFIGURATIONS

ROOT = Path(__file__).parents[2]


def pifr(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pifr.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})


@pytest.mark.parametrize("package", ["pifr", "protocols", "feature_extractors", "reports", "pifr.cli.main"])
def test_importing_a_package_loads_nothing_heavy(package: str) -> None:
    code = (
        f"import sys, {package}; print(*({{'torch', 'cv2', 'pandas', 'onnxruntime', 'matplotlib'}} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


@pytest.mark.parametrize("package", ["pifr", "feature_extractors"])
def test_type_checkers_see_the_names_that_are_imported_on_first_use(package: str) -> None:
    module = importlib.import_module(package)
    tree = ast.parse(Path(module.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    # Only what is imported "as" itself counts as a name of the package.
    assert {name.asname: node.module for node in imports for name in node.names if name.asname} == module._LAZY


@pytest.mark.parametrize("package", ["pifr", "protocols", "feature_extractors"])
def test_a_package_is_shipped_with_the_mark_that_it_is_typed(package: str) -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "py.typed" in settings["package-data"][package]
    assert (ROOT / package / "py.typed").is_file()


def test_a_source_distribution_can_be_worked_on_like_a_checkout(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", "77")  # as pyproject.toml asks for
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    shipped = (tmp_path / "pifr.egg-info" / "SOURCES.txt").read_text().splitlines()
    asked = {"Makefile", "docs/evaluation.md", "requirements/base.txt", "configs/experiments/cfp.yaml"}
    assert asked | {Path(__file__).relative_to(ROOT).as_posix(), "tests/conftest.py"} <= set(shipped)
    assert not any(name.endswith(".pyc") for name in shipped)


def test_the_configurations_are_shipped_with_the_package() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["pifr"]
    shipped = {path.stem for pattern in patterns for path in (ROOT / "pifr").glob(pattern) if path.suffix == ".yaml"}
    assert shipped == set(CONFIGURATIONS)


def test_help_answers_in_half_a_second() -> None:
    def seconds() -> float:
        start = time.perf_counter()
        assert pifr("--help").returncode == 0
        return time.perf_counter() - start

    def bare() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", ""], check=True)
        return time.perf_counter() - start

    # Python's own start is taken off beyond its usual 50 ms, so that a busy machine does not fail the test.
    slack = max(min(bare() for _ in range(3)) / 0.05, 1)
    assert min(seconds() for _ in range(3)) < 0.5 * slack


def test_help_lists_every_command_and_each_exists() -> None:
    text = pifr("--help").stdout
    for name in COMMANDS:
        assert re.search(rf"\b{name}\b", text), name
        assert importlib.util.find_spec(f"pifr.cli.{name}"), name


def test_a_wrong_command_exits_2_and_says_what_is_close() -> None:
    result = pifr("modles")
    assert result.returncode == 2
    assert "Did you mean 'models'?" in result.stderr


def test_an_error_of_the_users_exits_1_with_one_line(pifr_home: Path, tmp_path: Path) -> None:
    result = pifr("extract", str(tmp_path), "--out", str(tmp_path / "a.parquet"))
    assert result.returncode == 1
    assert result.stderr.startswith("pifr: no images among")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr


def test_the_version_is_the_packages() -> None:
    from importlib.metadata import version

    assert pifr("--version").stdout.split() == ["pifr", version("pifr")]


def test_the_package_can_be_run_in_place_of_its_program() -> None:
    result = subprocess.run([sys.executable, "-m", "pifr", "--version"], capture_output=True, text=True)
    assert result.stdout == pifr("--version").stdout


def test_models_lists_recognizers_and_what_is_missing(pifr_home: Path) -> None:
    result = pifr("models")
    assert result.returncode == 0
    for word in ("lightcnn-v4", "resnet50-dream", "yunet", "not fetched", "bring your own"):
        assert word in result.stdout


def test_verify_exits_1_where_weights_were_tampered_with(pifr_home: Path) -> None:
    pifr_home.mkdir()
    (pifr_home / "sface.onnx").write_bytes(b"evil")
    result = pifr("models", "verify")
    assert result.returncode == 1
    assert "'sface' have SHA-256" in result.stderr
    assert "yunet: not fetched" in result.stdout


def test_doctor_names_what_is_missing_and_how_to_get_it(pifr_home: Path) -> None:
    result = pifr("doctor", "--json")
    findings = json.loads(result.stdout)
    assert result.returncode == 1
    assert findings["versions"]["torch"]
    assert findings["devices"]["cpu"]
    assert any("pifr models fetch yunet" in advice["text"] for advice in findings["advice"])


def test_doctor_finds_damaged_networks_and_old_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not any("pip install --force-reinstall" in advice["text"] for advice in examine()["advice"])
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.1")
    monkeypatch.setattr("pifr.zoo.file_sha256", lambda file: "other")
    errors = [advice["text"] for advice in examine()["advice"] if advice["severity"] == "error"]
    assert any(text.startswith("torch is 0.1, not >=") for text in errors)
    assert any("packaged weights 'lite-pncc' are missing or damaged" in text for text in errors)


def test_doctor_examines_a_checkout_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> list[str]:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", requires)
    assert "cpu" in examine()["devices"]


def test_doctor_says_where_compiled_loops_are_kept_or_that_they_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "writable", tmp_path / "file" / "below"):
        code = (
            "from numba.core.caching import CacheImpl, UserProvidedCacheLocator\n"
            "CacheImpl._locator_classes = [UserProvidedCacheLocator]  # without the source's folder and the user's\n"
            "from pifr.cli.doctor import app\n"
            "app()"
        )
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder)}
        text = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment).stdout
        assert (f"compiled loops are kept in {folder}" in text) is (folder.name == "writable")
        assert ("set NUMBA_CACHE_DIR to a folder that can be written" in text) is (folder.name == "below")


def test_extract_keeps_a_row_for_every_image(fetched: Callable[[str], Path], tmp_path: Path) -> None:
    from PIL import Image

    fetched("yunet"), fetched("sface")
    Image.new("RGB", (60, 80), (90, 120, 150)).save(tmp_path / "plain ü.jpg")
    (tmp_path / "text.png").write_text("no image")
    out = tmp_path / "out" / "a.parquet"
    result = pifr("extract", str(tmp_path), "--out", str(out), "--frontalizer", "mirror")
    assert result.returncode == 0, result.stderr
    table = pd.read_parquet(out).set_index(pd.read_parquet(out)["path"].map(lambda path: Path(path).name))
    assert dict(table["reason"]) == {"plain ü.jpg": "no_face", "text.png": "unreadable"}
    assert (table["status"] == "failed").all()
    assert table["embedding"].isna().all()
    pifr("extract", str(tmp_path), "--out", str(out), "--fallback", "centre-crop")
    table = pd.read_parquet(out).set_index("path")
    assert sorted(table["status"]) == ["failed", "fallback"]
    assert len(table["embedding"].dropna().iloc[0]) == 128


# What is declared


def requirements(name: str) -> dict[str, Requirement]:
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    parsed = [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]
    return {requirement.name.lower(): requirement for requirement in parsed}


def test_every_pin_lies_in_the_declared_range() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for file, declared in (
        ("base.txt", project["dependencies"]),
        ("train.txt", extras["train"]),
        ("dev.txt", extras["dev"]),
    ):
        pins = requirements(file)
        ranges = {requirement.name.lower(): requirement for requirement in map(Requirement, declared)}
        assert set(pins) == set(ranges), file
        for name, pin in pins.items():
            (pinned,) = pin.specifier
            assert pinned.operator == "=="
            assert ranges[name].specifier.contains(pinned.version), name


def test_every_direct_pin_agrees_with_the_constraints() -> None:
    constraints = requirements("constraints.txt")
    for file in ("base.txt", "train.txt", "dev.txt"):
        for name, pin in requirements(file).items():
            assert constraints[name.replace("_", "-")].specifier == pin.specifier, name


def test_what_is_built_on_is_named_with_its_licence() -> None:
    from pifr.zoo import ZOO

    text = (ROOT / "THIRD_PARTY.md").read_text()
    for entry in ZOO.values():
        package, version = entry.requirement.split("==")
        assert f"`{package}` {version}" in text


def test_networks_are_exported_by_name(tmp_path: Path) -> None:
    result = pifr("models", "export", str(tmp_path / "onnx"))
    assert result.returncode == 0
    written = sorted(path.stem for path in (tmp_path / "onnx").iterdir())
    assert written == ["complete", "detail", "locate", "reconstruct"]
    assert "Warning" not in result.stderr
