"""Records in a result's XMP that a model took part in it; the packet's other entries stay."""

from dataclasses import dataclass
from xml.etree import ElementTree

from unfade.images.packets import EMPTY, RDF, parse_packet, rdf_of, write_packet

# IPTC NewsCodes, Digital Source Type: a photo with parts made by a trained model, and a picture made wholly by a model
COMPOSITE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
XMP = "{http://ns.adobe.com/xap/1.0/}"
OURS = "{urn:unfade:provenance:1.0/}"
PREFIXES = {"Iptc4xmpExt": IPTC[1:-1], "xmp": XMP[1:-1], "unfade": OURS[1:-1]}


@dataclass(frozen=True)
class Provenance:
    """The tool, model and settings that made a result."""

    tool: str  # with its version: "unfade 0.1.0"
    model: str  # its name in the table of weights, or the name of its file; of several, separated by commas
    sha256: str  # of the model's file, in hexadecimal; of several, in the same order
    settings: str  # everything needed to reproduce the result, in words or as JSON


def with_provenance(packet: bytes, provenance: Provenance) -> bytes:
    """An XMP packet (or b"") with `Iptc4xmpExt:DigitalSourceType` set and the note of tool, model and settings.

    The note has a name space of its own; `Iptc4xmpExt:AISystemUsed` (IPTC 2025.1) and `xmp:CreatorTool` are added
    where the packet has none. A source type for wholly generated pictures says more and stays. A packet that cannot be
    parsed is replaced.
    """
    root = parse_packet(packet)
    root = ElementTree.fromstring(EMPTY) if root is None else root
    rdf = rdf_of(root)
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
    return write_packet(root, PREFIXES)


def _values(rdf: ElementTree.Element, name: str) -> list[str]:
    """The values of a name in the packet, where it may be an attribute or an element."""
    attributes = [about.attrib[name] for about in rdf.findall(f"{RDF}Description") if name in about.attrib]
    elements = [child for about in rdf.findall(f"{RDF}Description") for child in about.findall(name)]
    return attributes + ["".join(child.itertext()) or child.get(f"{RDF}resource", "") for child in elements]


def _set(rdf: ElementTree.Element, about: ElementTree.Element, name: str, text: str) -> None:
    for other in rdf.findall(f"{RDF}Description"):
        other.attrib.pop(name, None)
        for child in other.findall(name):
            other.remove(child)
    ElementTree.SubElement(about, name).text = "".join(sign for sign in text if sign.isprintable() or sign in "\n\t")
