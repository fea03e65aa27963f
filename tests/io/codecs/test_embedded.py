"""Depth maps inside of JPEG photos, as cameras of phones write them: numbers, units, and what is refused."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from depthcli.choices.source import SourceChoice
from depthcli.depthmap import DepthKind
from depthcli.errors import DepthError, PictureError, UsageError
from depthcli.io.codecs.embedded import read_embedded
from depthcli.io.codecs.foreign import is_ray, read_map

CODES = (np.arange(12, dtype=np.uint16).reshape(3, 4) * 5957).clip(0, 65535)  # from 0 to 65527
XMP, MORE_XMP = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"


def png(codes: np.ndarray = CODES) -> bytes:
    done, data = cv2.imencode(".png", codes)
    assert done
    return data.tobytes()


def photo(*segments: bytes, orientation: int = 1, behind: bytes = b"") -> Path:
    """A JPEG of 8x6 pixels with segments APP1 in front of its own."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif.get_ifd(0x8769)[0xA405] = 26
    stream = io.BytesIO()
    Image.new("RGB", (8, 6)).save(stream, "JPEG", exif=exif)
    data = stream.getvalue()
    parts = b"".join(b"\xff\xe1" + (len(part) + 2).to_bytes(2, "big") + part for part in segments)
    Path("a.jpg").write_bytes(data[:2] + parts + data[2:] + behind)
    return Path("a.jpg")


def gdepth(data: bytes = b"", **facts: object) -> bytes:
    facts = {"Format": "RangeInverse", "Near": 0.5, "Far": 8, "Mime": "image/png", "Units": "m", **facts}
    if data:
        facts["Data"] = base64.b64encode(data).decode()
    listed = " ".join(f'GDepth:{name}="{value}"' for name, value in facts.items() if value is not None)
    return XMP + f'<x:xmpmeta><rdf:Description xmlns:GDepth="http://ns" {listed}/></x:xmpmeta>'.encode()


def test_both_formulas_give_near_for_black_and_far_for_white():
    n = CODES / 65535
    inverse = read_embedded(photo(gdepth(png())))
    assert inverse.metric and not inverse.ray
    assert np.allclose(1 / inverse.values, 2 + n * (1 / 8 - 2), rtol=1e-6)
    linear = read_embedded(photo(gdepth(png(), Format="RangeLinear", Units="mm", Near=500, Far=8000)))
    assert np.allclose(linear.values, 0.5 + n * 7.5, rtol=1e-6)


def test_a_map_of_8_bits_in_jpeg_is_read_too():
    stream = io.BytesIO()
    Image.fromarray(np.full((3, 4), 255, np.uint8)).save(stream, "JPEG")
    assert np.allclose(read_embedded(photo(gdepth(stream.getvalue(), Mime="image/jpeg"))).values, 8, rtol=1e-6)


def test_a_large_map_lies_in_parts_of_extended_xmp_in_any_order():
    encoded = base64.b64encode(png()).decode()
    document = f'<x:xmpmeta><rdf:Description GDepth:Data="{encoded}"/></x:xmpmeta>'.encode()
    guid, half = b"36BE52D449F3E6B9760D7602FF75168D", len(document) // 2
    parts = [
        MORE_XMP + guid + len(document).to_bytes(4, "big") + at.to_bytes(4, "big") + document[at:end]
        for at, end in ((half, None), (0, half))
    ]
    found = read_embedded(photo(gdepth(), *parts))
    assert np.array_equal(found.values, read_embedded(photo(gdepth(png()))).values)


def test_dynamic_depth_stands_behind_the_picture_before_other_files():
    data = png()
    items = "".join(
        f'<rdf:li><Container:Item Item:Mime="image/png" Item:Length="{length}" Item:DataURI="{name}"/></rdf:li>'
        for name, length in (("primary_image", 0), ("gain", 5), ("android/depthmap", len(data)), ("confidence", 3))
    )
    about = 'DepthMap:Format="RangeLinear" DepthMap:Near="1" DepthMap:Far="3" DepthMap:Units="Meters"'
    text = f'<rdf:Seq>{items}</rdf:Seq><Camera:DepthMap {about} DepthMap:DepthURI="android/depthmap"/>'
    found = read_embedded(photo(XMP + text.encode(), behind=b"12345" + data + b"123"))
    assert found.metric and np.allclose(found.values, 1 + CODES / 65535 * 2, rtol=1e-6)


