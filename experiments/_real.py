"""The corpora of the experiments on real text, in a folder DATA."""

TEXTS = ("opensource_guide", "djangogirls", "global_asp", "udhr")  # running text, DATA/text/*.tsv.xz
PUD = ("eng", "deu", "fra", "spa", "ita", "rus", "tur", "hin", "ara")  # PUD has no Persian
