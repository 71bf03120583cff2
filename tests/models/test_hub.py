"""Names become folders: against a stand-in hub, with a broken, altered or absent connection."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from stand_in_hub import StandInHub

from xlingjax.errors import InputError
from xlingjax.models.hub import resolve, signature

pytestmark = pytest.mark.promise

WORKER = """
import json, sys
import huggingface_hub.constants
huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = 2**16  # smaller files would start anew
from xlingjax.models.hub import resolve, signature
print("ready", flush=True)
for line in sys.stdin:
    try:
        call, *arguments = json.loads(line)
        answer = {"folder": str(resolve(*arguments))} if call == "resolve" else {"signature": signature(*arguments)}
    except Exception as error:
        answer = {"error": str(error), "type": type(error).__name__}
    print(json.dumps(answer), flush=True)
"""


class Client:
    """A process that resolves names at a hub; one for many tests, as importing takes seconds."""

    def __init__(self, endpoint, cache, offline=False):
        environment = os.environ | {
            "HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": str(int(offline)), "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1", "HF_TOKEN": "", "NO_PROXY": "127.0.0.1",
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert self.process.stdout.readline() == "ready\n"

    def resolve(self, *arguments, call="resolve"):
        self.process.stdin.write(json.dumps([call, *arguments]) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def folder(self, *arguments):
        answer = self.resolve(*arguments)
        assert "folder" in answer, answer
        return Path(answer["folder"])

    def error(self, *arguments):
        answer = self.resolve(*arguments)
        assert answer.get("type") == "InputError", answer
        return answer["error"]

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=20)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def hub():
    with StandInHub() as hub:
        yield hub


@pytest.fixture(scope="module")
def client(hub, tmp_path_factory):
    client = Client(hub.endpoint, tmp_path_factory.mktemp("cache"))
    yield client
    client.close()


WEIGHTS = bytes(range(256)) * 4096  # 1 MiB
SMALL = {"config.json": b'{"model_type": "bloom"}', "tokenizer.json": b"{}"}
SAFE = SMALL | {"model.safetensors": WEIGHTS}


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_only_data_is_fetched_and_safetensors_preferred(hub, client):
    code = {"modeling.py": b"raise", "setup.py": b"raise", "tokenization.py": b"raise"}
    other = {"pytorch_model.bin": WEIGHTS, "flax_model.msgpack": b"x", "chat_template.jinja": b"{{"}
    hub.add("some/model", SAFE | code | other)
    assert names(client.folder("some/model")) == set(SAFE)
    fetched = [path for method, path, _ in hub.requests if method == "GET" and "/resolve/" in path]
    assert not [path for path in fetched if path.endswith((".py", ".bin", ".jinja"))]


def test_bin_where_there_is_nothing_else(hub, client):
    hub.add("some/old", SMALL | {"pytorch_model.bin": WEIGHTS, "rust_model.ot": b"x"})
    assert names(client.folder("some/old")) == {*SMALL, "pytorch_model.bin"}


def test_shards_are_those_of_the_index(hub, client):
    index = json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}).encode()
    files = SMALL | {"model.safetensors.index.json": index, "one.safetensors": b"1"}
    hub.add("some/shards", files | {"two.safetensors": b"2", "three.safetensors": b"3"})
    assert "three.safetensors" not in names(client.folder("some/shards"))
    assert {"one.safetensors", "two.safetensors"} < names(client.folder("some/shards"))
    hub.add("some/hole", files)
    assert "'two.safetensors', which the repository lacks" in client.error("some/hole")
    for evil in ("../../../evil", "/evil", "C:\\evil"):
        index = json.dumps({"weight_map": {"a": evil}}).encode()
        hub.add(f"some/evil{len(evil)}", SMALL | {"model.safetensors.index.json": index})
        assert "lies outside" in client.error(f"some/evil{len(evil)}")


def test_revisions_are_tags_branches_and_commits(hub, client):
    for step in (1000, 10_000, 100_000):
        files = SAFE | {"config.json": b'{"step": %d}' % step}
        commit = hub.add("some/steps", files, f"global_step{step}")
    for revision in ("global_step100000", commit):
        config = client.folder("some/steps", revision) / "config.json"
        assert config.read_text() == '{"step": 100000}'
    said = client.error("some/steps", "global_step1001")
    assert "'global_step1001'" in said and "near are global_step1000" in said
    assert "(of 4)" in said or "global_step100000" in said


def test_subfolders_of_a_revision(hub, client):
    files = {f"step{i}/{name}": content for i in (1, 2) for name, content in SAFE.items()}
    hub.add("some/folders", files | SMALL)
    folder = client.folder("some/folders", None, "step2")
    assert folder.name == "step2" and names(folder) == set(SAFE)
    said = client.error("some/folders", None, "step3")
    assert "no subfolder 'step3'" in said and "step1" in said
    assert "holds no weights" in client.error("some/folders")


def test_without_weights_only_config_and_tokenizer_come(hub, client):
    hub.add("some/tokenizer", SAFE)
    assert names(client.folder("some/tokenizer", None, None, False)) == set(SMALL)


def test_a_dropped_connection_is_taken_up_where_it_broke(hub, client):
    hub.add("some/flaky", SAFE | {"model.safetensors": WEIGHTS + b"flaky"})
    hub.dropped["model.safetensors"] = 2
    start = len(hub.requests)
    folder = client.folder("some/flaky")
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS + b"flaky"
    ranges = [r for _, path, r in hub.requests[start:] if path.endswith("model.safetensors") and r]
    assert len(ranges) >= 2 and hub.dropped["model.safetensors"] == 0


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_flipped_byte_is_found_and_the_remedy_works(hub, client, file):
    content = SAFE[file] + file.encode()
    name = f"some/flipped-{len(file)}"
    hub.add(name, SAFE | {file: content})
    hub.flipped.add(file)
    said = client.error(name)
    hub.flipped.clear()
    assert file in said and "damaged" in said
    blob = said.split("delete ")[1].split(" and")[0]
    assert client.error(name) == said  # nothing half-right is ever used
    os.unlink(blob)
    assert (client.folder(name) / file).read_bytes() == content


def test_an_unknown_and_a_gated_repository(hub, client):
    assert "some/nothing is neither a folder nor a repository" in client.error("some/nothing")
    hub.add("some/gated", SAFE)
    hub.gated.add("some/gated")
    assert "gated" in client.error("some/gated") and "hf auth login" in client.error("some/gated")
    assert "neither a folder nor" in client.error("some thing?")


def test_without_a_connection_the_cache_answers(tmp_path):
    with StandInHub() as hub:
        hub.add("some/cached", SAFE, "step1")
        hub.add("some/partly", SAFE, "step1")
        client = Client(hub.endpoint, tmp_path)
        first = client.folder("some/cached", "step1")
        client.folder("some/partly", "step1", None, False)
    assert client.folder("some/cached", "step1") == first
    client.close()
    client = Client(hub.endpoint, tmp_path, offline=True)
    assert client.folder("some/cached", "step1") == first
    assert "cannot be reached" in client.error("some/cached", "step2")
    assert "cannot be reached" in client.error("some/partly", "step1")
    client.close()


def test_a_signature_is_the_commit_and_fetches_no_weights(tmp_path):
    with StandInHub() as hub:
        commit = hub.add("some/run", SAFE, "step1")
        client = Client(hub.endpoint, tmp_path)
        assert client.resolve("some/run", "step1", call="signature") == {"signature": [commit]}
        assert not [path for _, path, _ in hub.requests if path.endswith(".safetensors")]
        other = hub.add("some/run", SAFE, "step2")
        assert client.resolve("some/run", "step2", call="signature") == {"signature": [other]}
    client.close()
    client = Client(hub.endpoint, tmp_path, offline=True)
    assert client.resolve("some/run", "step1", call="signature") == {"signature": [commit]}
    assert client.resolve("some/run", "step3", call="signature")["type"] == "InputError"
    client.close()


def test_the_signature_of_a_folder_is_of_every_file(tmp_path):
    (tmp_path / "step1" / "params").mkdir(parents=True)
    weights, config = tmp_path / "step1" / "params" / "0", tmp_path / "step1" / "config.json"
    weights.write_bytes(b"1234")
    config.write_bytes(b"{}")
    first = signature(tmp_path, "step1")
    assert first == signature(str(tmp_path / "step1"))
    assert [entry[:2] for entry in first] == [["config.json", 2], ["params/0", 4]]
    before = weights.stat()
    weights.write_bytes(b"1235")
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert signature(tmp_path, "step1") != first, "also where size and time of writing are kept"
    with pytest.raises(InputError, match="no checkpoint 'step2'"):
        signature(tmp_path, "step2")


def test_a_folder_is_taken_as_it_is(tmp_path):
    for place in ("checkpoints/100", "checkpoints/200", "step7/inner"):
        (tmp_path / place).mkdir(parents=True)
    assert resolve(tmp_path) == tmp_path
    assert resolve(str(tmp_path), "200") == tmp_path / "checkpoints" / "200"
    assert resolve(tmp_path, "step7") == tmp_path / "step7"
    assert resolve(tmp_path, "step7", "inner") == tmp_path / "step7" / "inner"
    with pytest.raises(InputError, match="no checkpoint '300'; near are 100, 200"):
        resolve(tmp_path, "300")
    with pytest.raises(InputError, match="no subfolder 'outer'"):
        resolve(tmp_path, "step7", "outer")
    for nowhere in (tmp_path / "nowhere", "./nowhere", "a/b/c", "a\\b"):
        with pytest.raises(InputError, match="is no folder"):
            resolve(nowhere)
