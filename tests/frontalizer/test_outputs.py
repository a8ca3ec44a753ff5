"""Meshes, pictures and the command that writes them."""

import csv
import os

import cv2
import numpy as np
import pytest
import torch
import trimesh

from pifr.cli.main import main
from pifr.cli.support.face_folder import FacesTable, FreeNames, remove_face
from pifr.completion import blend
from pifr.errors import UnknownNameError
from pifr.export.mesh import textured_mesh, write_mesh
from pifr.export.panels import panels
from pifr.geometry import warp
from pifr.networks.pretrained import fold_batch_norms

from .conftest import painted_faces


@pytest.fixture
def result(frontalizer):
    return frontalizer(painted_faces([0.0, 70.0]))


@pytest.mark.parametrize(("suffix", "unit"), [("obj", 1.0), ("ply", 1.0), ("glb", 0.001)])
def test_a_written_mesh_has_the_size_of_the_face(result, tmp_path, suffix, unit):
    files = write_mesh(result, 1, tmp_path / f"face.{suffix}")
    assert files[0] == tmp_path / f"face.{suffix}"
    assert sorted(tmp_path.iterdir()) == sorted(files)
    extent = result.surface[1].flatten(1).amax(1) - result.surface[1].flatten(1).amin(1)
    np.testing.assert_allclose(trimesh.load(files[0]).extents, unit * extent.numpy(), rtol=1e-3)


def test_mesh_triangles_face_the_camera_of_a_frontal_face(result):
    mesh = textured_mesh(result, 0)
    assert mesh.face_normals[:, 2].mean() > 0.5


def test_texture_coordinates_point_to_each_vertex_colour(result):
    mesh = textured_mesh(result, 0)
    uv = torch.from_numpy(np.array(mesh.visual.uv)).float()
    uv[:, 1] = 1 - uv[:, 1]
    places = uv.t().reshape(1, 2, 1, -1)
    expected = warp.sample_uv(result.uv_texture[:1], places)[0, :, 0].t()
    found = mesh.visual.to_color().vertex_colors[:, :3] / 255
    assert np.abs(found - expected.numpy()).mean() < 0.02


def test_a_material_shows_its_texture_as_it_is(result, tmp_path):
    write_mesh(result, 0, tmp_path / "face.obj")
    colours = dict(line.split(" ", 1) for line in (tmp_path / "face.mtl").read_text().splitlines() if " " in line)
    values = {name: [float(value) for value in colours[name].split()] for name in ("Ka", "Kd", "Ks")}
    assert values == {"Ka": [1, 1, 1], "Kd": [1, 1, 1], "Ks": [0, 0, 0]}


def test_a_face_that_is_not_located_has_no_mesh(frontalizer, tmp_path):
    result = frontalizer(painted_faces([130.0]))
    with pytest.raises(ValueError, match="fallback, beyond_profile"):
        write_mesh(result, 0, tmp_path / "face.obj")


def test_an_unknown_mesh_format_lists_the_known_ones(result, tmp_path):
    with pytest.raises(UnknownNameError, match=r"mesh format 'stl'.*"):
        write_mesh(result, 0, tmp_path / "face.stl")


def test_panels_show_every_step(result):
    faces = painted_faces([0.0, 70.0])
    pictures = panels(faces, result)
    assert [set(row) for row in pictures] == [
        {"input", "mask", "pncc", "landmarks", "uv_partial", "visibility", "uv_texture", "shape", "frontal"}
    ] * 2
    assert all(picture.dtype == np.uint8 and picture.shape[2] == 3 for row in pictures for picture in row.values())
    assert (pictures[0]["landmarks"] != pictures[0]["input"]).any()


def test_autocast_around_it_changes_nothing_that_is_read_off_a_result(result):
    similarity = torch.tensor([[[0.6, -0.8, 3.3], [0.8, 0.6, 77.7]]])

    def read():
        moved = result.mapped(similarity)
        landmarks = [each.landmarks(frame=frame) for each in (result, moved) for frame in ("crop", "image")]
        return *landmarks, moved.image_map, moved.camera.rotation, result.yaw, result.surface

    faces = painted_faces([0.0, 70.0])
    expected, pictures = read(), panels(faces, result)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(read(), expected, rtol=0, atol=0)
        for row, wanted in zip(panels(faces, result), pictures, strict=True):
            assert all(np.array_equal(row[name], wanted[name]) for name in wanted)


