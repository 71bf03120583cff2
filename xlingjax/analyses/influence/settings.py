"""Everything that decides an influence experiment beside its checkpoints, its texts and its queries."""

import dataclasses

from xlingjax.errors import InputError, require_least
from xlingjax.influence.factors import FactorSettings


@dataclasses.dataclass(frozen=True)
class InfluenceSettings:
    """Everything that decides an influence experiment beside its checkpoints, its texts and its queries.

    Attributes:
        factors: of `fit_factors`.
        fitted: training sequences that factors are fitted on, drawn at random; all where there are fewer.
        length: most tokens of a sequence; longer ones are cut.
        candidates: training sequences that are scored: 0 = all, else of each query so many: those that share the rarest
            tokens with it (`influence.shared_tokens`), or, with `components`, the nearest in the store of gradients.
        rank: of query gradients while sequences are scored; 0 = whole gradients.
        rescored: best and worst sequences of a query whose scores are computed again with whole gradients.
        shown: of these, how many are kept to be read, with the influence of each token.
        tops: most influential sequences of a query, in its own language, that its translations are scored on.
        asked: queries of each language that training sequences are scored for.
        pairs: translated sentences that the ranks of translations are computed on.
        distractors: sentences of its length that a translation is ranked among.
        permutations: of the null. draws: of the bootstrap.
        components: of each matrix's gradients, those of the largest variance, that are kept on disk to find candidates
            by (`influence.store`); 0 = none.
        block: sequences or a little more, whose scores are kept in one file. batch_tokens: of a batch.
        dtype: of the forward pass.
        seed: of the draw of sequences, of sampled labels, distractors, permutations and the bootstrap.
    """

    factors: FactorSettings = FactorSettings()
    fitted: int = 10_000
    length: int = 512
    candidates: int = 0
    rank: int = 32
    rescored: int = 100
    shown: int = 5
    tops: int = 20
    asked: int = 6
    pairs: int = 100
    distractors: int = 20
    permutations: int = 199
    draws: int = 1000
    components: int = 0
    block: int = 4096
    batch_tokens: int = 4096
    dtype: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        require_least(self, {"fitted": 1, "length": 2, "candidates": 0, "rank": 0, "rescored": 1, "shown": 1, "tops": 1,
                             "asked": 1, "pairs": 3, "distractors": 1, "permutations": 19, "draws": 1, "components": 0,
                             "block": 1, "batch_tokens": 1, "seed": 0})
        if self.components and not self.candidates:
            raise InputError(f"components is {self.components}, and candidates is 0, so that all sequences are scored "
                             "anyway; say how many candidates the store is to find")
        if self.shown > self.rescored:
            raise InputError(f"shown is {self.shown} of {self.rescored} rescored sequences; show no more than these")
