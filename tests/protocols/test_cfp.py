"""CFP is read as it is distributed, and everything that is wrong with a copy is listed before any work."""

import shutil
from pathlib import Path

import pytest

from pifr.errors import DataError
from protocols.base import COMPARISON_COLUMNS, SAMPLE_COLUMNS, require_valid
from protocols.cfp import Cfp
from protocols.runs import begin_record


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def problems(root: Path) -> str:
    return "\n".join(Cfp(root).validate())


def test_a_sound_copy_has_no_problems(cfp_root: Path) -> None:
    assert Cfp(cfp_root).validate() == []
    require_valid(Cfp(cfp_root))


def test_comparisons_name_the_files_of_the_lists(cfp_root: Path) -> None:
    table = Cfp(cfp_root).comparisons("FP")
    assert tuple(table.columns) == COMPARISON_COLUMNS
    assert len(table) == 4 * 8
    first = table.iloc[0]  # line "1,2": first frontal image, second profile
    assert (first["reference"], first["probe"]) == ("001/frontal/01.png", "001/profile/02.png")
    assert bool(first["same"])
    assert first["fold"] == 1
    assert (table["same"] == (table["probe_subject"] == table["reference_subject"])).all()
    assert table.groupby("fold")["same"].sum().tolist() == [4] * 4


def test_samples_are_the_images_that_take_part(cfp_root: Path) -> None:
    protocol = Cfp(cfp_root)
    samples = protocol.samples("FP")
    assert tuple(samples.columns) == SAMPLE_COLUMNS
    comparisons = protocol.comparisons("FP")
    assert set(samples["sample"]) == {*comparisons["probe"], *comparisons["reference"]}
    assert set(samples.loc[samples["role"] == "probe", "sample"]) == set(comparisons["probe"])
    assert all(protocol.read(path) for path in samples["path"])


def test_folds_share_no_person(cfp_root: Path) -> None:
    table = Cfp(cfp_root).comparisons("FF")
    people = table.groupby("fold")["probe_subject"].agg(set).tolist()
    assert len(set().union(*people)) == sum(map(len, people)) == 8


def test_line_out_of_range_is_named_with_its_file_and_line(cfp_root: Path) -> None:
    edit(cfp_root / "Protocol/Split/FP/02/same.txt", "7,6", "999,6")
    assert "Split/FP/02/same.txt:1: index 999 is not in Pair_list_F.txt" in problems(cfp_root)


def test_blank_line_in_a_fold_is_reported_and_at_the_end_is_not(cfp_root: Path) -> None:
    file = cfp_root / "Protocol/Split/FP/01/diff.txt"
    edit(file, "\n", "\n\n")
    assert "Split/FP/01/diff.txt:2: blank line" in problems(cfp_root)
    edit(file, "\n\n", "\n")
    file.write_text(file.read_text(encoding="utf-8") + "\n\n", encoding="utf-8")
    assert Cfp(cfp_root).validate() == []


def test_line_that_is_no_pair_is_quoted(cfp_root: Path) -> None:
    edit(cfp_root / "Protocol/Split/FF/01/same.txt", ",", ";")
    assert "not 'a,b': '1;3'" in problems(cfp_root)


def test_missing_image_is_listed(cfp_root: Path) -> None:
    (cfp_root / "Data/Images/003/frontal/02.png").unlink()
    assert "003/frontal/02.png: listed, but missing" in problems(cfp_root)


@pytest.mark.parametrize("name", ["Pair_list_P.txt", "Split/FP/03/diff.txt"])
def test_missing_protocol_file_is_listed(cfp_root: Path, name: str) -> None:
    (cfp_root / "Protocol" / name).unlink()
    assert f"{name}: No such file" in problems(cfp_root)


def test_overlapping_folds_are_named_with_the_person(cfp_root: Path) -> None:
    source, target = (cfp_root / f"Protocol/Split/FP/0{k}/same.txt" for k in (1, 2))
    target.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    assert "Protocol/Split/FP: subject 001 is in folds 1, 2" in problems(cfp_root)


