"""Does one piece of text follow another? BERT's second objective (Devlin et al. 2019, section 3.1): its rows."""

from collections.abc import Mapping

import numpy as np

from xlingjax.errors import InputError
from xlingjax.training.languages import language_shares
from xlingjax.training.streams import TokenText


class PairStream:
    """Endless batches of rows `<s> A </s> B </s>`, both of equal length and of one language.

    In half of the rows B is what follows A in its document, in the others it is from another document. Batch n is drawn
    from (seed, n) alone.

    Args:
        texts: language -> its tokens, `</s>` before each document.
        rows, length: B and T; T is made odd by leaving the last token out.
        marks: ids of `<s>` and `</s>`.
        temperature: languages are drawn with `language_shares(tokens, temperature)`.
        seed: of the draws.

    Raises:
        InputError: a language with fewer than two documents that are long enough for a pair.
    """

    def __init__(
        self, texts: Mapping[str, TokenText], rows: int, length: int, marks: tuple[int, int], temperature: float,
        seed: int,
    ) -> None:
        self.rows, self.length, self.marks, self.seed = rows, length, marks, seed
        self.half = (length - 3) // 2
        self._documents = []
        for language, text in texts.items():
            parts = np.split(text.tokens, np.flatnonzero(text.tokens == marks[1]))
            found = [part[part != marks[1]] for part in parts]
            long = [part for part in found if len(part) >= 2 * self.half]
            if len(long) < 2:
                raise InputError(
                    f"language {language!r} has {len(long)} documents of {2 * self.half} tokens or more; pairs of "
                    "sentences need two, so give shorter rows, longer documents, or leave next sentences out")
            self._documents.append(long)
        self.shares = language_shares([text.real for text in texts.values()], temperature)

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """tokens int32[B, T], mask bool[B, T], follows int32[B] (1 where B is what follows A)."""
        random = np.random.default_rng([self.seed, 71, step])
        tokens = np.zeros((self.rows, self.length), np.int32)
        mask = np.zeros(tokens.shape, bool)
        mask[:, :3 + 2 * self.half] = True
        follows = random.integers(2, size=self.rows).astype(np.int32)
        languages = random.choice(len(self._documents), size=self.rows, p=self.shares)
        for row, (language, next_) in enumerate(zip(languages, follows)):
            documents = self._documents[language]
            one, other = random.choice(len(documents), size=2, replace=False)
            start = random.integers(len(documents[one]) - 2 * self.half + 1)
            a = documents[one][start:start + self.half]
            b = documents[one][start + self.half:start + 2 * self.half]
            if not next_:
                place = random.integers(len(documents[other]) - self.half + 1)
                b = documents[other][place:place + self.half]
            tokens[row, 0] = self.marks[0]
            tokens[row, 1:1 + self.half] = a
            tokens[row, 1 + self.half] = self.marks[1]
            tokens[row, 2 + self.half:2 + 2 * self.half] = b
            tokens[row, 2 + 2 * self.half] = self.marks[1]
        return {"tokens": tokens, "mask": mask, "follows": follows}
