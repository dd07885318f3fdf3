"""Every picture says in XMP that a model made it, and whose hand the rest is."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from PIL import Image

from sanakit.pipeline.inputs import InputImage
from sanakit.pipeline.png import Record, read_picture, write_picture
from sanakit.pipeline.provenance import EDITED, GENERATED, XMP_CHUNK, read_source_type, write_xmp
from sanakit.pipeline.request import ImageRequest

EXTENSION = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
REQUEST = ImageRequest(prompt="a cube")


def properties(xmp: str) -> dict[str, str]:
    """The properties of a packet as an XML parser reads them."""
    (described,) = ET.fromstring(xmp).iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    return dict(described.attrib)


def test_a_png_carries_the_label_where_xmp_wants_it(tmp_path: Path):
    made = {"model": "toybox", "version": "0.1.0"}
    path = write_picture(tmp_path / "a.png", Image.new("RGB", (8, 8)), Record(request=REQUEST, made=made))
    with Image.open(path) as image:
        found = properties(image.text[XMP_CHUNK])
    assert found[f"{EXTENSION}DigitalSourceType"] == GENERATED
    assert found[f"{EXTENSION}AISystemUsed"] == "sanakit, model toybox"
    assert found[f"{EXTENSION}AISystemVersionUsed"] == "0.1.0"
    # iTXt: keyword, then no compression (two zeros), no language, no translated keyword.
    assert b"iTXt" + XMP_CHUNK.encode() + b"\0\0\0\0\0<?xpacket" in path.read_bytes()
    assert read_picture(path).source_type == GENERATED


def test_what_was_made_of_a_picture_is_a_composite(tmp_path: Path):
    request = ImageRequest(prompt="a cube", source=InputImage.of(Image.new("RGB", (64, 64))))
    path = write_picture(tmp_path / "a.png", Image.new("RGB", (64, 64)), Record(request=request))
    assert read_picture(path).source_type == EDITED


def test_a_model_of_any_name_gives_a_packet_that_parses():
    made = {"model": "a\"<&\x00\x1b\ud800>'日", "version": "1"}
    assert properties(write_xmp(REQUEST, made))[f"{EXTENSION}AISystemUsed"] == "sanakit, model a\"<&>'日"


@pytest.mark.parametrize(
    "xmp",
    [
        f'<a Iptc4xmpExt:DigitalSourceType="{EDITED}"/>',
        f"<a iptcExt:DigitalSourceType = '{EDITED}'/>",
        f"<iptcExt:DigitalSourceType>\n  {EDITED}</iptcExt:DigitalSourceType>",
        f'<Iptc4xmpExt:DigitalSourceType rdf:resource="{EDITED}"/>',
    ],
)
def test_every_form_of_rdf_is_read(xmp: str):
    assert read_source_type(xmp) == EDITED


@pytest.mark.parametrize("xmp", ["", "DigitalSourceType", 'x:DigitalSourceType="no address"', "x:" * 100_000])
def test_what_is_no_label_is_none(xmp: str):
    assert read_source_type(xmp) is None
