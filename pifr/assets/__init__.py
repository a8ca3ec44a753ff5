"""Weights, template and models that belong to the package; every module finds its files by `ASSETS`."""

from pathlib import Path

ASSETS = Path(__file__).parent
