"""Everything that decides a trace beside its checkpoints and its corpus."""

import dataclasses

from xlingjax.analyses.language_neurons import METHODS
from xlingjax.analyses.language_probe import ProbeSettings
from xlingjax.errors import InputError, require_least
from xlingjax.models import Model
from xlingjax.models.loading import check_dtype
from xlingjax.responses.jobs import BATCH_TOKENS, read_sites


@dataclasses.dataclass(frozen=True)
class TraceSettings:
    """Everything that decides a trace beside its checkpoints and its corpus.

    Attributes:
        sites: where neurons are; None = the outputs of the model's own linear maps.
        pool: how the tokens of a sentence become one response: "max", "mean" or "last".
        k: size of an expert set; None = in proportion to 500 of 221,184, at least 20.
        permutations, halvings, bootstraps: of `concept_experts`.
        minimum: positives and negatives that a concept needs in every language.
        ladder_pairs: language pairs on which the two anchor rungs are computed.
        shown: neurons shown with sentences, for each concept.
        unseen: languages that pre-training never saw (negative controls).
        first_token: False leaves the first real token out of the pooling (the attention sink).
        shuffle: permute the labels, whole documents, alike in all languages: the trace must then
            find nothing.
        dtype: of the forward pass.
        mesh: as of `sharding.make_mesh`, for example "data:4,model:2"; "" = one device.
        batch_tokens: the most tokens of a batch.
        seed: of halves, permutations, ties, probes.
        probe: of the language-identification probe; None leaves it out.
        language_neurons: "lape" or "both_ends": at each checkpoint the neurons of single languages are taken away, and
            the damage to every language measured; "" leaves it out.
    """

    sites: tuple[str, ...] | None = None
    pool: str = "max"
    k: int | None = None
    permutations: int = 20
    halvings: int = 2
    bootstraps: int = 0
    minimum: int = 8
    ladder_pairs: int = 4
    shown: int = 1
    unseen: tuple[str, ...] = ()
    first_token: bool = True
    shuffle: bool = False
    dtype: str = "float32"
    mesh: str = ""
    batch_tokens: int = BATCH_TOKENS
    seed: int = 0
    probe: ProbeSettings | None = ProbeSettings()
    language_neurons: str = ""

    def __post_init__(self) -> None:
        if self.pool not in ("max", "mean", "last"):
            raise InputError(f"pool {self.pool!r} is unknown; choose among max, mean, last")
        if self.language_neurons not in ("", *METHODS):
            raise InputError(
                f"language_neurons {self.language_neurons!r} is unknown; choose among {', '.join(METHODS)}")
        least = {"k": 1, "permutations": 3, "halvings": 1, "bootstraps": 0, "minimum": 1,
                 "ladder_pairs": 0, "shown": 0, "batch_tokens": 1, "seed": 0}
        require_least(self, least)


def require_fit(model: Model, settings: TraceSettings) -> None:
    """`InputError` for settings that this model cannot meet; only its config is looked at."""
    check_dtype(settings.dtype)
    sites = model.neuron_sites if settings.sites is None else read_sites(model, settings.sites)
    total = model.neurons(sites).total
    if settings.k is not None and settings.k > total:
        raise InputError(f"k is {settings.k}, but {model.name} has {total:,} neurons at "
                         f"{', '.join(sites)}; choose a smaller k or more sites")
