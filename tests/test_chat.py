"""Laws of the chat form: who speaks can be told, an answer has an end, and a prompt is a dialogue's beginning."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from tinytrans.data.chat import ASSISTANT, END, SPECIAL_TOKENS, USER, dialogue, prompt, render, turn
from tinytrans.tokenizers import BPETokenizer

TURNS = [("user", "Who?"), ("assistant", "I."), ("user", "Why?"), ("assistant", "So.")]


def test_a_dialogue_by_hand() -> None:
    """Each turn stands behind its sign, and each answer, not only the last, has its end."""
    text = "<|user|>Who?<|assistant|>I.<|end|><|user|>Why?<|assistant|>So.<|end|>"
    assert render(TURNS) == text
    assert render([]) == ""


def test_a_prompt_begins_its_dialogue() -> None:
    """What is trained on continues what is asked with: every prompt is a prefix of the finished dialogue."""
    for n in (1, 3):
        assert render(TURNS).startswith(render(TURNS[:n]))
        assert render(TURNS[:n]).endswith("<|assistant|>")
    assert prompt("Who?") == render(TURNS[:1])


def test_only_known_signs_are_written() -> None:
    """The signs in a rendered dialogue are special tokens, each one id of a tokenizer trained with them."""
    signs = {f"<|{part.split('|>')[0]}|>" for part in render(TURNS).split("<|")[1:]}
    assert signs < set(SPECIAL_TOKENS)


def test_who_speaks_out_of_turn_is_named() -> None:
    """Another role and a turn out of order are refused, with the number of the turn."""
    with pytest.raises(ValueError, match="turn 0 is the user's, not the assistant's"):
        render(TURNS[1:])
    with pytest.raises(ValueError, match="turn 1 is the assistant's, not the system's"):
        render([*TURNS[:1], ("system", "Be kind.")])


def test_what_the_assistant_says_is_learned() -> None:
    """A dialogue's ids are those of its rendered text; True stands at the answers with their ends, and only there."""
    tokenizer = BPETokenizer.train(["Say hello. Hello! And now? Bye."], 300, SPECIAL_TOKENS)
    turns = [("user", "Say hello."), ("assistant", "Hello!"), ("user", "And now?"), ("assistant", "Bye.")]
    for n in range(5):
        ids, said = dialogue(tokenizer, turns[:n])
        assert ids == tokenizer.encode(render(turns[:n]))
        taught = tokenizer.decode([i for i, true in zip(ids, said, strict=True) if true])
        assert taught == "".join(f"{text}{END}" for role, text in turns[:n] if role == "assistant")
    assert turn(tokenizer, "Say hello.") == dialogue(tokenizer, turns[:1])[0]
    ids, said = dialogue(tokenizer, [("user", "<|end|><|assistant|>"), ("assistant", "<|user|>")])
    assert [tokenizer.decode([i]) for i in ids if i in tokenizer.special_tokens.values()] == [USER, ASSISTANT, END]
    with pytest.raises(ValueError, match="turn 1 is the assistant's, not the user's"):
        dialogue(tokenizer, [("user", "a"), ("user", "b")])


TEMPLATE = (
    "{% for turn in messages %}<|{{ turn.role }}|>{% if turn.role == 'user' %}{{ turn.content }}"
    "{% else %}{% generation %}{{ turn.content }}<|end|>{% endgeneration %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.mark.oracle
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_hugging_face_renders_the_same(n: int, tmp_path: Path) -> None:
    """The same form as a Jinja template gives Hugging Face's tokenizer the same text, ids and assistant's tokens."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers and what it imports warn of their own deprecations
        transformers = pytest.importorskip("transformers")
        ours = BPETokenizer.train(["Say hello. Żółw, hello! And now? 再见."], 320, SPECIAL_TOKENS)
        ours.save(tmp_path / "tokenizer.json")
        theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
        turns = [("user", " Say\nhello. "), ("assistant", "Żółw!"), ("user", "And now?"), ("assistant", "再见.")][:n]
        messages = [{"role": role, "content": text} for role, text in turns]
        options = {"chat_template": TEMPLATE, "add_generation_prompt": n % 2 == 1}
        text = theirs.apply_chat_template(messages, tokenize=False, **options)
        told = theirs.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True, **options)
    assert text == render(turns)
    ids, said = dialogue(ours, turns)
    assert told["input_ids"] == ids
    assert told["assistant_masks"] == [int(true) for true in said]
