"""`pifr doctor`: what is installed, what is missing, and how to get it."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for bug reports and scripts.")] = False,
) -> None:
    """Check versions, devices and weights; exits 1 if the main job cannot run."""
    findings = examine()
    if as_json:
        import json

        typer.echo(json.dumps(findings, indent=2))
    else:
        _print(findings)
    if any(advice["severity"] == "error" for advice in findings["advice"]):
        raise typer.Exit(1)


def examine() -> dict:
    """What `pifr doctor` prints: versions, devices, weights, folders, and advice (with severity and what to do)."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from pifr import __version__
    from pifr.errors import WeightsError
    from pifr.zoo import ZOO, home, packaged_file, packaged_weights

    advice: list[dict[str, str]] = []

    def advise(severity: str, text: str) -> None:
        advice.append({"severity": severity, "text": text})

    versions = {"pifr": __version__, "python": platform.python_version(), "system": platform.platform()}
    required = _requirements()
    training = {name: allowed for name, allowed in _requirements("train").items() if name not in required}
    for packages, severity, remedy in (
        (required, "error", "in the checkout, pip install --force-reinstall . or make .venv/.installed"),
        (training, "note", "only for training: pip install '.[train]' in the checkout"),
    ):
        for package, allowed in packages.items():
            try:
                versions[package] = version(package)
            except PackageNotFoundError:
                advise(severity, f"{package} is not installed: {remedy}")
                continue
            if not allowed.contains(versions[package], prereleases=True):
                advise(severity, f"{package} is {versions[package]}, not {allowed}: {remedy}")
    weights: dict[str, str] = {}
    for entry in ZOO.values():
        if not entry.file.is_file():
            weights[entry.name] = "not fetched"
            advise(
                "error" if entry.purpose == "inference" else "note",
                f"weights {entry.name!r} ({entry.purpose}): pifr models fetch {entry.name}",
            )
            continue
        try:
            entry.path()
            weights[entry.name] = "ok"
        except WeightsError as error:
            weights[entry.name] = "wrong"
            advise("error", str(error))
    for name in packaged_weights():
        try:
            packaged_file(name)
            weights[name] = "packaged"
        except WeightsError as error:
            weights[name] = "wrong"
            advise("error", str(error))
    return {
        "versions": versions,
        "devices": _devices(advise),
        "weights": weights,
        "home": str(home()),
        "compiled": _compiled(advise),
        "advice": advice,
    }


def _requirements(extra: str = "") -> dict[str, "SpecifierSet"]:
    """Packages that the installed `pifr` asks for, with one of its extras or without any, and the versions it takes."""
    from importlib.metadata import PackageNotFoundError, requires

    from packaging.requirements import Requirement

    try:
        asked = [Requirement(line) for line in requires("pifr") or ()]
    except PackageNotFoundError:  # run from a checkout
        return {}
    wanted = [each for each in asked if each.marker is None or each.marker.evaluate({"extra": extra})]
    return {each.name: each.specifier for each in wanted}


def _devices(advise) -> dict[str, str]:  # type: ignore[no-untyped-def]
    try:
        import torch
    except ImportError as error:
        advise("error", f"torch cannot be imported: {error}")
        return {}
    devices = {"cpu": f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"}
    devices |= {f"cuda:{i}": torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
    from pifr.support.torchvision_operators import ensure_operators

    try:
        ensure_operators()
        import facenet_pytorch  # noqa: F401
    except Exception as error:  # whatever it is, the rest of the report is still wanted
        advise("error", f"the detector 'mtcnn' cannot be used: {error}")
    return devices


def _compiled(advise) -> str:  # type: ignore[no-untyped-def]
    """The folder of compiled loops; "" if there is none."""
    try:
        from pifr.geometry import correspondence
    except ImportError as error:
        advise("error", f"compiled loops cannot be imported: {error}")
        return ""
    # Numba has chosen one for each function that it compiles; all of a module share it.
    loops = [loop for loop in vars(correspondence).values() if hasattr(loop, "stats")]
    if not loops:
        advise("note", "loops are not compiled: NUMBA_DISABLE_JIT makes everything many times slower")
        return ""
    folder = loops[0].stats.cache_path
    if not folder:
        advise(
            "note",
            "compiled loops cannot be kept, so each process compiles for some 20 s: set NUMBA_CACHE_DIR to a folder "
            "that can be written",
        )
    return folder or ""


def _print(findings: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for title in ("versions", "devices", "weights"):
        table = Table(show_header=False, title=title, title_justify="left", box=None)
        for name, value in findings[title].items():
            table.add_row(name, value)
        console.print(table)
    console.print(f"weights lie in {findings['home']}", soft_wrap=True)
    if findings["compiled"]:
        console.print(f"compiled loops are kept in {findings['compiled']}", soft_wrap=True)
    for advice in findings["advice"]:
        console.print(f"{advice['severity']}: {advice['text']}", soft_wrap=True, markup=False)
    if not any(advice["severity"] == "error" for advice in findings["advice"]):
        console.print("everything that the main job needs is here")
