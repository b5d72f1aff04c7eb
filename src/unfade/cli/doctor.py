"""The command `unfade doctor`."""

from collections.abc import Callable

from unfade.cli import flags as f
from unfade.cli.command import Outcome, command

EXTRAS = {  # and the packages that they install
    "video": ("av",),
    "archs": ("spandrel",),
    "vqfr": ("torchvision",),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "fleet": ("ray",),
    "app": ("gradio",),
}
OPTIONAL = ("detector", "identity", "parser", "landmarks", "perceptual", "upscaler")


@command
def doctor(device: f.Device = "auto") -> Outcome:
    """Show what this machine can do: devices, speed of the built-in models, missing weights and optional extras."""
    import os
    import platform

    import torch

    from unfade.devices import choose_device
    from unfade.precision import has_bf16
    from unfade.zoo.models import MODELS, path_of

    where = choose_device(device)
    weights = {name: path_of(model).exists() for name, model in MODELS.items() if model.built_in}
    missing = [name for name, there in weights.items() if not there]
    result: dict[str, object] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": where,
        "bfloat16": has_bf16(torch.device(where)),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "weights": weights,
        "seconds_per_face": {} if missing else _seconds_per_face(where),
        "not_pulled": _not_pulled(),
        "extras": {name: all(map(_installed, needs)) for name, needs in EXTRAS.items()},
    }
    lines = [f"{key}: {_in_words(value)}" for key, value in result.items()]
    lines += [f"{name} is missing from the installation; install unfade again." for name in missing]
    return Outcome(result, lines, failed=len(missing))


def _not_pulled() -> dict[str, list[str]]:
    """Published models that have not been pulled, by kind: those that commands can use besides restorers and priors."""
    from unfade.zoo.models import MODELS, path_of

    found: dict[str, list[str]] = {}
    for name, model in MODELS.items():
        if model.kind in OPTIONAL and not path_of(model).exists():
            found.setdefault(model.kind, []).append(name)
    return found


def _installed(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package) is not None


def _in_words(value: object) -> str:
    """A value as plain text, without Python's brackets and quotes; booleans as "yes" or "no"."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_in_words(part)}" for name, part in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def _seconds_per_face(device: str) -> dict[str, float]:
    """Seconds to restore one face and to make one pseudo target as `adapt` does, estimated from a few steps.

    Computed in bfloat16 where the device supports it, as in an adaptation of the built-in models.
    """
    import torch

    from unfade.devices import clock
    from unfade.diffusion.load import load_prior
    from unfade.precision import autocast
    from unfade.restorers.load import load_restorer

    restorer, prior = load_restorer(device=device), load_prior(device=device)
    faces = torch.zeros(1 if device == "cpu" else 4, 3, prior.size, prior.size, device=device)

    def measured(work: Callable[[], object], repeat: int) -> float:
        work()
        begin = clock(device)
        for _ in range(repeat):
            work()
        return (clock(device) - begin) / repeat / len(faces)

    with torch.no_grad(), autocast(torch.device(device), bf16=True):
        restore, step = measured(lambda: restorer(faces), 3), measured(lambda: prior.denoise(faces, 100), 3)
    return {"restore": round(restore, 4), "target": round(int(str(f.USUAL["start"])) * step, 2)}
