"""Seeds from what they are for: no generator is shared, so nothing depends on order, batch size or restarts."""

import hashlib


def seed_for(*parts: object) -> int:
    """A seed in 0..2^63-1 that depends on every part (numbers, strings, bytes) and on nothing else."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode(errors="surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)  # the length keeps ("ab", "c") apart from ("a", "bc")
    return int.from_bytes(digest.digest()[:8], "big") >> 1
