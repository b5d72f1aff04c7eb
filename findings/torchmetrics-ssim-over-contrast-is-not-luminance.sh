#!/usr/bin/env bash
# torchmetrics takes SSIM and its contrast over different pixels, so that SSIM / contrast is not the luminance it is said to be.
#
# With `return_contrast_sensitivity`, structural_similarity_index_measure returns a second value, of which its documentation
# says that luminance = ssim / contrast. One would expect both to be means over the same windows. In torchmetrics 1.9.0 the SSIM
# is a mean over all pixels, with the picture mirrored beyond its border; the contrast is one over those pixels where the whole
# window lies inside. Below, the texture of a frame of 5 pixels is inverted, while the brightness is the same in every window.
# So SSIM and contrast are equal by definition, but the luminance comes out as a half. MS-SSIM multiplies the two kinds of means,
# contrast at the fine scales and SSIM at the coarsest. Since the mirrored border counts, the SSIM of small pictures also differs
# by hundredths from that of Wang et al. (2004), on which scikit-image, piq and pytorch-msssim agree. Whoever compares with
# published scores should cut 5 pixels off the picture that `return_full_image` gives, and take its mean.
#
# Seen with torchmetrics 1.9.0:
#   SSIM 0.449, of inner windows 0.919, contrast 0.919: "luminance" 0.488, in truth 1.000 in every window
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet torch==2.13.0 torchmetrics==1.9.0 numpy
"$place/venv/bin/python" - <<'PY'
import torch
import torch.nn.functional as F
from torchmetrics.functional.image import structural_similarity_index_measure as ssim

row = torch.arange(64)
texture = ((row[:, None] + row) % 2 * 2 - 1).double()[None, None]  # a chessboard: no window sees its brightness change
frame = torch.ones_like(texture)
frame[..., 5:-5, 5:-5] = 0
one, other = 0.5 + 0.1 * texture, 0.5 + 0.1 * texture * torch.where(frame > 0, -1, 1)

offset = torch.arange(-5, 6).double()
window = torch.exp(-(offset**2) / (2 * 1.5**2))
window = (window[:, None] * window / window.sum() ** 2)[None, None]
mean_one, mean_other = (F.conv2d(F.pad(x, (5,) * 4, "reflect"), window) for x in (one, other))
luminance = (2 * mean_one * mean_other + 0.01**2) / (mean_one**2 + mean_other**2 + 0.01**2)

whole, contrast = ssim(one, other, data_range=1.0, return_contrast_sensitivity=True)
_, picture = ssim(one, other, data_range=1.0, return_full_image=True)
whole, contrast, inner = float(whole), float(contrast), float(picture[..., 5:-5, 5:-5].mean())
told = f"SSIM {whole:.3f}, of inner windows {inner:.3f}, contrast {contrast:.3f}"
print(f'{told}: "luminance" {whole / contrast:.3f}, in truth {luminance.min():.3f} in every window')
assert luminance.min() > 0.999 and abs(inner - contrast) < 1e-3, "the example is wrong"
assert whole / contrast < 0.6, "torchmetrics has changed"
PY
