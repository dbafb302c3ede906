"""Tiny random vision language models of six families: the real classes of transformers, made offline in a moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

TEXTS = ['{"visual_evidence": "The region is a dark line.", "region_id": "R1", "location": "upper left"}'] * 3
TEXT_SIZE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 16384,
}
VISION_SIZE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}IMAGE{% elif c['type'] == 'text' %}{{ c['text'] }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
Made = tuple[Any, Any]


def tokenizer(tokens: Sequence[str], end: str, pad: str, named: dict[str, str], bos: str | None = None) -> Any:
    """Byte-level BPE: all 256 bytes are in the vocabulary, so any text can be spelled."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(tokens), show_progress=False, initial_alphabet=alphabet
    )
    bpe.train_from_iterator(TEXTS, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=end,
        pad_token=pad,
        bos_token=bos,
        extra_special_tokens=named,
        padding_side="left",
        model_max_length=16384,
        clean_up_tokenization_spaces=False,
    )


def smolvlm() -> Made:
    side, patch, scale = 32, 8, 2
    tiles = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    named = {
        "image_token": "<image>",
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
    }
    tokens = ("<|endoftext|>", "<|im_start|>", "<video>", *named.values(), *tiles)
    words = tokenizer(tokens, "<end_of_utterance>", "<|endoftext|>", named)
    template = CHATML.replace("IMAGE", "<image>").replace("<|im_end|>", "<end_of_utterance>")
    config = transformers.SmolVLMConfig(
        image_token_id=words.convert_tokens_to_ids("<image>"),
        scale_factor=scale,
        vision_config={**VISION_SIZE, "image_size": side, "patch_size": patch},
        text_config={"model_type": "llama", **_text(words)},
        pad_token_id=words.pad_token_id,
    )
    largest = {"longest_edge": side}
    pictures = transformers.SmolVLMImageProcessor(
        size={"longest_edge": 2 * side}, max_image_size=largest, do_image_splitting=True
    )
    videos = transformers.SmolVLMVideoProcessor(size=largest, max_image_size=largest, num_frames=2, fps=1)
    processor = transformers.SmolVLMProcessor(
        pictures, words, videos, image_seq_len=(side // patch) ** 2 // scale**2, chat_template=template
    )
    return transformers.SmolVLMForConditionalGeneration(config), processor


def qwen2_5_vl() -> Made:
    vision = {"patch_size": 14, "window_size": 56, "fullatt_block_indexes": [1]}
    return _qwen("Qwen2_5_VL", "Qwen2VL", vision, {}, {})


def qwen3_vl() -> Made:
    vision = {"patch_size": 16, "num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
    return _qwen("Qwen3VL", "Qwen3VL", vision, {"mrope_interleaved": True}, {"head_dim": 8})


def _qwen(name: str, video: str, vision: dict[str, Any], rope: dict[str, Any], text: dict[str, Any]) -> Made:
    tokens = (*CHATML_TOKENS, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    words = tokenizer(tokens, "<|im_end|>", "<|endoftext|>", {})
    number = words.convert_tokens_to_ids
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2], **rope}  # half of head_dim
    config = getattr(transformers, f"{name}Config")(
        text_config={**_text(words), "rope_parameters": rope, **text},
        vision_config={"depth": 2, "num_heads": 2, "hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 32}
        | vision,
        image_token_id=number("<|image_pad|>"),
        video_token_id=number("<|video_pad|>"),
        vision_start_token_id=number("<|vision_start|>"),
        vision_end_token_id=number("<|vision_end|>"),
    )
    unit = (2 * vision["patch_size"]) ** 2
    sizes = {"patch_size": vision["patch_size"], "merge_size": 2, "temporal_patch_size": 2}
    sizes["size"] = {"shortest_edge": 4 * unit, "longest_edge": 16 * unit}
    processor = getattr(transformers, f"{name}Processor")(
        image_processor=transformers.Qwen2VLImageProcessor(**sizes),
        tokenizer=words,
        video_processor=getattr(transformers, f"{video}VideoProcessor")(**sizes),
        chat_template=CHATML.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>"),
    )
    return getattr(transformers, f"{name}ForConditionalGeneration")(config), processor


def llava_onevision() -> Made:
    side, patch = 28, 7
    words = tokenizer((*CHATML_TOKENS, "<image>", "<video>"), "<|im_end|>", "<|endoftext|>", {})
    grids = [[side, side], [side, 2 * side], [2 * side, side], [2 * side, 2 * side]]
    config = transformers.LlavaOnevisionConfig(
        image_token_index=words.convert_tokens_to_ids("<image>"),
        video_token_index=words.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=grids,
        vision_config=_siglip(side, patch),
        text_config={"model_type": "qwen2", **_text(words)},
    )
    square = {"height": side, "width": side}
    processor = transformers.LlavaOnevisionProcessor(
        image_processor=transformers.LlavaOnevisionImageProcessor(size=square, image_grid_pinpoints=grids),
        tokenizer=words,
        video_processor=transformers.LlavaOnevisionVideoProcessor(size=square),
        num_image_tokens=(side // patch) ** 2,
        vision_feature_select_strategy="full",
        chat_template=CHATML.replace("IMAGE", "<image>\n"),
        vision_aspect_ratio="anyres_max_9",
    )
    return transformers.LlavaOnevisionForConditionalGeneration(config), processor


def internvl() -> Made:
    side, patch = 28, 7
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    words = tokenizer((*CHATML_TOKENS, *named.values()), "<|im_end|>", "<|endoftext|>", named)
    n_tokens = (side // patch) ** 2 // 4
    config = transformers.InternVLConfig(
        image_token_id=words.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=n_tokens,
        downsample_ratio=0.5,
        vision_config={**VISION_SIZE, "image_size": [side, side], "patch_size": [patch, patch]},
        text_config={"model_type": "qwen2", **_text(words)},
    )
    square = {"height": side, "width": side}
    processor = transformers.InternVLProcessor(
        image_processor=transformers.GotOcr2ImageProcessor(size=square, crop_to_patches=True, max_patches=4),
        tokenizer=words,
        video_processor=transformers.InternVLVideoProcessor(size=square),
        image_seq_length=n_tokens,
        chat_template=CHATML.replace("IMAGE", "<IMG_CONTEXT>\n"),
    )
    return transformers.InternVLForConditionalGeneration(config), processor


def paligemma() -> Made:
    """As published it has no chat template."""
    side, patch = 28, 7
    words = tokenizer(("<pad>", "<eos>", "<bos>", "<image>"), "<eos>", "<pad>", {"image_token": "<image>"}, bos="<bos>")
    pictures = transformers.SiglipImageProcessor(size={"height": side, "width": side})
    pictures.image_seq_length = (side // patch) ** 2
    processor = transformers.PaliGemmaProcessor(pictures, words)  # adds tokens for places and segments
    config = transformers.PaliGemmaConfig(
        image_token_index=words.convert_tokens_to_ids("<image>"),
        vocab_size=len(words),
        projection_dim=32,
        hidden_size=32,
        vision_config=_siglip(side, patch),
        text_config={"model_type": "gemma", "head_dim": 8, **_text(processor.tokenizer)},
    )
    return transformers.PaliGemmaForConditionalGeneration(config), processor


FAMILIES: dict[str, Callable[[], Made]] = {
    "smolvlm": smolvlm,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "llava_onevision": llava_onevision,
    "internvl": internvl,
    "paligemma": paligemma,
}


def write_model(family: str, folder: Path) -> Path:
    """A checkpoint of the family with random weights, as its makers would publish it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network, processor = FAMILIES[family]()
    network.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _text(words: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(words),
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
        **TEXT_SIZE,
    }


def _siglip(side: int, patch: int) -> dict[str, Any]:
    return {
        "model_type": "siglip_vision_model",
        "image_size": side,
        "patch_size": patch,
        "vision_use_head": False,
        **VISION_SIZE,
    }
