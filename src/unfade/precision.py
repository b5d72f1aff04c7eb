"""Where networks run in bfloat16: where it is wanted and the device computes in it."""

from functools import cache

import torch


@cache
def has_bf16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16, and does not imitate it in float32.

    Processors without the instructions (AVX512_BF16, AMX, and their like on ARM) take two to three times as long over
    it as over float32. Devices that cannot be asked are taken to have it.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):  # torch asks the current one, which may be another card
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    if device.type != "cpu" or not capabilities:
        return True
    return any(bool(there) for name, there in capabilities.items() if name.endswith("bf16"))


def autocast(device: torch.device, *, bf16: bool) -> torch.autocast:
    """Inside, networks run in bfloat16 if `bf16` is wanted and the device has it, else in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16 and has_bf16(device))
