"""Flags that several commands share; `cli/settings.py` makes settings of them."""

from pathlib import Path
from typing import Annotated, Any

import typer

# Panels of the help, in this order.
BASIC, FACES, PRIOR, TRAINING, OUTPUT = "Basic", "Faces", "Prior", "Training", "Output"
# Defaults for the built-in models, as the help shows them; other restorers use those of their family.
USUAL: dict[str, object] = {
    "start": 6, "free_from": 3, "factor": 4, "spacing": "20", "update": "ddim", "begin_with": "restored",
    "by_damage": True, "agreement": 3.0, "rounds": 1, "steps": 80, "batch": 8, "micro_batch": 8, "learning_rate": 1e-4,
    "flip": True, "hold_out": 0.1, "redegraded": 1.0, "clean": "drawn", "perceptual": "prior",
    "perceptual_weight": 0.5, "gan_weight": 0.0, "texture_weight": 0.4, "precision": "bfloat16",
}  # fmt: skip


def option(panel: str, text: str, *names: str, usual: str = "", **how: Any) -> Any:
    """A flag in a panel of the help; `usual` is the key in USUAL of the default that the help text ends with."""
    shown = f"{text} Default: {_in_words(USUAL[usual])}." if usual else text
    return typer.Option(*names, help=shown, rich_help_panel=panel, **how)


def _in_words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


Photos = Annotated[Path, typer.Argument(help="Folder of photos, searched with its subfolders, or a single photo.")]
Out = Annotated[Path, option(BASIC, "Folder for the results.", "--out")]
OutFile = Annotated[Path, option(BASIC, "File of weights to write, ending in .safetensors.", "--out")]
Restorer = Annotated[str, option(BASIC, "Name of a restorer, a .safetensors file, or a run folder.")]
Suited = Annotated[
    str | None,
    option(
        BASIC,
        "Name of a restorer, a .safetensors file, or a run folder. Default: small-restorer-256 if most faces cover "
        "more than 160 px of their photos, otherwise small-restorer.",
        "--restorer",
    ),
]
Restorers = Annotated[
    list[str] | None,
    option(
        BASIC,
        "Name of a restorer, a .safetensors file, or a run folder. Of several with different sizes, each face goes "
        "through the one that suits its own. Default: small-restorer and small-restorer-256.",
        "--restorer",
    ),
]
Prior = Annotated[
    str | None,
    option(
        BASIC,
        "Name of a prior or a .safetensors file. Default: small-prior, or small-prior-256 for restorers of 256 px.",
    ),
]
Device = Annotated[str, option(BASIC, "auto, cpu, cuda, cuda:1, mps.")]
Seed = Annotated[int, option(BASIC, "Seed of everything random.")]
Shard = Annotated[
    str | None,
    option(
        BASIC,
        "I/N: work on the I-th of N shares of the items, by a hash of their names; `unfade gather` adds them up.",
    ),
]
Manifest = Annotated[
    Path | None,
    option(BASIC, "File that lists the pictures, a path in each line, or Parquet; the folder is then not searched."),
]
Fleet = Annotated[
    str | None,
    option(
        BASIC,
        "Divide the work among the processes of a Ray cluster, which needs the extra fleet. auto: all cores of this "
        "machine (or the cluster that RAY_ADDRESS names); or the address of a cluster, such as head:6379.",
    ),
]
Layout = Annotated[
    str,
    option(
        OUTPUT,
        "names: results keep the photos' folders; hashed: spread over 4096 subfolders of each, for millions of photos.",
    ),
]
Json = Annotated[bool, option(OUTPUT, "Print one JSON object instead of words.", "--json")]
Quiet = Annotated[bool, option(OUTPUT, "Print nothing but errors.", "--quiet")]
PRECISIONS = "float32, or bfloat16 where the device supports it."
Precision = Annotated[str, option(BASIC, PRECISIONS)]
TunedPrecision = Annotated[str | None, option(BASIC, PRECISIONS, usual="precision")]

