"""A device that is only pretended: nothing is computed, but tensors have a place, a shape and a type.

What waits for a real device raises, and so does what mixes places or types. `torch` has one such backend per process,
so this belongs into a process of its own (see `pretended_child.py`).
"""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.library import Library, fallthrough_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "pretended"
ONCE = {"_placed", "_constant", "_grid", "brought"}  # what copies once in a process, or from pinned memory on CUDA
PLACE = f"{NAME}:0"
AUTOCAST = torch._C.DispatchKey.AutocastPrivateUse1
IN_BF16 = [  # what autocast computes in bfloat16 on CUDA
    "conv1d", "conv2d", "conv3d", "convolution", "conv_transpose2d.input", "addmm", "addmv", "matmul", "mm", "mv",
    "linear", "addbmm", "baddbmm", "bmm", "einsum", "scaled_dot_product_attention", "prelu",
]  # fmt: skip
IN_FLOAT32 = [  # what it computes in float32 there
    "acos", "asin", "cosh", "erfinv", "exp", "expm1", "log", "log10", "log2", "log1p", "reciprocal", "rsqrt",
    "sinh", "tan", "pow.Tensor_Scalar", "pow.Tensor_Tensor", "pow.Scalar", "softplus", "layer_norm", "group_norm",
    "cosine_similarity", "l1_loss", "smooth_l1_loss", "huber_loss", "mse_loss", "kl_div", "nll_loss",
    "cross_entropy_loss", "renorm", "logsumexp", "prod", "softmax.int", "log_softmax.int", "cumprod", "cumsum",
    "linalg_vector_norm", "sum", "sum.dim_IntList", "norm.Scalar", "norm.ScalarOpt_dim", "cdist",
    "binary_cross_entropy_with_logits", "upsample_bilinear2d.vec", "upsample_nearest2d.vec",
    "upsample_bicubic2d.vec",
]  # fmt: skip
WIDEST = [  # what it computes in the widest type that it is given
    "addcdiv", "addcmul", "atan2", "bilinear", "cross", "dot", "grid_sampler", "index_put", "tensordot",
    "scatter_add",
]  # fmt: skip


class _Backend(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def is_initialized(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0


class Waited(Exception):
    """Something that makes the host wait for a device."""


class _NoWaiting(TorchDispatchMode):
    """Reading a value of the device raises; so do copies between it and the host, unless they are allowed, and indices
    that the device would have to wait for. Values of the host are read as 1.
    """

    def __init__(self, *, copies: bool) -> None:
        super().__init__()
        self.copies = copies

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        if name == "_local_scalar_dense":
            if args[0].device.type == NAME:
                raise Waited(f"a value is read at {_where()}")
            return 1.0 if args[0].dtype.is_floating_point else 1
        result = func(*args, **kwargs)
        if name in ("_to_copy", "copy_") and not self.copies:
            places = {t.device.type for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor)}
            waits = not (kwargs.get("non_blocking") or args[2:] == (True,))
            if len(places) > 1 and waits and not any(one.name in ONCE for one in _stack()):
                raise Waited(f"{tuple(result.shape)} is copied between {' and '.join(sorted(places))} at {_where()}")
        if name.lstrip("_").startswith("index") and args[0].device.type == NAME:
            for index in (t for t in tree_leaves(args[1]) if isinstance(t, Tensor)):
                if index.dtype == torch.bool or index.device.type != NAME:
                    raise Waited(f"{name} by {index.dtype} of {index.device} at {_where()}")
        return result


def _stack() -> list[traceback.FrameSummary]:
    return [one for one in traceback.extract_stack() if "/unfade/" in one.filename]


def _where() -> str:
    """The last lines of the package."""
    return " > ".join(f"{one.filename.rsplit('/', 1)[1]}:{one.lineno}" for one in _stack()[-3:])


def begin() -> None:
    """Makes the device known to this process."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Backend())
    others, library = (Library(name, "IMPL", "AutocastPrivateUse1") for name in ("_", "aten"))
    others.fallback(fallthrough_kernel)
    for names, kind in ((IN_BF16, lambda _: torch.bfloat16), (IN_FLOAT32, lambda _: torch.float32), (WIDEST, _widest)):
        for name in names:
            library.impl(name, _casting(name, kind))
    _KEPT.extend([others, library])
    nn.Module.to = lambda self, *args, **kwargs: placed(self)  # type: ignore[assignment]  # torch's own swaps weights


_KEPT: list[Library] = []  # what is registered goes with its library


def _widest(tensors: list[Tensor]) -> torch.dtype:
    return torch.float32 if any(tensor.dtype == torch.float32 for tensor in tensors) else torch.bfloat16


def _casting(name: str, kind: Callable[[list[Tensor]], torch.dtype]) -> Callable[..., Any]:
    packet, _, overload = name.partition(".")
    op = getattr(getattr(torch.ops.aten, packet), overload or "default")

    def kernel(*args: Any, **kwargs: Any) -> Any:
        half = (torch.float32, torch.bfloat16, torch.float16)
        found = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor) and t.dtype in half]
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(AUTOCAST)):
            wanted = kind(found)
            cast = tree_map_only(Tensor, lambda t: t.to(wanted) if t.dtype in half else t, (args, kwargs))
            return op(*cast[0], **cast[1])

    return kernel


def placed(network: nn.Module) -> Any:
    """The network, with parameters and buffers on the pretended device."""
    for module in network.modules():
        for name, value in module._parameters.items():
            if value is not None and value.device.type != NAME:
                module._parameters[name] = nn.Parameter(torch.empty_like(value, device=PLACE), value.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.device.type != NAME:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=PLACE)
    return network


@contextmanager
def pretended() -> Iterator[None]:
    """Inside, tensors are pretended, wherever they are."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


@contextmanager
def no_waiting(*, copies: bool = False) -> Iterator[None]:
    """Inside, whatever would make the host wait for the device is an error; `copies` allows those in between."""
    with _NoWaiting(copies=copies):
        yield
