"""A body and the languages it reads through: vocabulary banks, their starts, losses with the body frozen."""

from xlingjax.transfer.banks import Bank, Banks, Body, fresh_bank, join, join_params, load_banks, save_banks, split

__all__ = ["Bank", "Banks", "Body", "fresh_bank", "join", "join_params", "load_banks", "save_banks", "split"]
