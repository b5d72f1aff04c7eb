"""The networks whose published files can be taken: how to know one by its keys, and how to build it from its shapes."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unfade.errors import BadCheckpoint
from unfade.metrics.no_reference import Niqe
from unfade.nets.adaface import AdaFace, AdaFaceConfig, adaface_state
from unfade.nets.arcface import ArcFace, ArcFaceConfig
from unfade.nets.codeformer import CodeFormer, CodeFormerConfig
from unfade.nets.diffbir import DiffBIR, DiffBIRConfig, diffbir_state
from unfade.nets.discriminator import UNetDiscriminatorSN
from unfade.nets.fan import FAN, FANConfig
from unfade.nets.gfpgan import GFPGAN, GFPGANConfig
from unfade.nets.inception import Inception, InceptionConfig, inception_state
from unfade.nets.lpips import ALEXNET, LPIPS, lpips_state
from unfade.nets.maniqa import MANIQA, MANIQAConfig, maniqa_state
from unfade.nets.musiq import MUSIQ, MUSIQConfig
from unfade.nets.parsenet import ParseNet, ParseNetConfig
from unfade.nets.pgdiff_restorer import PGDiffRestorer, PGDiffRestorerConfig
from unfade.nets.retinaface import MOBILENET025, RESNET50, RetinaFace, RetinaFaceConfig
from unfade.nets.stylegan import SMALLEST
from unfade.nets.stylegan_discriminator import WIDEST, StyleGANDiscriminator, StyleGANDiscriminatorConfig
from unfade.nets.swinir import SwinIR, SwinIRConfig
from unfade.nets.unet import UNet, UNetConfig
from unfade.nets.vqfr import VQFR, VQFRConfig
from unfade.nets.vqgan import VQAutoEncoder, VQGANConfig, VQGANDiscriminator
from unfade.store.checkpoints import load_state, read_weights
from unfade.store.foreign import without_prefix
from unfade.zoo.models import Kind, find_weights

State = Mapping[str, Tensor]
Config = dict[str, Any]  # numbers, strings and lists: what the header of a file holds


@dataclass(frozen=True)
class Architecture:
    """One kind of network."""

    kind: Kind
    marks: tuple[str, ...]  # keys that it has and those before it in the table have not all of
    build: Callable[[Config], nn.Module]  # with fresh weights
    configs: Callable[[State], Iterable[Config]]  # those that the shapes in a file may belong to, the likeliest first
    convert: Callable[[State], State] = dict  # the published tensors to the network's
    files: int = 1  # how many published files make it


def fixed(*published: Any) -> Callable[[State], Iterable[Config]]:
    """Dataclasses of the published shapes; the check of all tensors decides which one fits."""
    return lambda state: [_lists(asdict(config)) for config in published]


def settings(kind: type, config: Config) -> Any:
    """The dataclass that `fixed` or a header wrote: tuples for lists, dataclasses for dictionaries."""
    defaults = kind()
    nested = {k: settings(type(getattr(defaults, k)), v) for k, v in config.items() if isinstance(v, dict)}
    return kind(**{**{k: _tuples(v) for k, v in config.items()}, **nested})


def shapes(architecture: Architecture, config: Config) -> State:
    """The tensors of the network, without memory for their numbers."""
    with torch.device("meta"):
        return architecture.build(config).state_dict()


class Statistics(nn.Module):
    """Mean (C,) and covariance (C, C) of the features of a set of pictures, float64: what a Frechet distance needs."""

    mean: Tensor
    cov: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features, dtype=torch.float64))
        self.register_buffer("cov", torch.zeros(features, features, dtype=torch.float64))


def swinir_configs(state: State) -> list[Config]:
    """All but stochastic depth, which leaves no trace, follows from the shapes."""
    first, table = state["conv_first.1.weight"], state[_BLOCK + "attn.relative_position_bias_table"]
    unshuffle, window = math.isqrt(first.shape[1] // 3), (math.isqrt(table.shape[0]) + 1) // 2
    depths = [
        _count(state, rf"layers\.{k}\.residual_group\.blocks\.(\d+)\.")
        for k in range(_count(state, r"layers\.(\d+)\."))
    ]
    masks = state.get(_BLOCK.replace("blocks.0", "blocks.1") + "attn_mask")
    img_size = window if masks is None else window * math.isqrt(masks.shape[0])
    return [{
        "size": img_size * unshuffle,
        "img_size": img_size,
        "embed_dim": first.shape[0],
        "depths": depths,
        "heads": table.shape[1],
        "window": window,
        "mlp_ratio": state[_BLOCK + "mlp.fc1.weight"].shape[0] / first.shape[0],
        "unshuffle": unshuffle,
        "upscale": 2 ** _count(state, r"conv_up(\d+)\."),
        "upsample_features": state["conv_before_upsample.0.weight"].shape[0],
        "drop_path": SwinIRConfig.drop_path,
    }]  # fmt: skip


def build_swinir(config: Config) -> SwinIR:
    """Without the size of its pictures, which is the grid's times unshuffle."""
    return SwinIR(settings(SwinIRConfig, {key: value for key, value in config.items() if key != "size"}))


