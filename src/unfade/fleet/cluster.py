"""`restore` on a Ray cluster: Ray hands the shards of a run to processes, and their journals are the truth.

Each process loads the networks once and works on one shard after another, as one started with `shard` does. Only names
and journal entries pass through Ray, no pixels. A shard whose process is lost goes to another, or to the next run.
"""

import io
import logging
import os
import pickle
import socket
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from unfade.errors import BadInput, UnfadeError
from unfade.images.finding import Found
from unfade.jobs.journal import Entry
from unfade.jobs.runs import JOURNAL
from unfade.jobs.shards import Portion, Shard, every_share
from unfade.jobs.stores import anywhere, copies, is_store, shards_in
from unfade.jobs.workers import as_text, cores, one_thread
from unfade.processes import unheard
from unfade.progress import Progress
from unfade.recipes.restore import Restoration, RestoreSettings, load_restoration, photos_and_videos

EACH, MOST = 16, 4096  # photos of a shard on average; shards of a run
TRIES = 3  # how often a shard is begun again whose process died: one of its photos may be the reason
Share = tuple[Shard, Found, Found]  # its photos and videos
Ended = tuple[Shard, list[Entry] | Exception]


@dataclass
class Worker:
    """What a process of the fleet has to know, and the process itself, which Ray calls with shards."""

    photos: str
    out: str
    restorer: str | Path | Sequence[str | Path]
    settings: RestoreSettings
    aligned: bool
    device: str

    @cached_property
    def restoration(self) -> Restoration:
        """The networks, loaded at the first shard, where an error can be told."""
        return load_restoration(self.restorer, self.settings, aligned=self.aligned, device=self.device)

    def __call__(self, rows: Mapping[str, Any]) -> dict[str, list[bytes]]:
        """From each `Share` to what became of it, pickled."""
        return {"ended": [pickle.dumps(self._ended(*pickle.loads(share))) for share in rows["share"]]}

    def _ended(self, shard: Shard, photos: Found, films: Found) -> Ended:
        """Errors are returned, not raised: Ray would neither retry nor report them in one sentence."""
        try:
            with one_thread(), copies(self.photos, photos, self.out, shard) as (here, out):
                return shard, self.restoration.restore_found(here, films, out, asked=self.photos, shard=shard)
        except Exception as error:
            return shard, error if isinstance(error, UnfadeError) else as_text(error)


def restore(work: Worker, *, fleet: str, portion: Portion, progress: Progress) -> list[Entry]:
    """As `recipes.restore.restore`, by a Ray cluster: `fleet` is its address, or "auto" for one on this machine.

    All machines need the same folders, or the places are in object stores. The run keeps the number of shards with
    which it began. Raises what that raises, when the other shards have ended, and UnfadeError for shards given up.
    """
    if find_spec("ray") is None:
        raise BadInput('A fleet needs Ray, which is not installed: pip install "unfade[fleet]"')
    if work.settings.report or not portion.shard.is_whole:
        raise BadInput("A fleet divides a run into shards itself: leave out `shard` and `report`, or `fleet`.")
    work.settings.check(aligned=work.aligned)
    photos, out = anywhere(work.photos), anywhere(work.out)
    found = photos_and_videos(photos, out, aligned=work.aligned, portion=portion)
    items = sum(len(each.names) for each in found)
    shards = shards_in(out, min(MOST, -(-items // EACH)))
    left, shares = (
        dict.fromkeys(shards),
        [*zip(shards, *(every_share(each, len(shards)) for each in found), strict=True)],
    )
    entries, wrong = list[Entry](), list[Exception]()
    with _cluster(fleet) as there, progress("restored", items) as advance:
        device, count, needs = _processes(work.device, there)
        worker = replace(work, photos=photos, out=out, device=device)
        for shard, ended in _ended(worker, shares, min(count, len(shards)), needs):
            left.pop(shard)
            if isinstance(ended, Exception):
                wrong.append(ended)
                continue
            if ended and not (is_store(out) or Path(out, shard.named(JOURNAL)).exists()):
                wrong.append(BadInput(f"{out} is another folder on another machine; name one that all share."))
            entries += ended
            advance(len(ended))
    why = f"was given up: its process died {TRIES + 1} times, perhaps for lack of memory"
    for error in (*wrong, *(UnfadeError(f"Shard {shard} {why}; run again, or try it by `shard`.") for shard in left)):
        raise error
    return sorted(entries, key=lambda entry: entry.item)


def _processes(device: str, there: Mapping[str, float]) -> tuple[str, int, dict[str, int]]:
    """The device of each process (Ray shows it no other GPU), how many there are, and what each asks Ray for."""
    kind = "GPU" if device.startswith("cuda") or (device == "auto" and there.get("GPU")) else "CPU"
    if not (count := int(there.get(kind, 0))):
        raise BadInput(f"The fleet has no {kind}; choose another `device`, or add machines that have one.")
    return {"GPU": "cuda", "CPU": "cpu" if device == "auto" else device}[kind], count, {f"num_{kind.lower()}s": 1}


def _ended(worker: Worker, shares: Sequence[Share], count: int, needs: Mapping[str, int]) -> Iterator[Ended]:
    """What becomes of the shards, in the order in which they end; those that are given up are left out."""
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars, context.max_errored_blocks = False, -1
    rows = ray.data.from_items([{"share": pickle.dumps(share)} for share in shares], override_num_blocks=len(shares))
    pool = ray.data.ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=1)  # none waits for a busy one
    how: Any = {"max_task_retries": TRIES, **needs}  # no limit of restarts: Ray would wait forever for a process
    with warnings.catch_warnings(action="ignore"):  # a limit of retries has no other name yet
        ended = rows.map_batches(Worker, fn_constructor_kwargs=vars(worker), batch_size=1, compute=pool, **how)
    return (pickle.loads(row["ended"]) for row in ended.iter_rows())


@contextmanager
def _cluster(fleet: str) -> Iterator[Mapping[str, float]]:
    """Join a cluster, or start one on this machine for as long as the block lasts; the resources that it has."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}  # read when Ray is imported
    address = os.environ.get("RAY_ADDRESS", "local") if fleet == "auto" else fleet
    own: Any = {"num_cpus": cores(), "include_dashboard": False} if address == "local" else {}
    if own:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # Ray's name for: servers on 127.0.0.1 alone
    import ray

    with redirect_stdout(io.StringIO()):  # where Ray tells of processes that died
        try:
            host, _, port = address.rpartition(":")
            if not own:  # Ray would try for a quarter of an hour
                socket.create_connection((host, int(port)), timeout=10).close()
            with unheard():  # that little is logged
                ray.init(address, log_to_driver=False, logging_level=logging.CRITICAL, **own)
        except (OSError, ValueError) as error:
            raise BadInput(f"No Ray cluster at {address} answers ({error}); give `fleet` as HOST:PORT.") from error
        try:
            yield ray.cluster_resources()
        finally:
            ray.shutdown()
