"""The paper's numbers, typed a second time from the paper."""

import pytest

from reports.published import published_tables


def printed(key: str) -> dict[str, list[str]]:
    return {row.labels[0]: [e.format() for e in row.estimates if e] for row in published_tables()[key].rows}


def test_table_2_is_the_papers() -> None:
    assert printed("table2") == {
        "3DDFA [47]": ["19.02"],
        "PRNet [10]": ["16.87"],
        "Deep3DFace [11]": ["17.53"],
        "C-Net": ["13.47"],
    }


def test_table_3_is_the_papers() -> None:
    assert list(printed("table3").values()) == [
        [text] for text in ["14.26", "8.85", "7.69", "8.49", "6.43", "7.85", "7.02", "6.94", "6.39"]
    ]


def test_table_4_is_the_papers_digit_for_digit() -> None:
    assert printed("table4") == {
        "HPN [76]": ["29.82", "47.57", "61.24", "72.77"],
        "c-CNN [77]": ["47.26", "60.7", "74.4", "89.0"],
        "PIM [66]": ["75.0", "91.2", "97.7", "98.3"],
        "TP-GAN [24]": ["64.0", "84.1", "92.9", "98.6"],
        "CAPG-GAN [78]": ["77.1", "87.4", "93.7", "98.3"],
        "FNM [38]": ["55.8", "81.3", "93.7", "98.2"],
        "Light CNNv2 [75]": ["54.7", "89.5", "98.65", "99.77"],
        "Light CNNv2 + SRTC-Net": ["63.2", "91.1", "99.2", "99.92"],
    }


def test_table_5_is_the_papers() -> None:
    assert list(printed("table5").values()) == [["2.53"], ["2.20"], ["2.32"], ["1.91"], ["2.09"]]


@pytest.mark.parametrize("key", ["table2", "table3", "table4", "table5"])
def test_every_published_number_names_its_source_and_is_real_data(key: str) -> None:
    table = published_tables()[key]
    assert "doi:10.1007/s41095-021-0238-4" in table.source
    assert all(row.origin == "published" and not row.data_set.synthetic for row in table.rows)
