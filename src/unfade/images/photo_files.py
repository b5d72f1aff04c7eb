"""Reading whole photos from files and writing them; the names of several files of this room in one place."""

from unfade.images.decoding import read_photo
from unfade.images.encoding import encode_photo, lost_in, suffix_for
from unfade.images.finding import Found, find_photos, find_pictures, in_words, join_passed_over
from unfade.images.photo import Photo
from unfade.images.provenance import Provenance
from unfade.images.tone import Tone, tone_of

__all__ = [
    "Found",
    "Photo",
    "Provenance",
    "Tone",
    "encode_photo",
    "find_photos",
    "find_pictures",
    "in_words",
    "join_passed_over",
    "lost_in",
    "read_photo",
    "suffix_for",
    "tone_of",
]
