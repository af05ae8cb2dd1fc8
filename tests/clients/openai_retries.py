"""OpenAI's SDK with its own retries, on a call that fails: the status that it ends with."""

import httpx
import openai
from common import base_url, context, finish

client = openai.OpenAI(api_key="unused", base_url=base_url("/up/v1"), http_client=httpx.Client(verify=context(), trust_env=False))
try:
    client.chat.completions.create(
        model="gpt-5-mini", max_completion_tokens=9, messages=[{"role": "user", "content": "x"}]
    )
    finish(status=200)
except openai.APIStatusError as error:
    finish(status=error.status_code)
