"""Pair lists and packed pair files in the forms that people have."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from pifr.errors import DataError
from protocols.base import require_valid
from protocols.pairs import BinPairs, PairList, consecutive_folds, open_pairs, read_bin


def make_images(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def write_list(root: Path, *lines: str, name: str = "pairs.txt") -> Path:
    file = root / name
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


LFW = ("2 1", "Ann 1 2", "Ann 1 Bob 1", "Cem\t1\t2", "Cem\t2\tDan\t1")


@pytest.fixture
def lfw(tmp_path: Path) -> Path:
    for person in ("Ann", "Bob", "Cem", "Dan"):
        make_images(tmp_path, f"{person}/{person}_0001.jpg", f"{person}/{person}_0002.jpg")
    return write_list(tmp_path, *LFW)


def test_lfw_folds_hold_genuine_and_impostor_pairs(lfw: Path) -> None:
    protocol = PairList(lfw)
    assert protocol.validate() == []
    table = protocol.comparisons("all")
    assert table["fold"].tolist() == [1, 1, 2, 2]
    assert table["same"].tolist() == [True, False, True, False]
    assert table.iloc[3][["reference", "probe"]].tolist() == ["Cem/Cem_0002.jpg", "Dan/Dan_0001.jpg"]
    samples = protocol.samples("all").set_index("sample")
    assert samples.loc["Dan/Dan_0001.jpg", "subject"] == "Dan"
    assert protocol.read(samples.loc["Ann/Ann_0001.jpg", "path"]) == b"Ann/Ann_0001.jpg"


def test_crops_of_lfw_may_have_another_suffix(lfw: Path) -> None:
    for image in lfw.parent.glob("*/*.jpg"):
        image.rename(image.with_suffix(".png"))
    protocol = PairList(lfw)
    assert protocol.validate() == []
    assert protocol.comparisons("all")["probe"].iloc[3] == "Dan/Dan_0001.png"


def test_lfw_development_list_is_one_fold(tmp_path: Path) -> None:
    make_images(tmp_path, "Ann/Ann_0001.jpg", "Ann/Ann_0002.jpg", "Bob/Bob_0001.jpg")
    table = PairList(write_list(tmp_path, "1", "Ann 1 2", "Ann 1 Bob 1")).comparisons("all")
    assert table["fold"].tolist() == [1, 1]


def test_cplfw_takes_two_lines_a_pair(tmp_path: Path) -> None:
    names = ("Ann_Lee_1.jpg", "Ann_Lee_2.jpg", "Bob_1.jpg")
    make_images(tmp_path / "images", *names)
    file = write_list(tmp_path, "Ann_Lee_1.jpg 1", "Ann_Lee_2.jpg 1", "Ann_Lee_1.jpg 0", "Bob_1.jpg 0")
    protocol = PairList(file, tmp_path / "images")
    assert protocol.validate() == []
    table = protocol.comparisons("all")
    assert table["same"].tolist() == [True, False]
    assert table["reference_subject"].tolist() == ["Ann_Lee", "Ann_Lee"]
    assert table["fold"].tolist() == [1, 1]


def test_any_flag_but_0_of_two_lines_means_one_person(tmp_path: Path) -> None:
    file = write_list(tmp_path, "Ann_1.jpg 7", "Ann_2.jpg 7", "Ann_1.jpg 0", "Bob_1.jpg 0")
    assert PairList(file).comparisons("all")["same"].tolist() == [True, False]


@pytest.mark.parametrize("form", ["{0} {1} {2}", "{2} {0} {1}", "{0},{1},{2}", '"{0}","{1}",{2}'])
def test_labelled_lines_are_read_with_the_label_first_or_last(tmp_path: Path, form: str) -> None:
    make_images(tmp_path, "a.png", "b.png", "c.png")
    protocol = PairList(write_list(tmp_path, form.format("a.png", "b.png", 1), form.format("b.png", "c.png", 0)))
    assert protocol.validate() == []
    assert protocol.comparisons("all")["same"].tolist() == [True, False]
    assert protocol.samples("all")["subject"].tolist() == ["", "", ""]


def test_names_in_a_list_parted_by_tabs_may_hold_blanks(tmp_path: Path) -> None:
    make_images(tmp_path, "Ann Lee/1, left.png", "Bob.png")
    protocol = PairList(write_list(tmp_path, "Ann Lee/1, left.png\tBob.png\t0"))
    assert protocol.validate() == []
    assert protocol.comparisons("all")["reference"].tolist() == ["Ann Lee/1, left.png"]


def test_the_other_order_of_a_pair_is_another_pair(lfw: Path) -> None:
    lines = ("1 2", "Ann 1 2", "Ann 2 1", "Ann 1 Bob 1", "Bob 1 Ann 1")
    assert PairList(write_list(lfw.parent, *lines)).validate() == []


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((*LFW[:2], "", *LFW[2:]), "pairs.txt:3: blank line"),
        (LFW[:4], "3 pairs, where its first line says 2 x 1"),
        ((*LFW[:4], "Cem two Dan 1"), "pairs.txt:5: neither 'name i j' nor 'name i name j'"),
        ((*LFW[:4], "Cem 2 Eve 1"), "Eve/Eve_0001.jpg: listed, but missing"),
        (("Ann_1.jpg 1", "Ann_2.jpg 0"), "not two lines of 'file flag' with one flag"),
        (("Ann_1.jpg 1", "Ann_2.jpg 1", "Bob_1.jpg 1"), "a pair takes two"),
        (("a b 1", "a b 2"), "pairs.txt:2: not 'image image label'"),
        (("first second label", "a b 1"), "'first second label'; if it is a header, remove it"),
        ((*LFW[:4], "Cem 2 Cem 1"), "pairs.txt:5: one person twice in a line of two people"),
        (("0",), "pairs.txt: no pairs"),
    ],
)
def test_what_is_wrong_with_a_list_is_named(lfw: Path, lines: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match="cannot be used") as caught:
        require_valid(PairList(write_list(lfw.parent, *lines)))
    assert message in str(caught.value)


def test_a_list_that_contradicts_itself_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    problems = PairList(write_list(tmp_path, "a b 1", "c d 0", "b a 0")).validate()
    assert not any("one person" in problem for problem in problems)
    assert "says that a and b show one person, and that they show two" in caplog.text


@pytest.mark.parametrize("content", [None, ""])
def test_missing_or_empty_list_is_named(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "pairs.txt").write_text(content, encoding="utf-8")
    assert "pairs.txt" in PairList(tmp_path / "pairs.txt").validate()[0]


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_bin_of_any_pickle_protocol_is_read(tmp_path: Path, protocol: int) -> None:
    images = [bytes([i, 255 - i]) for i in range(8)]
    file = tmp_path / "cfp_fp.bin"
    file.write_bytes(pickle.dumps((images, [True, False, True, False]), protocol=protocol))
    pairs = open_pairs(file)
    assert isinstance(pairs, BinPairs)
    assert pairs.validate() == []
    table = pairs.comparisons("all")
    assert table["same"].tolist() == [True, False, True, False]
    assert table["fold"].tolist() == [1] * 4
    paths = pairs.samples("all").set_index("sample")["path"]
    assert [pairs.read(paths[name]) for name in table["probe"]] == images[1::2]
    assert [pairs.read(paths[name]) for name in table["reference"]] == images[::2]


def test_an_image_that_a_bin_holds_twice_has_one_name(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(pickle.dumps(([b"a", b"b", b"a", b"c"], [True, False])))
    pairs = BinPairs(tmp_path / "x.bin")
    assert pairs.comparisons("all")["reference"].tolist() == ["x.bin#0", "x.bin#0"]
    assert [pairs.read(path) for path in pairs.samples("all")["path"]] == [b"a", b"b", b"c"]


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_bin_of_numpy_vectors_is_read_without_numpy(tmp_path: Path, protocol: int) -> None:
    images = [np.array([i, 255 - i, 0], np.uint8) for i in range(4)]  # as cv2.imencode gives them
    file = tmp_path / "lfw.bin"
    for labels in ([True, False], list(np.array([True, False])), np.array([True, False])):
        file.write_bytes(pickle.dumps((images, labels), protocol=protocol))
        assert read_bin(file) == ([image.tobytes() for image in images], [True, False])
    file.write_bytes(pickle.dumps(([image.astype(float) for image in images], labels), protocol=protocol))
    with pytest.raises(DataError, match="neither bytes nor bools"):
        read_bin(file)


def test_bin_written_by_python_2_is_read(tmp_path: Path) -> None:
    file = tmp_path / "lfw.bin"
    # ([b"\xffa", b"b"], [True]) as Python 2's cPickle writes it: str as SHORT_BINSTRING.
    file.write_bytes(b"\x80\x02]q\x00(U\x02\xffaU\x01be]q\x01\x88a\x86q\x02.")
    assert read_bin(file) == ([b"\xffa", b"b"], [True])


class Malicious:
    def __reduce__(self) -> tuple:
        return os.system, ("touch pickle-was-run",)


@pytest.mark.parametrize("content", [Malicious(), ([Malicious()], [True])])
def test_bin_that_names_a_function_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.bin").write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match="system, which is not run"):
        read_bin(tmp_path / "x.bin")
    assert not (tmp_path / "pickle-was-run").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a pickle", "is not an InsightFace .bin"),
        (pickle.dumps(([b"a", b"b"], [True]))[:-3], "is not an InsightFace .bin"),
        (pickle.dumps(([b"a", b"b", b"c"], [True])), "3 images for 1 pairs"),
        (pickle.dumps((["a", "b"], [True])), "not a list of encoded files"),
        (pickle.dumps(([b"a", b"b"], ["yes"])), "not a list of bools"),
        (pickle.dumps(([b"a", b"b"], [-1])), "not a list of bools"),
        (pickle.dumps(([], [])), "no pairs"),
        (None, "cannot be read"),
    ],
)
def test_bad_bin_is_a_clear_message(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "x.bin"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        require_valid(BinPairs(file))


def test_seven_thousand_pairs_are_ten_folds_of_seven_hundred() -> None:
    folds = consecutive_folds(([True] * 350 + [False] * 350) * 10)
    assert folds == [1 + i // 700 for i in range(7000)]


def test_a_list_that_begins_with_all_genuine_pairs_has_a_tenth_of_each_kind_in_a_fold() -> None:
    assert consecutive_folds([True] * 3000 + [False] * 3000) == 2 * [1 + i // 300 for i in range(3000)]


@pytest.mark.parametrize("labels", [[], [True, False], [True] * 50 + [False] * 50, [True, False] * 190])
def test_a_set_that_ten_folds_would_starve_is_one_fold(labels: list[bool]) -> None:
    assert consecutive_folds(labels) == [1] * len(labels)
