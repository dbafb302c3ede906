"""Describing by a real server on loopback, not one of ours: `transformers serve` with a tiny random model."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command_line import own_process
from described_regions import MEASURED, describer, findings, part_image, reference_picture
from tiny_vlms import write_model

from explainvad.config import DescriberConfig
from explainvad.explanation.describers.chat_server import ChatServer
from explainvad.explanation.describers.endpoint import Endpoint
from explainvad.explanation.describers.pictures import region_pictures
from explainvad.explanation.describers.prompt import region_question

for package in ("accelerate", "fastapi", "openai", "uvicorn"):
    pytest.importorskip(package, reason="what `transformers serve` needs is in the development group")

START_SECONDS = 120
SERVE = "from transformers.cli.transformers import main; main()"
TOKENS = 256  # of an answer, the fewest that can be set: random weights never come to an end


@dataclass(frozen=True)
class Server:
    """Where it answers, the folder of its model, and its log."""

    url: str
    model: Path
    log: Path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server in a process of its own, that may use no network."""
    root = tmp_path_factory.mktemp("serve")
    model, log = write_model("qwen2_5_vl", root / "tiny"), root / "log.txt"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ("--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32")
    command = [sys.executable, "-c", SERVE, "serve", str(model), *options, "--log-level", "info"]
    with log.open("wb") as output:
        environment = own_process(HF_HUB_OFFLINE="1", HF_HOME=str(root / "home"))
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        found = Server(f"http://127.0.0.1:{port}/v1", model, log)
        deadline = time.monotonic() + START_SECONDS
        while ChatServer(found.url, None, 0).reach(2) is not None:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text("utf-8", "replace")
            time.sleep(0.2)
        yield found
    finally:
        process.kill()
        process.wait()


def endpoint(server: Server, model: str) -> Endpoint:
    config = DescriberConfig(use="endpoint", model=model, base_url=server.url, max_new_tokens=TOKENS)
    return Endpoint(config, seed=3)


def test_pictures_arrive_and_nonsense_is_never_a_sentence(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = []
    complete = ChatServer.complete

    def noted(self: ChatServer, request: Any, seconds: float) -> Any:
        answers.append(complete(self, request, seconds))
        return answers[-1]

    monkeypatch.setattr(ChatServer, "complete", noted)
    model = describer(endpoint(server, str(server.model)), timeout=60.0)
    (finding,) = model.describe(part_image(), findings(), reference_picture())

    # A 200 each time, with a text that is no answer: refused once, then given up for the reason that is printed
    texts = [answer["choices"][0]["message"]["content"] for answer in answers]
    assert len(texts) == 2 and all(isinstance(text, str) and text for text in texts)
    authors = {sentence.author for sentence in finding.sentences}
    reasons = (f"the answer was cut off at {TOKENS} tokens: be shorter", "the answer is not JSON, or was cut off")
    assert authors in [{f"{MEASURED} ({model.label}: {reason})"} for reason in reasons]
    assert [s.text for s in finding.sentences] == [s.text for s in findings()[0].sentences]

    # The question has as many tokens there as here, those of four pictures among them
    assert answers[0]["usage"]["prompt_tokens"] == prompt_tokens(server.model)
    log = server.log.read_text("utf-8", "replace")
    assert "Ignoring unsupported fields in the request: {'response_format'}" in log  # so a 200 proves nothing


def test_its_own_words_are_the_reason_where_it_refuses(server: Server) -> None:
    model = describer(endpoint(server, "nobody/nothing"))
    (finding,) = model.describe(part_image(), findings(), reference_picture())
    assert finding.sentences[0].author.startswith(f"{MEASURED} ({model.label}: the server answered 400: Server is ")


def prompt_tokens(folder: Path) -> int:
    """The length of the first question, as the model's own processor cuts it."""
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    (finding,) = findings()
    pictures = region_pictures(part_image(), finding.region, reference_picture(), 64)
    question = region_question(pictures, finding, ["R1"], "Pump flange", "informed")
    content = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part}
        for part in question.parts
    ]
    messages = [
        {"role": "system", "content": [{"type": "text", "text": question.system}]},
        {"role": "user", "content": content},
    ]
    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True}
    (ids,) = processor.apply_chat_template(messages, **options)["input_ids"]
    assert list(ids).count(processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")) >= 4
    return len(ids)