def codeformer_configs(state: State) -> list[Config]:
    """The published one; the restorer wants the size of its pictures beside the autoencoder's."""
    return [with_size(config) for config in fixed(CodeFormerConfig())(state)]


def with_size(config: Config) -> Config:
    """A CodeFormer's configuration with the size of its pictures at the top."""
    return {"size": config["autoencoder"]["size"], **config}


def build_codeformer(config: Config) -> CodeFormer:
    """The inverse of `with_size`, built."""
    return CodeFormer(settings(CodeFormerConfig, {key: value for key, value in config.items() if key != "size"}))


def patch_discriminator_configs(state: State) -> list[Config]:
    """`features` and `layers` of a VQGANDiscriminator."""
    return [{"features": state["main.0.weight"].shape[0], "layers": _count(state, r"main\.(\d+)\.running_mean")}]


def stylegan_discriminator_configs(state: State) -> list[Config]:
    """All but the group of the standard deviation, which leaves no trace, follows from the shapes."""
    size = SMALLEST << _count(state, r"conv_body\.(\d+)\.skip\.")
    first, deepest = state["conv_body.0.0.weight"].shape[0], state["final_conv.0.weight"].shape[0]
    multiplier = round(first * size / (32 * deepest)) if size > 32 else StyleGANDiscriminatorConfig.channel_multiplier
    return [{
        "size": size,
        "channel_multiplier": multiplier,
        "narrow": deepest / WIDEST,
        "group": StyleGANDiscriminatorConfig.group,
    }]  # fmt: skip


UNETS = (UNetConfig(), UNetConfig(256, 128, (1, 1, 2, 2, 4, 4), (1,) * 6, (16,), 64, resblock_updown=True))
_BLOCK = "layers.0.residual_group.blocks.0."

