"""Generation: 10.65 M parameters, greedy with a cache, one sequence and eight -> tokens a second."""

from __future__ import annotations

from functools import partial

import torch

from tests.benchmarks.measure import Contest, Run
from tests.benchmarks.peers import LARGE, hugging_face_llama, missing
from tinytrans import GPT, GPTConfig, from_transformers, generate

PROMPT = 32
LLAMA = "Hugging Face Llama, DynamicCache"


def ours() -> GPT:
    """The Llama of this size, built here, for where transformers is missing."""
    return GPT(
        GPTConfig(
            vocab_size=LARGE.vocab_size,
            n_layers=LARGE.n_layers,
            d_model=LARGE.d_model,
            n_heads=LARGE.n_heads,
            max_len=LARGE.max_len,
            norm="rms",
            feedforward="swiglu",
            tie=False,
        )
    )


def contest(batch: int, *, quick: bool) -> Contest:
    """The same weights in both, from the same prompt; each takes the likeliest token, so many times."""
    new = 4 if quick else 200
    torch.manual_seed(0)
    prompt = torch.randint(LARGE.vocab_size, (batch, PROMPT))
    why = missing("transformers")
    runs: dict[str, Run] = {}
    if why is None:
        theirs = hugging_face_llama(LARGE).eval()
        twin = from_transformers(theirs)
        assert isinstance(twin, GPT)
        runs["tinytrans"] = partial(generate, twin, prompt, max_new_tokens=new, temperature=0.0)
        runs[LLAMA] = partial(
            theirs.generate, prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=new, do_sample=False,
            use_cache=True, pad_token_id=0,
        )  # fmt: skip
    else:
        runs["tinytrans"] = partial(generate, ours(), prompt, max_new_tokens=new, temperature=0.0)
    return Contest(
        name=f"generation, batch {batch}",
        unit="tokens/s",
        amount=batch * new,
        runs=runs,
        rounds=1 if quick else 5,
        target={LLAMA: 2.0} if batch == 1 else {},
        missing={} if why is None else {LLAMA: why},
        memory=True,
    )


def generation(quick: bool) -> Contest:
    """One sequence."""
    return contest(1, quick=quick)


def generation_of_eight(quick: bool) -> Contest:
    """Eight sequences at once."""
    return contest(8, quick=quick)
