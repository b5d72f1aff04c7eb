"""What is known about each model before it is downloaded: the addresses, hashes and licences of its files."""

from dataclasses import dataclass

from unfade.nets.architecture import Kind


@dataclass(frozen=True)
class Licence:
    """Terms of use, as far as this program needs them."""

    commercial: bool  # whether commercial use of the weights is allowed
    url: str  # address of the text


LICENCES = {
    "Apache-2.0": Licence(True, "https://www.apache.org/licenses/LICENSE-2.0"),
    "MIT": Licence(True, "https://opensource.org/license/mit"),
    "BSD-3-Clause": Licence(True, "https://opensource.org/license/bsd-3-clause"),
    "BSD-2 and BSD-3-Clause": Licence(True, "https://opensource.org/license/bsd-2-clause"),
    "LIVE": Licence(True, "https://live.ece.utexas.edu/research/quality/niqe_release.zip"),
    "CC0 1.0": Licence(True, "https://creativecommons.org/publicdomain/zero/1.0/"),
    "S-Lab 1.0": Licence(False, "https://github.com/sczhou/CodeFormer/blob/master/LICENSE"),
    "CC BY-NC-SA 4.0": Licence(False, "https://creativecommons.org/licenses/by-nc-sa/4.0/"),
    "Apache-2.0, code only": Licence(False, "https://www.apache.org/licenses/LICENSE-2.0"),
    "not stated": Licence(False, ""),
}


@dataclass(frozen=True)
class Download:
    """One published file."""

    file: str  # its name
    sha256: str | None = None  # of the whole file; None: unknown until first seen
    bytes: int | None = None  # None: unknown
    urls: tuple[str, ...] = ()  # mirrors, in the order in which they are tried; empty: the user has to find the file
    key: str = ""  # key of the weights in the file; "": found automatically


@dataclass(frozen=True)
class Model:
    """One row of the table."""

    name: str
    kind: Kind
    architecture: str
    size: int  # side of its images in pixels; 0: any
    licence: str  # a name in LICENCES
    author: str
    source: str = ""  # the author's page
    downloads: tuple[Download, ...] = ()  # empty: comes with the package

    @property
    def built_in(self) -> bool:
        """Whether it comes with the package; otherwise its files are pulled or imported once."""
        return not self.downloads

    @property
    def commercial(self) -> bool:
        """Whether its licence allows commercial use."""
        return LICENCES[self.licence].commercial

    @property
    def file(self) -> str:
        """Name of its imported file."""
        return f"{self.name}{'.onnx' if self.architecture == 'onnx' else '.safetensors'}"


def github(path: str) -> str:
    """Address of a page on GitHub."""
    return f"https://github.com/{path}"


def hugging_face(repository: str, file: str) -> str:
    """Address of a file in a repository on Hugging Face."""
    return f"https://huggingface.co/{repository}/resolve/main/{file}"


def released(
    repository: str, tag: str, file: str, sha256: str | None, size: int | None = None, key: str = ""
) -> tuple[Download, ...]:
    """The single file of a model, attached to a release on GitHub."""
    return (Download(file, sha256, size, (github(f"{repository}/releases/download/{tag}/{file}"),), key),)


CODEFORMER, GFPGAN, VQFR = "sczhou/CodeFormer", "TencentARC/GFPGAN", "TencentARC/VQFR"
DT_BFR, DIFFACE, DIFFBIR = "SamsungLabs/DT-BFR", "zsyOAOA/DifFace", "XPixelGroup/DiffBIR"
FACEXLIB, OPENCV_ZOO, LPIPS = "xinntao/facexlib", "opencv/opencv_zoo", "richzhang/PerceptualSimilarity"
MOBILE = "biubug6/Face-Detector-1MB-with-landmark"
FID, MANIQA = "mseitzer/pytorch-fid", "IIGROUP/MANIQA"
IQA_WEIGHTS = "chaofengc/IQA-PyTorch-Weights"  # on Hugging Face
NC, SLAB = "CC BY-NC-SA 4.0", "S-Lab 1.0"

