"""Models before fine-tuning: one of each kind, with its tokenizer, and how to make it anew from random parameters."""

import dataclasses
import hashlib
from typing import Any

import jax
import numpy as np

from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.dialogues import Dialogues
from xlingjax.errors import InputError
from xlingjax.models import Model, TransformerConfig, init_params
from xlingjax.models.generating import Generated, generate
from xlingjax.models.lstm import LstmConfig, LstmPair, init_lstm_pair
from xlingjax.models.pair import EncoderDecoder, PairConfig, init_pair
from xlingjax.models.replying import reply
from xlingjax.models.transformer import Params
from xlingjax.models.weights import fingerprint_params
from xlingjax.training.replies import Config

NAMES = {"decoder": "decoder (DialoGPT layout)", "pair": "encoder-decoder (Blenderbot layout)",
         "lstm": "LSTM with attention"}


@dataclasses.dataclass(frozen=True)
class Start:
    """A model that is fine-tuned.

    Attributes:
        kind: "decoder", "pair" or "lstm". params, config: of the kind.
        tokenizer: with an end token. start: token that replies begin with (pair and LSTM).
        name: for reports. random: the parameters were drawn and never trained.
    """

    kind: str
    params: Params = dataclasses.field(repr=False)
    config: Config
    tokenizer: Any = dataclasses.field(repr=False)
    start: int = 0
    name: str = ""
    random: bool = False

    def fresh(self, seed: int) -> "Start":
        """The same shape with random parameters."""
        key = jax.random.fold_in(jax.random.key(seed), 17)
        return dataclasses.replace(
            self, params=initial(self.config, key), name=f"{self.kind} from scratch", random=True)

    def with_params(self, params: Params) -> "Start":
        """The model after training."""
        return dataclasses.replace(self, params=params, random=False)

    def model(self) -> Model | EncoderDecoder | LstmPair:
        """As the rest of the library takes it."""
        if isinstance(self.config, TransformerConfig):
            return Model(self.params, self.config, self.tokenizer, fingerprint_params(self.params), self.name)
        if isinstance(self.config, PairConfig):
            return EncoderDecoder(self.params, self.config, self.tokenizer, fingerprint_params(self.params), self.name,
                                  start=self.start)
        return LstmPair(self.params, self.config, self.start, self.tokenizer, self.name)

    def answer(self, tokens: Any, mask: Any, **settings: Any) -> Generated:
        """Replies to contexts [B, T], one a row."""
        made = self.model()
        return generate(made, tokens, mask, **settings) if isinstance(made, Model) else reply(
            made, tokens, mask, **settings)

    def identity(self) -> dict[str, str]:
        """Hashes of what decides the model."""
        text = self.tokenizer.backend_tokenizer.to_str()
        return {"weights": fingerprint_params(self.params), "tokenizer": hashlib.sha256(text.encode()).hexdigest()}


def initial(config: Config, key: Any) -> Params:
    """Random parameters of any kind."""
    if isinstance(config, TransformerConfig):
        return init_params(config, key)
    return init_pair(config, key) if isinstance(config, PairConfig) else init_lstm_pair(config, key)


def from_model(model: Model) -> Start:
    """A decoder as published or pre-trained.

    Raises:
        InputError: no decoder with a head, or no tokenizer.
    """
    if not model.config.causal or model.config.head != "lm":
        raise InputError(f"{model.name} is no decoder with a head; the decoder of a dialogue needs one")
    return Start("decoder", model.params, model.config, _tokenizer(model), name=model.name)


def from_pair(pair: EncoderDecoder) -> Start:
    """An encoder-decoder as published; `InputError` without a tokenizer."""
    return Start("pair", pair.params, pair.config, _tokenizer(pair), pair.start, pair.name)


def small_starts(tokenizer: Any, kinds: tuple[str, ...], *, layers: int, width: int, heads: int, text: int, label: int,
                 seed: int) -> dict[str, Start]:
    """Small models with random parameters: decoder as GPT-2's, pair as Blenderbot's, LSTM of equal width.

    Raises:
        InputError: a kind that is none, or sizes that do not fit.
    """
    vocabulary = len(tokenizer)
    common: dict[str, Any] = {"vocab_size": vocabulary, "layers": layers, "width": width, "heads": heads,
                              "mlp_width": 4 * width, "positions": "learned"}
    begin = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    configs: dict[str, Config] = {}
    for kind in kinds:
        if kind == "decoder":
            configs[kind] = TransformerConfig(**common, max_length=text + label)
        elif kind == "pair":
            encoder = TransformerConfig(**common, max_length=text, causal=False, head="")
            configs[kind] = PairConfig(encoder, TransformerConfig(**common, max_length=label, cross=True))
        elif kind == "lstm":
            configs[kind] = LstmConfig(vocabulary, width)
        else:
            raise InputError(f"kind {kind!r} is unknown; choose among {', '.join(NAMES)}")
    return {kind: Start(kind, initial(config, jax.random.key(seed)), config, tokenizer, begin, f"small {kind}", True)
            for kind, config in configs.items()}


def text_as_dialogues(corpus: Corpus, language: str, held_out: int = 10) -> Dialogues:
    """Running text as dialogues: a document is an episode, a paragraph a turn.

    Args:
        held_out: every so many documents one is validation, the others are training.

    Raises:
        InputError: the language is not there.
    """
    part = corpus.language(language)
    order = np.argsort(np.unique(part.documents, return_inverse=True)[1], kind="stable")
    part = part.rows(order[[bool(part.texts[row].strip()) for row in order]])
    names, number = np.unique(part.documents, return_inverse=True)
    splits = np.where(number % held_out == held_out - 1, "valid", "train")
    if not len(names):
        raise InputError(f"corpus {corpus.name!r} has no text in {language}")
    turn = np.argsort(splits == "valid", kind="stable")
    part, splits = part.rows(turn), splits[turn]
    blank = np.zeros(len(part), bool)
    return Dialogues(part.texts, part.languages, splits, part.documents, np.arange(len(part)),
                     np.full(len(part), "", "<U1"), blank, ~blank, name=corpus.name)


def _tokenizer(model: Any) -> Any:
    if getattr(model.tokenizer, "backend_tokenizer", None) is None:
        raise InputError(f"{model.name} brings no tokenizer of the fast kind; name a folder that has a tokenizer.json")
    if model.tokenizer.eos_token_id is None:
        raise InputError(f"the tokenizer of {model.name} has no end token (eos), which closes every turn")
    return model.tokenizer
