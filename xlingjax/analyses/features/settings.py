"""Everything that decides an analysis of grammatical features beside model, dictionary and treebanks."""

import dataclasses

from xlingjax.errors import InputError, require_least

RANKINGS = ("evidence", "mean")
ALIGNMENTS = ("mean", "first")


@dataclasses.dataclass(frozen=True)
class FeatureSettings:
    """Everything that decides an analysis of grammatical features beside model, dictionary and treebanks.

    Attributes:
        values: as "Number=Plur"; () = every value of every feature that the treebank was read with.
        minimum: words with a value, and words with another one of the same feature, that a language needs in the
            documents that choose latents and in those that train probes. tested: the same in test documents.
        words: of each of the two sides and each part of the documents, at most.
        shares: of documents that choose latents, train probes, test.
        align: a word is the "mean" over its tokens, or its "first" token.
        l2: penalty on squared weights against the sum of losses, on features of unit variance.
        ranking: of latents, by the "evidence" that they are for the value (`attribution.Effects`), or by the "mean"
            effect on words with it, as Brinkmann et al. 2025 do.
        k: latents of a language's top. ks: the same for the curve.
        sharing: languages in whose tops a latent has to be to count as shared.
        ablated: latents set to zero in a condition, at most.
        layers: later layers looked at, spread evenly, the last one among them.
        matched, random: draws of random latents, matched in activity and not.
        null_draws: random sets behind the chance of sharing.
        nearly: share of all cells in whose tops an artefact latent is.
        attributed: words of a side for downstream attribution; 0 = none. steps: of integrated gradients.
            exact: latents that are taken out one by one beside it.
        losses: sentences of a language for the cross-entropy, at most; 0 = none.
        examples: words shown of each top latent. shown: latents shown of each value.
        bootstraps: draws of test documents.
        batch_tokens: of a batch; batch_tokens times the latents are held as floats on the device.
        seed: of documents, words and controls.
    """

    values: tuple[str, ...] = ()
    minimum: int = 128
    tested: int = 32
    words: int = 400
    shares: tuple[int, int, int] = (1, 1, 1)
    align: str = "mean"
    l2: float = 1.0
    ranking: str = "evidence"
    k: int = 32
    ks: tuple[int, ...] = (8, 16, 32, 64, 128)
    sharing: int = 2
    ablated: int = 128
    layers: int = 4
    matched: int = 20
    random: int = 5
    null_draws: int = 200
    nearly: float = 0.8
    attributed: int = 32
    steps: int = 16
    exact: int = 12
    losses: int = 100
    examples: int = 3
    shown: int = 32
    bootstraps: int = 1000
    batch_tokens: int = 2048
    seed: int = 0

    def __post_init__(self) -> None:
        for name, choices in (("ranking", RANKINGS), ("align", ALIGNMENTS)):
            if getattr(self, name) not in choices:
                raise InputError(f"{name} {getattr(self, name)!r} is unknown; choose among {', '.join(choices)}")
        for name in ("values", "shares", "ks"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        require_least(self, {
            "minimum": 4, "tested": 2, "words": 4, "l2": 0, "k": 1, "sharing": 2, "ablated": 1, "layers": 1,
            "matched": 2, "random": 1, "null_draws": 20, "attributed": 0, "steps": 1, "exact": 2, "losses": 0,
            "examples": 0, "shown": 1, "bootstraps": 20, "batch_tokens": 1, "seed": 0})
        if len(self.shares) != 3 or min(self.shares) < 1:
            raise InputError(f"shares are {self.shares}; give three whole numbers of at least 1")
        if not self.ks or min(self.ks) < 1:
            raise InputError(f"ks are {self.ks}; name sizes of at least 1")
        if not 0 < self.nearly <= 1:
            raise InputError(f"nearly is {self.nearly}; give a share above 0 and at most 1")
        for value in self.values:
            feature, _, name = value.partition("=")
            if not feature or not name:
                raise InputError(f"value {value!r} is not of the form Feature=Value; give for example Number=Plur")
