"""What configurations have in common."""

import hashlib
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError


class Config(BaseModel):
    """Base of configurations: immutable; strangers, NaN and infinity are refused.

    An unknown or missing key raises `pydantic.ValidationError`, which names the key by its full path.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @property
    def digest(self) -> str:
        """16 hex digits that change whenever a value does."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


def explain(error: ValidationError) -> str:
    """What is wrong with a configuration, in a line that names every wrong key by its path."""
    problems = [(".".join(map(str, problem["loc"])), problem["msg"]) for problem in innermost(error)]
    return "; ".join(f"{key}: {message}" if key else message for key, message in problems)


def innermost(error: ValidationError) -> list[Any]:
    """The errors, without those of a whole whose parts are wrong: pydantic says of such a list that it is too short."""
    found = error.errors()
    wholes = {problem["loc"][:depth] for problem in found for depth in range(len(problem["loc"]))}
    return [problem for problem in found if problem["loc"] not in wholes]
