"""Tokenizers as data: no code of a repository is run, no connection is made."""

import json
from pathlib import Path
from typing import Any

from xlingjax.errors import InputError
from xlingjax.models.weights.files import read_json

ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
VOCABULARIES = (
    "vocab.json",
    "vocab.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.model",
)


def load_tokenizer(folder: Path) -> Any | None:
    """The tokenizer of a folder, as Hugging Face's libraries make it; None where there is none.

    `tokenizer.json` alone says how text becomes ids; the other files only name the special tokens
    (beginning, end, padding, ...). A folder without it is read by the class of transformers that
    its config names, from local files and without remote code. Chat templates are not read.

    Errors: `InputError` for files that cannot be read or ask for code of their own.
    """
    if (folder / "tokenizer.json").is_file():
        return _from_json(folder)
    if not any((folder / name).is_file() for name in VOCABULARIES):
        return None
    from transformers import AutoTokenizer  # seconds to import, so only where it is needed

    try:
        return AutoTokenizer.from_pretrained(
            str(folder), trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # each tokenizer class raises its own
        raise _unreadable(folder, error) from error


def require_fit(tokenizer: Any, vocab_size: int, where: object) -> None:
    """`InputError` where a tokenizer can give an id that the model has no embedding for."""
    largest, token = max(
        ((id_, token) for token, id_ in tokenizer.get_vocab().items()), default=(0, "")
    )
    if largest >= vocab_size:
        raise InputError(
            f"the tokenizer of {where} gives {token!r} the id {largest}, but the vocabulary of "
            f"the model has {vocab_size} tokens; give the tokenizer that belongs to the model"
        )


def _from_json(folder: Path) -> Any:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    path = folder / "tokenizer.json"
    read_json(path)
    try:
        backend = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise _unreadable(path, error) from error
    return PreTrainedTokenizerFast(tokenizer_object=backend, **_special_tokens(folder, backend))


def _special_tokens(folder: Path, backend: Any) -> dict[str, str]:
    """Role -> token, from the first file that names one the vocabulary has."""
    special: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        settings = read_json(folder / name) if (folder / name).is_file() else {}
        for role in ROLES:
            token = settings.get(role)
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str) and backend.token_to_id(token) is not None:
                special.setdefault(role, token)
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    for role in ROLES:
        number = config.get(f"{role}_id")
        if type(number) is int and 0 <= number < backend.get_vocab_size():
            special.setdefault(role, backend.id_to_token(number))
    return {role: token for role, token in special.items() if token is not None}


def _unreadable(where: Path, error: Exception) -> InputError:
    reason = json.dumps(f"{type(error).__name__}: {error}"[:300])
    return InputError(
        f"the tokenizer of {where} cannot be read without running its code ({reason}); give "
        "tokenizer= another folder or repository"
    )
