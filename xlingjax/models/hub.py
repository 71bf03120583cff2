"""From the name of a checkpoint to a folder on this machine that holds it, whole and unaltered."""

import difflib
import glob
import hashlib
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from xlingjax.errors import InputError
from xlingjax.models.weights.checkpoint import WEIGHT_FILES, shard_names
from xlingjax.models.weights.files import path_in_folder

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "vocab.txt", "sentencepiece.bpe.model", "spiece.model",
    "tokenizer.model",
)  # fmt: skip
INDEXES = tuple(f"{name}.index.json" for name in WEIGHT_FILES)


def resolve(
    name: str | Path,
    revision: str | None = None,
    subfolder: str | None = None,
    weights: bool = True,
) -> Path:
    """The local folder of a checkpoint: a folder as it is, else the hub's cache, filled as needed.

    Args:
        name: a folder, or a repository of the hub (`owner/name`).
        revision: tag, branch or commit; of a folder, the checkpoint of that name in it
            (`checkpoints/<revision>` of a training run, or the subfolder `<revision>`).
        subfolder: where in the revision the checkpoint lies.
        weights: False fetches config and tokenizer only.

    Only data is fetched: `config.json`, tokenizer files, and safetensors (torch `.bin` where there
    are none). A broken connection is taken up again; files that are whole are never fetched twice;
    without a connection the cache answers. Every file that the cache holds under its hash, as it
    does where links are possible, is compared with that hash.

    Errors: `InputError` for a folder, repository, revision or subfolder that is not there (naming
        the nearest), a gated repository, and a file whose content is not what the hub announced.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _in_folder(folder, revision, subfolder)
    text = str(name)
    if folder.exists() or text.startswith((".", "/", "~")) or "\\" in text or text.count("/") > 1:
        raise InputError(
            f"{text} is no folder; give the folder of a checkpoint, or a repository of the hub "
            "as owner/name"
        )
    return _in_hub(text, revision, subfolder.strip("/") if subfolder else "", weights)


def require_revisions(name: str | Path, wanted: Iterable[tuple[str | None, str | None]]) -> None:
    """`InputError` naming a (revision, subfolder) that is not there, before any of them is loaded.

    Of a repository only tags and branches are looked up, and nothing where the hub is not reached.
    """
    folder, pairs = Path(name).expanduser(), list(wanted)
    if folder.is_dir():
        for revision, subfolder in pairs:
            _in_folder(folder, revision, subfolder)
        return
    there = _revisions(str(name)) if any(revision for revision, _ in pairs) else []
    for revision, _ in pairs if there else []:
        if revision and revision not in there and not re.fullmatch("[0-9a-f]{7,40}", revision):
            raise InputError(f"{name} has no revision {revision!r}; {_nearest(revision, there)}")


def signature(
    name: str | Path, revision: str | None = None, subfolder: str | None = None
) -> list[Any]:
    """What says cheaply that nothing has changed: equal signatures are equal files. JSON values.

    Of a folder the name, size and times of every file, of a repository the commit that its revision
    stands for. No weights are read or fetched. Other signatures may still be the same checkpoint,
    copied or touched.

    Errors: `InputError` where the checkpoint is not there, or neither hub nor cache can say.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        where = f"{subfolder.strip('/')}/" if subfolder else ""
        return [_snapshot(str(name), revision, [f"{where}config.json"]).name]
    folder = _in_folder(folder, revision, subfolder)
    found = [(path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [[path.relative_to(folder).as_posix(), about.st_size, about.st_mtime_ns, about.st_ctime_ns]
            for path, about in found]  # fmt: skip


def _in_folder(folder: Path, revision: str | None, subfolder: str | None) -> Path:
    if revision is not None:
        places = [folder / "checkpoints" / revision, folder / revision]
        found = next((place for place in places if place.is_dir()), None)
        if found is None:
            there = [path.name for parent in (folder / "checkpoints", folder) if parent.is_dir()
                     for path in sorted(parent.iterdir()) if path.is_dir()]  # fmt: skip
            raise InputError(
                f"{folder} has no checkpoint {revision!r}; {_nearest(revision, there)}"
            )
        folder = found
    if subfolder is not None:
        if not (folder / subfolder).is_dir():
            there = [path.name for path in sorted(folder.iterdir()) if path.is_dir()]
            raise InputError(
                f"{folder} has no subfolder {subfolder!r}; {_nearest(subfolder, there)}"
            )
        folder = folder / subfolder
    return folder


def _in_hub(name: str, revision: str | None, subfolder: str, weights: bool) -> Path:
    where = f"{subfolder}/" if subfolder else ""
    small = [where + file for file in ("config.json", *TOKENIZER_FILES, *INDEXES)]
    root = _snapshot(name, revision, small)
    tree = _tree(name, root)
    folders = {str(parent) for path in tree for parent in Path(path).parents}
    if subfolder and subfolder not in folders:
        raise InputError(
            f"{name}@{revision or 'main'} has no subfolder {subfolder!r}; "
            f"{_nearest(subfolder, folders - {'.'})}"
        )
    files = [file for file in small if file in tree]
    _require_unaltered(root, files)
    if weights:
        files = _weight_files(root, where, tree)
        _snapshot(name, root.name, files)
        _require_unaltered(root, files)
    return root / subfolder


def _tree(name: str, root: Path) -> set[str]:
    """Every path of the revision; from an old cache without a listing, those that are on disk."""
    try:
        listed = huggingface_hub.get_cached_repo_tree(name, revision=root.name)
    except CachedRepoTreeNotFoundError:
        return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    return {file.path for file in listed}


def _weight_files(root: Path, where: str, tree: Collection[str]) -> list[str]:
    for weights in WEIGHT_FILES:
        if where + weights in tree:
            return [where + weights]
        index = f"{where}{weights}.index.json"
        if index in tree:
            shards = sorted(set(shard_names(root / index).values()))
            for shard in shards:
                path_in_folder(root / where, shard, root / index)
                if where + shard not in tree:
                    raise InputError(
                        f"{root / index} names the file {shard!r}, which the repository lacks; "
                        "choose another revision"
                    )
            return [where + shard for shard in shards]
    raise InputError(
        f"the repository's folder {where or './'} holds no weights that can be read: none of "
        f"{', '.join(WEIGHT_FILES + INDEXES)}; choose another revision or subfolder"
    )


def _snapshot(name: str, revision: str | None, files: Iterable[str]) -> Path:
    """The cache's folder of a revision, with these files in it where the repository has them."""
    shown = f"{name}@{revision or 'main'}"
    try:
        folder = huggingface_hub.snapshot_download(
            name, revision=revision, allow_patterns=[glob.escape(file) for file in files]
        )
    except RevisionNotFoundError as error:
        raise InputError(
            f"{name} has no revision {revision!r}; {_nearest(str(revision), _revisions(name))}"
        ) from error
    except GatedRepoError as error:
        raise InputError(
            f"{shown} is gated; accept its terms on its page and log in with `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"{name} is neither a folder nor a repository that the hub shows you; check the "
            "spelling, and log in with `hf auth login` if it is private"
        ) from error
    except HFValidationError as error:
        raise InputError(
            f"{name!r} is neither a folder nor a repository's name: {error}"
        ) from error
    except LocalEntryNotFoundError as error:
        raise InputError(
            f"{shown} is not (or not wholly) in the cache and the hub cannot be reached; connect, "
            "unset HF_HUB_OFFLINE, or give a folder"
        ) from error
    except Exception as error:  # whatever the network layers raise; the cache stays sound
        raise InputError(
            f"{shown} could not be fetched ({type(error).__name__}: {str(error)[:300]}); run it "
            "again, files that are complete are kept"
        ) from error
    return Path(folder)


def _revisions(name: str) -> list[str]:
    try:
        refs = huggingface_hub.list_repo_refs(name)
    except Exception:  # the error about to be raised matters more
        return []
    return [ref.name for ref in (*refs.tags, *refs.branches)]


def _nearest(wanted: str, there: Iterable[str]) -> str:
    """The part of a message that helps: names like `wanted`, else some."""
    known = sorted(set(there), key=_by_numbers)
    if not known:
        return "check its name"
    near = difflib.get_close_matches(wanted, known, n=5, cutoff=0.5) or known[:5]
    near.sort(key=_by_numbers)
    return f"near are {', '.join(near)}" + (f" (of {len(known)})" if len(known) > len(near) else "")


def _by_numbers(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _require_unaltered(root: Path, files: Iterable[str]) -> None:
    """Compares files with the hash that their name in the cache is.

    Large files are kept under the sha256 of their content, others under git's sha1, which covers
    the length as well. huggingface_hub itself checks the length only.
    """
    for file in files:
        blob = (root / file).resolve()
        if not blob.is_file():
            raise InputError(
                f"{root / file} is missing from the cache; run it again with a connection"
            )
        if re.fullmatch(r"[0-9a-f]{64}", blob.name):
            with blob.open("rb") as content:
                found = hashlib.file_digest(content, "sha256").hexdigest()
        elif re.fullmatch(r"[0-9a-f]{40}", blob.name):
            content_bytes = blob.read_bytes()
            found = hashlib.sha1(b"blob %d\0" % len(content_bytes) + content_bytes).hexdigest()
        else:  # a copy, where the file system has no links
            continue
        if found != blob.name:
            raise InputError(
                f"{root / file} is damaged: its content is not what the hub announced; delete "
                f"{blob} and run it again"
            )
