"""XMP packets: parsing within limits, searching and writing."""

import contextlib
import io
import re
from collections.abc import Callable, Iterator
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
PREFIXES = {"x": "adobe:ns:meta/", "rdf": RDF[1:-1]}
EMPTY = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF[1:-1]}"/></x:xmpmeta>'
ORIENTATION = re.compile(rb"(tiff:Orientation(?:=[\"']|>)\s*)[0-9]")
DEEPEST = 100  # largest nesting of elements; a real packet has about ten
LARGEST = 1 << 24  # bytes
STRUCTURE = tuple(RDF + name for name in ("RDF", "Description", "li", "Seq", "Bag", "Alt", "value"))


def parse_packet(packet: bytes) -> Element | None:
    """The XML of an XMP packet; None where it holds no RDF.

    None too where it is not well-formed, larger or deeper than any real packet, or declares entities (as XML bombs do).
    """
    if len(packet) > LARGEST or b"<!DOCTYPE" in packet or b"<!ENTITY" in packet:
        return None
    try:
        parser = ElementTree.iterparse(io.BytesIO(packet), events=("start-ns", "start", "end"))
        depth = 0
        for event, said in parser:
            if event == "start-ns":
                _remember(*said)
            depth += {"start": 1, "end": -1}.get(event, 0)
            if depth > DEEPEST:
                return None
        root: Element = parser.root  # type: ignore[attr-defined]
        rdf_of(root)
    except (ElementTree.ParseError, ValueError, LookupError):
        return None
    return root


def write_packet(root: Element, prefixes: dict[str, str] | None = None) -> bytes:
    """The bytes of a packet, with its original name space prefixes and those given."""
    for prefix, uri in {**PREFIXES, **(prefixes or {})}.items():
        ElementTree.register_namespace(prefix, uri)
    body = ElementTree.tostring(root, encoding="unicode")
    return f'<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n{body}\n<?xpacket end="w"?>'.encode()


def edited(packet: bytes, edit: Callable[[Element], bool]) -> bytes:
    """The packet after `edit`, which returns whether it changed anything; byte for byte the same if not."""
    root = parse_packet(packet) if packet else None
    return write_packet(root) if root is not None and edit(root) else packet


def upright_packet(packet: bytes) -> bytes:
    """The packet with the orientation set to upright; unchanged where it states no orientation."""
    return ORIENTATION.sub(rb"\g<1>1", packet)


def rdf_of(root: Element) -> Element:
    """The RDF element of a packet. Raises ValueError where there is none."""
    for element in root.iter(f"{RDF}RDF"):
        return element
    raise ValueError("no RDF in it")


def children(root: Element) -> Iterator[tuple[Element, Element]]:
    """Every element with its parent; the children of an element may be removed meanwhile."""
    for parent in list(root.iter()):
        for child in list(parent):
            yield parent, child


def texts_of(element: Element, name: str) -> Iterator[tuple[str, Callable[[str], None]]]:
    """The values of a name in an element, as attribute or as child, each with a function that replaces it."""
    if name in element.attrib:
        yield element.attrib[name], lambda text: element.set(name, text)
    for child in element.findall(name):
        yield child.text or "", lambda text, child=child: setattr(child, "text", text)  # type: ignore[misc]


def space_of(name: str) -> str:
    """The name space of an element or attribute."""
    return name[1:].split("}", 1)[0] if name.startswith("{") else ""


def local(name: str) -> str:
    """The name without its name space."""
    return name.rsplit("}", 1)[-1]


def _remember(prefix: str, uri: str) -> None:
    """Keep the packet's own prefixes, as some programs recognize `dc:` only by its prefix."""
    if prefix:
        with contextlib.suppress(ValueError):  # ns0 and the like are ElementTree's own
            ElementTree.register_namespace(prefix, uri)
