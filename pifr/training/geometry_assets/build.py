"""All shipped geometry files, from their sources."""

from __future__ import annotations

import json
from pathlib import Path

from pifr.assets import ASSETS
from pifr.support.files import write_whole
from pifr.training.geometry_assets.face_model import build_face_model
from pifr.training.geometry_assets.links import find_links
from pifr.training.geometry_assets.template import build_template, read_source_template
from pifr.training.geometry_assets.texture_model import build_texture_model


def build_assets(out: Path, *, ict: Path | None = None, shards: Path | None = None, relink: bool = False) -> None:
    """Build the geometry files in `out`; what is not rebuilt is taken from the shipped files.

    Args:
        out: folder; gets template.npz, and face_model.npz and texture_model.npz if their sources are given.
        ict: `ict_face.npz`. shards: folder of `pifr train render`.
        relink: find the landmark links again and write them to `out/links.json`.
    """
    out.mkdir(parents=True, exist_ok=True)
    face_model, links = ASSETS / "face_model.npz", ASSETS / "sources" / "links.json"
    source = ASSETS / "sources" / "template.ply"
    if ict is not None:
        face_model = out / "face_model.npz"
        build_face_model(ict, face_model)
    if relink:
        from pifr.zoo import find_weights

        found = find_links(face_model, read_source_template(source)[:2], find_weights("face-mesh").fetch())
        links = out / "links.json"
        write_whole(links, lambda whole: whole.write_text(json.dumps(found)))
    build_template(source, face_model, links, out / "template.npz")
    if shards is not None:
        build_texture_model(shards, out / "texture_model.npz")
