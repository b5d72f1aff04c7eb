"""Flags that several commands share; `cli/settings.py` makes settings of them."""

from pathlib import Path
from typing import Annotated, Any

import typer

# Panels of the help, in this order.
BASIC, FACES, PRIOR, TRAINING, OUTPUT = "Basic", "Faces", "Prior", "Training", "Output"
# Settings of the built-in models, which the help names; those of other restorers are of their family.
USUAL: dict[str, object] = {
    "start": 6, "free_from": 3, "factor": 4, "spacing": "20", "update": "ddim", "begin_with": "restored",
    "by_damage": True, "agreement": 3.0, "rounds": 1, "steps": 80, "batch": 8, "micro_batch": 8, "learning_rate": 1e-4,
    "flip": True, "hold_out": 0.1, "redegraded": 1.0, "clean": "drawn", "perceptual": "prior",
    "perceptual_weight": 0.5, "gan_weight": 0.0, "precision": "bfloat16",
}  # fmt: skip


def option(panel: str, text: str, *names: str, usual: str = "", **how: Any) -> Any:
    """A flag in a panel of the help; `usual` is the name of the setting in USUAL that its text ends with."""
    told = f"{text} Default: {_in_words(USUAL[usual])}." if usual else text
    return typer.Option(*names, help=told, rich_help_panel=panel, **how)


def _in_words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


Photos = Annotated[Path, typer.Argument(help="Folder of photos; folders below it are searched too. Or one photo.")]
Out = Annotated[Path, option(BASIC, "Folder that is filled.", "--out")]
OutFile = Annotated[Path, option(BASIC, "File of weights to write, ending in .safetensors.", "--out")]
Restorer = Annotated[str, option(BASIC, "Name of a restorer, a .safetensors file, or a run folder.")]
Prior = Annotated[str, option(BASIC, "Name of a prior or a .safetensors file.")]
Device = Annotated[str, option(BASIC, "auto, cpu, cuda, cuda:1, mps.")]
Seed = Annotated[int, option(BASIC, "Seed of everything random.")]
Json = Annotated[bool, option(OUTPUT, "Print one JSON object instead of words.", "--json")]
Quiet = Annotated[bool, option(OUTPUT, "Print nothing but errors.", "--quiet")]
PRECISIONS = "float32, or bfloat16 where the device computes in it."
Precision = Annotated[str, option(BASIC, PRECISIONS)]
TunedPrecision = Annotated[str | None, option(BASIC, PRECISIONS, usual="precision")]

Start = Annotated[int | None, option(PRIOR, "K: noise level to start from, in respaced steps.", usual="start")]
FreeFrom = Annotated[int | None, option(PRIOR, "L: respaced step below which the prior runs free.", usual="free_from")]
Factor = Annotated[int | None, option(PRIOR, "N of the low-pass filter, at the prior's size.", usual="factor")]
Spacing = Annotated[
    str | None, option(PRIOR, "How many of the 1000 steps are kept: 250, 100, ddim50, ...", usual="spacing")
]
Update = Annotated[str | None, option(PRIOR, "ddpm, ddim, ddim-eta0.5, or dpm++ (few steps, sharp).", usual="update")]
Agreement = Annotated[
    float | None,
    option(
        PRIOR,
        "Leave out targets whose colours differ from the photo's so many times as much as the median target's do; "
        "0: learn from all.",
        usual="agreement",
    ),
]
ByDamage = Annotated[
    bool | None,
    option(
        PRIOR,
        "Noise less damaged faces by less than K says; for restorers of one step.",
        "--by-damage/--same-start",
        usual="by_damage",
    ),
]
BeginWith = Annotated[
    str | None,
    option(PRIOR, "restored, or face: the prior begins with the face, not the restorer's attempt.", usual="begin_with"),
]
Fidelity = Annotated[
    float | None,
    option(
        BASIC,
        "0..1, for CodeFormer and restorers of one step (0.5 by default): 0 for the cleanest face, 1 for the closest "
        "to the input.",
    ),
]
Refine = Annotated[
    int | None,
    option(
        OUTPUT,
        "For restorers of one step: evaluations after the first, which bring back texture; 0 is smooth. Default: the "
        "restorer's own.",
        min=0,
        max=3,
    ),
]
Strength = Annotated[
    float, option(OUTPUT, "0..1: blends each result with its input; 0 is the input, 1 the restored picture.")
]

