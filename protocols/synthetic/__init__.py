"""Benchmarks drawn from the project's own statistical face model: people who do not exist, in official layouts.

Whatever is measured on them says how a system behaves as pose and light change; it is never a figure of the real data
set whose layout they borrow. Every tree carries a `dataset.json` that marks it as synthetic, and reports label it.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from protocols.synthetic.layouts import write_cfp, write_multipie, write_shape

__all__ = ["write_cfp", "write_multipie", "write_shape"]


def __getattr__(name: str):  # type: ignore[no-untyped-def]
    if name in __all__:
        from protocols.synthetic import layouts

        return getattr(layouts, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
