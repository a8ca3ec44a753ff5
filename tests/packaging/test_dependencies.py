"""Dependencies point one way, as docs/architecture.md says: reports, protocols, feature_extractors, pifr."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN = {
    "pifr": ("reports", "protocols", "feature_extractors", "pifr.training"),
    "feature_extractors": ("reports", "protocols", "pifr.training"),
    "protocols": ("reports", "pifr.training"),
    "reports": ("pifr.training",),
}


def imports(file: Path) -> set[str]:
    """Modules that a file imports, lazily too; what only a type checker reads does not count."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update((node.module, *(f"{node.module}.{name.name}" for name in node.names)))
    return found


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_module_imports_what_stands_above_it(package: str) -> None:
    files = [
        file
        for file in (ROOT / package).rglob("*.py")
        if not file.is_relative_to(ROOT / "pifr" / "training") and not file.is_relative_to(ROOT / "pifr" / "cli")
    ]
    assert files
    wrong = [
        f"{file.relative_to(ROOT)} imports {module}"
        for file in files
        for module in sorted(imports(file))
        if any(module == above or module.startswith(f"{above}.") for above in FORBIDDEN[package])
    ]
    assert wrong == []
