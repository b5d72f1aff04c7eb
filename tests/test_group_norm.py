"""Group normalisation in the channels-last layout: the values and gradients of torch's."""

import pytest
import torch
from torch import Tensor, nn

from unfade.nets.group_norm import GroupNorm

Results = tuple[Tensor, ...]


def both(dtype: torch.dtype, layout: torch.memory_format, *, still: bool = False) -> tuple[Results, Results]:
    """Output and gradients of ours and of torch's, for the same input."""
    generator = torch.Generator().manual_seed(0)
    x, gradient = torch.randn(2, 3, 8, 5, 7, generator=generator, dtype=torch.float64)
    results = []
    for norm in (GroupNorm(4, 8, eps=1e-3), nn.GroupNorm(4, 8, eps=1e-3)):
        torch.nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(1))
        norm.to(torch.float32 if dtype == torch.bfloat16 else dtype).requires_grad_(not still)
        given = (3 * x + 1).to(dtype).contiguous(memory_format=layout).requires_grad_()
        y = norm(given)
        y.backward(gradient.to(dtype))
        results.append((y.detach(), given.grad, norm.weight.grad, norm.bias.grad))
    return results[0], results[1]


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_values_and_gradients_are_torch_s(dtype: torch.dtype, tolerance: float, layout: torch.memory_format) -> None:
    ours, theirs = both(dtype, layout)
    assert torch.equal(ours[0], theirs[0])
    for one, other in zip(ours[1:], theirs[1:], strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, atol=tolerance * float(other.abs().max()), rtol=0)


def test_frozen_weights_get_no_gradient() -> None:
    ours, theirs = both(torch.float32, torch.channels_last, still=True)
    assert ours[2:] == theirs[2:] == (None, None)
    torch.testing.assert_close(ours[1], theirs[1], atol=1e-5, rtol=0)


def test_the_layout_stays() -> None:
    x = torch.randn(2, 8, 5, 7).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = GroupNorm(4, 8)(x)
    y.sum().backward()
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert x.grad is not None
    assert x.grad.is_contiguous(memory_format=torch.channels_last)