ARCHITECTURES = {  # a network that has the keys of another one too stands before it
    "unet": Architecture(
        "prior",
        ("time_embed.0.weight", "input_blocks.0.0.weight", "out.2.weight"),
        lambda config: UNet(settings(UNetConfig, config)),
        fixed(*UNETS),
    ),
    "swinir": Architecture(
        "restorer",
        ("conv_first.1.weight", _BLOCK + "attn.relative_position_bias_table", "conv_before_upsample.0.weight"),
        build_swinir,
        swinir_configs,
    ),
    "codeformer": Architecture(
        "restorer",
        ("position_emb", "quantize.embedding.weight", "encoder.blocks.0.weight", "feat_emb.weight"),
        build_codeformer,
        codeformer_configs,
    ),
    "vqgan": Architecture(
        "vqgan",
        ("quantize.embedding.weight", "encoder.blocks.0.weight", "generator.blocks.0.weight"),
        lambda config: VQAutoEncoder(settings(VQGANConfig, config)),
        fixed(VQGANConfig()),
    ),
    "gfpgan": Architecture(
        "restorer",
        ("conv_body_first.weight", "stylegan_decoder.constant_input.weight"),
        lambda config: GFPGAN(settings(GFPGANConfig, config)),
        fixed(GFPGANConfig()),
    ),
    "vqfr": Architecture(
        "restorer",
        ("feat2index.1.weight", "quantizer.embedding.weight", "inpfeat_extraction.weight"),
        lambda config: VQFR(settings(VQFRConfig, config)),
        fixed(VQFRConfig()),
    ),
    "arcface": Architecture(
        "identity",
        ("conv1.weight", "prelu.weight", "fc5.weight"),
        lambda config: ArcFace(settings(ArcFaceConfig, config)),
        fixed(ArcFaceConfig()),
    ),
    "adaface": Architecture(
        "identity",
        ("model.input_layer.0.weight", "model.body.0.res_layer.1.weight", "model.output_layer.3.weight"),
        lambda config: AdaFace(settings(AdaFaceConfig, config)),
        fixed(AdaFaceConfig()),
        convert=adaface_state,
    ),
    "inception": Architecture(
        "features",
        ("Conv2d_1a_3x3.conv.weight", "Mixed_7c.branch_pool.conv.weight", "fc.weight"),
        lambda config: Inception(settings(InceptionConfig, config)),
        fixed(InceptionConfig()),
        convert=inception_state,
    ),
    "parsenet": Architecture(
        "parser",
        ("encoder.0.conv2d.weight", "out_mask_conv.conv2d.weight"),
        lambda config: ParseNet(settings(ParseNetConfig, config)),
        fixed(ParseNetConfig()),
    ),
    "retinaface-resnet50": Architecture(
        "detector",
        ("body.layer1.0.conv1.weight", "ClassHead.0.conv1x1.weight"),
        lambda config: RetinaFace(settings(RetinaFaceConfig, config)),
        fixed(RESNET50),
    ),
    "retinaface-mobilenet": Architecture(
        "detector",
        ("body.stage1.0.0.weight", "ClassHead.0.conv1x1.weight"),
        lambda config: RetinaFace(settings(RetinaFaceConfig, config)),
        fixed(MOBILENET025),
    ),
    "awing-fan": Architecture(
        "landmarks",
        ("m0.coordconv.conv.weight", "l0.weight"),
        lambda config: FAN(settings(FANConfig, config)),
        fixed(FANConfig()),
    ),
    "pgdiff-restorer": Architecture(
        "guide",
        ("generator.conv_first.weight", "time_embed.0.weight"),
        lambda config: PGDiffRestorer(settings(PGDiffRestorerConfig, config)),
        fixed(PGDiffRestorerConfig()),
    ),
    "diffbir": Architecture(
        "guide",
        (
            "model.diffusion_model.out.2.weight",
            "control_model.zero_convs.0.0.weight",
            "first_stage_model.quant_conv.weight",
        ),
        lambda config: DiffBIR(settings(DiffBIRConfig, config)),
        fixed(DiffBIRConfig()),
        convert=diffbir_state,
    ),
    "lpips": Architecture(
        "perceptual",
        ("features.28.weight", "lin4.model.1.weight"),
        lambda config: LPIPS(),
        lambda state: [{}],
        convert=lambda state: lpips_state(state, state),
        files=2,
    ),
    "lpips-alex": Architecture(
        "perceptual",
        ("features.10.weight", "lin4.model.1.weight"),
        lambda config: LPIPS(ALEXNET),
        lambda state: [{}],
        convert=lambda state: lpips_state(state, state, ALEXNET),
        files=2,
    ),
    "unet-discriminator": Architecture(
        "discriminator",
        ("conv0.weight", "conv1.weight_orig", "conv9.weight"),
        lambda config: UNetDiscriminatorSN(config["features"]),
        lambda state: [{"features": state["conv0.weight"].shape[0]}],
    ),
    "vqgan-discriminator": Architecture(
        "discriminator",
        ("main.0.weight", "main.3.running_mean"),
        lambda config: VQGANDiscriminator(config["features"], config["layers"]),
        patch_discriminator_configs,
    ),
    "stylegan2-discriminator": Architecture(
        "discriminator",
        ("conv_body.0.0.weight", "conv_body.1.skip.1.weight", "final_conv.0.weight"),
        lambda config: StyleGANDiscriminator(settings(StyleGANDiscriminatorConfig, config)),
        stylegan_discriminator_configs,
    ),
    "musiq": Architecture(
        "quality",
        ("conv_root.weight", "transformer_encoder.posembed_input.position_emb", "head.weight"),
        lambda config: MUSIQ(settings(MUSIQConfig, config)),
        fixed(MUSIQConfig()),
    ),
    "maniqa": Architecture(
        "quality",
        ("vit.pos_embed", "tablock1.0.c_q.weight", "fc_weight.3.weight"),
        lambda config: MANIQA(settings(MANIQAConfig, config)),
        fixed(MANIQAConfig()),
        convert=maniqa_state,
    ),
    "niqe": Architecture("quality", ("mean", "covariance"), lambda config: Niqe(), lambda state: [{}]),
    "statistics": Architecture(
        "statistics",
        ("mean", "cov"),
        lambda config: Statistics(config["features"]),
        lambda state: [{"features": state["mean"].numel()}],
    ),
}


def load_network(spec: str | Path, kind: Kind, *, device: torch.device | str = "cpu") -> nn.Module:
    """An imported network of any kind in evaluation mode, as it was published: not wrapped in a restorer or prior.

    Raises UnknownModel, which says how to get it, or BadCheckpoint for weights of another kind.
    """
    path = find_weights(spec, kind)
    weights = read_weights(path)
    known = ARCHITECTURES.get(weights.architecture)
    if known is None or known.kind != kind:
        raise BadCheckpoint(f"{path} holds a {weights.architecture}, not a {kind}; name another model.")
    try:
        network = _empty(known, weights.config)
    except (TypeError, ValueError, KeyError) as error:
        reason = f"{path} describes a {weights.architecture} that cannot be built ({error})"
        raise BadCheckpoint(f"{reason}; import it again with this version.") from error
    load_state(network, without_prefix(weights.state), path)
    return network.eval().to(device)


def _empty(known: Architecture, config: Config) -> nn.Module:
    """The network without memory for its numbers, if all of them come from a file: large ones take long to draw."""
    with torch.device("meta"):
        network = known.build(config)
    told = {name for name, _ in network.named_buffers()} <= network.state_dict().keys()
    return network if told else known.build(config)


def _count(state: State, pattern: str) -> int:
    """How many different numbers the keys have where the pattern has its group."""
    return len({match[1] for key in state if (match := re.match(pattern, key))})


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(part) for key, part in value.items()}
    return [_lists(part) for part in value] if isinstance(value, list | tuple) else value


def _tuples(value: Any) -> Any:
    return tuple(_tuples(part) for part in value) if isinstance(value, list | tuple) else value
