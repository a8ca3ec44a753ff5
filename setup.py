"""Entry point for tools that call setup.py; metadata, packages and dependencies are declared in pyproject.toml."""

from setuptools import setup

setup()