Rounds = Annotated[
    int | None,
    option(
        TRAINING,
        "How often targets are made and learned from; later ones begin with the adapted attempts.",
        usual="rounds",
    ),
]
Steps = Annotated[int | None, option(TRAINING, "Optimiser steps.", usual="steps")]
Batch = Annotated[int | None, option(TRAINING, "Pictures per optimiser step.", usual="batch")]
MicroBatch = Annotated[
    int | None, option(TRAINING, "Pictures per forward pass; gradients are accumulated.", usual="micro_batch")
]
LearningRate = Annotated[float | None, option(TRAINING, "Learning rate to begin with.", usual="learning_rate")]
Workers = Annotated[
    int | None,
    option(
        TRAINING,
        "Processes that prepare batches; 0: a thread. Default: what the cores and the work ask for.",
        min=0,
    ),
]
Flip = Annotated[bool | None, option(TRAINING, "Mirror half of the pairs.", "--flip/--no-flip", usual="flip")]
Redegraded = Annotated[
    float | None,
    option(
        TRAINING,
        "Share of the faces learned from that are clean ones, damaged as the photos are by a fitted degradation.",
        usual="redegraded",
    ),
]
HoldOut = Annotated[float | None, option(TRAINING, "Share of the pairs that is only watched.", usual="hold_out")]
Perceptual = Annotated[str | None, option(TRAINING, "prior, lpips or none.", usual="perceptual")]
PerceptualWeight = Annotated[
    float | None, option(TRAINING, "Weight of the perceptual term.", usual="perceptual_weight")
]
GanWeight = Annotated[
    float | None, option(TRAINING, "Weight of the adversarial term; 0: no discriminator.", usual="gan_weight")
]
CodeLosses = Annotated[
    str | None,
    option(
        TRAINING,
        "For CodeFormer: codes (default), or fusion: its feature fusion learns too, from pictures.",
    ),
]
Clean = Annotated[
    str | None,
    option(
        TRAINING,
        "What is damaged as the photos are: drawn (faces of nobody, for restorers up to 128 px), or targets.",
        usual="clean",
    ),
]
Real = Annotated[
    Path | None,
    option(
        TRAINING,
        "Folder of clean faces of anyone: damaged as the photos are, in place of the drawn ones, and taken for real "
        "by a discriminator.",
    ),
]

Aligned = Annotated[bool, option(BASIC, "The pictures are square face crops in FFHQ's framing.", "--aligned")]
Size = Annotated[
    str,
    option(
        OUTPUT,
        "With --aligned. photo: results of the size and format that came in; restorer: PNG of the network's own.",
    ),
]
Faces = Annotated[
    str | None, option(FACES, "all, largest, or numbers like 0,2 from left to right. Default: all.", "--faces")
]
MinFace = Annotated[
    float | None, option(FACES, "Width of the smallest face that is taken, px. Default: all that a quick look shows.")
]
MaxFace = Annotated[float | None, option(FACES, "Width of the largest face that is taken, px. Default: any.")]
MinScore = Annotated[float | None, option(FACES, "How sure the detector must be, 0.3..1. Default: 0.6.")]
Detector = Annotated[str | None, option(FACES, "yunet (default), retinaface-mobilenet, ... or a file.")]
Paste = Annotated[
    str | None,
    option(
        OUTPUT,
        "change (default): what the restorer changed is added, finer detail of the photo stays; "
        "face: the restored face replaces it; published: as facexlib and CodeFormer do.",
    ),
]
MatchColour = Annotated[
    bool, option(OUTPUT, "Match the colours of each face to the photo around it.", "--match-colour")
]
Colour = Annotated[bool, option(OUTPUT, "Faces of grey and sepia photos may come out in colour.", "--colour")]
Format = Annotated[str | None, option(OUTPUT, "png, jpeg, webp, tiff, bmp or avif. Default: the photo's own.")]
Quality = Annotated[int | None, option(OUTPUT, "1..100, of lossy formats. Default: that of the photo.")]
Copy = Annotated[bool, option(OUTPUT, "Copy photos without a face.", "--copy")]
Mask = Annotated[
    str | None,
    option(
        OUTPUT,
        "What tells face from hat and background when pasting: parsenet, a file, or none. Default: parsenet if it "
        "was pulled.",
    ),
]
Sidecar = Annotated[bool, option(OUTPUT, "Write a JSON file beside each result: boxes, landmarks, ...", "--sidecar")]
Background = Annotated[
    str | None,
    option(
        OUTPUT,
        "What lies around the faces. none: left as it is (usual); lanczos: enlarged (usual with --scale); "
        "realesrgan-x2 or a file: restored by that model, which needs the extra archs.",
    ),
]
Scale = Annotated[int | None, option(OUTPUT, "1, 2 or 4: how many times as large results are. Default: 1.")]
Identity = Annotated[
    str | None,
    option(
        OUTPUT,
        "What tells whether results resemble the faces: dlib-face (usual), sface, arcface-18, adaface-ir50, a "
        "file, or none.",
    ),
]
NoProvenance = Annotated[
    bool, option(OUTPUT, "Do not write into the result's metadata what made it.", "--no-provenance")
]

Kind = Annotated[str, typer.Option(help="blind (Eq. 9) or camera (Eq. 10).")]
Preset = Annotated[
    str | None,
    typer.Option(help="blind: swinir, gfpgan, codeformer, ...; camera: moderate, mild, severe, moderate-text, ..."),
]
Downsampling = Annotated[int | None, typer.Option(help="Downsampling ratio, instead of the preset's.")]
Iso = Annotated[float | None, typer.Option(help="camera: ISO, instead of the preset's.")]
Demosaic = Annotated[str | None, typer.Option(help="camera: edge-aware, bilinear, ...")]
SensorFile = Annotated[Path | None, typer.Option("--sensor", help="camera: JSON file with the numbers of another one.")]
Report = Annotated[
    bool, option(OUTPUT, "Write report.html beside the results: photos before and after, faces, notes.", "--report")
]
