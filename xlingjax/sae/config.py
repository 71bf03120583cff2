"""What a dictionary is: its kind and its sizes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from xlingjax.errors import InputError

KINDS = ("relu", "gated", "topk", "batch_topk", "matryoshka", "jumprelu")
K_KINDS = ("topk", "batch_topk", "matryoshka")  # sparse by a number of latents, not by a penalty
THRESHOLD_KINDS = ("batch_topk", "matryoshka")  # one threshold stands for the batch once training is over


@dataclasses.dataclass(frozen=True)
class DictionaryConfig:
    """The kind and the sizes of a dictionary.

    Args:
        kind: "relu" (L1 penalty), "gated" (Rajamanoharan et al. 2024a), "topk" (Gao et al. 2024), "batch_topk"
            (Bussmann et al. 2024), "matryoshka" (Bussmann et al. 2025), "jumprelu" (Rajamanoharan et al. 2024b).
        inputs: D, width of what it reads.
        latents: M.
        outputs: width of what it writes; 0 = what it reads. A transcoder reads one site and writes another.
        k: active latents of a token: exactly ("topk") or on average ("batch_topk", "matryoshka").
        groups: of "matryoshka": ends of the nested prefixes of latents, the last one M.
        centred: the decoder's bias is taken from the input first; not where another site is written.
        skip: a linear map from input to output beside the latents.

    Raises:
        InputError: sizes that do not fit.

    >>> DictionaryConfig("topk", inputs=8, latents=32, k=4).out
    8
    """

    kind: str
    inputs: int
    latents: int
    outputs: int = 0
    k: int = 0
    groups: tuple[int, ...] = ()
    centred: bool = True
    skip: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", tuple(self.groups))
        if self.kind not in KINDS:
            raise InputError(f"dictionary kind {self.kind!r} is unknown; choose among {', '.join(KINDS)}")
        for name in ("inputs", "latents"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name} of a dictionary is {value!r}; give a whole number of at least 1")
        if self.outputs < 0:
            raise InputError(f"outputs of a dictionary is {self.outputs!r}; give a width, or 0 for that of its input")
        if (self.kind in K_KINDS) != (self.k > 0) or self.k > self.latents:
            raise InputError(
                f"k of a {self.kind} dictionary of {self.latents} latents is {self.k}; give " +
                (f"1 to {self.latents}" if self.kind in K_KINDS else "0, its sparsity comes from a penalty"))
        rising = all(a < b for a, b in zip((0, *self.groups), self.groups))
        if (self.kind == "matryoshka") != bool(self.groups) or not rising or (
                self.groups and self.groups[-1] != self.latents):
            raise InputError(
                f"groups of a {self.kind} dictionary of {self.latents} latents are {list(self.groups)}; " +
                (f"give rising ends of its prefixes, the last one {self.latents}" if self.kind == "matryoshka"
                 else "leave them out"))
        if self.centred and self.out != self.inputs:
            raise InputError(f"a dictionary from width {self.inputs} to {self.out} cannot take its output's bias from "
                             "its input; give centred=False")

    @property
    def out(self) -> int:
        """Width of what it writes."""
        return self.outputs or self.inputs

    def to_dict(self) -> dict[str, Any]:
        """Plain values: what JSON gives back is equal to it."""
        return {**dataclasses.asdict(self), "groups": list(self.groups)}

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> "DictionaryConfig":
        """The inverse of `to_dict`; `InputError` names an option that is unknown or missing."""
        fields = {field.name: field.default for field in dataclasses.fields(cls)}
        unknown = sorted(set(options) - set(fields))
        lacking = [name for name, default in fields.items()
                   if default is dataclasses.MISSING and name not in options]
        if unknown or lacking:
            raise InputError(f"the options of a dictionary have {', '.join(unknown) or 'nothing'} too many and lack "
                             f"{', '.join(lacking) or 'nothing'}; they are {', '.join(fields)}")
        return cls(**options)