def test_pair_that_contradicts_its_label_is_named(cfp_root: Path) -> None:
    edit(cfp_root / "Protocol/Split/FP/01/same.txt", "1,2", "1,4")
    assert "do not show one person" in problems(cfp_root)


def test_index_listed_twice_is_named(cfp_root: Path) -> None:
    edit(cfp_root / "Protocol/Pair_list_F.txt", "2 ..", "1 ..")
    assert "Pair_list_F.txt:2: index 1 stands there twice" in problems(cfp_root)


def test_real_data_must_have_the_official_number_of_pairs(cfp_root: Path) -> None:
    (cfp_root / "dataset.json").unlink()
    assert "Split/FP/01/same.txt: 4 pairs, not CFP's 350; if this is a set of your own, write" in problems(cfp_root)
    shutil.rmtree(cfp_root / "Protocol" / "Split" / "FF")
    assert "Split/FF: no folds" in problems(cfp_root)


def test_real_data_must_not_have_more_pairs_either(cfp_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cfp_root / "dataset.json").unlink()
    monkeypatch.setattr("protocols.cfp.PAIRS_PER_CLASS", 3)
    assert "Split/FP/01/same.txt: 4 pairs, not CFP's 3;" in problems(cfp_root)


def test_a_set_of_ones_own_is_real_has_any_number_of_pairs_and_perhaps_one_setting(cfp_root: Path) -> None:
    (cfp_root / "dataset.json").write_text('{"name": "mine", "synthetic": false}', encoding="utf-8")
    shutil.rmtree(cfp_root / "Protocol" / "Split" / "FF")
    protocol = Cfp(cfp_root)
    assert protocol.validate() == []
    assert protocol.settings == ("FP",)
    assert begin_record("cfp", cfp_root, {})["dataset"]["name"] == "mine"
    split = cfp_root / "Protocol" / "Split"
    (split / "FP").rename(split / "FF")  # of frontal photos alone, if their lists are
    (cfp_root / "Protocol" / "Pair_list_P.txt").unlink()
    assert Cfp(cfp_root).settings == ("FF",)
    assert not any("Pair_list_P" in problem for problem in Cfp(cfp_root).validate())


@pytest.mark.parametrize("record", ['{"name": "a", "synthetic": "false"}', '{"name": 1, "synthetic": true}', "[]"])
def test_a_data_set_that_does_not_say_what_it_is_is_refused(cfp_root: Path, record: str) -> None:
    (cfp_root / "dataset.json").write_text(record, encoding="utf-8")
    with pytest.raises(DataError, match=r"dataset\.json'.*'name'"):
        Cfp(cfp_root)


def test_an_image_that_no_pair_uses_may_be_missing(cfp_root: Path) -> None:
    used = set(Cfp(cfp_root).samples("FP")["sample"]) | set(Cfp(cfp_root).samples("FF")["sample"])
    folder = cfp_root / "Data" / "Images"
    spare = next(file for file in sorted(folder.glob("*/*/*")) if file.relative_to(folder).as_posix() not in used)
    spare.unlink()
    assert Cfp(cfp_root).validate() == []


def test_windows_line_ends_and_byte_order_marks_are_fine(cfp_root: Path) -> None:
    file = cfp_root / "Protocol/Split/FP/01/same.txt"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert Cfp(cfp_root).validate() == []


def test_an_empty_folder_is_one_message_with_all_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)cannot be used.*Pair_list_F.txt.*no folds"):
        require_valid(Cfp(tmp_path))


def test_unknown_setting_is_refused(cfp_root: Path) -> None:
    with pytest.raises(DataError, match="no setting 'PP'"):
        Cfp(cfp_root).comparisons("PP")


def test_damaged_dataset_record_is_named(cfp_root: Path) -> None:
    (cfp_root / "dataset.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"dataset\.json"):
        Cfp(cfp_root).validate()
