"""Masks from files: which object, which picture, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthcli.errors import PictureError, UsageError
from depthcli.io.masks import rle
from depthcli.io.masks.files import SCHEMA, MaskFiles

SIZE = (8, 6)
LEFT, RIGHT = np.zeros((6, 8), bool), np.zeros((6, 8), bool)
LEFT[:, :3] = RIGHT[:, 5:] = True


def write(name: str, content: object) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def image(number: object, name: str, size: tuple[int, int] = SIZE) -> dict[str, object]:
    return {"id": number, "file_name": name, "width": size[0], "height": size[1]}


def row(number: object, mask: object, category: int = 90, **more: object) -> dict[str, object]:
    shape = rle.encode(mask) if isinstance(mask, np.ndarray) else mask
    return {"id": 1, "image_id": number, "category_id": category, "segmentation": shape, **more}


CATEGORIES = [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 13, "name": "stop sign"}]


def coco(images: list, rows: list, name: str = "coco.json") -> MaskFiles:
    return MaskFiles(write(name, {"images": images, "annotations": rows, "categories": CATEGORIES}))


class TestCoco:
    def test_polygons_and_both_run_lengths_give_the_same_mask(self):
        counts = {"size": [6, 8], "counts": rle.counts_of(LEFT)}
        polygon = [[0, 0, 3, 0, 3, 6, 0, 6]]
        files = coco([image(7, "a.jpg")], [row(7, LEFT), row(7, counts), row(7, polygon)])
        masks, notes = files.of_picture(Path("photos/a.jpg"), SIZE)
        assert notes == () and all((item.mask == LEFT).all() for item in masks) and len(masks) == 3

    def test_class_ids_are_sparse_and_never_places_in_a_list(self):
        files = coco([image(1, "a.jpg")], [row(1, LEFT, 90), row(1, RIGHT, 13), row(1, RIGHT, 5)])
        masks, _ = files.of_picture(Path("a.jpg"), SIZE)
        assert [(item.class_id, item.label) for item in masks] == [(90, "toothbrush"), (13, "stop sign"), (5, "")]
        assert masks[2].name == "class 5"

    def test_the_longest_path_wins_and_two_equal_ones_are_refused(self):
        files = coco([image(1, "x/a.jpg"), image(2, "y/a.jpg")], [row(1, LEFT), row(2, RIGHT)])
        assert (files.of_picture(Path("all/y/a.jpg"), SIZE)[0][0].mask == RIGHT).all()
        with pytest.raises(UsageError, match=r"may be x/a.jpg and y/a.jpg"):
            files.of_picture(Path("a.jpg"), SIZE)
        with pytest.raises(UsageError, match=r"does not name b.jpg"):
            files.of_picture(Path("b.jpg"), SIZE)

    def test_results_are_found_by_the_number_or_the_name_of_the_picture(self):
        results = [row(139, LEFT, score=0.9, bbox=[0, 0, 3, 6]), row("b", RIGHT, score=0.4)]
        files = MaskFiles(write("results.json", results))
        (item,), _ = files.of_picture(Path("000000000139.jpg"), SIZE)
        assert (item.score, item.box) == (0.9, (0, 0, 3, 6)) and (item.mask == LEFT).all()
        (item,), _ = files.of_picture(Path("b.png"), SIZE)
        assert item.score == 0.4

    def test_crowds_are_left_out_and_boxes_without_a_mask_are_told(self):
        files = coco([image(1, "a.jpg")], [row(1, LEFT, iscrowd=1), row(1, []), row(1, RIGHT)])
        masks, notes = files.of_picture(Path("a.jpg"), SIZE)
        assert len(masks) == 1 and notes == ("1 annotations of coco.json are boxes without a mask",)

    def test_a_picture_without_objects_has_none(self):
        assert coco([image(1, "a.jpg")], []).of_picture(Path("a.jpg"), SIZE) == ([], ())

    def test_frames_are_the_pictures_in_the_order_of_their_numbers(self):
        images = [image(1, "f10.png"), image(2, "f9.png")]
        files = coco(images, [row(1, LEFT), row(2, RIGHT)])
        assert (files.of_frame(0, SIZE)[0][0].mask == RIGHT).all() and (
            files.of_frame(1, SIZE)[0][0].mask == LEFT
        ).all()
        assert files.of_frame(2, SIZE)[0] == [] and "more frames" in files.of_frame(2, SIZE)[1][0]

    def test_masks_of_another_size_are_refused(self):
        with pytest.raises(PictureError, match="6x8 pixels, and it has 8x6"):
            coco([image(1, "a.jpg", (6, 8))], [row(1, LEFT)]).of_picture(Path("a.jpg"), SIZE)
        with pytest.raises(PictureError, match="mask is 6x8"):
            coco([image(1, "a.jpg")], [row(1, LEFT.T)]).of_picture(Path("a.jpg"), SIZE)

    @pytest.mark.parametrize(
        "content", [7, {}, [1], {"annotations": []}, {"annotations": [{}], "images": []}, {"schema": "other/1"}]
    )
    def test_what_is_no_coco_file_is_one_line(self, content):
        with pytest.raises(PictureError, match=r"cannot read masks from wrong\.json"):
            MaskFiles(write("wrong.json", content))

    def test_a_damaged_annotation_is_named(self):
        files = coco([image(1, "a.jpg")], [row(1, {"size": [6, 8], "counts": "~~"})])
        with pytest.raises(PictureError, match=r"annotation 1 of coco\.json is damaged"):
            files.of_picture(Path("a.jpg"), SIZE)


class TestLabelPictures:
    def test_numbers_are_objects_and_parts_of_one_are_one(self):
        labels = np.zeros((6, 8), np.uint16)
        labels[0, 0] = labels[5, 7] = 300
        labels[3, 3] = 2
        Image.fromarray(labels).save("a_masks.png")
        Path("labels.json").write_text('{"2": "dog"}')
        masks, _ = MaskFiles(Path("a_masks.png")).of_picture(Path("a.jpg"), SIZE)
        assert [(item.label, item.class_id, int(item.mask.sum())) for item in masks] == [
            ("dog", 2, 1),
            ("object 300", None, 2),
        ]

    def test_a_palette_gives_its_numbers_and_not_its_colours(self):
        picture = Image.fromarray(LEFT.astype(np.uint8) * 5)
        picture.putpalette([200, 10, 10] * 256)
        assert picture.mode == "P"
        picture.save("a.png")
        (item,), _ = MaskFiles(Path("a.png")).of_picture(Path("a.jpg"), SIZE)
        assert item.label == "object 5" and (item.mask == LEFT).all()

    def test_colour_and_another_size_are_refused(self):
        Image.new("RGB", SIZE).save("a.png")
        with pytest.raises(PictureError, match="not gray"):
            MaskFiles(Path("a.png")).of_picture(Path("x.jpg"), SIZE)
        Image.new("L", (4, 3), 1).save("b.png")
        with pytest.raises(PictureError, match="4x3 pixels, the picture 8x6"):
            MaskFiles(Path("b.png")).of_picture(Path("x.jpg"), SIZE)

    def test_a_folder_has_a_file_for_each_picture_which_is_never_the_picture(self):
        Path("m").mkdir()
        Image.fromarray(LEFT.astype(np.uint8)).save("m/a.png")
        Image.fromarray(RIGHT.astype(np.uint8)).save("m/a_mask.png")
        files = MaskFiles(Path("m"))
        assert (files.of_picture(Path("p/a.jpg"), SIZE)[0][0].mask == RIGHT).all()
        Path("m/a_mask.png").unlink()
        assert (files.of_picture(Path("p/a.jpg"), SIZE)[0][0].mask == LEFT).all()
        with pytest.raises(UsageError, match=r"no masks of a\.png"):
            files.of_picture(Path("m/a.png"), SIZE)


class TestOurs:
    def test_objects_come_back_as_they_were_written(self):
        plain = {"label": "dog", "class": 18, "score": 0.7, "box": [0, 0, 3, 6], "mask": rle.encode(LEFT)}
        document = {"schema": SCHEMA, "objects": [plain, {"mask": rle.encode(RIGHT), "label": None, "track": 4}]}
        first, second = MaskFiles(write("a_objects.json", document)).of_picture(Path("a.jpg"), SIZE)[0]
        assert (first.label, first.class_id, first.score, first.box) == ("dog", 18, 0.7, (0, 0, 3, 6))
        assert (second.name, second.track) == ("object", 4) and (second.mask == RIGHT).all()

    def test_lines_are_the_frames_of_a_clip(self):
        lines = [{"schema": SCHEMA, "frame": n, "objects": [{"mask": rle.encode(LEFT)}] * n} for n in (1, 2)]
        Path("c.jsonl").write_text("\n".join(map(json.dumps, lines)))
        files = MaskFiles(Path("c.jsonl"))
        assert [len(files.of_frame(n, SIZE)[0]) for n in range(4)] == [0, 1, 2, 0]
        with pytest.raises(UsageError, match="is of a clip"):
            files.of_picture(Path("a.jpg"), SIZE)


@pytest.mark.parametrize("name", ["none.json", "a.txt"])
def test_a_missing_file_and_one_of_another_kind_are_refused(name):
    if name == "a.txt":
        Path(name).write_text("x")
    with pytest.raises(UsageError, match=name):
        MaskFiles(Path(name))
