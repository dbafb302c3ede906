"""Describing by a server: what is sent, what becomes of every kind of answer, and that nothing goes anywhere else."""

from __future__ import annotations

import base64
import dataclasses
import io
import itertools
import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from described_regions import MEASURED, describer, findings, part_image, reference_picture
from loopback import listening
from PIL import Image
from run_factories import make_record, make_start
from tiny_chat_server import (
    GOOD,
    Reply,
    answers,
    completion,
    cut_off,
    dripping,
    failing,
    hanging_up,
    raw,
    serving,
)

from explainvad.config import DescriberConfig
from explainvad.describing import forget_answers
from explainvad.errors import ConfigError
from explainvad.explanation.describers import chat_server
from explainvad.explanation.describers.endpoint import Endpoint
from explainvad.types import ClaimStatus, Finding, Sentence

KEY = "sk-tiny-0123456789"
SUPPORTED, CONTRADICTED, UNVERIFIABLE = ClaimStatus.SUPPORTED, ClaimStatus.CONTRADICTED, ClaimStatus.UNVERIFIABLE


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_server, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(chat_server, "LONGEST_WAIT", 0.05)


def endpoint(url: str, **settings: Any) -> Endpoint:
    return Endpoint(DescriberConfig(use="endpoint", model="tiny", base_url=url, **settings), seed=3)


def described(url: str, n: int = 1, settings: dict[str, Any] | None = None, **options: Any) -> tuple[Finding, ...]:
    model = describer(endpoint(url, **(settings or {})), **options)
    return model.describe(part_image(), findings(n), reference_picture())


def said(finding: Finding) -> tuple[Sentence, ...]:
    """What the model added, after the measured sentences, which are all there."""
    n = len(findings()[0].sentences)
    assert [s.text for s in finding.sentences[:n]] == [s.text for s in findings()[0].sentences]
    return finding.sentences[n:]


