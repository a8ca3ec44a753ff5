"""The paper's Tables 2-5 with what these runs measured beside them, each number in a column of its own provenance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reports.identification import IdentificationStudy
from reports.measurements import percent
from reports.published import PublishedTable, published_tables
from reports.reconstruction import ReconstructionStudy
from reports.tables import Column, Estimate, Row, Table
from reports.verification import VerificationStudy

Study = VerificationStudy | IdentificationStudy | ReconstructionStudy

LABELS = ("Method", "Training data", "Fusion", "Run")


@dataclass(frozen=True, slots=True)
class _Block:
    """Measured columns, and rows (labels, estimates) that fill them."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[tuple[str, ...], tuple[Estimate | None, ...]], ...]
    notes: tuple[str, ...]


def paper_tables(studies: Iterable[Study]) -> list[Table]:
    """Those of the paper's tables that the studies measured anything for, in the paper's order."""
    studies = list(studies)
    blocks = {
        "table2": [_errors(study) for study in _reconstruction(studies, "landmarks")],
        "table3": [
            _verification(study)
            for study in studies
            if isinstance(study, VerificationStudy)
            and (study.measurement.protocol, study.measurement.setting) == ("cfp", "FP")
        ],
        "table4": [
            _identification(study, published_tables()["table4"].quantities)
            for study in studies
            if isinstance(study, IdentificationStudy) and study.measurement.setting == "1"
        ],
        "table5": [_errors(study) for study in _reconstruction(studies, "shape")],
    }
    return [_beside(published_tables()[key], found) for key, found in blocks.items() if found]


def _beside(published: PublishedTable, blocks: Sequence[_Block]) -> Table:
    columns = [*published.columns, *(column for block in blocks for column in block.columns)]
    rows = []
    for row in published.rows:
        padding = (None,) * (len(columns) - len(row.estimates))
        rows.append(Row((*row.labels, "", ""), (*row.estimates, *padding), row.data_set, "published"))
    start = len(published.columns)
    for block in blocks:
        before, after = start, len(columns) - start - len(block.columns)
        for names, estimates in block.rows:
            cells = (*(None,) * before, *estimates, *(None,) * after)
            rows.append(Row(names, cells, block.columns[0].data_set, "measured"))
        start += len(block.columns)
    return Table(
        published.key,
        f"{published.title}, beside {published.source.partition(' of ')[0]} of the SRTC-Net paper",
        LABELS,
        tuple(columns),
        tuple(rows),
        (
            f"Published: {published.source}, on {published.data_set.title} ({published.data_set.size}; "
            f"{published.data_set.detail}). {published.conditions}",
            *dict.fromkeys(f"Measured: {note}" if i == 0 else note for b in blocks for i, note in enumerate(b.notes)),
        ),
    )


def _verification(study: VerificationStudy) -> _Block:
    columns = (
        Column("EER (%)", study.data_set, "measured", "lower"),
        Column("FTA (%)", study.data_set, "measured", "lower"),
        Column("passes", study.data_set, "measured"),
    )
    rows = []
    for key in study.summary.itertuples(index=False):
        eer = percent(key.eer, key.eer_low, key.eer_high, key.eer_std)
        rows.append((_labels(study, key), (eer, percent(key.fta), study.measurement.passes(key.run, key.frontalizer))))
    return _Block(columns, tuple(rows), study.conditions())


def _identification(study: IdentificationStudy, poses: Sequence[str]) -> _Block:
    columns = (
        *(Column(f"±{pose}° rank-1 (%)", study.data_set, "measured", "higher") for pose in poses),
        Column("FTA (%)", study.data_set, "measured", "lower"),
        Column("passes", study.data_set, "measured"),
    )
    rows = []
    for key, found in study.systems:
        rates = [study.rank_1(found[found["pose"] == int(pose)]) for pose in poses]
        passes = study.measurement.passes(key.run, key.frontalizer)
        rows.append((_labels(study, key), (*rates, study.failure_to_acquire(found), passes)))
    return _Block(columns, tuple(rows), study.conditions())


def _errors(study: ReconstructionStudy) -> _Block:
    quantity = study.kind.quantities[0]
    columns = (
        Column(quantity.label, study.data_set, "measured", "lower"),
        Column("failures (%)", study.data_set, "measured", "lower"),
    )
    rows = [
        ((name, "", "", ""), (study.mean_error(found, quantity), study.failure_rate(found)))
        for name, found in study.predictors
    ]
    return _Block(columns, tuple(rows), study.conditions())


def _reconstruction(studies: Iterable[Study], table: str) -> list[ReconstructionStudy]:
    return [study for study in studies if isinstance(study, ReconstructionStudy) and study.kind.table == table]


def _labels(study: VerificationStudy | IdentificationStudy, key: object) -> tuple[str, ...]:
    system, fusion, run = study.measurement.labels(key)
    return system, "", fusion, run
