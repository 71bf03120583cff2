"""Reading a Hugging Face `config.json` so that nothing in it is silently ignored."""

from collections.abc import Collection, Mapping
from typing import Any

from xlingjax.errors import InputError

# Options that change no number of a forward pass without dropout.
HARMLESS = frozenset(
    """_attn_implementation _name_or_path add_cross_attention architectures attention_dropout
    attention_probs_dropout_prob activation_dropout attn_pdrop auto_map begin_suppress_tokens
    bos_token_id classifier_dropout cls_token_id decoder_start_token_id dropout dtype embd_pdrop
    eos_token_id finetuning_task gradient_checkpointing hidden_dropout hidden_dropout_prob id2label
    init_std initializer_range is_encoder_decoder keys_to_ignore_at_inference label2id layerdrop
    mask_token_id model_type name_or_path output_attentions output_hidden_states output_past
    pad_token_id prefix problem_type resid_pdrop return_dict sep_token_id
    task_specific_params tie_word_embeddings tokenizer_class torch_dtype torchscript
    transformers_version unk_token_id use_bfloat16 use_cache
    bad_words_ids chunk_size_feed_forward diversity_penalty do_sample early_stopping
    encoder_no_repeat_ngram_size exponential_decay_length_penalty forced_bos_token_id
    forced_eos_token_id length_penalty max_length max_new_tokens min_length no_repeat_ngram_size
    num_beam_groups num_beams num_return_sequences output_scores remove_invalid_values
    repetition_penalty return_dict_in_generate suppress_tokens temperature top_k top_p typical_p
    """.split()
)
# Options of every family that we honour at one value only.
REFUSED = {"add_cross_attention": False, "is_encoder_decoder": False}


class Options:
    """A `config.json` as a family reads it.

    Args:
        hf: the parsed file.
        family: its name, for messages.
        ignored: further options that change no number in this family.
        only: option -> the one value that we honour (also the value of an absent option).

    Options neither read, ignored nor empty are an `InputError` in `finish`.
    """

    def __init__(
        self,
        hf: Mapping[str, Any],
        family: str,
        ignored: Collection[str] = (),
        only: Mapping[str, Any] | None = None,
    ):
        self.hf, self.family = hf, family
        self.seen = set(HARMLESS) | set(ignored)
        for name, value in (REFUSED | dict(only or {})).items():
            if self.read(name, default=value) != value:
                raise InputError(
                    f"option {name} of this {family} model is {hf[name]!r}, which is not "
                    f"supported; only {value!r} is"
                )

    def read(self, *names: str, default: Any = None) -> Any:
        """The first of several spellings that is present and not null, else the default."""
        self.seen |= set(names)
        for name in names:
            if self.hf.get(name) is not None:
                return self.hf[name]
        if default is None:
            raise InputError(
                f"option {names[0]} is missing from the config.json of this {self.family} "
                "model; take the file that belongs to the weights"
            )
        return default

    def choose(self, *names: str, choices: Mapping[str, str], default: str | None = None) -> str:
        """An option with a value of ours for each of its values."""
        value = self.read(*names, default=default)
        if value not in choices:
            raise InputError(
                f"option {names[0]} of this {self.family} model is {value!r}, which is not "
                f"supported; {', '.join(map(repr, choices))} are"
            )
        return choices[value]

    def finish(self) -> None:
        """`InputError` for an option that nobody has looked at; null and false mean absent."""
        for name, value in self.hf.items():
            if name not in self.seen and value is not None and value is not False:
                raise InputError(
                    f"option {name} of this {self.family} model is {value!r}, which is not "
                    "supported; use a checkpoint without it"
                )


ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
