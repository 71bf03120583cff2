"""The steps, each restartable in a folder of its own: learn a body, learn a bank on it, fine-tune it, score it."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xlingjax.analyses.lexical_transfer.data import Language
from xlingjax.analyses.lexical_transfer.settings import LexicalSettings
from xlingjax.files import slug
from xlingjax.models.config import TransformerConfig
from xlingjax.models.model import Model
from xlingjax.models.transformer import init_params
from xlingjax.tasks.task import Encoded, Scores, Task, evaluate
from xlingjax.training.fitting import FitSettings, fit
from xlingjax.training.next_sentence import PairStream
from xlingjax.training.objectives import row_losses
from xlingjax.training.tokenizer import SPECIAL, word_begins
from xlingjax.transfer.banks import NEXT, Bank, Body, combined, fresh_bank, join_params, joined_config, parted, split
from xlingjax.transfer.losses import LanguageLoss, TaskLoss, reader
from xlingjax.transfer.starts import drawn_like

BERT_WIDTH = 768  # for which normal weights of sd 0.02 are made


@dataclasses.dataclass(frozen=True)
class Stage:
    """What every step is given: settings, a seed, a folder, and a line to say when one is done.

    `trained` gathers the last training loss of each masked LM by name.
    """

    settings: LexicalSettings
    seed: int
    folder: Path
    say: Callable[[str], None]
    trained: dict[str, float] = dataclasses.field(default_factory=dict)

    def fitting(self, steps: int, rate: float) -> FitSettings:
        return FitSettings(steps, self.settings.optimise(rate, steps), self.settings.save_every,
                           compute=self.settings.compute, seed=self.seed)


def random_body(
    config: TransformerConfig, language: Language, settings: LexicalSettings, seed: int,
) -> tuple[Body, Bank]:
    """A body and a bank before training, their weights as large for their width as BERT's are for 768 units."""
    config = dataclasses.replace(config, vocab_size=language.vocabulary)
    scale = (BERT_WIDTH / config.width) ** 0.5

    def widened(path: Any, leaf: jax.Array) -> jax.Array:
        return leaf * scale if path[-1].key in ("kernel", "embedding") else leaf

    params = jax.tree_util.tree_map_with_path(widened, init_params(config, jax.random.key(seed)))
    body, bank = split(Model(params, config, language.tokenizer, family="xlm_roberta"), language.name)
    if settings.next_sentence:
        head = {"kernel": jnp.zeros((config.width, 2)), "bias": jnp.zeros(2)}
        body = dataclasses.replace(body, params={**body.params, NEXT: head})
    return body, bank


def learn_body(
    stage: Stage, name: str, body: Body, bank: Bank, language: Language, *, frozen_tokens: bool = False,
) -> tuple[Body, Bank]:
    """Step 1: masked LM, everything learned; with `frozen_tokens`, everything but the token embedding."""
    learned, rest = parted(body)
    params: dict[str, Any] = {"body": learned, "bank": dict(bank.params)}
    frozen: dict[str, Any] = {"body": rest}
    if frozen_tokens:
        frozen["bank"] = {"embed": params["bank"].pop("embed")}
    made = _language_fit(stage, name, params, frozen, body, bank, language,
                         stage.settings.body_steps, stage.settings.body_rate)
    whole = combined(made, frozen)
    return dataclasses.replace(body, params=whole["body"]), dataclasses.replace(bank, params=whole["bank"])


def learn_bank(
    stage: Stage, name: str, body: Body, language: Language, *, positions: bool = False, adapters: bool = False,
    start: np.ndarray | None = None, like: Bank | None = None,
) -> Bank:
    """Step 2: masked LM with the body frozen. Of several restarts the one with the lowest held-out loss is kept.

    Args:
        start: token embeddings to start from.
        like: else they are drawn with the mean and spread that this bank's rows have; None: as BERT's are.
    """
    settings, best = stage.settings, None
    for restart in range(settings.restarts):
        bank = fresh_bank(
            body, language.tokenizer, jax.random.fold_in(jax.random.key(stage.seed), 1000 + restart), language.name,
            vocabulary=language.vocabulary, positions=positions,
            adapter_width=settings.adapter_width if adapters else 0,
            start=drawn(like, language, 1000 * stage.seed + restart) if start is None else jnp.asarray(start))
        at = f"{name}-{restart}" if settings.restarts > 1 else name
        made = _language_fit(stage, at, {"bank": bank.params}, {"body": body.params}, body, bank, language,
                             settings.bank_steps, settings.bank_rate)
        bank = dataclasses.replace(bank, params=made["bank"])
        loss = held_loss(body, bank, language, settings) if settings.restarts > 1 else 0.0
        if best is None or loss < best[0]:
            best = (loss, bank)
    assert best is not None
    return best[1]


def drawn(like: Bank | None, language: Language, seed: int) -> jax.Array | None:
    """Random token embeddings of a language, as large as those of ordinary pieces that a bank has learned."""
    if like is None:
        return None
    rows = np.asarray(like.params["embed"]["tokens"]["embedding"])[len(SPECIAL):]
    return jnp.asarray(drawn_like(rows, language.vocabulary, seed))


