"""Time and memory of planning a manifest of a million rows: reading it, choosing a shard, naming the results.

With --gather instead of adding up 64 shards with as many items, whose journals are written first.

python benchmarks/manifest.py [--rows 1000000] [--shard 1/1] [--most-seconds 30] [--most-mb 500] [--gather]
"""

import argparse
import json
import os
import resource
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch  # its own memory is part of what a run needs

from unfade.images.film_input import by_endings
from unfade.images.finding import RUN
from unfade.jobs.gather import gather
from unfade.jobs.journal import Entry
from unfade.jobs.json_lines import JsonLines
from unfade.jobs.runs import ITEMS, JOURNAL
from unfade.jobs.shards import Portion, Shard, hashed
from unfade.stages.restore_photos import result_names


def write_manifest(file: Path, rows: int) -> None:
    """Names like those of an archive, all in one folder."""
    with file.open("w") as lines:
        for i in range(rows):
            lines.write(f"archive/reel_{i // 1000:05d}_frame_{i:08d}.jpg\n")


def peak() -> float:
    """The largest memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write_run(folder: Path, rows: int, shards: int = 64) -> None:
    """What shards leave behind that have restored everything."""
    (folder / RUN).write_text(json.dumps({"settings": {"shards": shards}}))
    for index in range(1, shards + 1):
        shard, names = Shard(index, shards), [f"reel_frame_{i:08d}.jpg" for i in range(index - 1, rows, shards)]
        JsonLines(folder / shard.named(ITEMS)).rewrite({"item": name} for name in names)
        done = [Entry("restored", name, "done", "0123456789abcdef", "", ("1 face",), (hashed(name),)) for name in names]
        begun = [replace(entry, status="begun", key="", notes=()) for entry in done]
        lines = (asdict(entry) for both in zip(begun, done, strict=True) for entry in both)
        JsonLines(folder / shard.named(JOURNAL)).rewrite(lines)


def add_up(folder: Path, rows: int) -> None:
    """Print what adding up takes, in a process of its own, as writing the journals needs memory too."""
    if os.fork() == 0:
        write_run(folder, rows)
        os._exit(0)
    os.wait()
    begin, own = time.perf_counter(), time.process_time()
    found = gather([folder])
    seconds, own = time.perf_counter() - begin, time.process_time() - own
    assert (found.adds_up, found.counts.done) == (True, rows)
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    print(f"{rows} items of 64 shards, {size:.0f} MB of journals: added up in {seconds:.1f} s", end=" ")
    print(f"({own:.1f} s of processor time) with at most {peak():.0f} MB")


def main() -> None:
    """Print the figures; fail where they are above the limits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--shard", default="1/1")
    parser.add_argument("--most-seconds", type=float, default=30)
    parser.add_argument("--most-mb", type=float, default=500)
    parser.add_argument("--gather", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.gather:
            add_up(Path(folder), args.rows)
            return
        manifest = Path(folder, "manifest.txt")
        write_manifest(manifest, args.rows)
        before, begin, own = peak(), time.perf_counter(), time.process_time()
        photos, _ = by_endings(Portion(Shard.parse(args.shard), manifest).photos(Path(folder), Path(folder, "out")))
        result_of = result_names(photos.names, None, hashed)
        places = {result_of(name.as_posix()).rpartition("/")[0] for name in photos.names}
        seconds, own = time.perf_counter() - begin, time.process_time() - own
    print(f"torch {torch.__version__} alone: {before:.0f} MB")
    print(f"{args.rows} rows, shard {args.shard}: {len(photos.names)} photos, results in {len(places)} folders")
    print(f"planned in {seconds:.1f} s ({own:.1f} s of processor time) with at most {peak():.0f} MB")
    if seconds > args.most_seconds or peak() > args.most_mb:
        raise SystemExit(f"more than {args.most_seconds:g} s or {args.most_mb:g} MB")


if __name__ == "__main__":
    main()
