"""What is stored comes back bit for bit, whole batches at a time, for two processes as for one."""

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from pifr.errors import DataError
from protocols.store import FaceFeatures, FeatureStore, content_digest, feature_key


def face(seed: int, views: int = 2) -> FaceFeatures:
    rng = np.random.default_rng(seed)
    weights = np.full(views, 1 / views, np.float32)
    return FaceFeatures(rng.normal(size=(views, 8)).astype(np.float32), weights, float(seed), "ok", "")


def keys(count: int) -> list[bytes]:
    return [feature_key(content_digest(bytes([number % 256, number // 256])), "finder") for number in range(count)]


def test_features_come_back_bit_for_bit(tmp_path: Path) -> None:
    with FeatureStore(tmp_path / "new folder" / "store.sqlite") as store:
        key = keys(1)[0]
        store.put({key: face(3)})
        found = store.get([key])[key]
    np.testing.assert_array_equal(found.features, face(3).features)
    np.testing.assert_array_equal(found.weights, face(3).weights)
    assert (found.yaw, found.status, found.reason) == (3.0, "ok", "")


def test_features_of_another_recipe_are_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys(1)
    monkeypatch.setattr("protocols.store.RECIPE_VERSION", 0)
    assert keys(1) != before


def test_failures_and_unknown_yaw_are_kept_as_they_are(tmp_path: Path) -> None:
    with FeatureStore(tmp_path / "store.sqlite") as store:
        key = keys(1)[0]
        store.put({key: FaceFeatures.failed("no_face")})
        found = store.get([key])[key]
    assert (found.status, found.reason, len(found.features)) == ("failed", "no_face", 0)
    assert np.isnan(found.yaw)


def test_more_keys_than_one_statement_takes_are_found(tmp_path: Path) -> None:
    with FeatureStore(tmp_path / "store.sqlite") as store:
        many = keys(1203)
        store.put({key: face(number) for number, key in enumerate(many[:1100])})
        assert store.present(many) == set(many[:1100])
        assert set(store.get(many)) == set(many[:1100])
        assert len(store) == 1100


def test_every_part_of_a_key_counts() -> None:
    digest = content_digest(b"image")
    parts = ("finder", "maker", "recognizer", "alignment")
    changed = [tuple("x" if i == j else part for j, part in enumerate(parts)) for i in range(4)]
    candidates = [feature_key(digest, *some) for some in (parts, *changed)]
    candidates += [feature_key(content_digest(b"Image"), *parts), feature_key(digest, "findermaker", *parts[2:])]
    assert len(set(candidates)) == len(candidates)


def test_the_first_writer_of_a_key_wins(tmp_path: Path) -> None:
    key = keys(1)[0]
    with FeatureStore(tmp_path / "store.sqlite") as one, FeatureStore(tmp_path / "store.sqlite") as two:
        one.put({key: face(1)})
        two.put({key: face(2)})
        assert one.get([key])[key].yaw == two.get([key])[key].yaw == 1.0


WRITER = """
    import sys
    import numpy as np
    from protocols.store import FaceFeatures, FeatureStore, feature_key
    path, start, stop, size = sys.argv[1], *map(int, sys.argv[2:])
    weights = np.ones(1, np.float32)
    with FeatureStore(path) as store:
        for batch in range(start, stop):
            face = FaceFeatures(np.full((1, 64), batch, np.float32), weights, 0.0, "ok", "")
            store.put({feature_key(bytes([i]), str(batch)): face for i in range(size)})
            print(batch, flush=True)
"""


def writer(path: Path, start: int, stop: int, size: int) -> subprocess.Popen:
    arguments = [str(path), str(start), str(stop), str(size)]
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), *arguments], stdout=subprocess.PIPE, text=True
    )


def test_two_processes_write_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    both = [writer(path, 0, 30, 8), writer(path, 20, 50, 8)]
    assert [process.wait(60) for process in both] == [0, 0]
    for process in both:
        process.stdout.close()
    with FeatureStore(path) as store:
        assert len(store) == 50 * 8


def test_a_killed_writer_leaves_whole_batches(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    process = writer(path, 0, 100_000, 20)
    for _ in range(5):
        process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    process.stdout.close()
    with FeatureStore(path) as store:
        assert len(store) >= 5 * 20
        assert len(store) % 20 == 0
        store.put({keys(1)[0]: face(0)})


def test_a_file_that_is_no_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("this is not a database, whatever its name says", encoding="utf-8")
    with pytest.raises(DataError, match="cannot be used as a feature store"):
        FeatureStore(tmp_path / "x")
    with pytest.raises(DataError, match="cannot be used as a feature store"):
        FeatureStore(tmp_path / "x" / "below-a-file.sqlite")
    with closing(sqlite3.connect(tmp_path / "other.sqlite")) as other:
        other.execute("CREATE TABLE features (name TEXT)")
    with pytest.raises(DataError, match=r"other\.sqlite' cannot be used as a feature store"):
        FeatureStore(tmp_path / "other.sqlite")


def test_a_store_that_is_damaged_later_is_named(tmp_path: Path) -> None:
    path, many = tmp_path / "store.sqlite", keys(200)
    with FeatureStore(path) as store:
        store.put({key: face(number) for number, key in enumerate(many)})
    content = bytearray(path.read_bytes())
    content[2 * 4096 :] = b"\xff" * (len(content) - 2 * 4096)
    path.write_bytes(content)
    with FeatureStore(path) as store, pytest.raises(DataError, match=r"store\.sqlite' cannot be read .*--store"):
        store.get(many)


@pytest.mark.parametrize(
    "damage",
    [
        "features = zeroblob(62)",
        "features = zeroblob(60)",
        "features = ''",
        "weights = zeroblob(4)",
        "views = 0",
        f"features = x'{'ff' * 64}'",
        f"weights = x'{'ff' * 8}'",
    ],
)
def test_a_damaged_row_is_not_taken_for_features(tmp_path: Path, damage: str) -> None:
    path, key = tmp_path / "store.sqlite", keys(1)[0]
    with FeatureStore(path) as store:
        store.put({key: face(1)})
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(f"UPDATE features SET {damage}")
    with FeatureStore(path) as store, pytest.raises(DataError, match=r"store\.sqlite' cannot be read .*--store"):
        store.get([key])
