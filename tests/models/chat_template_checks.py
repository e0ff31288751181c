"""Run in the hf environment: prints what Transformers renders of [template, conversations], as JSON."""

from __future__ import annotations

import json
import sys

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

template, conversations = json.loads(sys.argv[1])
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1}, unk_token="<s>")),  # noqa: S106  (no password)
    bos_token="<s>",  # noqa: S106
    eos_token="</s>",  # noqa: S106
)
tokenizer.chat_template = template
texts = [
    tokenizer.apply_chat_template(
        [{"role": role, "content": content} for role, content in messages], tokenize=False, add_generation_prompt=True
    )
    for messages in conversations
]
print(json.dumps(texts))  # noqa: T201
