"""Would OpenVINO make targets and restoring faster on this processor? Not part of the package; needs `openvino`.

    python benchmarks/openvino_backend.py FACES [--faces 8] [--large]

The built-in prior's network is run by torch and by OpenVINO, in float32 and bfloat16, one thread, in turns; so are
targets with it, whose largest difference is told. What converting and compiling take, before the first face, decides
from how many faces on OpenVINO is worth it. --large takes the 512 px prior's network with random weights as well.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from unfade.diffusion.load import load_prior
from unfade.diffusion.sampler import ImageNoise
from unfade.images.files import read_image
from unfade.images.filters import resize
from unfade.images.finding import list_images
from unfade.nets.unet import UNet, UNetConfig
from unfade.precision import autocast
from unfade.recipes.adapt_settings import SMALL_ADAPT
from unfade.restorers.load import load_restorer
from unfade.stages.targets import pseudo_target

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # importing openvino would send a message with it
CPU, WORTH = torch.device("cpu"), 1.15


class Converted(nn.Module):
    """A U-Net that OpenVINO runs, one face after the other."""

    def __init__(self, unet: UNet, precision: str):
        super().__init__()
        import openvino

        self.config, size = unet.config, unet.config.size
        example = (torch.rand(1, 3, size, size), torch.full((1,), 100))
        shapes = [openvino.PartialShape([1, 3, size, size]), openvino.PartialShape([1])]
        # fixed shapes are a tenth faster, but with them and float32 openvino 2026.4.1 crashes on compiling
        given = {"input": shapes} if precision == "bf16" else {}
        model = openvino.convert_model(unet, example_input=example, **given)
        settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1}
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)  # callers ask a parameter for the device
        self.request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.cat([self._one(x[i : i + 1], t[i : i + 1]) for i in range(len(x))])

    def _one(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.from_numpy(self.request.infer([x.float().contiguous().numpy(), t.numpy()])[0].copy())


def main() -> None:
    """Print CPU seconds, ratios to torch in bfloat16, and from how many faces on OpenVINO is worth it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="FACES")
    parser.add_argument("--faces", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--large", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    prior, restorer = load_prior(device="cpu"), load_restorer(device="cpu")
    compared("network", networks(prior.unet, faces=4), args.repeat, per=4)
    begin = time.process_time()
    models = {
        "torch bfloat16": (prior.unet, restorer.net),
        "openvino bfloat16": (Converted(prior.unet, "bf16"), Converted(restorer.net, "bf16")),
    }
    fixed = time.process_time() - begin
    faces = [read_image(path)[None] for path in list_images(args.folder)[: args.faces]]
    seen = torch.cat([resize(face, restorer.size, restorer.size).clamp(-1, 1) for face in faces])
    settings = SMALL_ADAPT.targets
    walked = prior.respaced(settings.spacing)

    def targets(name: str) -> Tensor:
        walked.unet, restorer.net = models[name]
        return pseudo_target(seen, restorer.attempt, walked, ImageNoise(range(len(seen)), CPU), settings)

    ways = {name: partial(targets, name) for name in models}
    ours, theirs = compared("target", ways, args.repeat, per=len(seen))
    change = (ways["torch bfloat16"]() - ways["openvino bfloat16"]()).abs() * 127.5
    print(f"targets differ by {change.mean():.2f} levels in the mean, by {change.max():.0f} at most")
    print(f"converting and compiling both networks: {fixed:.1f} CPU s")
    for ratio in (1, WORTH):
        spared = ours - ratio * theirs
        print(f"{ratio} times as fast: " + (f"from {ratio * fixed / spared:.0f} faces on" if spared > 0 else "never"))
    if args.large:
        compared("512 px network", networks(UNet(UNetConfig()).eval(), faces=1), 2, per=1)


def networks(unet: UNet, faces: int) -> dict[str, Callable[[], Tensor]]:
    """The same network in each backend and precision, on random faces."""
    x, t = torch.rand(faces, 3, unet.config.size, unet.config.size) * 2 - 1, torch.full((faces,), 100)

    def by_torch(bf16: bool) -> Tensor:
        with autocast(CPU, bf16=bf16):
            return unet(x, t)

    begin, ways = time.process_time(), {"float32": "f32", "bfloat16": "bf16"}
    converted = {name: Converted(unet, hint) for name, hint in ways.items()}
    print(f"converting and compiling twice: {time.process_time() - begin:.1f} CPU s")
    return {
        "torch float32": lambda: by_torch(False),
        "torch bfloat16": lambda: by_torch(True),
        **{f"openvino {name}": lambda net=net: net(x, t) for name, net in converted.items()},
    }


def compared(what: str, ways: dict[str, Callable[[], Tensor]], repeat: int, *, per: int) -> list[float]:
    """CPU seconds of each way in turns, printed with the ratio to the best of torch's."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeat + 1):
        for name, work in ways.items():
            begin = time.process_time()
            work()
            times[name] += [(time.process_time() - begin) / per] if turn else []
    medians = {name: statistics.median(found) for name, found in times.items()}
    best = min(seconds for name, seconds in medians.items() if name.startswith("torch"))
    for name, seconds in medians.items():
        print(f"{what:16} {name:20} {seconds:.4f} CPU s a face, {best / seconds:.2f} times torch's best", flush=True)
    return list(medians.values())


if __name__ == "__main__":
    main()
