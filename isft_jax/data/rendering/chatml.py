"""Trains a small tokenizer with a ChatML template, without any download."""

from collections.abc import Iterable

from isft_jax.data.rendering import tokenizer as tokenizer_lib

MARKS = ('<|im_start|>', '<|im_end|>')
# ChatML with tools: the schemas come first, and a tool call is JSON in tags
# after the words of its turn.
TEMPLATE = """\
{%- if tools -%}
  {{- '<|im_start|>system\\nTools:\\n' -}}
  {%- for tool in tools -%}{{- (tool | tojson) + '\\n' -}}{%- endfor -%}
  {{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
  {{- '<|im_start|>' + message.role + '\\n' -}}
  {%- if message.content -%}{{- message.content -}}{%- endif -%}
  {%- for call in message.tool_calls or [] -%}
    {{- '<tool_call>{"name": "' + call.function.name + '", "arguments": ' -}}
    {%- if call.function.arguments is string -%}
      {{- call.function.arguments -}}
    {%- else -%}
      {{- call.function.arguments | tojson -}}
    {%- endif -%}
    {{- '}</tool_call>' -}}
  {%- endfor -%}
  {{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


def train(texts: Iterable[str], vocab_size: int) -> tokenizer_lib.FastTokenizer:
  """Trains a byte-level BPE tokenizer with the template and its markers.

  Args:
    texts: training texts. The tokenizer can encode any other text too.
    vocab_size: maximum number of ids without the two markers; at least 257.
  """
  tokenizer = tokenizer_lib.train(texts, vocab_size)
  tokenizer.add_special_tokens({'additional_special_tokens': list(MARKS)})
  tokenizer.chat_template = TEMPLATE
  return tokenizer
