"""Memory of the page beyond the networks, at most 200 MB, and the time until its first restored photo, at most 60 s.

    python benchmarks/page_memory.py [--photo FILE] [--repeat 3]

Two processes restore the same photo with the same networks: one calls `unfade.restore`, the other is the page, which
gets the photo over HTTP as a browser sends it, and looks for its faces to show them. What the second holds at its end
(resident pages) beyond what the first does is the page's own: Gradio, its server, and the photo as shown. Needs the
extra `app`.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import unfade

MOST, LATEST = 200.0, 60.0  # MB, s
SAMPLE = min((Path(unfade.__file__).parent / "samples" / "held_out_photos").iterdir())
TELLS = """
import re, time
from pathlib import Path
print(int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024 / 1e6, time.process_time())
"""
NETWORKS = """
import sys
import unfade
(entry,) = unfade.restore(sys.argv[1], sys.argv[2] + "/restored", "small-restorer", device="cpu")
assert entry.status == "done", entry.reason
"""
PAGE = """
import json, sys, urllib.request
from pathlib import Path
from unfade.app.page import serve

photo, work = Path(sys.argv[1]), Path(sys.argv[2])
address = serve(work, device="cpu") + "gradio_api"

def asked(path, body=None, **headers):
    with urllib.request.urlopen(urllib.request.Request(address + path, body, headers)) as answer:
        return answer.read().decode()

edge = "edge-of-a-file"
form = f'--{edge}\\r\\nContent-Disposition: form-data; name="files"; filename="{photo.name}"\\r\\n\\r\\n'.encode()
form += photo.read_bytes() + f"\\r\\n--{edge}--\\r\\n".encode()
(file,) = json.loads(asked("/upload", form, **{"Content-Type": f"multipart/form-data; boundary={edge}"}))
data = [{"path": file, "meta": {"_type": "gradio.FileData"}}, "small-restorer", 1.0, 0.5]
call = json.dumps({"data": data}).encode()
event = json.loads(asked("/call/restore", call, **{"Content-Type": "application/json"}))["event_id"]
said = asked(f"/call/restore/{event}")
assert "event: complete" in said, said
from unfade.app.looking import looked_at
assert looked_at(next(work.glob("*/photos/*"))).boxes
"""


@dataclass(frozen=True)
class Cost:
    """Of one process."""

    memory: float  # MB, at its end
    cpu: float  # s
    wall: float  # s


def main() -> None:
    """Print both, and leave with 1 if either is over its limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photo", type=Path, default=SAMPLE, help="default: a sample face")
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    turns = [(cost_of(NETWORKS, args.photo), cost_of(PAGE, args.photo)) for _ in range(args.repeat)]
    networks, page = ([turn[i].memory for turn in turns] for i in range(2))
    own = statistics.median(b - a for a, b in zip(networks, page, strict=True))
    wall, cpu = (statistics.median(getattr(turn[1], name) for turn in turns) for name in ("wall", "cpu"))
    print(f"networks alone {statistics.median(networks):.0f} MB, the page with them {statistics.median(page):.0f} MB")
    print(f"the page's own memory {own:.0f} MB (at most {MOST:.0f})")
    print(f"first restored photo after {wall:.1f} s (at most {LATEST:.0f}), {cpu:.1f} s of them on the processor")
    sys.exit(own > MOST or wall > LATEST)


def cost_of(script: str, photo: Path) -> Cost:
    """Of a script that gets the photo and an empty folder. Raises RuntimeError with what it said if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        command = [sys.executable, "-c", script + TELLS, str(photo), folder]
        done = subprocess.run(command, capture_output=True, text=True)
        wall = time.perf_counter() - begin
    if done.returncode:
        raise RuntimeError(done.stderr[-1000:])
    return Cost(*map(float, done.stdout.split()[-2:]), wall)


if __name__ == "__main__":
    main()
