"""Describing by a model on this machine: tiny random ones of six families, made of the real classes."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import psutil
import pytest
import tiny_vlms
import torch
from brief_questions import REGIONS, brief, question
from described_regions import describer, findings, part_image, reference_picture
from PIL import Image
from safetensors.torch import load as load_tensors
from safetensors.torch import load_file, save, save_file
from tiny_hub import TinyHub, serving
from tiny_vlms import FAMILIES, write_model

from explainvad.config import DescriberConfig
from explainvad.errors import WeightsError
from explainvad.explanation.describers import loading
from explainvad.explanation.describers.answer import VOCABULARIES, read_answer
from explainvad.explanation.describers.asking import InvalidAnswerError, NoAnswerError, Question
from explainvad.explanation.describers.model_folder import find_model
from explainvad.explanation.describers.pictures import region_pictures
from explainvad.explanation.describers.vlm import VisionLanguageModel
from explainvad.offline import OFFLINE


@pytest.fixture(scope="module", autouse=True)
def _offline_and_single_threaded() -> None:
    torch.set_num_threads(1)  # of tiny matrices, more threads only slow down


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("vlms")
    return {family: write_model(family, root / family) for family in FAMILIES}


def load(folder: Path, **settings: object) -> VisionLanguageModel:
    config = DescriberConfig.model_validate({"use": "vlm", "model": str(folder), **settings})
    return VisionLanguageModel.load(find_model(config), config, 0, "cpu")


@pytest.mark.parametrize("family", FAMILIES)
class TestFamilies:
    """What must hold of every model, whatever it was trained to say: here nothing at all."""

    def test_answers_keep_to_the_schema(self, folders: dict[str, Path], family: str) -> None:
        reply = load(folders[family]).answer(brief(), 60)
        answer = json.loads(reply.text)
        read_answer(json.dumps(answer), answer["region_id"], REGIONS)
        assert {field: told.word for field, told in reply.word_probabilities.items()} == {
            field: answer[field] for field in VOCABULARIES
        }
        assert answer["region_id"] in REGIONS

    def test_pictures_reach_the_model(self, folders: dict[str, Path], family: str) -> None:
        model = load(folders[family])

        def logits(asked: Question) -> torch.Tensor:
            with torch.inference_mode():
                return model._network(**model.inputs(asked)).logits[0, -1]

        before = brief()
        usual = logits(before)
        for position in (1, 3, 5, 7):  # each of the four
            parts = list(before.parts)
            picture = parts[position]
            assert isinstance(picture, Image.Image)
            parts[position] = Image.eval(picture, lambda value: 255 - value)
            changed = Question(before.system, tuple(parts), before.schema)
            assert not torch.equal(usual, logits(changed)), position

    def test_special_tokens_in_a_name_are_only_dropped(self, folders: dict[str, Path], family: str) -> None:
        model = load(folders[family])
        token = model._special[len(model._special) // 2]
        nested = token[: len(token) // 2] + token + token[len(token) // 2 :]
        image_tokens = [t for t in model._special if "ima" in t.lower() or "img" in t.lower()]
        hostile = f"Pump {token}{nested} {' '.join(image_tokens)} flange\n{' '.join(model._special[:50])}"
        clean = model.cleaned(hostile)
        assert clean.startswith("Pump") and not any(t in clean for t in model._special)
        # As many special tokens, hence pictures and turns, as with an innocent name
        special = set(model._tokenizer.all_special_ids) | {
            model._tokenizer.convert_tokens_to_ids(t) for t in model._special
        }

        def count(name: str) -> int:
            return sum(token in special for token in model.inputs(question(name))["input_ids"][0].tolist())

        assert count(clean) == count("Pump flange")


@pytest.fixture
def hub(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TinyHub]:
    """A hub that has tiny/llava, with files beside it that nobody should ask for, and an empty cache."""
    files = {path.name: path.read_bytes() for path in folders["llava_onevision"].iterdir()}
    for variable in OFFLINE:
        monkeypatch.delenv(variable, raising=False)
    with serving(
        TinyHub("tiny/llava", {**files, "pytorch_model.bin": b"-", "modeling.py": b"raise SystemExit"})
    ) as hub:
        there = {"endpoint": hub.url, "cache_dir": tmp_path / "hub"}
        monkeypatch.setattr(huggingface_hub, "snapshot_download", partial(huggingface_hub.snapshot_download, **there))
        yield hub


class TestLoading:
    """What is wrong with a model is said before anything is asked of it."""

    def test_missing_tensors_are_refused(self, folders: dict[str, Path], tmp_path: Path) -> None:
        folder = Path(shutil.copytree(folders["qwen2_5_vl"], tmp_path / "model"))
        tensors = load_file(folder / "model.safetensors")
        (gone, *_) = [name for name in tensors if "q_proj.weight" in name]
        save_file({k: v for k, v in tensors.items() if k != gone}, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(WeightsError, match=r"^model: 1 tensors are missing or of another shape \(.*q_proj"):
            load(folder)

    def test_a_tensor_of_another_shape_is_refused(self, folders: dict[str, Path], tmp_path: Path) -> None:
        folder = Path(shutil.copytree(folders["llava_onevision"], tmp_path / "model"))
        tensors = load_file(folder / "model.safetensors")
        name = next(name for name in tensors if name.endswith("mlp.up_proj.weight"))
        save_file({**tensors, name: tensors[name][:5].clone()}, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(WeightsError, match=r"another shape|cannot be loaded"):
            load(folder)

    def test_pickles_are_not_read(self, folders: dict[str, Path], tmp_path: Path) -> None:
        folder = Path(shutil.copytree(folders["smolvlm"], tmp_path / "model"))
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        with pytest.raises(WeightsError, match=r"expected weights as \*\.safetensors"):
            load(folder)

    def test_code_of_a_model_is_not_run(self, folders: dict[str, Path], tmp_path: Path) -> None:
        folder = Path(shutil.copytree(folders["smolvlm"], tmp_path / "model"))
        config = json.loads((folder / "config.json").read_text())
        config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
        with pytest.raises(WeightsError, match="cannot be loaded"):
            load(folder)
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize("content", ["", "[]", "{}", "{" * 5000])
    def test_a_broken_configuration_is_named(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(WeightsError, match=r"config\.json"):
            load(tmp_path)

    def test_what_is_not_there_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(WeightsError, match=r"there is no folder .*nothing, and it is no hub id"):
            load(tmp_path / "nothing")
        monkeypatch.setenv("EXPLAINVAD_OFFLINE", "1")
        with pytest.raises(WeightsError, match="owner/name is not here, and EXPLAINVAD_OFFLINE forbids the network"):
            load(Path("owner/name"))

    def test_a_hub_id_is_fetched_once(self, hub: TinyHub) -> None:
        model = load(Path("tiny/llava"))
        asked = len(hub.asked)
        load(Path("tiny/llava"))
        assert len(hub.asked) == asked
        assert model.author.startswith(f"vlm tiny/llava (revision {hub.newest[:12]}; ")
        assert not any("pytorch_model" in path or "modeling" in path for path in hub.asked)

    @pytest.mark.parametrize("there", [["config.json"], ["config.json", "model.safetensors"]])
    def test_what_lies_in_the_hubs_cache_in_part_is_completed(
        self, hub: TinyHub, there: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for file in there:  # as whoever asks for single files leaves it
            huggingface_hub.hf_hub_download("tiny/llava", file, endpoint=hub.url, cache_dir=tmp_path / "hub")
        with monkeypatch.context() as forbidden:
            forbidden.setenv("EXPLAINVAD_OFFLINE", "1")
            with pytest.raises(WeightsError):
                load(Path("tiny/llava"))
        assert load(Path("tiny/llava")).author.startswith("vlm tiny/llava (revision ")

    def test_a_shard_that_is_missing_from_the_hubs_cache_is_fetched(self, hub: TinyHub) -> None:
        files = hub.commits[hub.newest]
        halves: list[dict[str, torch.Tensor]] = [{}, {}]
        for number, (name, tensor) in enumerate(load_tensors(files.pop("model.safetensors")).items()):
            halves[number % 2][name] = tensor
        shards = {f"model-0000{number}-of-00002.safetensors": half for number, half in enumerate(halves, start=1)}
        files |= {shard: save(half, {"format": "pt"}) for shard, half in shards.items()}
        weight_map = {name: shard for shard, half in shards.items() for name in half}
        files["model.safetensors.index.json"] = json.dumps({"metadata": {}, "weight_map": weight_map}).encode()
        folder = Path(huggingface_hub.snapshot_download("tiny/llava"))
        (folder / "model-00002-of-00002.safetensors").unlink()
        shutil.rmtree(folder.parents[1] / "trees")  # older releases of the hub's library note no listing
        load(Path("tiny/llava"))
        assert (folder / "model-00002-of-00002.safetensors").exists()

    def test_one_that_is_too_large_is_refused_before_it_is_loaded(
        self, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        n_bytes = 4 * sum(tensor.numel() for tensor in load_file(folders["smolvlm"] / "model.safetensors").values())
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=n_bytes))
        load(folders["smolvlm"])
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=n_bytes - 1))
        monkeypatch.setattr(loading.AutoModelForImageTextToText, "from_pretrained", pytest.fail)
        with pytest.raises(WeightsError, match=r"smolvlm needs 0\.\d+ GB of memory on cpu, and .* free: use a smaller"):
            load(folders["smolvlm"])

    def test_one_that_turns_out_to_be_too_large_is_refused(
        self, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def too_much(*_: object, **__: object) -> torch.Tensor:
            return torch.empty(1 << 58, dtype=torch.uint8)  # whose error is the allocator's own

        monkeypatch.setattr(loading.AutoModelForImageTextToText, "from_pretrained", too_much)
        with pytest.raises(WeightsError, match=r"smolvlm does not fit into the memory of cpu: use a smaller model"):
            load(folders["smolvlm"])

    @pytest.mark.parametrize("bits", ["8bit", "4bit"])
    def test_quantized_weights_answer_as_well(self, bits: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for sizes in (tiny_vlms.TEXT_SIZE, tiny_vlms.VISION_SIZE):  # 4 bits come in blocks of 64
            monkeypatch.setitem(sizes, "hidden_size", 64)
        model = load(write_model("smolvlm", tmp_path / "smolvlm"), quantization=bits)
        kinds = Counter(type(module).__name__ for module in model._network.modules())
        assert kinds["Linear8bitLt" if bits == "8bit" else "Linear4bit"] > 8
        assert f"; cpu, float32, {bits})" in model.author
        answer = model.answer(brief(), 60).text
        read_answer(answer, json.loads(answer)["region_id"], REGIONS)

    def test_quantization_needs_its_packages(self, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(loading, "find_spec", lambda name: None if name == "bitsandbytes" else name)
        with pytest.raises(WeightsError, match=r'quantization = "4bit" in \[describer\] needs bitsandbytes'):
            load(folders["smolvlm"], quantization="4bit")

    def test_the_author_names_exactly_these_weights(self, folders: dict[str, Path], tmp_path: Path) -> None:
        folder = Path(shutil.copytree(folders["internvl"], tmp_path / "internvl"))
        same, author = load(folder).author, load(folders["internvl"]).author
        assert author == same and author.startswith("vlm internvl (weights sha256 ")
        assert author.endswith("; cpu, float32); greedy, seed 0")
        tensors = load_file(folder / "model.safetensors")
        name = next(iter(tensors))
        save_file({**tensors, name: tensors[name] + 1}, folder / "model.safetensors", {"format": "pt"})
        assert load(folder).author != author


class TestAnswering:
    """Time, tokens and seeds."""

    def test_an_answer_that_does_not_end_is_refused(self, folders: dict[str, Path]) -> None:
        model = load(folders["qwen3_vl"])
        with pytest.raises(NoAnswerError, match="no answer in time"):
            model.answer(question(), 0.02)
        model._generation.max_new_tokens = 20
        model._config = model._config.model_copy(update={"max_new_tokens": 20})
        with pytest.raises(InvalidAnswerError, match="cut off at 20 tokens"):
            model.answer(question(), 60)

    def test_the_seed_decides_what_is_sampled(self, folders: dict[str, Path]) -> None:
        config = DescriberConfig(use="vlm", model=str(folders["qwen2_5_vl"]), temperature=1.0)
        found = find_model(config)
        said = [VisionLanguageModel.load(found, config, seed, "cpu").answer(brief(), 60).text for seed in (1, 1, 2)]
        assert said[0] == said[1] != said[2]
        for text in said:  # however wild, it keeps to the schema
            read_answer(text, json.loads(text)["region_id"], REGIONS)

    def test_a_region_gets_checked_sentences(self, folders: dict[str, Path]) -> None:
        model = describer(load(folders["smolvlm"]), arm="blind")
        (finding,) = model.describe(part_image(), findings(), reference_picture())
        n = len(findings()[0].sentences)
        assert finding.sentences[:n] != () and len(finding.sentences) > n
        assert {s.author for s in finding.sentences[n:]} == {model.author}
        assert model.author.endswith(", blind") and "; prompt " in model.author


def test_sixteen_bit_pictures_are_shown_right(tmp_path: Path) -> None:
    """Pillow alone would clip all but the darkest values to white."""
    from explainvad.lot import LotFile, read_image

    values = np.linspace(0, 65535, 60 * 90).reshape(60, 90).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    image = read_image(LotFile("img-00001", "deep.png", tmp_path / "deep.png", tmp_path))
    (finding,) = findings()
    pictures = region_pictures(image, finding.region, reference_picture(), 90)
    shown = np.asarray(pictures.marked.convert("L"), dtype=float)
    assert pictures.marked.size == (90, 60)
    assert np.abs(shown[-5:] - values[-5:] / 257).max() < 2
    assert np.asarray(pictures.crop).mean() < 120
