"""The frontalizer of commands that make something for people to look at, or to take elsewhere."""

from typing import Annotated

import typer

EVERY_NETWORK = "completion=inet,shape=snet,fine=true"
"""Eyes are worth the time of all networks. `FrontalizerConfig` is for recognizers, which do as well without some."""

FrontalizerOptions = Annotated[
    str,
    typer.Option(
        "--options",
        help=f"As after 'srtc:', on top of {EVERY_NETWORK} - paper, a folder of weights, KEY=VALUE; by commas.",
    ),
]
