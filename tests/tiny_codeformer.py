"""A CodeFormer of 32 px as a file: code-level adaptation in seconds."""

from pathlib import Path

import pytest

from recorded import fill_module
from unfade.nets.codeformer import CodeFormer, CodeFormerConfig
from unfade.nets.vqgan import VQGANConfig
from unfade.restorers.code_level import CodeFormerRestorer
from unfade.restorers.load import save_restorer

TINY = CodeFormerConfig(
    VQGANConfig(size=32, channels=32, channel_mult=(1, 1, 2), attention_sizes=(8,), codes=16, code_channels=8),
    dim=32,
    heads=4,
    layers=2,
    fusion_sizes=(16, 32),
)


def tiny_codeformer() -> CodeFormerRestorer:
    return CodeFormerRestorer(fill_module(CodeFormer(TINY))).eval()


@pytest.fixture(scope="session")
def codeformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its file, written once."""
    path = tmp_path_factory.mktemp("codeformer") / "tiny-codeformer.safetensors"
    save_restorer(path, tiny_codeformer())
    return path
