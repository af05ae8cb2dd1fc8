"""OpenAI's and Anthropic's SDKs, unmodified, told by their own variables alone: the workload's token is the key that they insist on."""

import os

from common import ARGUMENT, base_url, finish

with open(ARGUMENT["token"]) as file:
    token = file.read()
os.environ.update(
    SSL_CERT_FILE=ARGUMENT["ca"],
    OPENAI_BASE_URL=base_url("/openai/v1"),
    OPENAI_API_KEY=token,
    ANTHROPIC_BASE_URL=base_url("/anthropic"),
    ANTHROPIC_API_KEY=token,
)

import anthropic  # noqa: E402
import openai  # noqa: E402

said = {}
messages = [{"role": "user", "content": "hello"}]
try:
    answer = openai.OpenAI().chat.completions.create(
        model=ARGUMENT["openai"], messages=messages, max_completion_tokens=100
    )
    said["openai"] = answer.choices[0].message.content
except openai.APIStatusError as error:
    said["openai"] = f"{error.status_code} {error.response.headers.get('x-tollgate-reason')}"
try:
    answer = anthropic.Anthropic().messages.create(model=ARGUMENT["anthropic"], messages=messages, max_tokens=100)
    said["anthropic"] = "".join(block.text for block in answer.content)
except anthropic.APIStatusError as error:
    said["anthropic"] = f"{error.status_code} {error.response.headers.get('x-tollgate-reason')}"
finish(**said)
