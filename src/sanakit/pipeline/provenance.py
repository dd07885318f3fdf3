"""The machine-readable label of pictures that a model made: IPTC's digital source type in an XMP packet.

IPTC Photo Metadata 2025.1 asks for `Iptc4xmpExt:DigitalSourceType` with a term of the vocabulary
http://cv.iptc.org/newscodes/digitalsourcetype/; search engines and news agencies read it. XMP Specification Part 3
(section 1.1.5) says where a PNG keeps the packet. C2PA uses the same terms, see `signing`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.sax.saxutils import quoteattr

from sanakit.pipeline.request import ImageRequest

XMP_CHUNK = "XML:com.adobe.xmp"
"""The keyword of the iTXt chunk of a PNG that holds an XMP packet."""

TERMS = "http://cv.iptc.org/newscodes/digitalsourcetype/"
GENERATED = f"{TERMS}trainedAlgorithmicMedia"
EDITED = f"{TERMS}compositeWithTrainedAlgorithmicMedia"
MEANINGS = {
    GENERATED: "made by a trained model",
    EDITED: "a picture that a trained model changed",
}
"""What a label means, for a reader; other programs use further terms."""

_PACKET_ID = "W5M0MpCehiHzreSzNTczkc9d"  # the same in every XMP packet
_SPACES = {
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
}
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, section 2.2
_SOURCE_TYPE = re.compile(
    r"\w{1,32}:DigitalSourceType\s{0,8}(?:=\s{0,8}[\"']|>|\s+rdf:resource\s{0,8}=\s{0,8}[\"'])\s{0,64}"
    r"(https?://[\w./#-]{1,160})"
)
_MOST_XMP = 1 << 20  # characters; the label stands near the beginning of any packet


def source_type(request: ImageRequest) -> str:
    """Return the digital source type of a request's pictures: `EDITED` if it changes a picture, else `GENERATED`."""
    return GENERATED if request.source is None else EDITED


def write_xmp(request: ImageRequest, made: Mapping[str, str]) -> str:
    """Return the XMP packet of a picture of `request`. made: as in `Record`; its model and version are named.

    A JPEG or WebP takes the same packet: `image.save(..., xmp=write_xmp(request, made).encode())`.
    """
    version = made.get("version", "")
    properties = {
        "Iptc4xmpExt:DigitalSourceType": source_type(request),
        "Iptc4xmpExt:AISystemUsed": f"sanakit, model {made['model']}" if "model" in made else "sanakit",
        **({"Iptc4xmpExt:AISystemVersionUsed": version} if version else {}),
        "xmp:CreatorTool": f"sanakit {version}".rstrip(),
    }
    spaces = "".join(f' xmlns:{name}="{address}"' for name, address in _SPACES.items())
    values = "".join(f"\n   {name}={_attribute(value)}" for name, value in properties.items())
    return (
        f'<?xpacket begin="\ufeff" id="{_PACKET_ID}"?>\n'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">\n'
        ' <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\n'
        f'  <rdf:Description rdf:about=""{spaces}{values}/>\n'
        " </rdf:RDF>\n"
        "</x:xmpmeta>\n"
        '<?xpacket end="r"?>'
    )


def read_source_type(xmp: str) -> str | None:
    """Return the digital source type that an XMP packet states, None if it states none.

    Searched for as text, as an XML parser would expand whatever entities a stranger's packet defines.
    """
    found = _SOURCE_TYPE.search(xmp[:_MOST_XMP])
    return found[1] if found else None


def _attribute(value: str) -> str:
    return quoteattr(_NO_XML.sub("", value))
