"""Says in a result's XMP that a model had part in it; what the packet said before stays."""

import contextlib
import io
import re
from dataclasses import dataclass
from xml.etree import ElementTree

# IPTC NewsCodes, Digital Source Type: a photo in which parts come from a trained model, and a picture that is all model
COMPOSITE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
XMP = "{http://ns.adobe.com/xap/1.0/}"
OURS = "{urn:unfade:provenance:1.0/}"
PREFIXES = {"x": "adobe:ns:meta/", "rdf": RDF[1:-1], "Iptc4xmpExt": IPTC[1:-1], "xmp": XMP[1:-1], "unfade": OURS[1:-1]}
EMPTY = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF[1:-1]}"/></x:xmpmeta>'
ORIENTATION = re.compile(rb"(tiff:Orientation(?:=[\"']|>)\s*)[0-9]")


@dataclass(frozen=True)
class Provenance:
    """What made a result."""

    tool: str  # with its version: "unfade 0.1.0"
    model: str  # its name in the table, or its file's
    sha256: str  # of the model's file, in hexadecimal
    settings: str  # whatever is needed to do it again, in words or as JSON


def with_provenance(packet: bytes, provenance: Provenance) -> bytes:
    """An XMP packet (or b"") with `Iptc4xmpExt:DigitalSourceType` set and the note of tool, model and settings.

    The note has a name space of its own; `Iptc4xmpExt:AISystemUsed` (IPTC 2025.1) and `xmp:CreatorTool` are added
    where the packet has none. A source type that says "wholly generated" is the stronger word and stays. A packet that
    cannot be parsed is replaced.
    """
    root = parse_packet(packet)
    root = ElementTree.fromstring(EMPTY) if root is None else root
    rdf = _rdf(root)
    about = next(iter(rdf.findall(f"{RDF}Description")), None)
    if about is None:
        about = ElementTree.SubElement(rdf, f"{RDF}Description", {f"{RDF}about": ""})
    note = {"Tool": provenance.tool, "Model": provenance.model, "ModelSHA256": provenance.sha256}
    for name, text in {**note, "Settings": provenance.settings}.items():
        _set(rdf, about, OURS + name, text)
    if GENERATED not in _values(rdf, f"{IPTC}DigitalSourceType"):
        _set(rdf, about, f"{IPTC}DigitalSourceType", COMPOSITE)
    system = f"{provenance.tool}, {provenance.model}"
    for name, text in ((f"{IPTC}AISystemUsed", system), (f"{XMP}CreatorTool", provenance.tool)):
        if not _values(rdf, name):
            _set(rdf, about, name, text)
    return _packet(root)


def parse_packet(packet: bytes) -> ElementTree.Element | None:
    """The XML of an XMP packet, None where it is not well-formed, holds no RDF, or declares entities (a known bomb)."""
    if b"<!DOCTYPE" in packet or b"<!ENTITY" in packet:
        return None
    try:
        parser = ElementTree.iterparse(io.BytesIO(packet), events=("start-ns",))
        for _, (prefix, uri) in parser:
            _remember(prefix, uri)
        root: ElementTree.Element = parser.root  # type: ignore[attr-defined]
        _rdf(root)
    except (ElementTree.ParseError, ValueError, LookupError):
        return None
    return root


def upright_packet(packet: bytes) -> bytes:
    """The same packet saying that the photo is upright, as it now is; untouched where it says nothing of it."""
    return ORIENTATION.sub(rb"\g<1>1", packet)


def _rdf(root: ElementTree.Element) -> ElementTree.Element:
    for element in root.iter(f"{RDF}RDF"):
        return element
    raise ValueError("no RDF in it")


def _remember(prefix: str, uri: str) -> None:
    """Keep the packet's own prefixes; some programs know `dc:` only by its name."""
    if prefix:
        with contextlib.suppress(ValueError):  # ns0 and the like are ElementTree's own
            ElementTree.register_namespace(prefix, uri)


def _values(rdf: ElementTree.Element, name: str) -> list[str]:
    """What the packet says under a name, which may be written as an attribute or as an element."""
    attributes = [about.attrib[name] for about in rdf.findall(f"{RDF}Description") if name in about.attrib]
    elements = [child for about in rdf.findall(f"{RDF}Description") for child in about.findall(name)]
    return attributes + ["".join(child.itertext()) or child.get(f"{RDF}resource", "") for child in elements]


def _set(rdf: ElementTree.Element, about: ElementTree.Element, name: str, text: str) -> None:
    for other in rdf.findall(f"{RDF}Description"):
        other.attrib.pop(name, None)
        for child in other.findall(name):
            other.remove(child)
    ElementTree.SubElement(about, name).text = "".join(sign for sign in text if sign.isprintable() or sign in "\n\t")


def _packet(root: ElementTree.Element) -> bytes:
    for prefix, uri in PREFIXES.items():
        ElementTree.register_namespace(prefix, uri)
    body = ElementTree.tostring(root, encoding="unicode")
    return f'<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n{body}\n<?xpacket end="w"?>'.encode()
