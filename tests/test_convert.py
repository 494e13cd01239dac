"""Laws of the bridge to Hugging Face: their random models and ours, with the same weights, say the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tinytrans.adapters import lora
from tinytrans.config import PRESETS, BERTConfig, EncDecConfig, GPTConfig, ViTConfig
from tinytrans.models import build, load_model
from tinytrans.models.convert import from_transformers, to_transformers
from tinytrans.models.encdec import EncoderDecoder
from tinytrans.models.gpt import GPT
from tinytrans.nn.masks import padding
from tinytrans.sampling import generate
from tinytrans.sampling.beam import beam_search

transformers: Any = pytest.importorskip("transformers")
pytestmark = pytest.mark.oracle

V, D, F, H, L = 29, 24, 40, 4, 2
LLAMA = {
    "vocab_size": V,
    "hidden_size": D,
    "intermediate_size": F,
    "num_hidden_layers": L,
    "num_attention_heads": H,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
    "bos_token_id": None,
    "eos_token_id": None,
}
BERT = {
    "vocab_size": V,
    "hidden_size": D,
    "intermediate_size": F,
    "num_hidden_layers": L,
    "num_attention_heads": H,
    "max_position_embeddings": 16,
    "type_vocab_size": 3,
}
DECODERS: dict[str, dict[str, Any]] = {
    "GPT2LMHeadModel": {
        "vocab_size": V,
        "n_embd": D,
        "n_inner": F,
        "n_layer": L,
        "n_head": H,
        "n_positions": 96,
        "bos_token_id": None,
        "eos_token_id": None,
    },
    "LlamaForCausalLM": {
        **LLAMA,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
        "rms_norm_eps": 1e-3,
    },
    "MistralForCausalLM": {**LLAMA, "sliding_window": 5, "tie_word_embeddings": True},
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 500.0,
    "factor": 4.0,
    "beta_slow": 0.5,
    "beta_fast": 6.0,
    "truncate": False,
    "attention_factor": 1.25,
    "original_max_position_embeddings": 24,
}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("LlamaForCausalLM", {"head_dim": 10}),
    ("MistralForCausalLM", {"head_dim": 4, "num_attention_heads": 5, "num_key_value_heads": 5, "sliding_window": None}),
    ("LlamaForCausalLM", {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}}),
    ("LlamaForCausalLM", {"rope_parameters": LLAMA3, "head_dim": 16}),
    ("LlamaForCausalLM", {"rope_parameters": YARN, "head_dim": 16}),
    ("MistralForCausalLM", {"rope_parameters": {**YARN, "truncate": True}, "head_dim": 16, "sliding_window": 5}),
]
"""What checkpoints of today have: heads of a width of their own, and rotations slowed down for longer texts."""
OTHERS: dict[str, dict[str, Any]] = {
    "BertModel": BERT,
    "BertForPreTraining": {**BERT, "layer_norm_eps": 0.1},
    "BertForSequenceClassification": {**BERT, "num_labels": 5},
    "BertForQuestionAnswering": BERT,
    "ViTForImageClassification": {
        "image_size": 12,
        "patch_size": 4,
        "num_channels": 2,
        "num_labels": 7,
        "hidden_size": D,
        "intermediate_size": F,
        "num_hidden_layers": L,
        "num_attention_heads": H,
        "hidden_act": "gelu_new",
    },
    "MarianMTModel": {
        "vocab_size": V,
        "d_model": D,
        "encoder_layers": L,
        "decoder_layers": 3,
        "encoder_attention_heads": H,
        "decoder_attention_heads": H,
        "encoder_ffn_dim": F,
        "decoder_ffn_dim": F,
        "max_position_embeddings": 96,
        "activation_function": "silu",
        "scale_embedding": True,
        "pad_token_id": V - 1,
        "decoder_start_token_id": V - 1,
        "eos_token_id": None,
        "forced_eos_token_id": None,
    },
}
OTHERS["BartForConditionalGeneration"] = {**OTHERS["MarianMTModel"], "bos_token_id": None, "scale_embedding": False}
TRANSLATORS = ("MarianMTModel", "BartForConditionalGeneration")
ALL = DECODERS | OTHERS


def theirs(name: str, **changes: Any) -> Any:
    """Their model, every weight of it random, so that none can be forgotten or exchanged unseen."""
    torch.manual_seed(0)
    kind = getattr(transformers, name)
    model = kind(kind.config_class(**{**ALL[name], **changes}))
    for parameter in model.parameters():
        if parameter.requires_grad:  # Marian's sines stay
            nn.init.normal_(parameter, mean=0.5 if parameter.dim() == 1 else 0.0, std=0.2)
    if name == "BartForConditionalGeneration":
        for half in (model.model.encoder, model.model.decoder):
            half.embed_positions.weight.data[:2] = 0  # rows that no token reads
    if name in TRANSLATORS:
        model.final_logits_bias.normal_(std=0.1)
    return model.eval()


def ids(rows: int, length: int, size: int = V - 1, seed: int = 0) -> Tensor:
    return torch.randint(size, (rows, length), generator=torch.Generator().manual_seed(seed))


def flat(output: Any) -> Iterator[Tensor]:
    """The tensors of an output that are compared, ours or theirs."""
    if isinstance(output, Tensor):
        yield output
    else:
        values = output.to_tuple() if hasattr(output, "to_tuple") else output
        for value in values:
            yield from flat(value)


def answers(name: str, mine: Any, model: Any) -> tuple[Any, Any]:
    """What ours and what theirs says of the same input, padded where it can be."""
    if name in DECODERS:
        return mine(ids(2, 11)), model(ids(2, 11), use_cache=False)
    if name == "ViTForImageClassification":
        images = torch.randn(3, 2, 12, 12, generator=torch.Generator().manual_seed(0))
        return mine(images), model(images)
    mask = padding(torch.tensor([7, 4]), 7)
    if name in TRANSLATORS:
        output = model(
            ids(2, 7), attention_mask=mask[:, 0].long(), decoder_input_ids=ids(2, 5, seed=1), use_cache=False
        )
        return mine(ids(2, 7), ids(2, 5, seed=1), source_mask=mask), output.logits
    segments = ids(2, 7, size=3, seed=1)
    output = model(ids(2, 7), attention_mask=mask[:, 0].long(), token_type_ids=segments)
    return mine(ids(2, 7), segments=segments, mask=mask), output.pooler_output if name == "BertModel" else output


def assert_same(name: str, mine: Any, model: Any) -> None:
    with torch.no_grad():
        ours, others = (list(flat(output)) for output in answers(name, mine, model))
    assert len(ours) == len(others)
    assert all(other.std() > 0.01 for other in others)  # something is said
    for one, other in zip(ours, others, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("name", ALL)
def test_says_the_same(name: str) -> None:
    """With their weights our model gives their logits within 1e-5, padding and segments included."""
    model = theirs(name)
    assert_same(name, from_transformers(model), model)


@pytest.mark.parametrize("name", ALL)
def test_and_back(name: str) -> None:
    """What was brought in and taken out again is their model, weight for weight, bit for bit, and says the same."""
    model = theirs(name)
    mine = from_transformers(model)
    again = to_transformers(mine)
    assert type(again) is type(model)
    assert again.state_dict().keys() == model.state_dict().keys()
    for key, weight in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], weight), key
    assert_same(name, mine, again)
    for key, value in ALL[name].items():
        if "token_id" not in key:  # what a token means is not the model's to know
            assert getattr(again.config, key) == value, key


@pytest.mark.parametrize("name", DECODERS)
def test_goes_on_the_same(name: str) -> None:
    """Greedy generation of 64 tokens is identical, each side with its cache, beyond a window and with several rows."""
    model = theirs(name)
    assert_goes_on(from_transformers(model), model)


def assert_goes_on(mine: Any, model: Any) -> None:
    begin = ids(2, 7)
    expected = model.generate(begin, max_new_tokens=64, do_sample=False, use_cache=True, pad_token_id=0)
    assert len(expected.unique()) > 5
    for use_cache in (True, False):
        said = generate(mine, begin, max_new_tokens=64, temperature=0.0, use_cache=use_cache)
        assert torch.equal(said, expected)


@pytest.mark.parametrize(("name", "changes"), VARIANTS)
def test_todays_variants_say_the_same(name: str, changes: dict[str, Any], tmp_path: Any) -> None:
    """A width of the heads and a scaling of the rotations are carried over, used, saved, and taken out again."""
    model, plain = theirs(name, **changes), theirs(name)
    mine = from_transformers(model)
    long = ids(2, 90)
    with torch.no_grad():
        expected = model(long, use_cache=False).logits
        torch.testing.assert_close(mine(long), expected, atol=1e-5, rtol=0.0)
        assert "head_dim" in changes or (plain(long, use_cache=False).logits - expected).abs().max() > 0.1
    assert_goes_on(mine, model)
    mine.save_pretrained(tmp_path)
    saved = load_model(tmp_path)
    assert saved.config == mine.config
    again = to_transformers(saved)
    for key, value in changes.items():
        assert getattr(again.config, key) == value, key
    assert type(again) is type(model)
    with torch.no_grad():
        torch.testing.assert_close(again(long, use_cache=False).logits, expected, atol=1e-5, rtol=0.0)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mscale": 0.7, "mscale_all_dim": 1.3},
        {"mscale": 0.7},
        {"beta_fast": 0, "beta_slow": None},
        {"rope_theta": 3.0, "beta_fast": 100.0},
        {"factor": 0.5},
        {"partial_rotary_factor": 1.0, "type": "yarn"},
    ],
)
def test_what_yarn_leaves_unsaid(changes: dict[str, Any]) -> None:
    """Numbers that their YaRN derives from others, or takes for granted, are the same here."""
    kept = ("rope_type", "rope_theta", "factor", "original_max_position_embeddings")
    model = theirs("LlamaForCausalLM", head_dim=16, rope_parameters={**{key: YARN[key] for key in kept}, **changes})
    with torch.no_grad():
        expected = model(ids(2, 90), use_cache=False).logits
        torch.testing.assert_close(from_transformers(model)(ids(2, 90)), expected, atol=1e-5, rtol=0.0)


def wake(model: Any) -> None:
    """Let their random tied translator say more than one word for ever: mild attention, and a last norm that turns the
    stream away from the word just read."""
    torch.manual_seed(6)
    for name, weight in model.named_parameters():
        if weight.dim() == 1:
            sign = -1.0 if name.startswith("model.decoder.layers.2.final") else 1.0
            nn.init.normal_(weight, mean=sign if name.endswith("norm.weight") else 0.0, std=0.05)
        elif ".fc" in name:
            nn.init.normal_(weight, std=0.3)


@pytest.mark.parametrize("name", TRANSLATORS)
def test_translates_the_same(name: str) -> None:
    """Greedy translation of padded sources is identical for 64 tokens, each side with its cache."""
    model = theirs(name)
    wake(model)
    source, lengths, start = ids(3, 7), torch.tensor([7, 4, 6]), torch.full((3, 1), V - 1)
    mask = padding(lengths, 7)
    expected = model.generate(
        source, attention_mask=mask[:, 0].long(), max_new_tokens=64, do_sample=False, num_beams=1, use_cache=True
    )
    given = from_transformers(model).given(source, mask=mask)
    assert len(expected.unique()) > 5
    assert len(expected.unique(dim=0)) == 3
    assert torch.equal(generate(given, start, max_new_tokens=64, temperature=0.0), expected)


@pytest.mark.parametrize("name", TRANSLATORS)
def test_finds_the_same_beams(name: str) -> None:
    """Beam search over padded sources is identical: each beam goes on reading the source of its own row."""
    model = theirs(name)
    wake(model)
    source, start, mask = ids(3, 7), torch.full((3, 1), V - 1), padding(torch.tensor([7, 4, 6]), 7)
    expected = model.generate(
        source,
        attention_mask=mask[:, 0].long(),
        max_new_tokens=12,
        do_sample=False,
        num_beams=4,
        num_return_sequences=4,
    )
    found = beam_search(from_transformers(model).given(source, mask=mask), start, max_new_tokens=12, beams=4)
    assert len(expected.view(3, -1).unique(dim=0)) == 3  # each source has answers of its own
    assert torch.equal(found.ids.flatten(0, 1), expected[:, 1:])


OURS = {
    "gpt2": GPTConfig(
        vocab_size=V, n_layers=L, d_model=D, n_heads=H, positions="learned", bias=True, feedforward="relu", tie=False
    ),
    "llama": GPTConfig(vocab_size=V, n_layers=L, d_model=D, n_heads=H, n_kv_heads=1, norm="rms", feedforward="swiglu"),
    "mistral": GPTConfig(
        vocab_size=V,
        n_layers=L,
        d_model=D,
        n_heads=H,
        n_kv_heads=H,
        norm="rms",
        feedforward="swiglu",
        window=3,
        dropout=0.1,
    ),
    "bert": BERTConfig(vocab_size=V, n_layers=L, d_model=D, n_heads=H, head="pretraining"),
    "vit": ViTConfig(image_size=6, patch_size=3, n_classes=5, n_layers=L, d_model=D, n_heads=H),
    "encdec": EncDecConfig(vocab_size=V, n_layers=L, n_decoder_layers=1, d_model=D, n_heads=H),
    "bart": EncDecConfig(
        vocab_size=V,
        n_layers=L,
        n_decoder_layers=1,
        d_model=D,
        n_heads=H,
        positions="learned",
        embedding_norm=True,
        feedforward="gelu",
    ),
}


@pytest.mark.parametrize("name", OURS)
def test_ours_comes_home(name: str) -> None:
    """A model born here comes back from their side with the same config and the same weights."""
    torch.manual_seed(0)
    mine = build(OURS[name])
    again = from_transformers(to_transformers(mine))
    assert replace(again.config, d_ff=None) == OURS[name]
    assert again.config.feedforward_width == mine.config.feedforward_width
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), mine.state_dict().values(), strict=True))


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "BertForPreTraining", *TRANSLATORS])
def test_the_copy_is_a_copy(name: str) -> None:
    """Training one side moves nothing on the other, and what they share under two names is shared here as well."""
    model = theirs(name)
    before = {key: weight.clone() for key, weight in model.state_dict().items()}
    mine = from_transformers(model)
    head = mine.head.tokens if name == "BertForPreTraining" else mine.head
    assert head.weight is mine.embedding.weight
    for again in (mine, to_transformers(mine)):
        for parameter in again.parameters():
            parameter.data.add_(1.0)
    assert all(torch.equal(weight, before[key]) for key, weight in model.state_dict().items())


def test_a_converted_model_is_saved_like_any(tmp_path: Any) -> None:
    """A converted model, its dtype kept, is written and read again as one of ours."""
    mine = from_transformers(theirs("LlamaForCausalLM").double())
    mine.save_pretrained(tmp_path)
    again = load_model(tmp_path)
    assert isinstance(again, GPT)
    assert again.embedding.weight.dtype == torch.float64
    assert torch.equal(again(ids(1, 5)), mine(ids(1, 5)))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("GPT2LMHeadModel", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
        ("GPT2LMHeadModel", {"activation_function": "tanh"}, "'tanh'"),
        ("LlamaForCausalLM", {"attention_bias": True}, "attention_bias is True"),
        ("LlamaForCausalLM", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "'dynam"),
        ("LlamaForCausalLM", {"rope_parameters": {**LLAMA3, "partial_rotary_factor": 0.5}}, "partial_rotary_factor is"),
        ("LlamaForCausalLM", {"rope_parameters": {**LLAMA3, "beta_fast": 2.0}}, "'llama3' with beta_fast"),
        ("LlamaForCausalLM", {"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ("LlamaForCausalLM", {"sliding_window": 3}, "sliding_window is 3"),
        ("MistralForCausalLM", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types has full_att"),
        *[(name, {"is_causal": False}, "is_causal is False") for name in (*DECODERS, *TRANSLATORS)],
        *[(name, {"is_causal": True}, "is_causal is True") for name in ("BertModel", "ViTForImageClassification")],
        ("BertForPreTraining", {"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ("ViTForImageClassification", {"image_size": [8, 12]}, "image_size is 8 x 12, and only squares"),
        ("ViTForImageClassification", {"patch_size": (4, 2)}, "patch_size is 4 x 2, and only squares"),
        ("MarianMTModel", {"decoder_ffn_dim": F + 1}, f"decoder_ffn_dim is {F + 1}, and only {F}"),
    ],
)
def test_what_ours_cannot_do_is_refused(name: str, changes: dict[str, Any], message: str) -> None:
    """A variant that ours would compute otherwise raises ValueError and names the value, instead of other logits."""
    with pytest.raises(ValueError, match=message):
        from_transformers(theirs(name, **changes))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("GPT2LMHeadModel", {"tie_word_embeddings": False, "n_inner": None, "activation_function": "relu2"}),
        ("GPT2LMHeadModel", {"reorder_and_upcast_attn": True, "n_head": 1, "activation_function": "gelu_pytorch_tanh"}),
        ("LlamaForCausalLM", {"num_key_value_heads": 1, "hidden_act": "swish"}),
        ("LlamaForCausalLM", {"num_key_value_heads": 4, "tie_word_embeddings": True}),
        ("MistralForCausalLM", {"sliding_window": None}),
        ("MistralForCausalLM", {"sliding_window": 7, "num_key_value_heads": 1}),
    ],
)
def test_unusual_decoders_say_the_same(name: str, changes: dict[str, Any]) -> None:
    """Untied, one head or one for each query, another name for an activation, a window longer than the
    prompt or none: logits and greedy texts are theirs."""
    model = theirs(name, **changes)
    mine = from_transformers(model)
    assert_same(name, mine, model)
    begin = ids(2, 7)
    expected = model.generate(begin, max_new_tokens=32, do_sample=False, pad_token_id=V - 1)
    assert torch.equal(generate(mine, begin, max_new_tokens=32, temperature=0.0), expected)


def test_squares_may_be_given_by_both_sides() -> None:
    """An image or a patch of height and width alike is one of that side."""
    name = "ViTForImageClassification"
    model = theirs(name, image_size=[12, 12], patch_size=(4, 4))
    mine = from_transformers(model)
    assert mine.config == from_transformers(theirs(name)).config
    assert_same(name, mine, model)


def test_far_from_the_beginning_they_say_the_same() -> None:
    """After thousands of positions, which multiply what rounding left of an angle, sharp attention is still theirs."""
    rope = {"rope_type": "default", "rope_theta": 500_000.0}
    model = theirs("LlamaForCausalLM", max_position_embeddings=2000, head_dim=32, rope_parameters=rope)
    with torch.no_grad():
        for layer in model.model.layers:
            for asking in (layer.self_attn.q_proj, layer.self_attn.k_proj):
                asking.weight.mul_(4)
        expected = model(ids(1, 2000), use_cache=False).logits
        torch.testing.assert_close(from_transformers(model)(ids(1, 2000)), expected, atol=1e-5, rtol=0.0)


def test_unknown_classes_and_weights_are_refused() -> None:
    """Another class, or a weight for which there is no place, raises ValueError and names it."""
    with pytest.raises(ValueError, match=r"Linear is not one of .*GPT2LMHeadModel"):
        from_transformers(nn.Linear(2, 3))
    model = theirs("GPT2LMHeadModel")
    model.transformer.register_parameter("extra", nn.Parameter(torch.zeros(2)))
    with pytest.raises(ValueError, match=r"transformer\.extra"):
        from_transformers(model)


@pytest.mark.parametrize("tie", [True, False])
def test_what_is_tied_counts_and_not_what_the_config_says(tie: bool) -> None:
    """Head and embedding that were parted or joined by hand are so in ours, and again in theirs."""
    model = theirs("GPT2LMHeadModel", tie_word_embeddings=not tie)
    embedding = model.get_input_embeddings().weight
    model.lm_head.weight = embedding if tie else nn.Parameter(embedding.detach().roll(1, 0))
    mine = from_transformers(model)
    assert mine.config.tie == (mine.head.weight is mine.embedding.weight) == tie
    assert_same("GPT2LMHeadModel", mine, model)
    assert_same("GPT2LMHeadModel", mine, to_transformers(mine))
    mine.head.weight = nn.Parameter(mine.head.weight.detach() + 1)
    assert_same("GPT2LMHeadModel", mine, to_transformers(mine))  # parted here, as by a merged correction


def test_positions_that_are_no_sines_are_refused() -> None:
    """A Marian whose table of positions was changed would compute otherwise here: ValueError names the table."""
    model = theirs("MarianMTModel")
    model.model.decoder.embed_positions.weight.data[3] += 0.1
    with pytest.raises(ValueError, match=r"model\.decoder\.embed_positions\.weight holds other numbers than sines"):
        from_transformers(model)
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        assert from_transformers(theirs("MarianMTModel").to(dtype)).embedding.weight.dtype == dtype


def test_adapters_and_other_sizes_are_refused_on_the_way_out() -> None:
    """A model inside an adapter, an odd width or a value that changes a shape: ValueError names it."""
    with pytest.raises(ValueError, match=r"blocks\.0\.attention\.qkv\.a, .*merge and unwrap it"):
        to_transformers(lora(build(OURS["gpt2"])))
    with pytest.raises(ValueError, match="d_model 9 is odd"):
        to_transformers(build(EncDecConfig(vocab_size=V, n_layers=1, d_model=9, n_heads=3)))
    with pytest.raises(ValueError, match=rf"'vocab_size': {V + 1}.* other shapes .*transformer\.wte\.weight"):
        to_transformers(build(OURS["gpt2"]), vocab_size=V + 1)


def test_spans_have_a_start_and_an_end() -> None:
    """However many classes the config names for another head, the head for answers has two numbers a token."""
    mine = build(replace(OURS["bert"], head="spans", n_classes=5))
    assert to_transformers(mine).qa_outputs.out_features == 2


def test_what_theirs_cannot_do_is_refused() -> None:
    """A model without a counterpart raises ValueError, with the reason for each architecture."""
    with pytest.raises(ValueError, match=r"GPT2LMHeadModel: positions is 'rope'.*MistralForCausalLM: norm is 'layer'"):
        to_transformers(GPT(replace(PRESETS["tales"], n_layers=1)))
    modern = EncoderDecoder(replace(PRESETS["transformer-tiny-modern"], n_layers=1))
    with pytest.raises(ValueError, match="MarianMTModel: positions is 'rope'"):
        to_transformers(modern)