def held_loss(body: Body, bank: Bank, language: Language, settings: LexicalSettings) -> float:
    """Held-out loss of masked LM, nats a hidden token; the same tokens are hidden whenever it is asked."""
    config = joined_config(body, bank)
    objective = settings.objective(language.tokenizer.mask_token_id)
    params, begins = join_params(body.params, bank.params), begins_of(language, settings)
    total, count = 0.0, 0
    for number, (tokens, mask, rows) in enumerate(zip(language.held.tokens, language.held.mask, language.held.rows)):
        nll, counts = _row_losses(
            params, config, objective, tokens, mask, jax.random.fold_in(jax.random.key(0), number), begins)
        real = rows >= 0
        total, count = total + float(np.asarray(nll)[real].sum()), count + int(np.asarray(counts)[real].sum())
    return total / max(count, 1)


def fine_tune(
    stage: Stage, name: str, body: Body, bank: Bank, task: Task, encoded: Encoded, noise: float,
) -> tuple[Body, Any]:
    """Step 3: a task in the bank's language; all that is embedding, and the LM head, is frozen."""
    settings = stage.settings
    learned, rest = parted(body, lambda path: path.startswith(("layers/", "norm/")))
    head = task.init_head(jax.random.fold_in(jax.random.key(stage.seed), 2000), body.config.width)

    def batches(step: int) -> dict[str, Any]:
        batch = encoded.batch(step - 1, settings.task_rows, stage.seed)
        return {"tokens": batch.tokens, "mask": batch.mask, "targets": batch.targets}

    fitted = fit(
        TaskLoss(joined_config(body, bank), task, noise), {"body": learned, "head": head}, batches,
        stage.fitting(settings.task_steps, settings.task_rate), stage.folder / "task" / slug(name),
        about={"step": "fine-tuning", "task": repr(task), "noise": noise, "rows": settings.task_rows,
               "examples": digest([(e.texts, e.label, e.language) for e in encoded.examples])},
        frozen={"body": rest, "bank": bank.params})
    stage.say(f"  {name}: fine-tuned, loss {fitted.metrics[-1]['loss']:.3f}")
    whole = combined({"body": fitted.params["body"]}, {"body": rest})
    return dataclasses.replace(body, params=whole["body"]), fitted.params["head"]


def score(body: Body, bank: Bank, head: Any, task: Task, encoded: Encoded, rows: int) -> Scores:
    """Step 4: the task's scores with a bank swapped in."""
    params = join_params(body.params, bank.params)
    return evaluate(task, reader(joined_config(body, bank)), params, head, encoded, rows)


def _language_fit(
    stage: Stage, name: str, params: dict, frozen: dict, body: Body, bank: Bank, language: Language, steps: int,
    rate: float,
) -> dict[str, Any]:
    settings = stage.settings
    batches = batches_of(language, settings, stage.seed)
    if (begins := begins_of(language, settings)) is not None:
        frozen = {**frozen, "begins": begins}
    loss = LanguageLoss(joined_config(body, bank), settings.objective(language.tokenizer.mask_token_id))
    fitted = fit(
        loss, params, batches, stage.fitting(steps, rate), stage.folder / "lm" / slug(name),
        about={"step": "masked LM", "bank": name, "rows": settings.rows, "length": settings.length,
               "objective": dataclasses.asdict(loss.objective), "next_sentence": settings.next_sentence,
               "config": loss.config.to_dict(),
               "text": digest([text.tokens.tolist() for text in language.texts.values()])},
        frozen=frozen)
    stage.trained[name] = fitted.metrics[-1]["loss"]
    stage.say(f"  {name}: masked LM, loss {stage.trained[name]:.3f}")
    return fitted.params


def batches_of(language: Language, settings: LexicalSettings, seed: int) -> Callable[[int], dict[str, np.ndarray]]:
    """The batch of each step, as `LanguageLoss` reads it."""
    if settings.next_sentence:
        marks = (language.tokenizer.bos_token_id, language.tokenizer.eos_token_id)
        return PairStream(language.texts, settings.rows, settings.length, marks, 0.0, seed).batch
    stream, mask = language.stream(settings, seed), np.ones((settings.rows, settings.length), bool)
    return lambda step: {"tokens": stream.batch(step)[0], "mask": mask}


def begins_of(language: Language, settings: LexicalSettings) -> jax.Array | None:
    """Which rows of a bank begin a word, where whole words are hidden."""
    if settings.unit != "word":
        return None
    found = word_begins(language.tokenizer)
    return jnp.asarray(np.pad(found, (0, max(0, language.vocabulary - len(found))), constant_values=True))


_row_losses = jax.jit(
    lambda params, config, objective, tokens, mask, key, begins: row_losses(
        params, config, objective, tokens, mask, key, begins=begins), static_argnums=(1, 2))


def digest(value: Any) -> str:
    """SHA-256 of JSON values, for the identity of a run."""
    return hashlib.sha256(json.dumps(value, ensure_ascii=True).encode()).hexdigest()
