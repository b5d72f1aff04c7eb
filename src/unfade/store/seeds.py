"""Seeds and fingerprints that depend only on their purpose, and not on order, batch size or restarts."""

import hashlib
import json
from dataclasses import asdict, is_dataclass


def seed_for(*parts: object) -> int:
    """A seed in 0..2^63-1 that depends on every part (numbers, strings, bytes) and on nothing else."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode(errors="surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)  # the length keeps ("ab", "c") apart from ("a", "bc")
    return int.from_bytes(digest.digest()[:8], "big") >> 1


def fingerprint(*parts: object) -> str:
    """16 hexadecimal digits that identify settings, weights and contents; the order of a mapping does not matter.

    Parts are values that JSON can hold, and frozen dataclasses of such values; anything else counts by its text.
    """
    text = json.dumps(parts, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(part: object) -> object:
    return asdict(part) if is_dataclass(part) and not isinstance(part, type) else str(part)
