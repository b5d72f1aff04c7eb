"""Is channels last faster for the built-in restorer, restoring and learning?

    python benchmarks/layouts.py [--faces 8] [--repeat 5]

Its network is run in both layouts and precisions, in turns, with what a step of fine-tuning adds: an L1 and the
backward pass. The losses of both layouts are told too.
"""

import argparse
import statistics
import time

import torch

from unfade.precision import autocast
from unfade.restorers.load import load_restorer

LAYOUTS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
CPU = torch.device("cpu")


def main() -> None:
    """Print the median CPU seconds per face, and how many times as fast channels last is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    net = load_restorer(device="cpu").net.requires_grad_(True)
    torch.manual_seed(0)
    face, target = torch.rand(2, args.faces, 3, 128, 128) * 2 - 1
    t = torch.full((args.faces,), 200)

    def loss(learns: bool, bf16: bool) -> float:
        with torch.set_grad_enabled(learns), autocast(CPU, bf16=bf16):
            found = (net(face, t) - target).abs().mean()
        if learns:
            net.zero_grad()
            found.backward()
        return float(found.detach())

    for learns in (False, True):
        for bf16 in (False, True):
            times: dict[str, list[float]] = {name: [] for name in LAYOUTS}
            losses = {}
            for turn in range(args.repeat + 1):
                for name, layout in LAYOUTS.items():
                    net.to(memory_format=layout)
                    begin = time.process_time()
                    losses[name] = loss(learns, bf16)
                    times[name] += [(time.process_time() - begin) / args.faces] if turn else []
            old, new = (statistics.median(times[name]) for name in LAYOUTS)
            what = f"{'learning' if learns else 'restoring'}, {'bfloat16' if bf16 else 'float32'}"
            print(
                f"{what:20} contiguous {old:.4f}, channels last {new:.4f} CPU s a face: {old / new:.2f} times as fast"
            )
            print(f"{'':20} losses {' and '.join(f'{value:.8f}' for value in losses.values())}", flush=True)


if __name__ == "__main__":
    main()
