"""Montages: the rule decides from scores alone, and only what it chose is looked at."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pifr.errors import DataError
from protocols.summary import Statistics
from reports.build import build_report
from reports.montage import PANELS, build_montage, choose_probes, folder_panels, image_panels
from reports.runs import read_runs

CHANGES = {"a": -0.3, "b": 0.02, "c": 0.1, "d": 0.2, "e": 0.5}


def system(frontalizer: str, changes: Mapping[str, float], scale: float = 1.0) -> pd.DataFrame:
    """Genuine scores 0.5 + change, impostor scores with mean 0 and a spread that `scale` stretches with the rest."""
    rows = [(probe, f"{probe}-reference", True, scale * (0.5 + change)) for probe, change in changes.items()]
    rows += [(probe, "someone", False, scale * score) for probe in changes for score in (-0.1, 0.1)]
    return pd.DataFrame(rows, columns=["probe", "reference", "same", "score"]).assign(frontalizer=frontalizer)


BASELINE = system("none", dict.fromkeys(CHANGES, 0.0))


@pytest.mark.parametrize(("rule", "expected"), [("worst", ["a", "b"]), ("best", ["e", "d"]), ("median", ["c", "b"])])
def test_the_rule_chooses_by_change_of_score(rule: str, expected: list[str]) -> None:
    chosen = choose_probes(system("srtc", CHANGES), BASELINE, rule, 2)
    assert [probe for probe, _, _ in chosen] == expected


def test_wider_scores_alone_are_no_change() -> None:
    for _, _, change in choose_probes(system("srtc", dict.fromkeys(CHANGES, 0.0), scale=7), BASELINE, "best", 5):
        assert change == pytest.approx(0, abs=1e-9)


def test_failed_comparisons_are_not_chosen() -> None:
    scores = system("srtc", CHANGES)
    scores.loc[(scores["probe"] == "a") & scores["same"], "score"] = np.nan
    assert [probe for probe, _, _ in choose_probes(scores, BASELINE, "worst", 1)] == ["b"]


def test_only_chosen_probes_are_looked_at() -> None:
    asked = []

    def source(configuration: object, frontalizer: str, probe: str, reference: str) -> dict[str, np.ndarray]:
        asked.append((frontalizer, probe, reference))
        return {"input": np.zeros((8, 8, 3), np.uint8)}

    montage = build_montage("m", "", system("srtc", CHANGES), BASELINE, {}, source, rules=("worst", "best"), count=1)
    assert asked == [("srtc", "a", "a-reference"), ("srtc", "e", "e-reference")]
    assert montage.panels == ("input",)
    assert [row.label.split(",")[0] for row in montage.rows] == ["worst", "best"]


def test_a_folder_gives_the_panels_it_holds_in_the_montages_order(tmp_path: Path) -> None:
    place = tmp_path / "001" / "profile" / "01"
    place.mkdir(parents=True)
    for name in ("frontal", "input", "something else"):
        Image.new("RGB", (4, 4), "red").save(place / f"{name}.png")
    found = folder_panels(tmp_path)({}, "srtc", "001/profile/01.jpg", "001/frontal/01.jpg")
    assert list(found) == ["input", "frontal"]
    with pytest.raises(DataError, match="002"):
        folder_panels(tmp_path)({}, "srtc", "002/profile/01.jpg", "")


def test_a_montage_is_one_picture_with_a_row_a_probe() -> None:
    def source(configuration: object, frontalizer: str, probe: str, reference: str) -> dict[str, np.ndarray]:
        return {name: np.full((16, 8, 3), 7, np.uint8) for name in PANELS}

    montage = build_montage("m", "", system("srtc", CHANGES), BASELINE, {}, source, rules=("worst",), count=2)
    image = montage.image()
    cell = (image.shape[0] - 22) // 2
    assert image.shape == (22 + 2 * cell, 150 + len(PANELS) * cell, 3)
    assert (image[22 + cell // 2, 150 + cell // 2] == 7).all()


def test_pictures_of_a_run_are_made_whatever_options_its_frontalizer_had_but_not_of_others(tmp_path: Path) -> None:
    """Options of views are none of the frontalizer's, which makes the pictures."""
    Image.new("RGB", (112, 112), (120, 120, 120)).save(tmp_path / "a.png")
    make = partial(image_panels(tmp_path), {"detector": "aligned", "policy": "largest", "sides": "both"})
    assert {"input", "frontal", "truth"} <= set(make("srtc:frontal_share=0.3,render_yaw=30", "a.png", "a.png"))
    assert set(make("another", "a.png", "a.png")) == {"input", "truth"}


def test_the_faces_of_a_montage_are_found_as_its_run_found_them(
    tmp_path: Path, score_table: Callable[..., pd.DataFrame], write_run: Callable[..., Path]
) -> None:
    asked = []

    def source(configuration: Mapping[str, object], *_: str) -> dict[str, np.ndarray]:
        asked.append(configuration["detector"])
        return {"input": np.zeros((8, 8, 3), np.uint8)}

    scores = score_table({("sface", "none", "weighted"): 1.0, ("sface", "srtc", "weighted"): 3.0})
    other = score_table({("other", "none", "weighted"): 1.0, ("other", "srtc", "weighted"): 3.0})
    runs = [
        write_run(tmp_path / name, scores=table, configuration={"detector": name})
        for name, table in (("mtcnn", scores), ("yunet-close", other))
    ]
    build_report(read_runs(runs), "fixed", Statistics(replicates=100), source)
    assert set(asked) == {"yunet-close"}  # the last system that was judged
