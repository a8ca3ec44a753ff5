"""Contact sheets: what registration did, at a glance."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from pifr.training.heads import CANVAS, TexturedHead
from pifr.training.registration import read_fit, read_registration, registered_photo

COLUMNS = 6


def write_contact_sheet(registration: Path, photos: Path, out: Path) -> None:
    """Best, median, worst accepted and rejected fits, a row of pairs (photo, fitted PNCC over it) each.

    The sheet shows photos: keep it beside them, never in a repository.

    Args:
        registration: folder of `pifr train register`. photos: the folder it was run on. out: image file.
    """
    table = read_registration(registration)
    fitted = table[table["residual_mm"].notna()].sort_values("residual_mm")
    accepted, rejected = fitted[fitted["status"] == "ok"], fitted[fitted["status"] != "ok"]
    middle = max(0, len(accepted) // 2 - COLUMNS // 2)
    rows = {
        "best": accepted.head(COLUMNS),
        "median": accepted.iloc[middle : middle + COLUMNS],
        "worst": accepted.tail(COLUMNS),
        "rejected": rejected.iloc[np.linspace(0, len(rejected) - 1, min(COLUMNS, len(rejected))).astype(int)],
    }
    sheet = np.vstack([_row(name, chosen, photos) for name, chosen in rows.items()])
    if not cv2.imwrite(str(out), sheet[..., ::-1]):
        raise OSError(f"{out} could not be written")


def _row(name: str, chosen: pd.DataFrame, photos: Path) -> np.ndarray:
    cells = [_cell(name, row, photos) for row in chosen.itertuples()]
    empty = np.zeros((CANVAS, 2 * CANVAS, 3), np.uint8)
    return np.hstack(cells + [empty] * (COLUMNS - len(cells)))


def _cell(name: str, row, photos: Path) -> np.ndarray:
    view = TexturedHead(registered_photo(photos, row), read_fit(row)).photo_view()
    mask = (view.pncc.max(2) > 0)[..., None]
    overlay = np.where(mask, view.image // 2 + view.pncc // 2, view.image)
    caption = f"{row.reason or name} {row.residual_mm:.1f} mm {row.yaw:.0f} deg"
    for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(overlay, caption, (3, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, thickness, cv2.LINE_AA)
    return np.hstack([view.image, overlay])