Start = Annotated[int | None, option(PRIOR, "K: step that the prior starts from, in respaced steps.", usual="start")]
FreeFrom = Annotated[
    int | None, option(PRIOR, "L: respaced step below which the prior is unconstrained.", usual="free_from")
]
Factor = Annotated[int | None, option(PRIOR, "N: factor of the low-pass filter, at the prior's size.", usual="factor")]
Spacing = Annotated[
    str | None, option(PRIOR, "How many of the prior's 1000 steps are used: 250, 100, ddim50, ...", usual="spacing")
]
Update = Annotated[
    str | None, option(PRIOR, "Sampler: ddpm, ddim, ddim-eta0.5, or dpm++ (few steps, sharp).", usual="update")
]
Agreement = Annotated[
    float | None,
    option(
        PRIOR,
        "Leave out targets whose colours differ from their photo by more than this many times the median difference, "
        "and those that show another person; 0: use all.",
        usual="agreement",
    ),
]
ByDamage = Annotated[
    bool | None,
    option(
        PRIOR,
        "Start lower than K for faces that are less degraded; one-step restorers only.",
        "--by-damage/--same-start",
        usual="by_damage",
    ),
]
BeginWith = Annotated[
    str | None,
    option(
        PRIOR,
        "What the prior starts from: restored (the restorer's output) or face (the degraded face).",
        usual="begin_with",
    ),
]
Fidelity = Annotated[
    float | None,
    option(
        BASIC,
        "For CodeFormer and one-step restorers: from 0, the cleanest face, to 1, the closest to the input. Default: "
        "0.5.",
    ),
]
Refine = Annotated[
    int | None,
    option(
        OUTPUT,
        "For one-step restorers: further evaluations after the first, which bring back texture; 0 is smooth. Default: "
        "the restorer's own.",
        min=0,
        max=3,
    ),
]
Strength = Annotated[
    float, option(OUTPUT, "Blends each result with its input, from 0 (the input) to 1 (fully restored).")
]
Trust = Annotated[
    bool,
    option(OUTPUT, "Write NAME.trust.png beside each result: how much of each region is guessed.", "--trust"),
]

Rounds = Annotated[
    int | None,
    option(
        TRAINING,
        "Rounds of making targets and fine-tuning; later rounds start from the adapted restorer.",
        usual="rounds",
    ),
]
Steps = Annotated[int | None, option(TRAINING, "Optimiser steps.", usual="steps")]
Batch = Annotated[int | None, option(TRAINING, "Pictures per optimiser step.", usual="batch")]
MicroBatch = Annotated[
    int | None, option(TRAINING, "Pictures per forward pass; gradients are accumulated.", usual="micro_batch")
]
LearningRate = Annotated[float | None, option(TRAINING, "Initial learning rate.", usual="learning_rate")]
Workers = Annotated[
    int | None,
    option(
        TRAINING,
        "Processes that prepare batches; 0: a thread. Default: chosen from the cores and the work.",
        min=0,
    ),
]
Flip = Annotated[bool | None, option(TRAINING, "Mirror half of the pairs.", "--flip/--no-flip", usual="flip")]
Redegraded = Annotated[
    float | None,
    option(
        TRAINING,
        "Share of the training faces that are clean faces, degraded by a model fitted to the photos; the others are "
        "the photos with their targets.",
        usual="redegraded",
    ),
]
HoldOut = Annotated[float | None, option(TRAINING, "Share of the pairs that is kept for validation.", usual="hold_out")]
Perceptual = Annotated[
    str | None, option(TRAINING, "Features of the perceptual term: prior, lpips or none.", usual="perceptual")
]
PerceptualWeight = Annotated[
    float | None, option(TRAINING, "Weight of the perceptual term.", usual="perceptual_weight")
]
GanWeight = Annotated[
    float | None, option(TRAINING, "Weight of the adversarial term; 0: no discriminator.", usual="gan_weight")
]
TextureWeight = Annotated[
    float | None,
    option(TRAINING, "Weight of the texture term, which compares local spectra.", usual="texture_weight"),
]
CodeLosses = Annotated[
    str | None,
    option(
        TRAINING,
        "For CodeFormer: codes (default), or fusion, which also trains its feature fusion with losses on pictures.",
    ),
]
Clean = Annotated[
    str | None,
    option(
        TRAINING,
        "Which clean faces --redegraded degrades: drawn (synthetic faces, for restorers up to 256 px), or targets.",
        usual="clean",
    ),
]
Real = Annotated[
    Path | None,
    option(
        TRAINING,
        "Folder of clean faces of anyone, used by --redegraded instead of the synthetic ones, and as the real "
        "examples of a discriminator.",
    ),
]