class TestAnswers:
    """A good answer is checked and stands beside the measured sentences."""

    def test_every_sentence_is_checked(self) -> None:
        with serving(answers(brightness="brighter")) as server:
            (finding,) = described(server.url, arm="blind")
        assert [(s.text, s.status) for s in said(finding)] == [
            ("The region is darker than its surroundings.", SUPPORTED),
            ("The region looks like a scratch.", UNVERIFIABLE),
            ("Chosen words: place upper left, shape compact, size small.", SUPPORTED),
            ("Chosen words: brightness brighter.", CONTRADICTED),
            ("Opinion, not measured: defect type scratch.", UNVERIFIABLE),
        ]
        (claim,) = said(finding)[3].claims
        assert (claim.stated, claim.measured) == ("brighter", "darker, ΔL* -12.4")
        host = server.url.removeprefix("http://").removesuffix("/v1")
        (author,) = {s.author for s in said(finding)}
        assert author.startswith(f"endpoint tiny at {host}; greedy, seed 3; prompt ") and author.endswith(", blind")

    def test_what_repeats_facts_that_it_was_told_is_called_measured(self) -> None:
        with serving(answers(brightness="brighter")) as server:
            (finding,) = described(server.url, arm="informed")
        for sentence in said(finding):
            echo = sentence.author.startswith("measured facts, repeated by endpoint tiny at ")
            assert echo == (sentence.status is SUPPORTED)

    def test_what_is_sent(self) -> None:
        with serving(answers()) as server:
            described(server.url)
            described(server.url, arm="blind")
        assert server.paths.count("/v1/chat/completions") == 2
        informed, blind = server.requests
        schema = informed["response_format"]["json_schema"]["schema"]
        assert next(iter(schema["properties"])) == "visual_evidence"
        assert schema["properties"]["region_id"]["enum"] == ["R1"]
        assert "undetermined" in schema["properties"]["severity"]["enum"]
        content = informed["messages"][1]["content"]
        urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
        pictures = [Image.open(io.BytesIO(base64.b64decode(url.partition("base64,")[2]))) for url in urls]
        assert [picture.mode for picture in pictures] == ["RGB"] * 4
        texts = " ".join(part["text"] for part in content if part["type"] == "text")
        assert "drawn by software" in texts and '"Pump flange"' in texts and '"area_percent": 0.4' in texts
        assert "Measured facts" not in json.dumps(blind["messages"]) and "0.4" not in json.dumps(blind["messages"])
        assert (informed["max_tokens"], informed["temperature"], informed["seed"]) == (1024, 0, 3)

    def test_a_bad_answer_is_refused_once_and_the_model_is_told_why(self) -> None:
        with serving(answers(shape="banana"), answers()) as server:
            (finding,) = described(server.url)
        assert len(said(finding)) == 4
        first, second = (request["messages"][-1]["content"][-1]["text"] for request in server.requests)
        assert "An earlier answer was refused" not in first
        assert "An earlier answer was refused: the answer does not keep to the schema: shape: " in second

    def test_regions_are_asked_about_at_once_but_not_more_than_allowed(self) -> None:
        def slow(handler: Any, body: dict[str, Any]) -> None:
            time.sleep(0.1)
            answers()(handler, body)

        with serving(slow) as server:
            found = described(server.url, 6, {"at_once": 3})
        assert all(finding.sentences[-1].author.startswith("endpoint tiny") for finding in found)
        assert 2 <= server.at_once <= 3

    def test_the_key_is_sent_and_never_shown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EXPLAINVAD_ENDPOINT_KEY", KEY)
        with serving(failing(401, f"wrong key {KEY}")) as server:
            (finding,) = described(server.url)
            assert KEY not in repr(endpoint(server.url)._server)
        assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
        assert finding.sentences[0].author.endswith(": the server answered 401: wrong key …)")

    @pytest.mark.parametrize(
        "url",
        ["http://models.example/v1", "HTTP://models.example/v1", " hTTp://127.0.0.1.example:80", "\thttp://[::2]"],
    )
    def test_the_key_never_travels_in_the_clear(self, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
        monkeypatch.setenv("EXPLAINVAD_ENDPOINT_KEY", KEY)
        with pytest.raises(ConfigError, match="would get it unencrypted: use https"):
            endpoint(url)
        for safe in ("https://models.example/v1", "HTTPS://models.example/v1", "HTTP://LOCALHOST:8000/v1"):
            assert endpoint(safe)._server.key == KEY

    @pytest.mark.parametrize(
        "name", ["AWS_SECRET_ACCESS_KEY", "EXPLAINVAD_KEY_FILE", "XEXPLAINVAD_KEY", "EXPLAINVADKEY"]
    )
    def test_settings_cannot_send_another_secret(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.setenv(name, KEY)
        with pytest.raises(ValueError, match=r"key_variable\n.*should match pattern"):
            endpoint("https://models.example/v1", key_variable=name)
        for own in ("EXPLAINVAD_KEY", "EXPLAINVAD_LINE_7_KEY"):
            monkeypatch.setenv(own, KEY)
            assert endpoint("https://models.example/v1", key_variable=own)._server.key == KEY

    def test_a_key_that_no_header_can_hold_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EXPLAINVAD_ENDPOINT_KEY", "a\r\nX-Evil: b")
        with pytest.raises(ConfigError, match="expected a key of printable ASCII"):
            endpoint("https://models.example/v1")


HUGE = raw(200, completion("x" * 2_000_000))
NESTED = raw(200, b'{"choices":' + b"[" * 100_000)
FAULTS: dict[str, tuple[Reply, str, int]] = {  # what comes, the reason that is printed, how often it was asked
    "schema violated": (answers(shape="banana"), "the answer does not keep to the schema: shape: Input should be", 2),
    "member too much": (answers(more="x"), "the answer does not keep to the schema: Extra inputs are not", 2),
    "text too long": (answers(comparison="x" * 500), "the answer does not keep to the schema: comparison: String", 2),
    "another region": (
        answers(json.dumps({**GOOD, "region_id": "R2"})),
        "the answer does not keep to the schema: region_id: Input",
        2,
    ),
    "prose": (answers("I think it is fine."), "the answer is not JSON, or was cut off", 2),
    "truncated": (answers(json.dumps(GOOD)[:60]), "the answer is not JSON, or was cut off", 2),
    "said to be truncated": (answers(json.dumps(GOOD), "length"), "the answer was cut off at 1024 tokens", 2),
    "long": (answers("{" + " " * 9000 + "}"), "the answer has more than 8,000 characters", 2),
    "huge": (HUGE, "the server's answer has more than 1,048,576 bytes", 1),
    "nested": (NESTED, "the server's answer is not JSON", 1),
    "HTML": (raw(200, b"<html>captive portal</html>"), "the server's answer is not JSON", 1),
    "no message": (raw(200, b'{"choices": []}'), "the server's answer holds no message", 1),
    "no object": (raw(200, b"[1, 2]"), "the server's answer holds no message", 1),
    "no text": (answers(7), "the server's answer holds no text", 1),  # type: ignore[arg-type]
    "400": (failing(400, "no such\x1b[31m model"), "the server answered 400: no such [31m model", 1),
    "400 of FastAPI": (raw(400, b'{"detail": "no such model"}'), "the server answered 400: no such model", 1),
    "400 of vLLM": (raw(400, b'{"object": "error", "message": "no"}'), "the server answered 400: no", 1),
    "400 of lists": (raw(400, b'{"error": [{"message": 7}]}'), "the server answered 400", 1),
    "429": (failing(429, "slow down", Retry_After="9999"), "the server answered 429: slow down (3 attempts)", 3),
    "500": (raw(500, b"<html>"), "the server answered 500 (3 attempts)", 3),
    "disconnect": (hanging_up, "connection failed: Remote end closed connection without response (3 attempts)", 3),
    "cut off": (cut_off, "the server's answer was cut off (3 attempts)", 3),
    "dripping": (dripping, "no answer in time", 1),
}


class TestFaults:
    """Whatever comes is no crash: measured sentences alone, and the reason beside them."""

    @pytest.mark.parametrize("fault", FAULTS)
    def test_it_becomes_a_reason(self, fault: str) -> None:
        reply, reason, asked = FAULTS[fault]
        with serving(reply) as server:
            model, begin = describer(endpoint(server.url), timeout=0.5), time.monotonic()
            found = model.describe(part_image(), findings(2)[:1], reference_picture())
        assert time.monotonic() - begin < 2  # whatever the server does, the deadline holds
        (finding,) = found
        assert said(finding) == ()
        (author,) = {sentence.author for sentence in finding.sentences}
        host = server.url.removeprefix("http://").removesuffix("/v1")
        assert author.startswith(f"{MEASURED} (endpoint tiny at {host}: {reason}"), author
        assert len(server.requests) == asked
        assert author.isprintable() and len(author) < 260

    def test_a_busy_server_is_asked_again(self) -> None:
        with serving(failing(503), failing(429, Retry_After="1"), answers()) as server:
            (finding,) = described(server.url)
        assert len(said(finding)) == 4 and len(server.requests) == 3

    def test_a_redirect_is_not_followed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EXPLAINVAD_ENDPOINT_KEY", KEY)
        with listening() as other, serving(raw(307, b"", Location=f"http://127.0.0.1:{other.port}/")) as server:
            (finding,) = described(server.url)
            assert other.calls == []
        assert "a redirect, which is not followed" in finding.sentences[0].author

    def test_a_server_that_is_not_there_is_a_reason_too(self) -> None:
        with serving(answers()) as server:
            pass
        model = describer(endpoint(server.url))
        assert str(model.unavailable).startswith("connection failed: Connection refused")
        assert model.fallbacks([]) == (f"describer {model.label}: {model.unavailable}",)
        (finding,) = model.describe(part_image(), findings(), reference_picture())
        assert finding.sentences[0].author == f"{MEASURED} ({model.label}: {model.unavailable})"

    @pytest.mark.parametrize("answering", [False, True])
    def test_the_deadline_holds_over_all_addresses_of_a_server(
        self, monkeypatch: pytest.MonkeyPatch, answering: bool
    ) -> None:
        """Four addresses that swallow every call, and perhaps one that answers."""
        with serving(answers()) as server, socket.create_server(("127.0.0.1", 0), backlog=0) as full:
            port = int(server.url.split(":")[2].removesuffix("/v1"))
            waiting = [socket.socket() for _ in range(2)]  # whoever comes after them is let wait for ever
            for caller in waiting:
                caller.setblocking(False)
                caller.connect_ex(full.getsockname())
            kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
            found = [(*kind, full.getsockname())] * 4 + [(*kind, ("127.0.0.1", port))] * answering
            monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
            begin = time.monotonic()
            reason = chat_server.ChatServer(server.url, None, 0).reach(1.0)
            assert time.monotonic() - begin < 1.5
            assert reason == (None if answering else "no answer in time")
            for caller in waiting:
                caller.close()

    def test_one_that_keeps_failing_is_left_alone(self) -> None:
        with serving(failing(400)) as server:
            found = described(server.url, 7, {"at_once": 1})
        assert len(server.requests) == 5
        assert "not asked any more after 5 failures in a row" in found[-1].sentences[0].author

    def test_one_that_answers_wrongly_now_and_then_is_not(self) -> None:
        """Four failures, an answer that was cut off twice, four failures again: never five in a row."""
        four = (failing(400),) * 4
        with serving(*four, answers(finished="length"), answers(finished="length"), *four, answers()) as server:
            found = described(server.url, 10, {"at_once": 1})
        assert len(server.requests) == 11
        assert found[-1].sentences[-1].author.startswith("endpoint tiny")

    def test_the_time_for_a_lot_ends(self) -> None:
        def slow(handler: Any, body: dict[str, Any]) -> None:
            time.sleep(0.3)
            answers()(handler, body)

        with serving(slow) as server:
            model = describer(endpoint(server.url, at_once=1), minutes=0.5 / 60)
            first, second, third = model.describe(part_image(), findings(3), reference_picture())
        assert first.sentences[-1].author == model.author
        assert second.sentences[0].author == f"{MEASURED} ({model.label}: no answer in time)"
        spent = "the time for descriptions (0.00833333 min a lot) was used up"
        assert third.sentences[0].author == f"{MEASURED} ({model.label}: {spent})"
        record = dataclasses.replace(make_record(make_start(), 0), findings=(first, second, third))
        assert model.fallbacks([record]) == (
            f"describer {model.label}: 1 of 3 regions have measured sentences only: no answer in time",
            f"describer {model.label}: 1 of 3 regions have measured sentences only: {spent}",
        )

    def test_an_answer_about_another_region_is_none(self) -> None:
        with serving(answers(json.dumps(GOOD))) as server:
            first, second = described(server.url, 2)
        assert first.sentences[-1].author.startswith("endpoint tiny")
        assert second.sentences[0].author.endswith(": the answer is about region R1, not about region R2)")

    def test_reasons_are_counted_and_a_flood_of_them_is_cut(self) -> None:
        numbers = itertools.count()

        def failing_anew(handler: Any, body: dict[str, Any]) -> None:
            failing(400, f"request {next(numbers)} failed")(handler, body)

        with serving(failing_anew) as server:
            model = describer(endpoint(server.url, at_once=1))
            found = [f for _ in range(2) for f in model.describe(part_image(), findings(5), reference_picture())]
        *lines, last = model.fallbacks([dataclasses.replace(make_record(make_start(), 0), findings=tuple(found))])
        start = f"describer {model.label}: "
        assert lines[0] == (
            f"{start}5 of 10 regions have measured sentences only: not asked any more after 5 failures in a row"
        )
        assert len(lines) == 5
        assert last == f"{start}1 of 10 regions have measured sentences only for 1 other reasons, beside them"


class TestStore:
    """The same question is not asked twice, in a run and after it was cut short."""

    def test_an_answer_is_kept(self, tmp_path: Path) -> None:
        with serving(answers()) as server:
            first = described(server.url, 2, folder=tmp_path / "answers")
            again = described(server.url, 2, folder=tmp_path / "answers")
            assert len(server.requests) == 2
            described(server.url, 2, folder=tmp_path / "answers", arm="blind")
            assert len(server.requests) == 4
        assert [[s.text for s in f.sentences] for f in first] == [[s.text for s in f.sentences] for f in again]

    def test_a_kept_answer_that_was_altered_is_asked_for_again(self, tmp_path: Path) -> None:
        with serving(answers()) as server:
            described(server.url, folder=tmp_path / "answers")
            (kept,) = (tmp_path / "answers").iterdir()
            whole = json.loads(kept.read_text())
            assert json.loads(whole["text"]) == GOOD
            bent = {**whole, "text": json.dumps({**GOOD, "shape": "<script>"})}
            sure = {"word": "small", "raw": 0.5, "masked": 7.0, "removed": 0.1, "n_tokens": 2}
            for n, altered in enumerate((bent, {**whole, "word_probabilities": {"size": sure}}, [], GOOD), start=2):
                kept.write_text(json.dumps(altered))
                (finding,) = described(server.url, folder=tmp_path / "answers")
                assert len(server.requests) == n and len(said(finding)) == 4

    def test_bad_answers_are_not_kept_and_the_folder_goes_at_the_end(self, tmp_path: Path) -> None:
        with serving(answers("no"), answers("no"), answers()) as server:
            described(server.url, folder=tmp_path / "answers")
            assert not (tmp_path / "answers").exists()
            model = describer(endpoint(server.url), tmp_path / "answers")
            model.describe(part_image(), findings(), reference_picture())
            assert len(list((tmp_path / "answers").iterdir())) == 1
            forget_answers(tmp_path)
            assert not (tmp_path / "answers").exists()
