"""The NTIRE 2025 challenge on real-world face restoration: its identity check, and four of the six terms of its score.

Chen et al., "NTIRE 2025 Challenge on Real-World Face Restoration: Methods and Results" (CVPRW 2025), and the public
evaluation script of the challenge. CLIP-IQA and Q-Align are not implemented, so the sum is not the challenge's score.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from unfade.devices import Device, choose_device
from unfade.errors import BadInput
from unfade.evaluation.evaluate import Evaluation, evaluate
from unfade.evaluation.pairs import Scores, score_folder
from unfade.faces.identity import Embedder, load_embedder
from unfade.own_modes import own_modes
from unfade.progress import Progress, silent
from unfade.shown import finite

EMBEDDER = "adaface-ir50"
REFERENCE = "fid-ffhq-512"
LEAST = {"celeba": 0.5, "lfw": 0.6, "celebchild": 0.6, "wider": 0.3, "webphoto": 0.3}  # cosine, by the photos' source
ALLOWED, OF = 10, 450  # how many faces below the limit the challenge tolerates, out of its total
TERMS: Mapping[str, Callable[[float], float]] = {  # of the mean over all pictures; each is 0..1, higher is better
    "maniqa": lambda value: value,
    "musiq": lambda value: value / 100,
    "niqe": lambda value: 0.0 if value > 10 else (10 - value) / 10,  # in this order NaN stays NaN
    "fid": lambda value: 0.0 if value > 100 else (100 - value) / 100,
}
ABSENT = ("clipiqa", "qalign")  # terms of the challenge's score that are not implemented
PROTOCOL = (
    f"NTIRE 2025 real-world face restoration: {len(TERMS)} of its {len(TERMS) + len(ABSENT)} terms "
    f"({', '.join(TERMS)}; without {', '.join(ABSENT)}); MANIQA of 20 fixed crops, faces aligned by FFHQ's template"
)


@dataclass(frozen=True)
class Ntire:
    """The result of `evaluate_ntire`."""

    evaluation: Evaluation  # of the metrics behind the terms
    identity: Scores  # adaface: the cosine similarity of each result and its photo
    least: float  # cosine from which on they count as the same person

    @property
    def below(self) -> list[str]:
        """The results that do not count as the same person as in the photo."""
        return [name for name, values in self.identity.files.items() if not values["adaface"] >= self.least]

    @property
    def passed(self) -> bool:
        """Whether the challenge would have ranked them: at most ten faces below the limit, whatever their number."""
        return len(self.below) <= ALLOWED

    @property
    def terms(self) -> dict[str, float]:
        """The terms, each in 0..1; higher is better."""
        assert self.evaluation.scores
        assert self.evaluation.sets
        means = {name: mean.mean for name, mean in self.evaluation.scores.summary.items()}
        means |= self.evaluation.sets.values
        return {name: term(means[name]) for name, term in TERMS.items()}

    @property
    def partial_sum(self) -> float | None:
        """The sum of the implemented terms, 0..4; None if the identity check fails. Not the challenge's score."""
        return sum(self.terms.values()) if self.passed else None

    @property
    def failed(self) -> list[tuple[str, str]]:
        """(file, why it could not be read), each once."""
        return list(dict([*self.evaluation.failed, *self.identity.failed]).items())

    @property
    def lines(self) -> list[str]:
        """The result as lines of text."""
        count = len(self.identity.files)
        verdict = (
            f"{len(self.below)} of {count} below a cosine of {self.least} (the challenge forgives {ALLOWED} of {OF})"
        )
        total = "no sum, because identity fails" if self.partial_sum is None else f"sum {self.partial_sum:.4g}"
        terms = ", ".join(f"{name} {value:.4g}" for name, value in self.terms.items())
        return [f"identity {'passes' if self.passed else 'fails'}: {verdict}", f"terms: {terms}; {total}", PROTOCOL]

    def as_dict(self) -> dict[str, object]:
        """For JSON: `Evaluation.as_dict`, with the results of the protocol under `ntire`."""
        cosines = {name: values["adaface"] for name, values in self.identity.files.items()}
        found = {"passed": self.passed, "least": self.least, "below": self.below, "allowed": ALLOWED, "files": cosines}
        return {
            **self.evaluation.as_dict(),
            "failed": [{"file": name, "reason": reason} for name, reason in self.failed],
            "ntire": {
                "protocol": PROTOCOL,
                "identity": found,
                "terms": finite(self.terms),
                "absent": list(ABSENT),
                "partial_sum": finite(self.partial_sum),
            },
        }


@own_modes()
def evaluate_ntire(
    results: str | Path,
    photos: str | Path,
    subset: str,
    *,
    reference: str | Path = REFERENCE,
    device: Device = "auto",
    progress: Progress = silent,
) -> Ntire:
    """Score aligned, restored faces; `photos` are the degraded ones of the same names, from the `subset` of LEAST.

    All networks are loaded before anything is computed. Raises BadInput for an unknown subset and as `score_folder` and
    `evaluate` do; UnknownModel, with the command that downloads them, for missing weights.
    """
    if subset not in LEAST:
        raise BadInput(f"NTIRE's photos come from {', '.join(LEAST)}, got {subset}; their identity thresholds differ.")
    results, photos, device = Path(results), Path(photos), choose_device(device)
    embedder = load_embedder(EMBEDDER, device=device)
    evaluation = evaluate(results, reference=reference, metrics=tuple(TERMS), device=device, progress=progress)
    identity = score_folder(results, photos, metrics={"adaface": cosine(embedder)})
    return Ntire(evaluation, identity, LEAST[subset])


def cosine(embedder: Embedder) -> Callable[[Tensor, Tensor], Tensor]:
    """The cosine similarity of two batches of aligned faces (B, 3, H, W), picture by picture: (B,)."""
    return lambda first, second: F.cosine_similarity(embedder(first).double(), embedder(second).double())
