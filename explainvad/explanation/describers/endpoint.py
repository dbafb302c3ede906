"""Describing by any server that speaks the OpenAI chat protocol: vLLM, llama.cpp, Ollama, LM Studio and others."""

from __future__ import annotations

import base64
import json
import os
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from explainvad.config import DescriberConfig
from explainvad.encoding import encoded
from explainvad.errors import ConfigError
from explainvad.explanation.describers.asking import InvalidAnswerError, NoAnswerError, Question, Reply, one_line
from explainvad.explanation.describers.chat_server import ChatServer
from explainvad.explanation.describers.prompt import cleaned_name

REACH_SECONDS = 5.0  # for the first sign of life
LOOPBACK = ("localhost", "127.0.0.1", "::1")
QUALITY = 95  # of the JPEG that is sent
NAME_LENGTH = 60  # characters of a model's name in an author line


class Endpoint:
    """A model at a server (asking.Respondent). Pictures of flagged regions are sent to it, and to nowhere else."""

    def __init__(self, config: DescriberConfig, seed: int) -> None:
        """Raises ConfigError for a key that would be sent in the clear, or that no header can hold."""
        assert config.model is not None and config.base_url is not None  # the configuration saw to it
        self._config, self._seed = config, seed
        self._server = ChatServer(config.base_url, _key(config), config.retries)
        name = one_line(config.model, NAME_LENGTH)
        self.at_once = config.at_once
        self.label = f"endpoint {name} at {self._server.host}"
        decoding = "greedy" if config.temperature == 0 else f"temperature {config.temperature:g}"
        self.author = f"{self.label}; {decoding}, seed {seed}"
        asked = (config.model, config.base_url, config.temperature, config.max_new_tokens, seed)
        self.identity = json.dumps(["endpoint", *asked])

    def unavailable(self) -> str | None:
        """Whether a server answers at all. What it serves shows only when it is asked."""
        return self._server.reach(min(REACH_SECONDS, self._config.timeout))

    def cleaned(self, text: str) -> str:
        """Special tokens of an unknown model are not known: nothing is left that could spell one."""
        return cleaned_name(text)

    def answer(self, question: Question, seconds: float) -> Reply:
        """Ask once; a busy server is asked again within ``seconds``. Raises NoAnswerError."""
        response = self._server.complete(self._request(question), seconds)
        try:
            choice = response["choices"][0]
            finished, content = choice.get("finish_reason"), choice["message"]["content"]
        except (KeyError, IndexError, TypeError, AttributeError):
            raise NoAnswerError("the server's answer holds no message") from None
        if not isinstance(content, str):
            raise NoAnswerError("the server's answer holds no text")
        if finished == "length":
            raise InvalidAnswerError(f"the answer was cut off at {self._config.max_new_tokens} tokens: be shorter")
        return Reply(content)

    def _request(self, question: Question) -> dict[str, Any]:
        content = [
            {"type": "text", "text": part}
            if isinstance(part, str)
            else {"type": "image_url", "image_url": {"url": _data_url(part)}}
            for part in question.parts
        ]
        return {
            "model": self._config.model,
            "messages": [{"role": "system", "content": question.system}, {"role": "user", "content": content}],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "region", "strict": True, "schema": question.schema},
            },
            "max_tokens": self._config.max_new_tokens,
            "temperature": self._config.temperature,
            "seed": self._seed + question.attempt,
            "stream": False,
        }


def _data_url(picture: Image.Image) -> str:
    content = encoded(picture, "JPEG", quality=QUALITY, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"


def _key(config: DescriberConfig) -> str | None:
    key = os.environ.get(config.key_variable, "").strip()
    if not key:
        return None
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"{config.key_variable}: expected a key of printable ASCII characters: set it anew")
    url = urlsplit(str(config.base_url))  # which lowers the case of a scheme and drops spaces around it
    if url.scheme != "https" and url.hostname not in LOOPBACK:
        raise ConfigError(
            f"{config.key_variable} is set, and {config.base_url} would get it unencrypted: use https, or unset the "
            "variable"
        )
    return key