Aligned = Annotated[
    bool,
    option(BASIC, "The pictures are square face crops in FFHQ's framing; subfolders are not searched.", "--aligned"),
]
Size = Annotated[
    str,
    option(
        OUTPUT,
        "With --aligned: photo keeps the size and format of the input; restorer writes PNG files of the network's "
        "size.",
    ),
]
Faces = Annotated[
    str | None,
    option(
        FACES,
        "Which faces of a photo: all, largest, or numbers counted from the left, such as 0,2. Default: all.",
        "--faces",
    ),
]
MinFace = Annotated[
    float | None,
    option(FACES, "Width of the smallest face to use, px. Default: all that a reduced copy of the photo shows."),
]
MaxFace = Annotated[float | None, option(FACES, "Width of the largest face to use, px. Default: no limit.")]
MinScore = Annotated[float | None, option(FACES, "Lowest score of the detector, 0.3..1. Default: 0.6.")]
Detector = Annotated[str | None, option(FACES, "yunet (default), retinaface-mobilenet, ... or a file.")]
Paste = Annotated[
    str | None,
    option(
        OUTPUT,
        "change (default): adds what the restorer changed and keeps finer detail of the photo; "
        "face: replaces the face with the restored one; published: as in facexlib and CodeFormer.",
    ),
]
MatchColour = Annotated[
    bool, option(OUTPUT, "Match the colours of each face to the photo around it.", "--match-colour")
]
Colour = Annotated[bool, option(OUTPUT, "Allow faces of grey and sepia photos to become coloured.", "--colour")]
Format = Annotated[str | None, option(OUTPUT, "png, jpeg, webp, tiff, bmp or avif. Default: the photo's own.")]
Quality = Annotated[int | None, option(OUTPUT, "Quality of lossy formats, 1..100. Default: the photo's own.")]
Copy = Annotated[bool, option(OUTPUT, "Copy photos without a face.", "--copy")]
Mask = Annotated[
    str | None,
    option(
        OUTPUT,
        "Face parser that keeps hats and background out of the pasted area: parsenet, a file, or none. Default: "
        "parsenet if it has been pulled.",
    ),
]
Sidecar = Annotated[bool, option(OUTPUT, "Write a JSON file next to each result: boxes, landmarks, ...", "--sidecar")]
Background = Annotated[
    str | None,
    option(
        OUTPUT,
        "What to do with the photo around the faces. none: leave it (default); lanczos: enlarge it (default with "
        "--scale); realesrgan-x2 or a file: restore it with that model, which needs the extra archs.",
    ),
]
Scale = Annotated[int | None, option(OUTPUT, "Enlarge results 1, 2 or 4 times. Default: 1.")]
Identity = Annotated[
    str | None,
    option(
        OUTPUT,
        "Face embedding that checks whether results still look like the same person: dlib-face (default), sface, "
        "arcface-18, adaface-ir50, a file, or none.",
    ),
]
NoProvenance = Annotated[
    bool, option(OUTPUT, "Do not record in the metadata of results how they were made.", "--no-provenance")
]

Kind = Annotated[
    str,
    typer.Option(help="Kind of degradation: blind (Eq. 9), camera (Eq. 10), or fitted (to photos, see --fitted)."),
]
Preset = Annotated[
    str | None,
    typer.Option(help="blind: swinir, gfpgan, codeformer, ...; camera: moderate, mild, severe, moderate-text, ..."),
]
Downsampling = Annotated[int | None, typer.Option(help="Downsampling ratio, instead of the preset's.")]
Iso = Annotated[float | None, typer.Option(help="camera: ISO, instead of the preset's.")]
Demosaic = Annotated[str | None, typer.Option(help="camera: edge-aware, bilinear, ...")]
SensorFile = Annotated[
    Path | None, typer.Option("--sensor", help="camera: JSON file with the parameters of another sensor.")
]
Fitted = Annotated[
    Path | None,
    typer.Option(help="fitted: run folder of an adaptation, or the file of a fitted degradation."),
]
Report = Annotated[
    bool, option(OUTPUT, "Write report.html next to the results: photos before and after, faces, notes.", "--report")
]
