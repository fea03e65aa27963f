"""`-f ply,pcd,glb,obj,normal`: a photo to files of points and meshes, from the command line."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import depthcli
from depthcli.io.codecs.files import read_facts
from depthcli.jobs.manifest import is_note
from tests.conftest import TINY, photo

SHAPES = "ply,pcd,glb,obj,normal"


def test_a_photo_becomes_every_shape_and_says_once_what_is_guessed(depth, tiny_weights):
    photo("a.jpg")
    ran = depth("image", "a.jpg", "-f", SHAPES, *TINY, "--edges", "off", "--points", "100", "--mesh-size", "9")
    assert ran.code == 0 and ran.lines == [f"a_depth.{end}" for end in ("ply", "pcd", "glb", "obj")] + [
        "a_depth_normal.png"
    ]
    guessed, relative = ran.err.splitlines()
    assert guessed.startswith("warning: a.jpg: no camera is known: 60 degrees") and "focal" in guessed
    assert relative.startswith("warning: a.jpg: depth is relative") and "--farthest" in relative
    cloud, mesh = depthcli.read_shape("a_depth.ply"), depthcli.read_shape("a_depth.glb")
    assert 10 < len(cloud.points) <= 100 and cloud.unit == "arbitrary" and cloud.axes == "opengl"
    assert len(mesh.vertices) <= 81 and depthcli.read_shape("a_depth.pcd").axes == "opencv"
    assert np.array_equal(depthcli.read_shape("a_depth.obj").faces, mesh.faces)
    assert read_facts(Path("a_depth.ply"))["shape"]["camera"]["source"] == "assumed"


def test_axes_and_the_farthest_point_are_as_asked(depth, tiny_weights):
    photo("a.jpg")
    assert (
        depth("image", "a.jpg", "-o", "a.ply", *TINY, "--edges", "off", "--axes", "zup", "--farthest", "1.5").code == 0
    )
    cloud = depthcli.read_shape("a.ply")
    assert cloud.axes == "zup" and 0 < cloud.points[:, 1].min() and cloud.points[:, 1].max() <= 1.5


def test_a_mesh_goes_to_stdout_and_an_obj_does_not(depth, tiny_weights):
    photo("a.jpg")
    ran = depth("image", "a.jpg", "-o", "-", "-f", "glb", *TINY, "--edges", "off")
    assert ran.code == 0 and ran.stdout.startswith(b"glTF")
    refused = depth("image", "a.jpg", "-o", "-", "-f", "obj", *TINY)
    assert refused.code == 2 and "three files" in refused.error


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--axes", "left"), "--axes"),
        (("--edges", "none"), "--edges"),
        (("--edges", "2"), "--edges"),
        (("--points", "some"), "--points"),
        (("--mesh-size", "1"), "--mesh-size"),
        (("--farthest", "-1"), "--farthest"),
        (("--panorama",), "panorama"),
    ],
)
def test_options_that_make_no_shape_are_refused_before_anything_is_done(depth, tiny_weights, words, named):
    photo("a.jpg")
    ran = depth("image", "a.jpg", "-f", "glb", *TINY, *words)
    assert ran.code == 2 and named in ran.error and sorted(os.listdir()) == ["a.jpg", "checkpoints"]


def test_a_folder_goes_on_and_notices_other_options(depth, tiny_weights):
    for name in ("photos/a.jpg", "photos/b.jpg"):
        photo(name)
    command = ("dir", "photos", "-f", "obj,glb", *TINY, "--edges", "off")
    first = depth(*command)
    assert first.code == 0
    warned = [line for line in first.err.splitlines() if "no camera is known" in line]
    assert [line.split(": no camera")[0] for line in warned] == ["warning: a.jpg", "warning: the same for 1 more"]
    before = {path: path.stat().st_mtime_ns for path in Path("photos_depth").iterdir()}
    assert len(before) == 10  # obj, mtl, jpg and glb of both, the manifest and run.json
    again = depth(*command)
    assert again.code == 0 and {path: path.stat().st_mtime_ns for path in before if not is_note(path.name)} == {
        path: time for path, time in before.items() if not is_note(path.name)
    }
    other = depth(*command, "--mesh-size", "16")
    assert other.code == 2 and "--mesh-size" in other.error


def test_results_are_no_pictures(depth, tiny_weights):
    photo("photos/a.jpg")
    assert depth("image", "photos", "-f", "obj,normal", *TINY, "--edges", "off").code == 0
    ran = depth("image", "photos", "-f", "npz", *TINY)
    assert ran.code == 0 and ran.lines == ["photos/a_depth.npz"]
