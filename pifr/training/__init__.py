"""Training of all networks: photos are registered, turned, and learned from (`pifr train`)."""

import importlib.util

if importlib.util.find_spec("torchvision") is not None:
    # Lightning imports torchvision where it is installed, also where it is broken.
    from pifr.support.torchvision_operators import ensure_operators

    ensure_operators()
