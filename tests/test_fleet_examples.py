"""The command lines of the examples for clusters run, shard by shard, as a cluster would run them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tiny_models import write_faces
from unfade.jobs.gather import Gathered, gather
from unfade.jobs.shards import hashed

FLEET = Path(__file__).parents[1] / "examples" / "fleet"
SHARDS = 2


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Photos without a face, a list of them, and an `unfade` in bin/ that copies what has no face, which is quick."""
    faces = write_faces(tmp_path / "photos", 5)
    (tmp_path / "photos.txt").write_text("\n".join(face.name for face in faces))
    (tmp_path / "bin").mkdir()
    unfade = tmp_path / "bin" / "unfade"
    unfade.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m unfade "$@" --copy --identity none --device cpu\n')
    unfade.chmod(0o755)
    return tmp_path


def bash(archive: Path, *words: str, **variables: str) -> None:
    path = f"{archive / 'bin'}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["bash", *words], check=True, env={**os.environ, "PATH": path, **variables})


def check(archive: Path, found: Gathered, *folders: Path) -> None:
    assert (found.adds_up, found.expected, found.counts.no_face) == (True, 5, 5)
    written = {path.relative_to(folder).as_posix() for folder in folders for path in folder.rglob("*.png")}
    assert written == {hashed(path.name) for path in (archive / "photos").iterdir()}


def test_slurm(archive: Path) -> None:
    script, out = FLEET / "slurm.sh", archive / "out"
    assert re.search(r"^#SBATCH --array=1-\d+$", script.read_text(), re.MULTILINE), "shards are counted from 1"
    for index in range(1, SHARDS + 1):
        given = {"SLURM_ARRAY_TASK_ID": str(index), "SLURM_ARRAY_TASK_COUNT": str(SHARDS), "SLURM_CPUS_PER_TASK": "1"}
        bash(archive, str(script), str(archive / "photos"), str(archive / "photos.txt"), str(out), **given)
    check(archive, gather([out]), out)


def test_kubernetes(archive: Path) -> None:
    text = (FLEET / "kubernetes.yaml").read_text()
    (count,) = set(re.findall(r"(?:completions|parallelism|maxFailedIndexes): (\d+)", text))
    (folded,) = re.findall(r"- >-\n((?: {14}.*\n)+)", text)
    command = " ".join(folded.split())
    assert f"/{count} --quiet" in command
    command = command.replace(f"/{count} ", f"/{SHARDS} ").replace("/archive", str(archive))
    for index in range(SHARDS):  # an index counts from 0
        bash(archive, "-c", command, JOB_COMPLETION_INDEX=str(index), OMP_NUM_THREADS="1")
    folders = [archive / "restored" / str(index) for index in range(SHARDS)]
    check(archive, gather(folders), *folders)