def test_the_command_writes_a_row_for_every_image(random_weights, tmp_path):
    grey = np.full((200, 200, 3), 128, np.uint8)
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), grey)
    landmarks = tmp_path / "landmarks.csv"
    landmarks.write_text("path,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5\na.png,80,80,120,80,100,100,85,130,115,130\n")
    out = tmp_path / "out"
    arguments = [str(tmp_path / "a.png"), str(tmp_path / "b.png"), "--out", str(out), "--all", "--mesh", "glb"]
    with pytest.raises(SystemExit) as end:
        main(["frontalize", *arguments, "--options", str(random_weights), "--detector", f"file:{landmarks}"])
    assert end.value.code == 0
    with (out / "faces.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert [row["status"] for row in rows] == ["fallback", "failed"]  # untrained networks find no face
    assert [row["picture"] for row in rows] == ["", ""]
    assert (out / "a" / "pncc.png").is_file()
    assert not (out / "b").exists()


def test_names_of_files_need_not_be_utf8_and_steps_do_not_take_each_others(random_weights, tmp_path):
    grey = cv2.imencode(".png", np.full((200, 200, 3), 128, np.uint8))[1].tobytes()
    (tmp_path / "in" / "a").mkdir(parents=True)
    for name in (b"caf\xe9.png", b"a.png", b"a/input.png"):
        (tmp_path / "in" / os.fsdecode(name)).write_bytes(grey)
    out = tmp_path / "out"
    arguments = [str(tmp_path / "in"), "--out", str(out), "--all", "--options", str(random_weights)]
    with pytest.raises(SystemExit) as end:
        main(["frontalize", *arguments, "--detector", "aligned"])
    assert end.value.code == 0
    with (out / "faces.csv").open(encoding="utf-8") as table:
        paths = [row["path"] for row in csv.DictReader(table)]
    assert sorted(path.rpartition("/")[2] for path in paths) == ["a.png", "caf\\xe9.png", "input.png"]
    folders = {str(path.parent.relative_to(out)) for path in out.rglob("pncc.png")}
    assert folders == {"a-2", "a/input", os.fsdecode(b"caf\xe9")}


def test_pictures_take_the_place_of_no_photo(random_weights, tmp_path):
    photos = [tmp_path / "me.png", tmp_path / "deep" / "you.png"]
    for photo in photos:
        photo.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(photo), np.full((200, 200, 3), 128, np.uint8))
    before = [photo.read_bytes() for photo in photos]
    arguments = [*map(str, photos), "--out", str(tmp_path), "--all", "--options", str(random_weights)]
    with pytest.raises(SystemExit) as end:
        main(["frontalize", *arguments, "--detector", "aligned"])
    assert end.value.code == 0
    assert [photo.read_bytes() for photo in photos] == before
    assert (tmp_path / "me-2" / "pncc.png").is_file()
    assert (tmp_path / "you" / "pncc.png").is_file()


def test_a_folder_that_is_used_again_replaces_the_faces_of_the_same_photos_alone(random_weights, tmp_path):
    grey = cv2.imencode(".png", np.full((200, 200, 3), 128, np.uint8))[1].tobytes()
    for name in ("a/x.png", "b/x.png", "c/x.png", "out/x/mask.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(grey)
    out = tmp_path / "out"

    def run(*photos):
        arguments = [*(str(tmp_path / photo / "x.png") for photo in photos), "--out", str(out), "--all"]
        with pytest.raises(SystemExit) as end:
            main(["frontalize", *arguments, "--options", str(random_weights), "--detector", "aligned"])
        assert end.value.code == 0
        with (out / "faces.csv").open(encoding="utf-8") as table:
            return {row["path"].split("/")[-2]: row["name"] for row in csv.DictReader(table)}

    assert run("a") == {"a": "x-2"}
    first = (out / "x-2" / "pncc.png").stat().st_mtime_ns
    assert run("b", "c") == {"a": "x-2", "b": "x-3", "c": "x-4"}
    assert run("c", "a") == {"a": "x-2", "b": "x-3", "c": "x-4"}
    assert (out / "x-2" / "pncc.png").stat().st_mtime_ns > first
    assert (out / "x" / "mask.png").read_bytes() == grey


def test_a_table_keeps_what_was_known_of_photos_that_a_stopped_run_did_not_reach(tmp_path):
    file = tmp_path / "faces.csv"
    for status, reached in (("first", ("a", "b", "b")), ("second", ("b",))):
        table = FacesTable(file, ("a", "b"))
        with table:
            for path in reached:
                table.renew(path)
                table.add({"path": path, "name": path, "status": status})
    with file.open(encoding="utf-8") as rows:
        found = [(row["path"], row["status"]) for row in csv.DictReader(rows)]
    assert found == [("a", "first"), ("b", "second")]


def test_what_an_earlier_call_wrote_of_a_face_is_removed_and_nothing_else(tmp_path):
    written = ("a.png", "a.glb", "a.obj", "a.mtl", "a_texture.png", "a/mask.png")
    for name in (*written, "a.jpg", "a/b.png", "b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert not {"a", "a/mask"} & remove_face(tmp_path, {"name": "a", "picture": "", "status": "failed"})
    assert (tmp_path / "a.png").exists()
    assert {"a", "a_texture", "a/mask"} <= remove_face(tmp_path, {"name": "a", "picture": "a.png", "status": "ok"})
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"a.jpg", "a/b.png", "b.png"}


def test_a_table_of_another_origin_is_not_replaced(random_weights, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((200, 200, 3), 128, np.uint8))
    (tmp_path / "faces.csv").write_text("mine\n")
    with pytest.raises(SystemExit) as end:
        main(["frontalize", str(tmp_path / "a.png"), "--out", str(tmp_path), "--detector", "aligned"])
    assert end.value.code == 1
    assert "choose another folder" in capsys.readouterr().err
    assert (tmp_path / "faces.csv").read_text() == "mine\n"


def test_a_face_called_like_the_texture_of_another_gets_another_name():
    names = FreeNames(set())
    assert [names(name) for name in ("a", "a_texture", "b")] == ["a", "a_texture-2", "b"]


def test_folded_normalisation_is_the_same_function():
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.ConvTranspose2d(8, 4, 4, 2),
        torch.nn.BatchNorm2d(4),
    )
    pixels = torch.rand(4, 3, 16, 16)
    network(pixels)
    expected = network.eval()(pixels)
    folded = fold_batch_norms(network)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(folded(pixels), expected, atol=1e-5, rtol=1e-4)


def test_blending_rows_do_not_mix():
    texture, visibility = torch.rand(2, 3, 16, 16), (torch.rand(2, 1, 16, 16) > 0.5).float()
    torch.testing.assert_close(blend(texture, visibility)[:1], blend(texture[:1], visibility[:1]))
