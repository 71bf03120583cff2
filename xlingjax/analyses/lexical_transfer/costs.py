"""What freezing saves: a step that learns everything beside one that learns a bank, by count, memory and time."""

import time
from typing import Any

import jax
import numpy as np
import xarray as xr

from xlingjax.analyses.lexical_transfer.data import Language
from xlingjax.analyses.lexical_transfer.stages import Stage, batches_of, begins_of
from xlingjax.training.fitting import compiled_step, programs
from xlingjax.transfer.banks import Bank, Body, joined_config, parted
from xlingjax.transfer.losses import LanguageLoss

TIMED = 10  # steps, of which the median counts


def step_costs(body: Body, bank: Bank, language: Language, stage: Stage) -> xr.Dataset:
    """One masked-LM step with everything learned, and with the body frozen.

    Returns:
        [learned]: `operations` and `temporary_bytes` as the compiler counts them, `state_bytes` of what is learned with
        its moments, `seconds` (median of ten), `tokens_per_second`.
    """
    settings = stage.settings
    batch = batches_of(language, settings, 0)(1)
    begins = begins_of(language, settings)
    words = {} if begins is None else {"begins": begins}
    learned, rest = parted(body)
    loss = LanguageLoss(joined_config(body, bank), settings.objective(language.tokenizer.mask_token_id))
    ways = {"everything": ({"bank": bank.params, "body": learned}, {"body": rest, **words}),
            "bank": ({"bank": bank.params}, {"body": body.params, **words})}
    fitting = stage.fitting(settings.bank_steps, settings.bank_rate)
    rows: dict[str, list[float]] = {name: [] for name in ("operations", "temporary_bytes", "state_bytes", "seconds")}
    for params, frozen in ways.values():
        compiled = compiled_step(loss, params, batch, fitting, frozen)
        memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
        made = programs(loss, fitting.optimiser, fitting.steps, fitting.accumulate, fitting.compute)
        state: Any = made.initial(jax.tree.map(jax.numpy.copy, params))
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
        times = []
        for _ in range(TIMED + 1):
            begun = time.perf_counter()
            state, value, _ = jax.block_until_ready(made.step(state, frozen, batch, jax.random.key(0)))
            times.append(time.perf_counter() - begun)
        for name, value in zip(rows, (cost.get("flops", np.nan), memory.temp_size_in_bytes if memory else np.nan, size,
                                      np.median(times[1:]))):
            rows[name].append(float(value))
    made_of = xr.Dataset({name: ("learned", values) for name, values in rows.items()}, {"learned": list(ways)})
    made_of["tokens_per_second"] = batch["tokens"].size / made_of["seconds"]
    return made_of
