"""The official Anthropic SDK, unmodified, with a client certificate and a key that is none."""

import anthropic
import httpx2
from common import ARGUMENT, base_url, context, finish

http2 = ARGUMENT.get("http2", False)
client = anthropic.Anthropic(
    base_url=base_url(ARGUMENT["path"]),
    api_key="unused",
    max_retries=0,
    http_client=httpx2.Client(verify=context(), http1=not http2, http2=http2, trust_env=False),
)
call = {
    "model": ARGUMENT["model"],
    "max_tokens": ARGUMENT.get("cap", 100),
    "messages": [{"role": "user", "content": "hello"}],
}

try:
    if ARGUMENT.get("stream"):
        with client.messages.stream(**call) as stream:
            text = "".join(stream.text_stream)
            answer = stream.get_final_message()
    else:
        answer = client.messages.create(**call)
        text = "".join(block.text for block in answer.content)
    finish(text=text, usage={"input_tokens": answer.usage.input_tokens, "output_tokens": answer.usage.output_tokens})
except anthropic.APIStatusError as error:
    headers = error.response.headers
    finish(
        status=error.status_code,
        message=error.message,
        body=error.body,
        id=error.request_id,
        own_id=headers.get("x-tollgate-request-id"),
        reason=headers.get("x-tollgate-reason"),
    )
except anthropic.APIConnectionError as error:
    finish(connection=repr(error.__cause__))
