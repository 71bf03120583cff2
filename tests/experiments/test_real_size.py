"""The command that shows bounded memory at real size, on a small model and a made-up SIB-200."""

import lzma
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

LANGUAGES = ("eng_Latn", "spa_Latn")
TOPICS = ("health", "science", "sports")


def made_up(folder: Path, count: int = 400) -> Path:
    """Sentences of made-up words, each topic with words of its own, in blocks as SIB-200 has them."""
    rng = np.random.default_rng(0)
    lines, index = ["lang\tindex_id\ttext"], ["index_id\tsplit\tcategory"]
    topic = rng.integers(0, len(TOPICS), count)
    for at in range(count):
        index.append(f"{at}\ttrain\t{TOPICS[topic[at]]}")
    for language in LANGUAGES:
        words = ["".join(rng.choice(list("abcdefghilmnoprstu"), 5)) for _ in range(300)]
        for at in range(count):
            chosen = [words[i] for i in rng.integers(60, 300, rng.integers(6, 20))]
            lines.append(f"{language}\t{at}\t{' '.join([words[20 * topic[at] + at % 20], *chosen])}")
    with lzma.open(folder / "sib200.tsv.xz", "wt", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    (folder / "sib200_index.tsv").write_text("\n".join(index) + "\n")
    return folder


@pytest.mark.slow
@pytest.mark.promise
def test_two_formats_from_the_cache_in_bounded_memory(tmp_path) -> None:
    command = [sys.executable, "-m", "experiments.real_size", f"--data={made_up(tmp_path)}", "--shape=tiny",
               f"--workdir={tmp_path / 'run'}"]  # fmt: skip
    done = subprocess.run([*command, "--limit_gib=4"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("| ")][2:]
    assert [row[0].strip() for row in rows] == ["200", "800"]
    again = subprocess.run([*command, "--limit_gib=0.1"], capture_output=True, text=True)
    assert again.returncode == 1 and "more than --limit_gib=0.1" in again.stderr
    assert not any("experiments.trace" in line for line in again.stderr.splitlines()), "it was traced once"


@pytest.mark.parametrize("flags, said", [((), "lacks sib200.tsv.xz"), (("--languages=eng_Latn",), "two or more")])
def test_what_is_wrong_is_said_at_once(tmp_path, flags, said) -> None:
    if flags:
        made_up(tmp_path, 40)
    done = subprocess.run([sys.executable, "-m", "experiments.real_size", f"--data={tmp_path}", "--shape=tiny",
                           f"--workdir={tmp_path / 'run'}", *flags], capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists(), "before anything is written"
