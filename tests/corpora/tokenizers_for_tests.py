"""Tiny tokenizers, trained on the spot: a byte-level BPE, a unigram with metaspace, a slow one."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizer, PreTrainedTokenizerFast

LINES = ["the cat sat on the mat", "die Katze saß auf der Matte", "the dogs ran home"] * 5


def bpe() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(LINES, trainers.BpeTrainer(
        vocab_size=340, special_tokens=["<s>", "</s>", "<pad>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def unigram() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.train_from_iterator(LINES, trainers.UnigramTrainer(
        vocab_size=80, special_tokens=["<pad>", "<unk>"], unk_token="<unk>", show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>")


class Letters(PreTrainedTokenizer):
    """A slow tokenizer: one token a letter, [CLS] before and [SEP] behind."""

    def __init__(self, **kwargs):
        self.table = {t: i for i, t in enumerate(["[CLS]", "[SEP]", "[UNK]", *"abcdefgh "])}
        super().__init__(cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]", **kwargs)

    @property
    def vocab_size(self):
        return len(self.table)

    def get_vocab(self):
        return dict(self.table)

    def _tokenize(self, text, **kwargs):
        return list(text)

    def _convert_token_to_id(self, token):
        return self.table.get(token, self.table["[UNK]"])

    def _convert_id_to_token(self, index):
        return list(self.table)[index]

    def build_inputs_with_special_tokens(self, token_ids_0, token_ids_1=None):
        return [0, *token_ids_0, 1]
