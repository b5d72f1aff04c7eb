"""The command `unfade doctor`."""

import time
from collections.abc import Callable

from unfade.cli import options as o
from unfade.cli.console import finish


def doctor(device: o.Device = "auto", as_json: o.Json = False, quiet: o.Quiet = False) -> None:
    """Say what this machine can do: devices, speed of the built-in models, their weights."""
    import os
    import platform

    import torch

    from unfade.devices import choose_device
    from unfade.precision import has_bf16
    from unfade.zoo.models import MODELS, path_of

    where = choose_device(device)
    weights = {name: path_of(model).exists() for name, model in MODELS.items() if model.built_in}
    seconds = _seconds_per_face(where) if all(weights.values()) else {}
    result: dict[str, object] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": where,
        "bfloat16": has_bf16(torch.device(where).type),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "weights": weights,
        "seconds_per_face": seconds,
    }
    lines = [f"{key}: {value}" for key, value in result.items()]
    missing = [name for name, there in weights.items() if not there]
    lines += [f"{name} is missing from the installation; install unfade again." for name in missing]
    finish(result, as_json=as_json, quiet=quiet, lines=lines, failed=len(missing))


def _seconds_per_face(device: str) -> dict[str, float]:
    """Seconds of one restoration and of one pseudo target at the paper's 150 steps, from a few steps.

    In bfloat16 where the device has it, as built-in models are adapted.
    """
    import torch

    from unfade.diffusion.load import load_prior
    from unfade.precision import autocast
    from unfade.restorers.load import load_restorer

    restorer, prior = load_restorer(device=device), load_prior(device=device)
    faces = torch.zeros(1 if device == "cpu" else 4, 3, prior.size, prior.size, device=device)

    def clock() -> float:
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter()

    def measured(work: Callable[[], object], repeat: int) -> float:
        work()
        begin = clock()
        for _ in range(repeat):
            work()
        return (clock() - begin) / repeat / len(faces)

    with torch.no_grad(), autocast(torch.device(device), bf16=True):
        restore, step = measured(lambda: restorer(faces), 3), measured(lambda: prior.denoise(faces, 100), 3)
    return {"restore": round(restore, 4), "target_150_steps": round(150 * step, 2)}
