"""Published runs of pre-training: how their checkpoints are named, what is known of them, which are broken."""

import dataclasses
import fnmatch
import re
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Series:
    """What is published about the training checkpoints of some repositories.

    Attributes:
        repositories: `fnmatch` pattern of their names on the hub.
        family: of `models.families`; "" where the files are of a kind that is not read.
        template: name of a revision; `{step}`, and `{billions}` of tokens where the name holds them.
        steps: those that are published, in words.
        tokens_per_step: tokens of one optimiser step; None where the revision's name or nobody says it.
        defects: revision -> what is wrong with that upload.
        note: what else a user has to know.
    """

    repositories: str
    family: str
    template: str
    steps: str
    tokens_per_step: float | None = None
    defects: Mapping[str, str] = dataclasses.field(default_factory=dict)
    note: str = ""


def _bloom(size: str, tokens: float, steps: str, **defects: str) -> Series:
    """Sequences of 2,048 in batches of 256 (560m, 1b1) or 512 (1b7, 7b1): Le Scao et al. 2022, table 3."""
    return Series(f"bigscience/bloom-{size}-intermediate", "bloom", "global_step{step}", steps, tokens, defects,
                  f"tokenizer from bigscience/bloom-{size}")


SMALL, LARGE = "1k, 10k, 100k, 200k, ... 600k", "1k, 10k, 50k, 100k, ... 300k"
KNOWN = (
    _bloom("560m", 0.524e6, SMALL, global_step500000="published with the weights of global_step10000",
           global_step600000="published broken: English perplexity about 320,000"),
    _bloom("1b1", 0.524e6, SMALL),
    _bloom("1b7", 1.049e6, LARGE, global_step1000="published with the weights of global_step10000",
           global_step250000="published with the weights of global_step300000"),
    _bloom("7b1", 1.049e6, LARGE, global_step100000="published with the weights of global_step200000"),
    Series("EleutherAI/pythia-*", "gpt_neox", "step{step}", "0, 1, 2, 4, ... 512, then every 1,000 to 143,000",
           1024 * 2048, note="English"),
    Series("allenai/OLMo-2-*", "olmo", "stage1-step{step}-tokens{billions}B", "every 1,000 or so", note="English"),
    Series("allenai/OLMo-*", "olmo", "step{step}-tokens{billions}B", "every 1,000 or so",
           note="English; the repositories whose names end in -hf"),
    Series("stanford-crfm/*-gpt2-*", "gpt2", "checkpoint-{step}", "about 600, dense at first, to 400,000", 512 * 1024,
           note="English; five seeds of two sizes, so seeds are true replicates"),
    Series("*xlmr-base-replica*", "", "", "39, 5k to 1.5M", note="XLM-R of Blevins et al. 2022, in fairseq's format: "
           "convert it with the converter that transformers has, and give the folders"),
)


def series_of(repository: str) -> Series | None:
    """The series that a repository belongs to, the first that fits.

    >>> series_of("EleutherAI/pythia-160m").template
    'step{step}'
    >>> series_of("allenai/OLMo-2-1124-7B").template, series_of("runs/trace/pretrain")
    ('stage1-step{step}-tokens{billions}B', None)
    """
    return next((one for one in KNOWN if fnmatch.fnmatchcase(repository, one.repositories)), None)


def tokens_seen(repository: str, revision: str, step: int | None, per_step: float | None = None) -> int | None:
    """Tokens that a checkpoint has seen: by `per_step`, by its name, or by what is published; None if nobody says.

    >>> tokens_seen("allenai/OLMo-1B-hf", "step1000-tokens4B", 1000)
    4000000000
    >>> tokens_seen("EleutherAI/pythia-70m", "step2", 2), tokens_seen("mine", "step2", 2)
    (4194304, None)
    """
    named = re.search(r"tokens(\d+)B", revision)
    if per_step is None and named:
        return int(named.group(1)) * 10**9
    known = series_of(repository)
    rate = per_step or (known.tokens_per_step if known else None)
    return round(step * rate) if rate and step is not None else None
