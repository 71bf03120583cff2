"""Published training checkpoints: how they are named, tokens a step, broken uploads; and the families that are read.

    python -m experiments.list_models
    python -m experiments.list_models --name=pythia

Nothing is downloaded or asked of the hub: this is what is written down in `xlingjax/models/series.py`.
"""

from absl import flags

from experiments._main import run
from xlingjax.errors import InputError
from xlingjax.markdown import markdown
from xlingjax.models.families import FAMILIES
from xlingjax.models.series import KNOWN

FLAGS = flags.FLAGS
flags.DEFINE_string("name", "", "only repositories whose pattern holds this, whatever its case")


def main() -> None:
    wanted = FLAGS.name.lower()
    found = [one for one in KNOWN if wanted in one.repositories.lower()]
    if not found:
        raise InputError(f"--name={FLAGS.name}: no published series has it; they are "
                         f"{', '.join(one.repositories for one in KNOWN)}")
    print(markdown(
        ["repositories", "family", "revisions", "published steps", "tokens a step", "note"],
        [[one.repositories, one.family or "not read", one.template or "-", one.steps,
          f"{one.tokens_per_step / 1e6:.3g}M" if one.tokens_per_step else "in the name" if "tokens" in one.template
          else "-", one.note] for one in found]))
    broken = [[one.repositories, revision, what] for one in found for revision, what in one.defects.items()]
    if broken:
        print(markdown(["repository", "revision", "what is wrong with the upload"], broken))
    if not wanted:
        print(markdown(["family", "model_type of config.json"], [
            [name, ", ".join(family.model_types)] for name, family in sorted(FAMILIES.items())]))


if __name__ == "__main__":
    run(main)
