"""The table of scores does not depend on how the work was cut, interrupted or remembered."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch

from feature_extractors.base import ModuleRecognizer
from pifr.errors import DataError
from pifr.faces import ARCFACE_112, AlignmentTemplate, FaceCrops, FaceFinder
from pifr.fusion import FUSIONS, Fusion
from pifr.plugin import FrontalizedRecognizer
from pifr.views import Mirror, PlainCrop, Views
from protocols.base import SCORE_COLUMNS
from protocols.cfp import Cfp
from protocols.experiment import Experiment
from protocols.extraction import SCORE_TOLERANCE, FeatureTable, Image, System, extract
from protocols.runner import pair_status, run_verification, score_setting
from protocols.store import FaceFeatures, FeatureStore

from .conftest import small_recognizer

MakeSystems = Callable[..., list[System]]


def images_of(protocol: Cfp) -> dict[str, Image]:
    samples = protocol.samples("FP")
    return {
        sample: Image(path, partial(protocol.read, path))
        for sample, path in zip(samples["sample"], samples["path"], strict=True)
    }


def scores_of(root: Path, systems: Sequence[System], store: Path, **options: object) -> pd.DataFrame:
    protocol = Cfp(root)
    images = images_of(protocol)
    sides = options.pop("sides", "both")
    fusions = options.pop("fusions", None)
    make_finder = options.pop("make_finder", partial(FaceFinder, f"file:{root / 'landmarks.csv'}"))
    with FeatureStore(store) as features:
        tables = extract(list(images.values()), make_finder, systems, features, **options)
    rows = {sample: row for row, sample in enumerate(images)}
    return pd.concat(
        [
            score_setting(protocol, "FP", rows, system, table, fusions, sides)
            for system, table in zip(systems, tables, strict=True)
        ],
        ignore_index=True,
    )


@pytest.fixture
def table(cfp_root: Path, make_systems: MakeSystems, tmp_path: Path) -> pd.DataFrame:
    return scores_of(cfp_root, make_systems(), tmp_path / "store.sqlite", batch_size=7)


def test_table_has_a_row_a_comparison_and_system(table: pd.DataFrame) -> None:
    assert tuple(table.columns) == SCORE_COLUMNS
    assert len(table) == 2 * 32
    assert (table["status"] == "ok").all()
    assert table["score"].between(-1.0001, 1.0001).all()
    assert table["score"].dtype == np.float64


def test_scores_are_the_plugins(cfp_root: Path, table: pd.DataFrame) -> None:
    finder = FaceFinder(f"file:{cfp_root / 'landmarks.csv'}")
    for maker in (PlainCrop(), Mirror()):
        plugin = FrontalizedRecognizer(small_recognizer(), maker, finder=finder)
        rows = table[table["frontalizer"] == maker.name]
        folder = cfp_root / "Data" / "Images"
        probes, references = (plugin.embed_images([folder / name for name in rows[s]]) for s in ("probe", "reference"))
        np.testing.assert_allclose(rows["score"], (probes * references).sum(1), atol=SCORE_TOLERANCE)


@pytest.mark.parametrize("batch_size", [1, 4, 24, 100])
def test_batch_size_does_not_change_scores(
    cfp_root: Path, make_systems: MakeSystems, table: pd.DataFrame, tmp_path: Path, batch_size: int
) -> None:
    other = scores_of(cfp_root, make_systems(), tmp_path / "other.sqlite", batch_size=batch_size)
    np.testing.assert_allclose(other["score"], table["score"], atol=SCORE_TOLERANCE)
    pd.testing.assert_frame_equal(other.drop(columns="score"), table.drop(columns="score"))


def test_workers_do_not_change_a_bit(
    cfp_root: Path, make_systems: MakeSystems, table: pd.DataFrame, tmp_path: Path
) -> None:
    other = scores_of(cfp_root, make_systems(), tmp_path / "other.sqlite", batch_size=7, workers=2)
    pd.testing.assert_frame_equal(other, table, check_exact=True)


def test_a_second_run_computes_nothing_and_changes_nothing(
    cfp_root: Path, make_systems: MakeSystems, table: pd.DataFrame, tmp_path: Path
) -> None:
    recognizer = small_recognizer()
    other = scores_of(cfp_root, make_systems(recognizer=recognizer), tmp_path / "store.sqlite", batch_size=7)
    assert recognizer.seen == 0
    pd.testing.assert_frame_equal(other, table, check_exact=True)


class Killed(BaseException):
    """Like SIGKILL: nothing catches it."""


def test_a_killed_run_resumes_to_the_identical_table(
    cfp_root: Path, make_systems: MakeSystems, table: pd.DataFrame, tmp_path: Path
) -> None:
    def die(done: int, total: int) -> None:
        if done >= total / 2:
            raise Killed

    store = tmp_path / "killed.sqlite"
    with pytest.raises(Killed):
        scores_of(cfp_root, make_systems(), store, batch_size=7, progress=die)
    recognizer = small_recognizer()
    resumed = scores_of(cfp_root, make_systems(recognizer=recognizer), store, batch_size=7)
    assert 0 < recognizer.seen < 2 * 24
    pd.testing.assert_frame_equal(resumed, table, check_exact=True)


@pytest.mark.parametrize(("detector", "twice"), [("aligned", 1), ("landmarks", 0)])
def test_an_image_that_is_there_twice_is_computed_once_unless_its_names_differ_to_the_detector(
    detector: str, twice: int, cfp_root: Path, make_systems: MakeSystems, tmp_path: Path
) -> None:
    folder = cfp_root / "Data" / "Images" / "001" / "frontal"
    (folder / "02.png").write_bytes((folder / "01.png").read_bytes())
    recognizer = small_recognizer()
    options = {"make_finder": partial(FaceFinder, "aligned")} if detector == "aligned" else {}
    scores_of(cfp_root, make_systems("none", recognizer=recognizer), tmp_path / "s.sqlite", batch_size=5, **options)
    assert recognizer.seen == len(images_of(Cfp(cfp_root))) - twice


def test_a_view_that_two_frontalizers_share_is_embedded_once(
    cfp_root: Path, make_systems: MakeSystems, tmp_path: Path
) -> None:
    recognizer = small_recognizer()
    scores_of(cfp_root, make_systems("none", "mirror", recognizer=recognizer), tmp_path / "s.sqlite")
    assert recognizer.seen == 2 * len(images_of(Cfp(cfp_root)))


def test_recognizers_that_are_aligned_differently_are_shown_views_of_their_own(cfp_root: Path, tmp_path: Path) -> None:
    small, other = small_recognizer(), small_recognizer("other")
    lower = replace(ARCFACE_112, name="lower", points=tuple((x, y + 8) for x, y in ARCFACE_112.points))
    other.config = replace(other.config, alignment=lower)
    systems = [System(recognizer.config.name, recognizer, "none", PlainCrop()) for recognizer in (small, other)]
    images = list(images_of(Cfp(cfp_root)).values())[:5]
    finder = partial(FaceFinder, f"file:{cfp_root / 'landmarks.csv'}")
    with FeatureStore(tmp_path / "both.sqlite") as store:
        together = extract(images, finder, systems, store)
    for system, table in zip(systems, together, strict=True):
        with FeatureStore(tmp_path / f"{system.recognizer_name}.sqlite") as store:
            (alone,) = extract(images, finder, [system], store)
        assert torch.equal(table.features, alone.features)


def test_another_model_under_the_same_name_is_not_served_from_the_store(
    cfp_root: Path, make_systems: MakeSystems, table: pd.DataFrame, tmp_path: Path
) -> None:
    swapped = small_recognizer(channels="BGR")
    other = scores_of(cfp_root, make_systems(recognizer=swapped), tmp_path / "store.sqlite", batch_size=7)
    assert swapped.seen
    assert np.abs(other["score"] - table["score"]).max() > 1e-3  # channel order matters


def test_a_damaged_image_fails_its_own_comparisons_and_no_other(
    cfp_root: Path, make_systems: MakeSystems, table: pd.DataFrame, tmp_path: Path
) -> None:
    name = "003/frontal/01.png"
    file = cfp_root / "Data" / "Images" / name
    file.write_bytes(file.read_bytes()[:200])
    other = scores_of(cfp_root, make_systems(), tmp_path / "other.sqlite", batch_size=7)
    hit = other["reference"] == name
    assert hit.any()
    assert (other.loc[hit, "status"] == "failed").all()
    assert (other.loc[hit, "reason"] == "reference:unreadable").all()
    assert other.loc[hit, "score"].isna().all()
    np.testing.assert_allclose(other.loc[~hit, "score"], table.loc[~hit, "score"], atol=SCORE_TOLERANCE)


def test_a_file_that_may_not_be_read_is_a_failed_row(cfp_root: Path, make_systems: MakeSystems, tmp_path: Path) -> None:
    def refuse() -> bytes:
        raise PermissionError("denied")

    path = str(cfp_root / "Data" / "Images" / "001" / "frontal" / "01.png")
    images = [Image("x", refuse), Image(path, Path(path).read_bytes)]
    with FeatureStore(tmp_path / "s.sqlite") as store:
        finder = partial(FaceFinder, f"file:{cfp_root / 'landmarks.csv'}")
        table = extract(images, finder, make_systems("mirror"), store)[0]
    assert table.status.tolist() == ["failed", "ok"]
    assert table.reason.tolist() == ["unreadable", ""]
    assert torch.isnan(table.templates("mean")[0]).all()


def test_an_image_that_vanishes_during_a_run_is_not_stored_as_a_failure(
    cfp_root: Path, make_systems: MakeSystems, tmp_path: Path
) -> None:
    path = cfp_root / "Data" / "Images" / "001" / "frontal" / "01.png"
    answers = [path.read_bytes(), OSError("stale file handle"), path.read_bytes(), path.read_bytes()]

    def read() -> bytes:
        if isinstance(answer := answers.pop(0), OSError):
            raise answer
        return answer

    finder = partial(FaceFinder, f"file:{cfp_root / 'landmarks.csv'}")
    with FeatureStore(tmp_path / "s.sqlite") as store:
        with pytest.raises(DataError, match=r"stale file handle.*run again"):
            extract([Image(str(path), read)], finder, make_systems("mirror"), store)
        table = extract([Image(str(path), read)], finder, make_systems("mirror"), store)[0]
    assert table.status.tolist() == ["ok"]


def test_an_image_that_changes_during_a_run_is_not_stored_as_what_it_was(
    cfp_root: Path, make_systems: MakeSystems, tmp_path: Path
) -> None:
    first, second = (cfp_root / "Data" / "Images" / "001" / "frontal" / f"{number:02d}.png" for number in (1, 2))
    answers = [first.read_bytes(), second.read_bytes()]
    finder = partial(FaceFinder, f"file:{cfp_root / 'landmarks.csv'}")
    with FeatureStore(tmp_path / "s.sqlite") as store, pytest.raises(DataError, match="changed during the run"):
        extract([Image(str(first), lambda: answers.pop(0))], finder, make_systems("mirror"), store)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_template_of_the_first_view_is_that_of_a_face_whose_every_view_is_the_first(fusion: Fusion) -> None:
    generator = torch.Generator().manual_seed(0)
    features, weights = torch.randn(4, 3, 8, generator=generator), torch.rand(4, 3, generator=generator)
    yaw, reason = torch.tensor([0.0, 40.0, -70.0, torch.nan]), np.full(4, "", object)
    table = FeatureTable(features, weights / weights.sum(1, keepdim=True), yaw, np.full(4, "ok", object), reason)
    alike = replace(table, features=torch.stack([features[:, 0]] * 3, 1))
    first = table.templates(fusion, first_view_only=True)
    torch.testing.assert_close(first, alike.templates(fusion), rtol=0, atol=0)
    assert not torch.allclose(first, table.templates(fusion))


def test_passes_are_the_views_that_count_for_some_image_and_the_first() -> None:
    weights = torch.tensor([[0.0, 0.5, 0.5, 0.0], [0.0, 1.0, 0.0, 0.0]])
    words = np.array(["ok", "ok"], object)
    assert FeatureTable(torch.zeros(2, 4, 8), weights, torch.zeros(2), words, words).passes == 3
    assert weights[0, 0] == 0


def test_a_protocol_that_compares_what_it_does_not_list_is_refused_before_any_work(cfp_root: Path) -> None:
    class Misspelt(Cfp):
        def comparisons(self, setting: str) -> pd.DataFrame:
            return super().comparisons(setting).replace("001/frontal/01.png", "001/frontal/1.png")

    with pytest.raises(DataError, match=r"compared images are no samples, '001/frontal/1\.png' the first"):
        run_verification(Misspelt(cfp_root), Experiment(data=cfp_root, out=cfp_root, recognizers=("no",)))


def test_both_sides_are_named_when_both_fail(cfp_root: Path, make_systems: MakeSystems, tmp_path: Path) -> None:
    csv = cfp_root / "landmarks.csv"
    csv.write_text(csv.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    table = scores_of(cfp_root, make_systems("none"), tmp_path / "s.sqlite")
    assert set(table["reason"]) == {"probe:no_landmarks;reference:no_landmarks"}
    assert table["score"].isna().all()


def test_a_fallback_is_scored_and_says_so(cfp_root: Path, make_systems: MakeSystems, tmp_path: Path) -> None:
    csv = cfp_root / "landmarks.csv"
    lines = csv.read_text(encoding="utf-8").splitlines()
    csv.write_text("\n".join(line for line in lines if "001/frontal/01" not in line), encoding="utf-8")
    finder = partial(FaceFinder, f"file:{csv}", "largest", "centre-crop")
    table = scores_of(cfp_root, make_systems("none"), tmp_path / "s.sqlite", make_finder=finder)
    hit = table["reference"] == "001/frontal/01.png"
    assert (table.loc[hit, "status"] == "fallback").all()
    assert (table.loc[hit, "reason"] == "reference:fallback:no_landmarks").all()
    assert table["score"].notna().all()


def test_fusions_are_crossed_where_there_is_something_to_fuse(
    cfp_root: Path, make_systems: MakeSystems, tmp_path: Path
) -> None:
    table = scores_of(cfp_root, make_systems(), tmp_path / "s.sqlite", fusions=["mean", "concatenation"])
    systems = table[["frontalizer", "fusion"]].drop_duplicates().apply(tuple, axis=1).tolist()
    assert systems == [("none", "weighted"), ("mirror", "mean"), ("mirror", "concatenation")]


def test_probe_side_alone_leaves_references_with_their_first_view(
    cfp_root: Path, make_systems: MakeSystems, tmp_path: Path
) -> None:
    protocol = Cfp(cfp_root)
    table = scores_of(cfp_root, make_systems("mirror"), tmp_path / "s.sqlite", sides="probe", fusions=["score-mean"])
    folder = cfp_root / "Data" / "Images"
    finder = FaceFinder(f"file:{cfp_root / 'landmarks.csv'}")
    recognizer = small_recognizer()
    plain = FrontalizedRecognizer(recognizer, PlainCrop(), finder=finder)
    both = FrontalizedRecognizer(recognizer, Mirror(), "score-mean", finder=finder)
    comparisons = protocol.comparisons("FP")
    probes = both.embed_images([folder / name for name in comparisons["probe"]])
    references = plain.embed_images([folder / name for name in comparisons["reference"]])
    np.testing.assert_allclose(table["score"], (probes * references).sum(1), atol=SCORE_TOLERANCE)


def test_references_that_keep_their_first_view_did_not_fall_back_on_it() -> None:
    status, why = np.array(["fallback", "fallback", "ok"], object), np.array(["no_mask", "no_face", ""], object)
    table = FeatureTable(torch.zeros(3, 2, 8), torch.ones(3, 2), torch.zeros(3), status, why)
    probe, reference = np.array([2, 2, 0]), np.array([0, 1, 0])
    both, only = (pair_status(table, probe, reference, sides) for sides in ("both", "probe"))
    assert both[0].tolist() == ["fallback"] * 3
    assert only[0].tolist() == ["ok", "fallback", "fallback"]
    assert only[1].tolist() == ["", "reference:fallback:no_face", "probe:fallback:no_mask"]


class Located(PlainCrop):
    """A view maker with a locator, which remembers what it was given."""

    def __init__(self, name: str, locator: Mock) -> None:
        self.name = self.fingerprint = name
        self.locator = locator
        self.given: list[object] = []

    def views_of(self, faces: FaceCrops, located: object, alignment: AlignmentTemplate, size: int) -> Views:
        self.given.append(located)
        return self(faces, alignment, size)


def test_faces_are_located_once_for_all_view_makers_with_the_same_locator(cfp_root: Path, tmp_path: Path) -> None:
    images = list(images_of(Cfp(cfp_root)).values())
    finder = partial(FaceFinder, f"file:{cfp_root / 'landmarks.csv'}")
    locator, twin, other = (Mock(fingerprint=name, side_effect=len) for name in ("same", "same", "other"))
    makers = [Located(name, of) for name, of in zip("abc", (locator, twin, other), strict=True)]
    first, second, third = (System("small", small_recognizer(), maker.name, maker) for maker in makers)
    with FeatureStore(tmp_path / "s.sqlite") as store:
        extract(images[:4], finder, [first, second], store)
        assert (locator.call_count, twin.call_count) == (1, 0)
        extract(images, finder, [first, second, third], store)  # the third lacks what the others have in the store
    assert (locator.call_count, twin.call_count, other.call_count) == (2, 0, 1)
    assert [maker.given for maker in makers] == [[4, len(images) - 4], [4, len(images) - 4], [len(images)]]


def test_tables_are_on_the_cpu_whatever_the_default_device_is() -> None:
    with torch.device("meta"):
        assert FeatureTable.stack([FaceFeatures.failed("no_face")]).yaw.device.type == "cpu"


class Turned:
    """A view maker that knows yaw and leaves some faces to their crop."""

    name, fingerprint, default_fusion = "turned", "turned-1", "yaw"

    def __call__(self, faces: FaceCrops, alignment: AlignmentTemplate, size: int) -> Views:
        crop = PlainCrop()(faces, alignment, size).images
        weights = torch.tensor([[1.0, 0.0]]).repeat(len(faces), 1)
        images = torch.cat([crop, torch.full_like(crop, torch.nan)], 1)
        return Views(images, weights, ("crop", "frontal"), torch.full((len(faces),), 50.0), faces.status, faces.reason)


def test_a_view_that_nobody_uses_is_not_embedded(cfp_root: Path, table: pd.DataFrame, tmp_path: Path) -> None:
    recognizer = small_recognizer()
    other = scores_of(cfp_root, [System("small", recognizer, "turned", Turned())], tmp_path / "s.sqlite", batch_size=7)
    assert recognizer.seen == len(images_of(Cfp(cfp_root)))
    assert set(other["yaw"]) == {50.0}
    assert set(other["fusion"]) == {"yaw"}
    expected = table.loc[table["frontalizer"] == "none", "score"]
    np.testing.assert_allclose(other["score"], expected, atol=SCORE_TOLERANCE)


class Lying(Turned):
    """A view maker whose first view counts for nothing, and is one that breaks the recognizer."""

    name, fingerprint = "lying", "lying-1"

    def __call__(self, faces: FaceCrops, alignment: AlignmentTemplate, size: int) -> Views:
        views = super().__call__(faces, alignment, size)
        return replace(views, images=views.images.flip(1), weights=views.weights.flip(1))


def test_a_first_view_that_counts_for_nothing_may_be_anything(
    cfp_root: Path, table: pd.DataFrame, tmp_path: Path
) -> None:
    system = System("small", small_recognizer(), "lying", Lying())
    for _ in range(2):  # computed, then from the store
        found = scores_of(cfp_root, [system], tmp_path / "s.sqlite", fusions=["weighted"], batch_size=7)
        expected = table.loc[table["frontalizer"] == "none", "score"]
        np.testing.assert_allclose(found["score"], expected, atol=SCORE_TOLERANCE)


class Broken(ModuleRecognizer):
    """Gives NaN for the faces of one person."""

    def embed(self, batch: torch.Tensor, yaw: torch.Tensor | None = None) -> torch.Tensor:
        features = super().embed(batch, yaw)
        features[0] = torch.nan
        return features


def test_features_that_are_not_finite_are_a_failure(cfp_root: Path, tmp_path: Path) -> None:
    small = small_recognizer()
    broken = Broken(small.network, small.config, "broken")
    table = scores_of(cfp_root, [System("small", broken, "none", PlainCrop())], tmp_path / "s.sqlite")
    failed = table[table["status"] == "failed"]
    assert set(failed["reason"]) == {"reference:features_not_finite"}
    assert table["score"].notna().sum() == len(table) - len(failed)


def test_a_dead_worker_is_a_clear_message(cfp_root: Path, make_systems: MakeSystems, tmp_path: Path) -> None:
    from pifr.errors import DataError

    with pytest.raises(DataError, match="a worker process died"):
        scores_of(
            cfp_root, make_systems("none"), tmp_path / "s.sqlite", workers=1, make_finder=MakesFinderOnce(cfp_root)
        )


class MakesFinderOnce:
    """A factory that kills the process it is unpickled in."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self) -> FaceFinder:
        return FaceFinder(f"file:{self.root / 'landmarks.csv'}")

    def __reduce__(self) -> tuple:
        import os

        return os._exit, (3,)


def test_no_images_give_empty_tables(cfp_root: Path, make_systems: MakeSystems, tmp_path: Path) -> None:
    with FeatureStore(tmp_path / "s.sqlite") as store:
        tables = extract([], partial(FaceFinder, f"file:{cfp_root / 'landmarks.csv'}"), make_systems(), store)
    assert [len(table) for table in tables] == [0, 0]
    assert isinstance(tables[0], FeatureTable)