def test_the_map_is_turned_as_its_photo_and_has_its_camera():
    plain = read_embedded(photo(gdepth(png())))
    turned = read_embedded(photo(gdepth(png()), orientation=6))
    assert np.array_equal(turned.values, np.rot90(plain.values, -1))
    focal = 26 / 43.267 * np.hypot(8, 6) / 2  # the map has half the size of the photo
    assert plain.camera is not None and plain.camera.focal == pytest.approx((focal, focal), rel=1e-4)
    assert turned.camera is not None and turned.camera.center == (1, 1.5)


def test_without_a_unit_the_numbers_are_no_metres_unless_the_user_says_so():
    path = photo(gdepth(png(), Units=None, Near=29.3, Far=878.7))
    assert read_map(path).kind is DepthKind.RELATIVE_DEPTH
    assert read_map(path, SourceChoice("gdepth", "metric_depth")).kind is DepthKind.METRIC_DEPTH
    with pytest.raises(UsageError, match="grow with the distance"):
        read_map(path, SourceChoice(None, "relative_disparity"))
    assert read_map(photo(gdepth(png()))).kind is DepthKind.METRIC_DEPTH


def test_distances_along_the_rays_are_told_by_the_file():
    assert is_ray(photo(gdepth(png(), MeasureType="OpticRay")), SourceChoice())
    assert not is_ray(photo(gdepth(png())), SourceChoice(depth_is="ray"))


AWAY = XMP + b'<a DepthMap:DepthURI="x" DepthMap:Near="1" DepthMap:Far="2"/>'


@pytest.mark.parametrize(
    ("segment", "reason"),
    [
        (b"Exif", "a.jpg holds no depth"),
        (gdepth(png(), Near=0), "reaches from 0 to 8, which no RangeInverse does"),
        (gdepth(png(), Near=9), "reaches from 9 to 8"),
        (gdepth(png(), Far="nan"), "reaches from 0.5 to nan"),
        (gdepth(png(), Near="far"), "could not convert"),
        (gdepth(png()[:40]), "the depth in a.jpg"),
        (gdepth(b"text"), "the depth in it is not a picture"),
        (gdepth().replace(b"/>", b' GDepth:Data="*"/>'), "no base64"),
        (AWAY, "its directory has no x"),
        (AWAY + b'<b Item:DataURI="x" Item:Length="9999"/>', "does not fit its length"),
    ],
)
def test_what_makes_no_sense_is_one_line(segment: bytes, reason: str):
    with pytest.raises(DepthError, match=reason) as told:
        read_map(photo(segment))
    assert "\n" not in str(told.value)


def test_other_files_are_no_photos_with_depth():
    Path("b.jpg").write_bytes(b"no")
    with pytest.raises(PictureError, match="it is no JPEG"):
        read_map(Path("b.jpg"))
    Path("b.png").write_bytes(png())
    with pytest.raises(DepthError, match=r"b\.png is no JPEG"):
        read_map(Path("b.png"), SourceChoice("gdepth"))


def test_convert_takes_photos_from_a_folder_if_they_are_asked_for(depth):
    Path("in").mkdir()
    photo(gdepth(png())).rename("in/a.jpg")
    assert "there is no depth file in in" in depth("convert", "in", "-f", "exr", "-o", "out").err
    ran = depth("convert", "in", "--from", "gdepth", "-f", "exr", "-o", "out")
    assert ran.lines == ["out/a.exr"] and "0 of" not in ran.err
    assert depth("convert", "in/a.jpg", "-f", "mm", "-o", "one.png").code == 0
    assert cv2.imread("one.png", -1)[0, 0] == 500