# Hashes are those of public copies; the first real download confirms them. Order: as in the paper, then the rest.
PUBLISHED = (
    Model("codeformer", "restorer", "codeformer", 512, SLAB, "Zhou et al. 2022", github(CODEFORMER),
          released(CODEFORMER, "v0.1.0", "codeformer.pth",
                   "1009e537e0c2a07d4cabce6355f53cb66767cd4b4297ec7a4a64ca4b8a5684b7", 376_637_898, "params_ema")),
    Model("swinir-512", "restorer", "swinir", 512, NC, "Kuai et al. 2025", github(DT_BFR),
          released(DT_BFR, "v1.0.0", "swinir_gan_v1.pth", None)),
    Model("swinir-512-l1", "restorer", "swinir", 512, SLAB, "Yue and Loy 2022", github(DIFFACE),
          released(DIFFACE, "V1.0", "swinir_restoration512_L1.pth", None)),
    Model("swinir-512-diffbir", "restorer", "swinir", 512, "not stated", "Lin et al. 2023", github(DIFFBIR),
          (Download("face_swinir_v1.ckpt", "62fb6605702e6ad35712299a23cc19ea7cd2fb4bbd50a8080fcefa8ad2620c71",
                    90_204_233, (hugging_face("lxq007/DiffBIR", "face_swinir_v1.ckpt"),)),)),
    Model("gfpgan-1.4", "restorer", "gfpgan", 512, "Apache-2.0", "Wang et al. 2021", github(GFPGAN),
          released(GFPGAN, "v1.3.0", "GFPGANv1.4.pth",
                   "e2cd4703ab14f4d01fd1383a8a8b266f9a5833dacee8e6a79d3bf21a1b6be5ad", 348_632_874, "params_ema")),
    Model("gfpgan-1.3", "restorer", "gfpgan", 512, "Apache-2.0", "Wang et al. 2021", github(GFPGAN),
          released(GFPGAN, "v1.3.0", "GFPGANv1.3.pth",
                   "c953a88f2727c85c3d9ae72e2bd4846bbaf59fe6972ad94130e23e7017524a70", 348_632_874, "params_ema")),
    Model("vqfr-2", "restorer", "vqfr", 512, "Apache-2.0", "Gu et al. 2022", github(VQFR),
          released(VQFR, "v2.0.0", "VQFR_v2.pth", None, key="params_ema")),
    Model("restoreformer", "restorer", "restoreformer", 512, "Apache-2.0", "Wang et al. 2022", github(GFPGAN),
          released(GFPGAN, "v1.3.4", "RestoreFormer.pth",
                   "07404d446d62ca3d5ed38b1de09a947a1e77d46dbccec961a74d713a8f24ace0", 290_785_322, "params_ema")),
    Model("ffhq-512", "prior", "unet", 512, SLAB, "Yue and Loy 2022", github(DIFFACE),
          released(DIFFACE, "V1.0", "iddpm_ffhq512_ema500000.pth",
                   "e16446b14cff4fedf1102ba67945fcced2074500a3fe8fd2bfad5d818928d1d0")),
    Model("ffhq-256", "prior", "unet", 256, "not stated", "Choi et al. 2021", github("jychoi118/ilvr_adm"),
          (Download("diffusion_ffhq_10m.pt", "81d535743156ec6be34d8668e6920da94f0614074d7793a16c8fa9e306237faa",
                    374_417_833, (hugging_face("deepinv/diffunet", "diffusion_ffhq_10m.pt"),)),)),
    Model("ffhq-256-dr2", "prior", "unet", 256, "not stated", "Wang et al. 2023", "https://arxiv.org/abs/2303.06885",
          (Download("DR2_FFHQ.pkl"),)),
    Model("pgdiff-restorer", "guide", "pgdiff-restorer", 512, SLAB, "Yang et al. 2023", github("pq-yang/PGDiff"),
          (Download("pgdiff-restorer.pth"),)),  # our name for the file: the authors' page links to a drive
    Model("diffbir-face", "guide", "diffbir", 512, "not stated", "Lin et al. 2023", github(DIFFBIR),
          (Download("face_full_v1.ckpt", urls=(hugging_face("lxq007/DiffBIR", "face_full_v1.ckpt"),)),)),
    Model("vqgan-codeformer", "vqgan", "vqgan", 512, SLAB, "Zhou et al. 2022", github(CODEFORMER),
          released(CODEFORMER, "v0.1.0", "vqgan_code1024.pth",
                   "4d1c6741b3cffcbdc2cd1a12b2c3c2442282e042d5de66909cb643d4fa31b20f", key="params_ema")),
    Model("lpips-vgg", "perceptual", "lpips", 0, "BSD-2 and BSD-3-Clause", "Zhang et al. 2018", github(LPIPS), (
        Download("vgg16-397923af.pth", "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0", 553_433_881,
                 ("https://download.pytorch.org/models/vgg16-397923af.pth",)),
        Download("vgg.pth", "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868", None,
                 (github(f"{LPIPS}/raw/master/lpips/weights/v0.1/vgg.pth"),)),
    )),
    Model("lpips-alex", "perceptual", "lpips-alex", 0, "BSD-2 and BSD-3-Clause", "Zhang et al. 2018", github(LPIPS), (
        Download("alexnet-owt-7be5be79.pth", None, None,
                 ("https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",)),
        Download("alex.pth", "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0", None,
                 (github(f"{LPIPS}/raw/master/lpips/weights/v0.1/alex.pth"),)),
    )),
    Model("retinaface-resnet50", "detector", "retinaface-resnet50", 0, "MIT", "Deng et al. 2020", github(FACEXLIB),
          released(FACEXLIB, "v0.1.0", "detection_Resnet50_Final.pth",
                   "6d1de9c2944f2ccddca5f5e010ea5ae64a39845a86311af6fdf30841b0a5a16d", 109_497_761)),
    Model("retinaface-mobilenet", "detector", "retinaface-mobilenet", 0, "MIT", "Deng et al. 2020", github(MOBILE),
          (Download("mobilenet0.25_Final.pth", "ed6fa7d45a5179f03cb5ce82c73b0c6711372968e53782e88395acee88d319e1",
                    1_789_735, (github(f"{MOBILE}/raw/master/weights/mobilenet0.25_Final.pth"),)),)),
    Model("parsenet", "parser", "parsenet", 512, "MIT", "Chen et al. 2021", github(FACEXLIB),
          released(FACEXLIB, "v0.2.2", "parsing_parsenet.pth",
                   "3d558d8d0e42c20224f13cf5a29c79eba2d59913419f945545d8cf7b72920de2", 85_331_193)),
    Model("awing-fan", "landmarks", "awing-fan", 256, "MIT", "Wang et al. 2019", github(FACEXLIB),
          released(FACEXLIB, "v0.1.0", "alignment_WFLW_4HG.pth",
                   "bbfd137307a4c7debd5c283b9b0ce539466cee417ac0a155e184d857f9f2899c", key="state_dict")),
    Model("arcface-18", "identity", "arcface", 128, "Apache-2.0", "Deng et al. 2019", github(GFPGAN),
          released(GFPGAN, "v0.1.0", "arcface_resnet18.pth",
                   "69554b3184575bdda7ecf7f40caf2b0c5ecbd0617b676d2209d8bf0e7e3d8042")),
    Model("adaface-ir50", "identity", "adaface", 112, "MIT", "Kim et al. 2022", github("mk-minchul/AdaFace"),
          (Download("adaface_ir50_ms1mv2.ckpt", key="state_dict"),)),  # their page links to a drive
    Model("sface", "identity", "onnx", 112, "Apache-2.0", "Zhong et al. 2021", github(OPENCV_ZOO),
          (Download("face_recognition_sface_2021dec.onnx",
                    "f6abbfff9575e3041db692c1e29d782e995191888477fd59ebc81202d99fc63b", 24_227_283,
                    (github(f"{OPENCV_ZOO}/raw/main/models/face_recognition_sface/face_recognition_sface_2021dec.onnx"),)),)),
    Model("inception-fid", "features", "inception", 299, "Apache-2.0", "Szegedy et al. 2016", github(FID),
          released(FID, "fid_weights", "pt_inception-2015-12-05-6726825d.pth",
                   "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2")),
    Model("fid-ffhq-512", "statistics", "statistics", 512, NC, "Kuai et al. 2025", github(DT_BFR),
          released(DT_BFR, "v1.0.0", "inception_FFHQ_512.pth", None)),
    Model("fid-celeba-test", "statistics", "statistics", 512, NC, "Kuai et al. 2025", github(DT_BFR),
          released(DT_BFR, "v1.0.0", "inception_CelebA-Test-500.pth", None)),
    Model("musiq-koniq", "quality", "musiq", 0, NC, "Ke et al. 2021", github("chaofengc/IQA-PyTorch"),
          (Download("musiq_koniq_ckpt-e95806b9.pth", "e95806b9eae5f3814c410f574ba8e552362bd5bc63d758ed5b97860f5d6185aa",
                    108_610_983, (hugging_face(IQA_WEIGHTS, "musiq_koniq_ckpt-e95806b9.pth"),)),)),
    Model("maniqa-koniq", "quality", "maniqa", 224, "Apache-2.0, code only", "Yang et al. 2022", github(MANIQA),
          released(MANIQA, "Koniq10k", "ckpt_koniq10k.pt",
                   "a207f8ab57322e6be38ff5c8d019301dc032b454bef21c3c9f9dbf7974eebff6", 543_335_435)),
    Model("maniqa-pipal", "quality", "maniqa", 224, NC, "Yang et al. 2022", github("chaofengc/IQA-PyTorch"),
          (Download("MANIQA_PIPAL-ae6d356b.pth", urls=(hugging_face(IQA_WEIGHTS, "MANIQA_PIPAL-ae6d356b.pth"),)),)),
    Model("realesrgan-x2", "upscaler", "rrdbnet", 0, "BSD-3-Clause", "Wang et al. 2021", github("xinntao/Real-ESRGAN"),
          released("xinntao/Real-ESRGAN", "v0.2.1", "RealESRGAN_x2plus.pth",
                   "49fafd45f8fd7aa8d31ab2a22d14d91b536c34494a5cfe31eb5d89c2fa266abb", 67_061_725, "params_ema")),
)  # fmt: skip
